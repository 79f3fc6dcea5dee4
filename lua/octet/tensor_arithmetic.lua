--- What tensors are computed with: arithmetic, functions, comparisons, reductions, products. Loaded
-- by octet.tensor, of which these are methods.
-- @module octet.tensor_arithmetic
local ffi = require "ffi"
local binding = require "octet.binding"
local message = require "octet.message"
local nearest = require "octet.nearest"
local number = require "octet.number"
local tensor_handle = require "octet.tensor_handle"

local C, call, check = binding.C, binding.call, binding.check
local fail = message.fail
local out, take, is_tensor = tensor_handle.out, tensor_handle.take, tensor_handle.is_tensor
local flag_out, no_shape = ffi.new "int[1]", ffi.new "int64_t[1]"

local methods = {}

-- ---- element by element ------------------------------------------------------------------------

local ADD, SUB, MUL, DIV = C.OCT_OP_ADD, C.OCT_OP_SUB, C.OCT_OP_MUL, C.OCT_OP_DIV
local MAXIMUM, MINIMUM = C.OCT_OP_MAXIMUM, C.OCT_OP_MINIMUM
local LESS, LESS_EQUAL = C.OCT_OP_LESS, C.OCT_OP_LESS_EQUAL
local GREATER, GREATER_EQUAL = C.OCT_OP_GREATER, C.OCT_OP_GREATER_EQUAL
local EQUAL, NOT_EQUAL = C.OCT_OP_EQUAL, C.OCT_OP_NOT_EQUAL
local BINARY = {[ADD] = "add", [SUB] = "sub", [MUL] = "mul", [DIV] = "div",
  [MAXIMUM] = "maximum", [MINIMUM] = "minimum", [LESS] = "lt", [LESS_EQUAL] = "le",
  [GREATER] = "gt", [GREATER_EQUAL] = "ge", [EQUAL] = "eq", [NOT_EQUAL] = "ne"}

--- A number as a tensor that broadcasts, f32 where nothing else is said.
local function scalar(x, dtype)
  call(C.oct_tensor_new, out, dtype or C.OCT_F32, 0, no_shape, C.OCT_ACTIVATIONS)
  local t = take()
  call(C.oct_fill, t, x)
  return t
end

--- Of tensors, or a tensor and a number on either side.
local function binary(a, b, op)
  if type(a) == "number" then a = scalar(a) end
  if type(b) == "number" then b = scalar(b) end
  if not (is_tensor(a) and is_tensor(b)) then
    local other = a
    if is_tensor(a) then other = b end
    fail(("%s: a tensor and a %s; expected a tensor or a number"):format(BINARY[op],
      type(other)))
  end
  call(C.oct_binary, out, a, b, op)
  return take()
end

local function affine(x, scale, shift)
  call(C.oct_affine, out, x, scale, shift)
  return take()
end

local function unary(x, op)
  call(C.oct_unary, out, x, op)
  return take()
end

local function add(a, b)
  if type(b) == "number" then return affine(a, 1, b) end
  if type(a) == "number" then return affine(b, 1, a) end
  return binary(a, b, ADD)
end

local function sub(a, b)
  if type(b) == "number" then return affine(a, 1, -b) end
  if type(a) == "number" then return affine(b, -1, a) end
  return binary(a, b, SUB)
end

local function mul(a, b)
  if type(b) == "number" then return affine(a, b, 0) end
  if type(a) == "number" then return affine(b, a, 0) end
  return binary(a, b, MUL)
end

local function div(a, b)
  -- The reciprocal of a power of two is exact; of others, each quotient is rounded by itself.
  if type(b) == "number" and math.abs(math.frexp(b)) == 0.5 then return affine(a, 1 / b, 0) end
  return binary(a, b, DIV)
end

-- With a tensor (shapes broadcast from the last dimension) or a number.
methods.add, methods.sub, methods.mul, methods.div = add, sub, mul, div

for name, op in pairs {
  neg = C.OCT_OP_NEG, exp = C.OCT_OP_EXP, log = C.OCT_OP_LOG, sqrt = C.OCT_OP_SQRT,
  abs = C.OCT_OP_ABS, square = C.OCT_OP_SQUARE, reciprocal = C.OCT_OP_RECIPROCAL,
  tanh = C.OCT_OP_TANH, sigmoid = C.OCT_OP_SIGMOID, relu = C.OCT_OP_RELU, gelu = C.OCT_OP_GELU,
  silu = C.OCT_OP_SILU,
} do
  methods[name] = function(self) return unary(self, op) end
end

--- x to a power: for a whole number a product, whose rounding errors add up to some power / 2 ulp;
-- else exp(power * log(x)), which is NaN below 0.
-- @tparam number power
-- @treturn tensor
function methods:pow(power)
  if type(power) ~= "number" then
    fail(("pow: the power is a %s, expected a number"):format(type(power)))
  elseif power - power ~= 0 then
    fail(("pow: the power is %s, expected a finite number"):format(power))
  end
  if power == 0.5 then return self:sqrt() end
  if power < 0 then return self:pow(-power):reciprocal() end
  if power ~= math.floor(power) then return (self:log() * power):exp() end
  if power == 0 then return self * 0 + 1 end
  if power == 1 then return self * 1 end
  local half = math.floor(power / 2)
  local even = (half == 1 and self or self:pow(half)):square()
  return power % 2 == 0 and even or even * self
end

--- The larger of two, element by element, broadcast. NaN where either is. Where both are equal,
-- each gets half of the gradient.
-- @tparam tensor|number other
-- @treturn tensor
function methods:maximum(other) return binary(self, other, MAXIMUM) end

--- The smaller of two; as @{methods:maximum}.
function methods:minimum(other) return binary(self, other, MINIMUM) end

local function compare(a, b, op)
  -- Ids and labels are compared as what they are.
  if type(b) == "number" and is_tensor(a) and a:dtype() == "i32" then b = scalar(b, C.OCT_I32) end
  return binary(a, b, op)
end

-- Comparisons, of f32 or i32, with a tensor of its type, broadcast, or a number: 1 where it is
-- true, else 0, as f32. No gradient passes. What is NaN differs from everything.
function methods:lt(other) return compare(self, other, LESS) end
function methods:le(other) return compare(self, other, LESS_EQUAL) end
function methods:gt(other) return compare(self, other, GREATER) end
function methods:ge(other) return compare(self, other, GREATER_EQUAL) end
function methods:eq(other) return compare(self, other, EQUAL) end
function methods:ne(other) return compare(self, other, NOT_EQUAL) end

--- Where this is not 0, as a comparison gives it, the one, elsewhere the other; all broadcast. A
-- gradient passes to what was taken, and none to the condition. What is not taken may be infinite
-- or NaN.
--
--     scores:gt(0):where(scores, -math.huge)
-- @tparam tensor|number one
-- @tparam tensor|number other
-- @treturn tensor
function methods:where(one, other)
  if type(one) == "number" then one = scalar(one) end
  if type(other) == "number" then other = scalar(other) end
  call(C.oct_where, out, self, one, other)
  return take()
end

--- Held within bounds, of which one may be nil. A gradient passes where x lies within them, the
-- bounds included. NaN stays NaN.
-- @tparam[opt] number low
-- @tparam[opt] number high
-- @treturn tensor
function methods:clamp(low, high)
  call(C.oct_clamp, out, self, low or -math.huge, high or math.huge)
  return take()
end

-- ---- along dimensions --------------------------------------------------------------------------

local REDUCTION = {[C.OCT_OP_SUM] = "sum", [C.OCT_OP_MEAN] = "mean", [C.OCT_OP_MAX] = "max"}

local function reduce(self, dim, keep, op)
  if dim ~= nil and not number.is_whole(dim, 1) then
    fail(("%s: the dimension is %s, expected a whole number from 1 on"):format(REDUCTION[op],
      message.shown(dim)))
  end
  call(C.oct_reduce, out, self, (dim or 0) - 1, keep and 1 or 0, op)
  return take()
end

--- Sum over one dimension, or over all where none is given.
-- @tparam[opt] number dim
-- @tparam[opt] boolean keep the dimension stays, with size 1
-- @treturn tensor
function methods:sum(dim, keep) return reduce(self, dim, keep, C.OCT_OP_SUM) end

--- Mean; as @{methods:sum}.
function methods:mean(dim, keep) return reduce(self, dim, keep, C.OCT_OP_MEAN) end

--- Largest; as @{methods:sum}.
function methods:max(dim, keep) return reduce(self, dim, keep, C.OCT_OP_MAX) end

--- Smallest; as @{methods:sum}.
function methods:min(dim, keep) return -(-self):max(dim, keep) end

-- What works along the last dimension alone may be given it.
local function check_last(op, t, dim)
  if dim ~= nil and dim ~= t:ndim() then
    fail(("%s: dimension %s, expected none: it is the last one, %d"):format(op, message.shown(dim),
      t:ndim()))
  end
end

--- 0-based place of the largest along the last dimension, as i32.
-- @treturn tensor
function methods:argmax(...)
  check_last("argmax", self, ...)
  call(C.oct_argmax, out, self)
  return take()
end

local MATMUL_OPTIONS = {"transpose_a", "transpose_b"}

--- Matrix product of the last two dimensions; `{transpose_a = true, transpose_b = true}` as wanted.
-- Of `[... x m x k]` and `[... x k x n]` with the same leading sizes, matrix by matrix, or with one
-- matrix `[k x n]` for all.
-- @tparam tensor other
-- @tparam[opt] table options
-- @treturn tensor `[... x m x n]`
function methods:matmul(other, options)
  nearest.check_options("matmul", options, MATMUL_OPTIONS)
  options = options or {}
  for name, value in pairs(options) do nearest.check_switch("matmul", name, value) end
  call(C.oct_matmul, out, self, other, options.transpose_a and 1 or 0,
    options.transpose_b and 1 or 0)
  return take()
end

function methods:softmax(...)
  check_last("softmax", self, ...)
  call(C.oct_softmax, out, self, 0)
  return take()
end

function methods:log_softmax(...)
  check_last("log_softmax", self, ...)
  call(C.oct_softmax, out, self, 1)
  return take()
end

--- Is every element finite?
-- @treturn boolean
function methods:all_finite()
  check(C.oct_all_finite(flag_out, self))
  return flag_out[0] == 1
end

return {methods = methods}
