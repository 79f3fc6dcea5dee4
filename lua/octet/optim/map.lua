--- Quantization maps: 256 values, or 16, to which 8-bit or 4-bit state is rounded.
--
--     local map = require "octet.optim.map"
--     print(map.named("dynamic", 8, "signed"):values()[1])       -- -0.9929687...
--     optim.adam8(parameters, {map = "linear"})
--     optim.adam8(parameters, {map = {signed = map.quantiles_of(m, "signed")}})
-- @module octet.optim.map
local ffi = require "ffi"
local binding = require "octet.binding"
local nearest = require "octet.nearest"
local tensor = require "octet.tensor"

local C, check = binding.C, binding.check

local M = {}
local Map = {}
Map.__index = Map

local map_out = ffi.new "oct_map *[1]"
local text_out = ffi.new "const char *[1]"
local values_out = ffi.new "const float *[1]"
local levels_out, zero_out = ffi.new "int[1]", ffi.new "int[1]"

local function read_names()
  local names = {}
  for index = 0, 100 do
    check(C.oct_map_name(text_out, index))
    if text_out[0] == nil then return names end
    names[#names + 1] = ffi.string(text_out[0])
  end
end

--- Names of the maps that are built in.
M.NAMES = read_names()

local function levels_of(bits) return bits == 4 and 16 or 256 end

local function wrapped(name, sign)
  return setmetatable({name = name, sign = sign, handle = ffi.gc(map_out[0], C.oct_map_free)}, Map)
end

local function check_sign(who, sign)
  if sign ~= "signed" and sign ~= "unsigned" then
    error(('%s: sign is %s, expected "signed" or "unsigned"'):format(who, tostring(sign)), 3)
  end
end

--- A map that is built in.
-- @tparam string name "dynamic", "linear", "linear_nonzero", "quadratic", "geometric", "quantile",
-- "inverse_dynamic", "fp8_e4m3", "fp8_e5m2", "bnb-0.36"
-- @tparam number bits 8 or 4
-- @tparam string sign "signed" or "unsigned"
-- @treturn Map
function M.named(name, bits, sign)
  check_sign("map.named", sign)
  local known = false
  for _, other in ipairs(M.NAMES) do known = known or other == name end
  if not known then error(nearest.message("map", tostring(name), M.NAMES), 0) end
  check(C.oct_map_named(map_out, name, levels_of(bits), sign == "signed" and 1 or 0))
  return wrapped(name, sign)
end

--- A map of the user's own.
-- @tparam {number,...} values 256 or 16 of them, ascending, from -1 (0 in an unsigned map) to 1
-- @tparam string sign
-- @treturn Map
function M.new(values, sign)
  check_sign("map.new", sign)
  if type(values) ~= "table" or (#values ~= 256 and #values ~= 16) then
    error(("map.new: %s, expected a list of 256 or 16 values"):format(type(values) == "table"
      and #values .. " values" or "a " .. type(values)), 2)
  end
  local buffer = ffi.new("float[?]", #values)
  for i, x in ipairs(values) do
    if type(x) ~= "number" then
      error(("map.new: value %d is a %s, expected a number"):format(i, type(x)), 2)
    end
    buffer[i - 1] = x
  end
  check(C.oct_map_new(map_out, buffer, #values, sign == "signed" and 1 or 0))
  return wrapped("custom", sign)
end

--- The quantiles of a tensor's own values: each value of the map stands for as many of them
-- (Dettmers et al. 2022, equation 5), scaled to the largest magnitude, 0 and 1 among them.
-- @tparam tensor t f32
-- @tparam string sign "unsigned": of the magnitudes
-- @tparam[opt=8] number bits
-- @treturn Map
function M.quantiles_of(t, sign, bits)
  check_sign("map.quantiles_of", sign)
  if not tensor.is_tensor(t) or t:dtype() ~= "f32" then
    error("map.quantiles_of: expected a tensor of f32", 2)
  end
  local levels, list, most = levels_of(bits or 8), t:totable(), 0
  for i, x in ipairs(list) do
    if sign == "unsigned" then list[i] = math.abs(x) end
    most = math.max(most, math.abs(x))
  end
  if not (most > 0 and most < math.huge) then
    error("map.quantiles_of: the tensor has no values, or some that are not finite", 2)
  end
  table.sort(list)
  local function quantile(share)
    local at = share * (#list - 1)
    local low = math.floor(at)
    return list[low + 1] + (at - low) * ((list[low + 2] or list[low + 1]) - list[low + 1])
  end
  -- Two places are kept for 0 and 1.
  local values, n = {0, 1}, levels - 2
  for k = 1, n do
    values[k + 2] = (quantile((k - 1) / n) + quantile(k / n)) / 2 / most
  end
  table.sort(values)
  local map = M.new(values, sign)
  map.name = "quantiles"
  return map
end

--- @treturn {number,...} the values, ascending; the code of a value is its place, from 0
function Map:values()
  check(C.oct_map_values(values_out, levels_out, zero_out, self.handle))
  local list = {}
  for code = 0, levels_out[0] - 1 do list[code + 1] = values_out[0][code] end
  return list
end

--- @treturn number the code of what is nearest to 0, from 0
function Map:zero()
  check(C.oct_map_values(values_out, levels_out, zero_out, self.handle))
  return zero_out[0]
end

--- @treturn number 4 or 8
function Map:bits()
  check(C.oct_map_values(values_out, levels_out, zero_out, self.handle))
  return levels_out[0] == 16 and 4 or 8
end

--- Quantize f32 numbers block by block, to the nearest.
-- @tparam tensor t f32, contiguous
-- @tparam[opt=256] number block_size a power of two from 32 on
-- @treturn tensor codes, u8 of t's shape, with 4 bits [(size + 1) / 2]
-- @treturn tensor absmax, f32 [blocks]
function Map:quantize(t, block_size)
  local block = block_size or 256
  local codes = self:bits() == 4 and tensor.new({math.ceil(t:size() / 2)}, "u8")
    or tensor.new(t:shape(), "u8")
  local absmax = tensor.new {math.ceil(t:size() / block)}
  check(C.oct_quantize(codes:data(), absmax:data(), t:data(), t:size(), block, self.handle, 0))
  return codes, absmax
end

--- Back to numbers.
-- @tparam tensor codes
-- @tparam tensor absmax
-- @tparam {number,...} shape of the result
-- @tparam[opt=256] number block_size
-- @treturn tensor f32
function Map:dequantize(codes, absmax, shape, block_size)
  local t = tensor.new(shape)
  check(C.oct_dequantize(t:data(), codes:data(), absmax:data(), t:size(), block_size or 256,
    self.handle, 0), 2)
  return t
end

--- Whether a value is a map.
function M.is_map(value) return getmetatable(value) == Map end

return M
