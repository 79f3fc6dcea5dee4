--- Tensors: row-major, contiguous, reference counted in C.
--
-- A tensor is a handle on memory that C owns. Ops never change their inputs; methods that end in
-- `_` work in place. Dimensions and places are 1-based, ids and class labels 0-based. Errors name
-- the op and the shapes.
--
--     local x = tensor.from({1, 2, 3, 4}, {2, 2})
--     local y = (x * 2 + 1):matmul(x):sum()
-- @module octet.tensor
local ffi = require "ffi"
local binding = require "octet.binding"
local message = require "octet.message"
local number = require "octet.number"
local tensor_arithmetic = require "octet.tensor_arithmetic"
local tensor_handle = require "octet.tensor_handle"
local tensor_text = require "octet.tensor_text"
local tensor_values = require "octet.tensor_values"

local C, call, check = binding.C, binding.call, binding.check
local fail = message.fail
local out, own, take = tensor_handle.out, tensor_handle.own, tensor_handle.take
local is_tensor = tensor_handle.is_tensor

local M = {}
local methods = tensor_arithmetic.methods

local DTYPES = {f32 = 0, f16 = 1, bf16 = 2, i32 = 3, u8 = 4}
local DTYPE_NAMES = {[0] = "f32", "f16", "bf16", "i32", "u8"}
local POINTERS = {
  [0] = ffi.typeof "float *", ffi.typeof "uint16_t *", ffi.typeof "uint16_t *",
  ffi.typeof "int32_t *", ffi.typeof "uint8_t *",
}
local PURPOSES = {
  parameters = C.OCT_PARAMETERS, gradients = C.OCT_GRADIENTS,
  optimizer_state = C.OCT_OPTIMIZER_STATE, activations = C.OCT_ACTIVATIONS,
  workspace = C.OCT_WORKSPACE, data = C.OCT_DATA,
}
local FLOATS, HALVES = {f32 = true, f16 = true, bf16 = true}, {f16 = true, bf16 = true}
local DEVICES = {cpu = true, cuda = true, ["cuda-emu"] = true}
local RELEASED, PARAMETER, REQUIRES_GRAD = 4, 2, 1

-- Buffers for results, made once: ffi.new for each call costs ten times a call.
local data_out = ffi.new "void *[1]"
local name_out = ffi.new "const char *[1]"
local flag_out = ffi.new "int[1]"
local dtype_out, ndim_out, size_out = ffi.new "int[1]", ffi.new "int[1]", ffi.new "int64_t[1]"
local shape_out = ffi.new("int64_t[?]", C.OCT_MAX_DIMS)
local shape_in = ffi.new("int64_t[?]", C.OCT_MAX_DIMS)

--- Refuse what is no device's name.
-- @param name
-- @tparam string who for the error
function M.check_device(name, who)
  if DEVICES[name] then return end
  fail(("%s: no device %s; expected cpu, cuda or cuda-emu"):format(who, message.shown(name)))
end

local function dtype_code(name, op, more)
  local code = DTYPES[name or "f32"]
  if not code then
    fail(("%s: no type %s; expected f32, f16, bf16, i32 or u8%s"):format(op, message.shown(name),
      more or ""))
  end
  return code
end

--- Fill the shape buffer from a table or a list of numbers; -1 stands for what is left of `size`.
local function to_shape(shape, op, size)
  if type(shape) ~= "table" or #shape == 0 and next(shape) ~= nil then
    fail(("%s: the shape is %s, expected a table of sizes"):format(op,
      type(shape) == "table" and "a table of names" or message.shown(shape)))
  end
  if #shape > C.OCT_MAX_DIMS then
    fail(("%s: %d dimensions, expected %d at most"):format(op, #shape, C.OCT_MAX_DIMS))
  end
  local open, known = nil, 1
  for i = 1, #shape do
    local n = shape[i]
    if type(n) ~= "number" or n ~= math.floor(n) then
      fail(("%s: size %s of dimension %d is no whole number"):format(op,
        message.shown(n), i))
    end
    if n == -1 and size and not open then
      open = i
    else
      known = known * n
    end
    shape_in[i - 1] = n
  end
  if open then shape_in[open - 1] = size / known end
  return #shape
end

-- ---- making ------------------------------------------------------------------------------------

--- A tensor of undefined content.
-- @tparam {number,...} shape
-- @tparam[opt="f32"] string dtype f32, f16, bf16, i32 or u8
-- @tparam[opt="activations"] string purpose what its memory is accounted as
-- @treturn tensor
function M.new(shape, dtype, purpose)
  local code = dtype_code(dtype, "tensor.new")
  local account = PURPOSES[purpose or "activations"]
    or fail("tensor.new: no purpose " .. message.shown(purpose))
  call(C.oct_tensor_new, out, code, to_shape(shape, "tensor.new"), shape_in, account)
  return take()
end

--- A tensor of one value everywhere.
-- @tparam {number,...} shape
-- @tparam number value
-- @tparam[opt="f32"] string dtype
-- @treturn tensor
function M.full(shape, value, dtype)
  if HALVES[dtype] then return M.full(shape, value):to(dtype) end
  return M.new(shape, dtype):fill_(value)
end

function M.zeros(shape, dtype) return M.full(shape, 0, dtype) end
function M.ones(shape, dtype) return M.full(shape, 1, dtype) end

--- A tensor with given values.
-- @tparam table|cdata values numbers, rows of numbers, and so on; or a C array of the type
-- @tparam[opt] {number,...} shape as the tables are nested where it is left out
-- @tparam[opt="f32"] string dtype f32, f16, bf16, i32 or u8
-- @treturn tensor
function M.from(values, shape, dtype)
  if type(values) ~= "table" then
    if type(values) ~= "cdata" or is_tensor(values) then
      fail(("tensor.from: a %s, expected numbers in a table, or a C array"):format(
        is_tensor(values) and "tensor" or type(values)))
    elseif not shape then
      fail("tensor.from: a C array needs a shape")
    end
    local t = M.new(shape, dtype)
    tensor_values.copy(t:data(), values, t:size())
    return t
  end
  if shape ~= nil and type(shape) ~= "table" then
    fail(("tensor.from: the shape is a %s, expected a table of sizes"):format(type(shape)))
  end
  local wrong
  if not shape then shape, wrong = tensor_values.shape_of(values) end
  if wrong then fail(("tensor.from: %s; expected rows of one length"):format(wrong)) end
  local ok, list = pcall(tensor_values.flatten, values, {})
  if not ok then fail(list) end
  if #list == 0 then fail("tensor.from: no values") end
  local t = M.new(shape, not HALVES[dtype] and dtype or nil)
  if #list ~= t:size() then
    fail(("tensor.from: %d values for a shape of %d elements"):format(#list, t:size()))
  end
  ok, wrong = pcall(tensor_values.write, t, list, dtype)
  if not ok then fail(wrong) end
  return HALVES[dtype] and t:to(dtype) or t
end

--- Tensors joined along a dimension.
-- @tparam {tensor,...} list
-- @tparam[opt=1] number dim
-- @treturn tensor
function M.cat(list, dim)
  if type(list) ~= "table" then
    fail(("tensor.cat: a %s, expected a list of tensors"):format(
      is_tensor(list) and "tensor" or type(list)))
  end
  local array = ffi.new("oct_tensor *[?]", math.max(#list, 1))
  for i = 1, #list do
    if not is_tensor(list[i]) then
      fail(("tensor.cat: entry %d is a %s, expected a tensor"):format(i, type(list[i])))
    end
    array[i - 1] = list[i]
  end
  call(C.oct_concat, out, array, #list, (dim or 1) - 1)
  return take()
end

-- ---- looking -----------------------------------------------------------------------------------

local function info(t)
  check(C.oct_tensor_info(dtype_out, ndim_out, shape_out, size_out, flag_out, t))
end

--- @treturn {number,...} the sizes, one a dimension
function methods:shape()
  info(self)
  local shape = {}
  for i = 1, ndim_out[0] do shape[i] = tonumber(shape_out[i - 1]) end
  return shape
end

--- @treturn number elements, or the size of one dimension where it is given
function methods:size(dim)
  info(self)
  if not dim then return tonumber(size_out[0]) end
  if dim < 1 or dim > ndim_out[0] then
    fail(("size: dimension %d of a tensor of %d"):format(dim, ndim_out[0]))
  end
  return tonumber(shape_out[dim - 1])
end

--- @treturn number dimensions
function methods:ndim()
  info(self)
  return ndim_out[0]
end

--- @treturn string f32, f16, bf16, i32 or u8
function methods:dtype()
  info(self)
  return DTYPE_NAMES[dtype_out[0]]
end

local function has_flag(t, flag)
  info(t)
  return bit.band(flag_out[0], flag) ~= 0
end

--- @treturn string the device that it lies on: "cpu", "cuda"
function methods:device()
  check(C.oct_tensor_device(name_out, self))
  return ffi.string(name_out[0])
end

function methods:requires_grad() return has_flag(self, REQUIRES_GRAD) end
function methods:is_parameter() return has_flag(self, PARAMETER) end
function methods:is_released() return has_flag(self, RELEASED) end

--- A pointer to the first element (float *, int32_t *, ...; f16 and bf16 as uint16_t *), 0-based,
-- good for as long as the tensor is. An error where it does not lie on the processor.
-- @treturn cdata
function methods:data()
  check(C.oct_tensor_data(data_out, self))
  info(self)
  return ffi.cast(POINTERS[dtype_out[0]], data_out[0])
end

--- Itself, or f16 and bf16 as f32, and from a device a copy: to be read, never recorded.
-- @treturn tensor
function methods:readable()
  local dtype = self:dtype()
  if self:device() ~= "cpu" then return self:to "cpu":readable() end
  if not HALVES[dtype] then return self end
  check(C.oct_set_grad_enabled(flag_out, 0))
  local before = flag_out[0]
  local ok, y = pcall(methods.to, self, "f32")
  check(C.oct_set_grad_enabled(nil, before))
  return ok and y or error(y, 0)
end

--- Its elements as numbers (octet.tensor_values).
-- @treturn function of a place from 0, which gives the number there
function methods:reader() return tensor_values.reader(self) end

--- The value of a tensor of one element.
-- @treturn number
function methods:item()
  self:device()                        -- is it there?
  info(self)
  if size_out[0] ~= 1 then
    fail(("item: %d elements, expected 1"):format(tonumber(size_out[0])))
  end
  return self:reader()(0)
end

--- All elements in one flat table, row by row.
-- @treturn {number,...}
function methods:totable()
  self:device()                        -- is it there?
  local at, values = self:reader(), {}
  for i = 1, self:size() do values[i] = at(i - 1) end
  return values
end

-- ---- shape -------------------------------------------------------------------------------------

local function check_place(op, what, x)
  if not number.is_whole(x, 1) then
    fail(("%s: %s is %s, expected a whole number from 1 on"):format(op, what,
      message.shown(x)))
  end
end

--- The same elements in another shape; shares memory. One size may be -1: what is left.
-- @param ... sizes, or one table of them
-- @treturn tensor
function methods:reshape(...)
  local shape = ...
  if type(shape) ~= "table" then shape = {...} end
  call(C.oct_reshape, out, self, to_shape(shape, "reshape", self:size()), shape_in)
  return take()
end

--- Rows first to first + count - 1 of the leading dimension; shares memory.
-- @tparam number first 1-based
-- @tparam[opt=1] number count
-- @treturn tensor
function methods:rows(first, count)
  check_place("rows", "the first row", first)
  check_place("rows", "the number of rows", count or 1)
  call(C.oct_rows, out, self, first - 1, count or 1)
  return take()
end

--- Places first to first + count - 1 of any dimension, copied.
-- @treturn tensor
function methods:narrow(dim, first, count)
  check_place("narrow", "the dimension", dim)
  check_place("narrow", "the first place", first)
  check_place("narrow", "the number of places", count)
  call(C.oct_narrow, out, self, dim - 1, first - 1, count)
  return take()
end

--- A copy with memory of its own; a gradient passes through.
-- @treturn tensor
function methods:clone()
  if self:ndim() == 0 then return self:reshape({1}):clone():reshape({}) end
  return self:narrow(1, 1, self:size(1))
end

--- Two dimensions exchanged (1 and 2 where none are given), copied.
-- @treturn tensor
function methods:transpose(a, b)
  check_place("transpose", "a dimension", a or 1)
  check_place("transpose", "a dimension", b or 2)
  call(C.oct_transpose, out, self, (a or 1) - 1, (b or 2) - 1)
  return take()
end

--- Converted to another type, or copied to another device. A gradient passes from f32 to a bf16
-- parameter, and no other way.
-- @tparam string what f32, f16, bf16, i32 or u8; or "cpu", "cuda"
-- @treturn tensor itself where it lies on that device already
function methods:to(what)
  if what == nil then fail("to: nil, expected a type or a device") end
  if not DEVICES[what] then
    call(C.oct_cast, out, self, dtype_code(what, "to", " or a device"))
  elseif self:device() == what then
    return self
  else
    call(C.oct_to_device, out, self, what)
  end
  return take()
end

-- ---- in place ----------------------------------------------------------------------------------

function methods:fill_(value)
  call(C.oct_fill, self, value)
  return self
end

function methods:copy_(source)
  call(C.oct_copy, self, source)
  return self
end

--- Exchange contents with another tensor of the same size and type, at no cost in memory.
-- @tparam tensor other
-- @treturn tensor itself
function methods:swap_(other)
  call(C.oct_swap, self, other)
  return self
end

--- Move towards another tensor: (1 - weight) self + weight source, for f32 of the same size. Weight
-- 0 leaves it exactly as it is, weight 1 makes it exactly the source.
-- @tparam tensor source
-- @tparam number weight from 0 to 1
-- @treturn tensor itself
function methods:lerp_(source, weight)
  call(C.oct_lerp, self, source, weight)
  return self
end

--- Uniform in [low, high), from the run's random numbers.
function methods:uniform_(low, high)
  call(C.oct_uniform, self, low or 0, high or 1)
  return self
end

--- Normal with mean and standard deviation, from the run's random numbers.
function methods:normal_(mean, deviation)
  call(C.oct_normal, self, mean or 0, deviation or 1)
  return self
end

-- ---- gradients ---------------------------------------------------------------------------------

--- Make it a parameter: it collects a gradient and outlives every step (`false`: frozen).
-- @treturn tensor itself
function methods:parameter_(on)
  check(C.oct_parameter(self, on == false and 0 or 1))
  return self
end

--- Gradients of this scalar with regard to every parameter behind it, added to theirs. What it
-- needs on the way is released as it goes; where memory ends all the same, gradients may hold a
-- part.
function methods:backward()
  -- Not by way of `call`: half a walk back cannot be made again.
  check(C.oct_backward(self))
end

--- Move it to another device, its gradient too, as a parameter must be before its optimizer is
-- made.
-- @tparam string device
-- @treturn tensor itself
function methods:to_(device)
  M.check_device(device, "to_")
  if C.oct_move(self, device) ~= 0 then
    -- Views, and what is recorded for losses, that nobody holds any more do not stand in its way.
    local why = binding.last_error()
    if not (why:find "^move:" or why:find "out of memory") then fail(why) end
    binding.collect()
    check(C.oct_move(self, device))
  end
  return self
end

--- Let a parameter's gradient be what is known from elsewhere.
-- @tparam tensor gradient f32, of as many elements, on any device; copied
-- @treturn tensor itself
function methods:set_grad(gradient)
  call(C.oct_set_grad, self, gradient)
  return self
end

--- @treturn tensor|nil the gradient, nil where there is none yet
function methods:grad()
  check(C.oct_grad(out, self))
  return out[0] ~= nil and take() or nil
end

function methods:zero_grad()
  check(C.oct_zero_grad(self))
end

--- A view outside of the record: no gradient passes through it, and it outlives `backward`. Beyond
-- the end of the step's scope it lives where it is kept or returned.
-- @treturn tensor
function methods:detach()
  call(C.oct_detach, out, self)
  return take()
end

--- Keep it beyond backward and the end of the step.
-- @treturn tensor itself
function methods:keep()
  check(C.oct_keep(self))
  return self
end

-- ---- metatype ----------------------------------------------------------------------------------

-- What the other parts of the library call the core with, and the names of its numbers.
M.call, M.out, M.take, M.own = call, out, take, own
M.is_tensor, M.set_soft_limit = is_tensor, tensor_handle.set_soft_limit
M.DTYPES, M.PURPOSES, M.FLOATS = DTYPES, PURPOSES, FLOATS

ffi.metatype("oct_tensor", {
  __index = methods,
  __add = methods.add, __sub = methods.sub, __mul = methods.mul, __div = methods.div,
  __pow = methods.pow, __unm = methods.neg,
  __len = function(x) return x:size(1) end,
  __tostring = tensor_text.show,
})

return M
