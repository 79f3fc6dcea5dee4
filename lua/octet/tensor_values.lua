--- Tensors and values of Lua: what becomes of nested tables, and of elements that are read.
-- @module octet.tensor_values
local ffi = require "ffi"
local message = require "octet.message"
local number = require "octet.number"

local M = {}

--- All numbers of nested tables in one list; an error where something else stands among them.
-- @tparam table values
-- @tparam {number,...} into receives them at its end
-- @treturn {number,...} into
function M.flatten(values, into)
  for i = 1, table.maxn(values) do
    local v = values[i]
    if type(v) == "table" then
      M.flatten(v, into)
    elseif type(v) == "number" or (type(v) == "cdata" and tonumber(v)) then
      into[#into + 1] = tonumber(v)
    else
      error(("tensor.from: value %d is a %s, expected a number"):format(#into + 1, type(v)), 0)
    end
  end
  return into
end

local WHOLE = {i32 = {-2 ^ 31, 2 ^ 31 - 1}, u8 = {0, 255}}

--- Write numbers into a tensor; whole ones of the type's range where the type is of such.
-- @tparam tensor t
-- @tparam {number,...} values as many as it has elements
-- @tparam ?string dtype its type
function M.write(t, values, dtype)
  local data, range = t:data(), WHOLE[dtype]
  for i, x in ipairs(values) do
    if range and not number.is_whole(x, range[1], range[2]) then
      error(("tensor.from: value %d is %s, expected a whole number from %d to %d"):format(i,
        tostring(x), range[1], range[2]), 0)
    end
    data[i - 1] = x
  end
end

--- The shape that nested tables have by themselves, each level a dimension.
-- @tparam table values
-- @return the shape; nil and what is wrong where rows differ
function M.shape_of(values)
  local shape, deepest = {}, nil
  local function measure(row, dim)
    shape[dim] = shape[dim] or #row
    if #row ~= shape[dim] then
      return ("a row of %d among rows of %d"):format(#row, shape[dim])
    end
    for i = 1, #row do
      local nested = type(row[i]) == "table"
      if deepest and nested ~= (dim < deepest) then return "numbers and rows side by side" end
      local wrong = nested and measure(row[i], dim + 1)
      if wrong then return wrong end
      if not nested then deepest = dim end
    end
  end
  local wrong = measure(values, 1)
  if wrong then return nil, wrong end
  return shape
end

--- A tensor's elements as numbers. A float read from memory whose bits are some NaN is, to LuaJIT,
-- whatever these bits stand for in a value of its own, a pointer too: here every NaN comes as the
-- usual one.
-- @tparam tensor tensor
-- @treturn function of a place from 0, which gives the number there
function M.reader(tensor)
  local t = tensor:readable()
  local data = t:data()
  if t:dtype() ~= "f32" then return function(i) return t and data[i] end end
  local bits = ffi.cast("uint32_t *", data)
  return function(i)
    if bit.band(bits[i], 0x7fffffff) > 0x7f800000 then return 0 / 0 end
    return t and data[i]                  -- `t`: its memory is there as long as this function is
  end
end

local ELEMENTS = {["float *"] = "float", ["int32_t *"] = "int", ["uint8_t *"] = "unsigned char",
  ["uint16_t *"] = "unsigned short"}

--- Copy n elements out of a C array, which holds as many of their type. How many there are behind
-- a pointer nobody knows.
-- @tparam cdata to a pointer, as tensor:data() gives it
-- @tparam cdata from
-- @tparam number n
function M.copy(to, from, n)
  local function name(x) return tostring(ffi.typeof(x)):match "^ctype<(.-) ?>$" end
  local wanted, element = ELEMENTS[name(to)] or name(to):match "^(.-) %*$", name(from)
  local kind = element:match "[%[%*]"
  element = element:gsub("^const ", ""):match "^(.-) [%[%*%(]"
  if not kind or element ~= wanted then
    message.fail(("tensor.from: %s, expected an array of %s"):format(name(from), wanted))
  end
  local bytes = n * ffi.sizeof(wanted)
  if kind == "[" and ffi.sizeof(from) < bytes then
    message.fail(("tensor.from: the array has %d elements, the shape %d"):format(
      ffi.sizeof(from) / ffi.sizeof(wanted), n))
  end
  ffi.copy(to, from, bytes)
end

return M
