--- How the state of one parameter is kept, as a table that a file can carry:
--
--     {bits = 32}
--     {bits = 8, block_size = 256, sqrt_v = true, scale = "block",
--      signed = "dynamic.8.signed", unsigned = "dynamic.8.unsigned"}
--
-- and `correction_bits` where a bf16 parameter has some. `signed` and `unsigned` name two of the
-- state's maps, which are lists of values.
-- @module octet.optim.layout
local format_of = require "octet.optim.format"
local message = require "octet.message"
local map = require "octet.optim.map"

local M = {}

local SIGNS = {"signed", "unsigned"}

local function same_values(a, b)
  for code = 1, math.max(#a, #b) do
    if a[code] ~= b[code] then return false end
  end
  return true
end

--- Put a map's values among those of a state. Several maps of the user's own may go by one name.
-- @tparam table maps by name; receives the values
-- @tparam string name
-- @tparam {number,...} values
-- @treturn string the name that they have there
function M.add_map(maps, name, values)
  local key, count = name, 1
  while maps[key] and not same_values(maps[key], values) do
    count = count + 1
    key = ("%s.%d"):format(name, count)
  end
  maps[key] = values
  return key
end

--- The layout of a parameter of an optimizer.
-- @tparam table p one of an optimizer's parameters
-- @tparam table maps receives the values of its maps
-- @treturn table
function M.of(p, maps)
  local layout = {bits = p.bits, correction_bits = p.correction_bits ~= 0 and p.correction_bits
    or nil}
  if p.bits == 32 then return layout end
  layout.block_size, layout.sqrt_v, layout.scale = p.format.block_size, p.format.sqrt_v,
    p.format.scale
  for _, sign in ipairs(SIGNS) do
    local own = format_of.map_of(p.format, p.bits, sign)
    layout[sign] = M.add_map(maps, ("%s.%d.%s"):format(own.name, p.bits, sign), own:values())
  end
  return layout
end

-- A map's name without bits and sign.
local function map_name(key) return key:match "^(.-)%.%d+%.%a+" or key end

--- A layout in words.
-- @tparam table layout
-- @treturn string "8 bits, dynamic, sqrt_v, blocks of 256"
function M.text(layout)
  local correction = layout.correction_bits
    and (", %d correction bits"):format(layout.correction_bits) or ""
  if layout.bits == 32 then return "32 bits" .. correction end
  local signed, unsigned = map_name(layout.signed), map_name(layout.unsigned)
  return ("%d bits, %s%s, %s%s"):format(layout.bits,
    signed == unsigned and signed or signed .. " and " .. unsigned,
    layout.sqrt_v and ", sqrt_v" or "",
    layout.scale == "tensor" and "one scale" or "blocks of " .. layout.block_size, correction)
end

--- Whether two layouts mean the same by the same bytes.
-- @tparam table a
-- @tparam table b
-- @tparam table maps_a those that a names
-- @tparam table maps_b
-- @treturn boolean
function M.same(a, b, maps_a, maps_b)
  if a.bits ~= b.bits or a.correction_bits ~= b.correction_bits then return false end
  if a.bits == 32 then return true end
  return (a.scale == "tensor" or a.block_size == b.block_size) and a.sqrt_v == b.sqrt_v
    and a.scale == b.scale and same_values(maps_a[a.signed], maps_b[b.signed])
    and same_values(maps_a[a.unsigned], maps_b[b.unsigned])
end

--- Elements that share a scale, in blocks as the maps' functions take them.
-- @tparam table layout, or a format
-- @tparam number size of the tensor
-- @treturn number
function M.block(layout, size)
  if layout.scale ~= "tensor" then return layout.block_size end
  local block = 32
  while block < size do block = 2 * block end
  return block
end

-- ---- checks ------------------------------------------------------------------------------------

local shown = message.shown

local function is_block_size(x)
  return type(x) == "number" and x >= 32 and x <= 4096 and math.frexp(x) == 0.5
end

local function check_map(who, fail, maps, bits, name, sign)
  local values = type(name) == "string" and maps[name]
  if type(values) ~= "table" or #values ~= (bits == 4 and 16 or 256) then
    fail(sign, name, ("the name of one of the state's maps of %d values"):format(
      bits == 4 and 16 or 256))
  end
  local ok, why = pcall(map.new, values, sign)
  if not ok then
    error(("%s: map %s of the state: %s"):format(who, name, (why:gsub("^.-map[%.new]*: ", ""))),
      0)
  end
end

--- Check a layout that comes from outside.
-- @tparam string who for errors
-- @tparam string name of the parameter
-- @tparam table layout
-- @tparam table maps
function M.check(who, name, layout, maps)
  local function fail(what, value, expected)
    error(("%s: %s of the layout of parameter %s is %s, expected %s"):format(who, what, name,
      shown(value), expected), 0)
  end
  if type(layout) ~= "table" then
    error(("%s: the layout of parameter %s is a %s, expected a table"):format(who, name,
      type(layout)), 0)
  end
  local bits, correction = layout.bits, layout.correction_bits
  if bits ~= 32 and bits ~= 8 and bits ~= 4 then fail("bits", bits, "4, 8 or 32") end
  if correction ~= nil and correction ~= 8 and correction ~= 16 then
    fail("correction_bits", correction, "8, 16 or none")
  end
  if bits == 32 then return end
  if not is_block_size(layout.block_size) then
    fail("block_size", layout.block_size, "a power of two from 32 to 4096")
  end
  if type(layout.sqrt_v) ~= "boolean" then fail("sqrt_v", layout.sqrt_v, "true or false") end
  if layout.scale ~= "block" and layout.scale ~= "tensor" then
    fail("scale", layout.scale, '"block" or "tensor"')
  end
  for _, sign in ipairs(SIGNS) do check_map(who, fail, maps, bits, layout[sign], sign) end
end

return M
