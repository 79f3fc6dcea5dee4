--- How state of 8 or 4 bits is kept: formats by name, and the options that differ from one.
-- @module octet.optim.format
local ffi = require "ffi"
local binding = require "octet.binding"
local message = require "octet.message"
local map = require "octet.optim.map"
local nearest = require "octet.nearest"

local C = binding.C

local M = {}

local FORMATS = {
  octet = {map = "dynamic", sqrt_v = true, rounding = "stochastic", block_size = 256,
    scale = "block",
    four = {map = {signed = "quadratic", unsigned = "geometric"}, block_size = 128}},
  paper = {map = "dynamic", sqrt_v = false, rounding = "nearest", block_size = 2048,
    scale = "block"},
  bnb = {map = "dynamic", sqrt_v = false, rounding = "nearest", block_size = 256, scale = "block"},
  torchao = {map = "dynamic", sqrt_v = false, rounding = "nearest", block_size = 256,
    scale = "block",
    four = {map = {signed = "dynamic", unsigned = "linear_nonzero"}, block_size = 128}},
  ["bnb-0.36"] = {map = "bnb-0.36", sqrt_v = false, rounding = "nearest", block_size = 2048,
    scale = "block"},
}

--- The formats by name. Each option can be said by itself, too, for a run, a group or a parameter.
-- `four`: what is different with 4 bits.
--
-- - octet: roots of second moments, rounded by chance, in blocks of 256; with 4 bits of 128
-- - paper: the paper's: second moments themselves, to the nearest, in blocks of 2,048
-- - bnb: today's bitsandbytes: as the paper's, in blocks of 256
-- - torchao: torchao's: with 8 bits bitsandbytes'; with 4 bits blocks of 128, and second moments
--   that are never 0, after Li, Chen and Zhu, "Memory Efficient Optimizers with 4-bit States", 2023
-- - bnb-0.36: bitsandbytes 0.36.0 to 0.41.0, whose unsigned map ended at 0.0933
M.NAMED = FORMATS

--- Names of the formats, the default first.
M.NAMES = {"octet", "paper", "bnb", "torchao", "bnb-0.36"}

--- Names of a format's options.
M.FIELDS = {"map", "sqrt_v", "rounding", "block_size", "scale"}

local shown = message.shown

local function one_of(name, choices)
  return function(who, value)
    for _, choice in ipairs(choices) do
      if value == choice then return end
    end
    error(("%s: %s"):format(who, nearest.message(name, tostring(value), choices)), 0)
  end
end

local known_map = one_of("map", map.NAMES)

local CHECKS = {
  format = one_of("format", M.NAMES),
  rounding = one_of("rounding", {"nearest", "stochastic"}),
  scale = one_of("scale", {"block", "tensor"}),
  sqrt_v = function(who, value)
    if type(value) ~= "boolean" then
      error(("%s: sqrt_v is %s, expected true or false"):format(who, shown(value)), 0)
    end
  end,
  block_size = function(who, value)
    if type(value) ~= "number" or value < 32 or value > 4096 or math.frexp(value) ~= 0.5 then
      error(("%s: block_size is %s, expected a power of two from 32 to 4096"):format(who,
        shown(value)), 0)
    end
  end,
  map = function(who, value)
    if type(value) == "string" then return known_map(who, value) end
    local sides = type(value) == "table" and {value.signed, value.unsigned} or {}
    if next(sides) == nil then
      error(("%s: map is %s, expected a name or {signed = , unsigned = } of names or Maps")
        :format(who, shown(value)), 0)
    end
    for sign, side in pairs {signed = value.signed, unsigned = value.unsigned} do
      if type(side) == "string" then
        known_map(who, side)
      elseif not map.is_map(side) or side.sign ~= sign then
        error(("%s: the %s map is %s, expected a name or %s map of octet.optim.map"):format(who,
          sign, map.is_map(side) and side.sign or shown(side), sign == "signed" and "a signed"
          or "an unsigned"), 0)
      end
    end
  end,
}

--- Check those options of a table that belong to a format.
-- @tparam string who for errors
-- @tparam table given
function M.check(who, given)
  for name, check in pairs(CHECKS) do
    if given[name] ~= nil then check(who, given[name]) end
  end
end

--- What holds where several layers of options have something to say. The first layer that names a
-- format settles what those behind it say of its options.
-- @tparam {table,...} layers options of a parameter, its group, the optimizer: the nearest first
-- @tparam number bits
-- @treturn table format, map, sqrt_v, rounding, block_size, scale
function M.resolve(layers, bits)
  local resolved = {}
  for _, layer in ipairs(layers) do
    for _, name in ipairs(M.FIELDS) do
      if resolved[name] == nil then resolved[name] = layer[name] end
    end
    resolved.format = layer.format
    if layer.format then break end
  end
  resolved.format = resolved.format or M.NAMES[1]
  local usual = M.NAMED[resolved.format]
  local four = bits == 4 and usual.four or {}
  for _, name in ipairs(M.FIELDS) do
    if resolved[name] == nil then resolved[name] = four[name] end
    if resolved[name] == nil then resolved[name] = usual[name] end
  end
  return resolved
end

local built = {}

local function named(name, bits, sign)
  local key = name .. bits .. sign
  built[key] = built[key] or map.named(name, bits, sign)
  return built[key]
end

-- What a format says of its map for a sign: a name or a Map. Where it names the other side alone,
-- this one is the dynamic map.
local function side_of(format, sign)
  local own = format.map
  if type(own) == "table" then own = own[sign] end
  return own or "dynamic"
end

--- The map of a format for state of a sign.
-- @tparam table format as resolve() gives it
-- @tparam number bits
-- @tparam string sign "signed" or "unsigned"
-- @treturn Map
function M.map_of(format, bits, sign)
  local own = side_of(format, sign)
  return type(own) == "string" and named(own, bits, sign) or own
end

--- A format's flags, as the library takes them.
-- @treturn number
function M.flags(format)
  return (format.sqrt_v and tonumber(C.OCT_FORMAT_ROOT) or 0)
    + (format.rounding == "stochastic" and tonumber(C.OCT_FORMAT_STOCHASTIC) or 0)
    + (format.scale == "tensor" and tonumber(C.OCT_FORMAT_WHOLE) or 0)
end

local function map_text(format, sign)
  local own = side_of(format, sign)
  return type(own) == "string" and own or own.name
end

--- What a parameter's state is kept in, in words that are the same for the same storage.
-- @tparam number bits
-- @tparam table format
-- @treturn string "32 bits", or "8 bits, dynamic, sqrt_v, blocks of 256"
function M.text(bits, format)
  if bits == 32 then return "32 bits" end
  local signed, unsigned = map_text(format, "signed"), map_text(format, "unsigned")
  return ("%d bits, %s%s, %s"):format(bits,
    signed == unsigned and signed or signed .. " and " .. unsigned,
    format.sqrt_v and ", sqrt_v" or "",
    format.scale == "tensor" and "one scale" or "blocks of " .. format.block_size)
end

--- Pointers of a format's two maps, for the library; with 32 bits none.
function M.handles(format, bits)
  if bits == 32 then return ffi.cast("oct_map *", nil), ffi.cast("oct_map *", nil) end
  return M.map_of(format, bits, "signed").handle, M.map_of(format, bits, "unsigned").handle
end

return M
