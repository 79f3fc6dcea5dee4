--- State from one layout to another: by way of f32, rounded to the nearest.
-- @module octet.optim.convert
local ffi = require "ffi"
local format_of = require "octet.optim.format"
local layout_of = require "octet.optim.layout"
local map = require "octet.optim.map"
local tensor = require "octet.tensor"

local M = {}

--- The map's sign for a kind of state.
-- @tparam table kind of octet.optim.rules
-- @treturn string "signed" or "unsigned"
function M.sign(kind) return kind.kind == "signed" and "signed" or "unsigned" end

--- State as numbers of its own kind: squares, not their roots.
-- @tparam table kind of octet.optim.rules
-- @tparam table layout that it is in
-- @tparam table maps that the layout names
-- @tparam {number,...} shape of the parameter
-- @tparam tensor values f32, or codes
-- @tparam ?tensor absmax
-- @treturn tensor f32
function M.restore(kind, layout, maps, shape, values, absmax)
  if layout.bits == 32 then return values end
  local sign, size = M.sign(kind), 1
  for _, n in ipairs(shape) do size = size * n end
  local t = map.new(maps[layout[sign]], sign):dequantize(values, absmax, shape,
    layout_of.block(layout, size))
  if kind.kind == "square" and layout.sqrt_v then t = t * t end
  return t
end

-- In a format that rounds by chance nothing above 0 becomes 0 in an unsigned map (kernels/map.h):
-- an m whose v had vanished would make a step of m / eps.
local function lift_zeros(codes, t, zero, bits)
  local code, x = codes:data(), t:reader()
  for i = 0, t:size() - 1 do
    if x(i) > 0 then
      if bits == 8 then
        if code[i] == zero then code[i] = zero + 1 end
      else
        local byte, unit = math.floor(i / 2), i % 2 == 0 and 1 or 16
        if math.floor(code[byte] / unit) % 16 == zero then code[byte] = code[byte] + unit end
      end
    end
  end
end

--- Numbers as state of a parameter of an optimizer.
-- @tparam table p one of an optimizer's parameters, of 8 or 4 bits
-- @tparam table kind of octet.optim.rules
-- @tparam tensor t f32
-- @treturn tensor codes
-- @treturn tensor absmax
function M.quantize(p, kind, t)
  local format, sign = p.format, M.sign(kind)
  if kind.kind == "square" and format.sqrt_v then t = t:sqrt() end
  local own = format_of.map_of(format, p.bits, sign)
  local codes, absmax = own:quantize(t, layout_of.block(format, p.elements))
  local zero = own:zero()
  if sign == "unsigned" and format.rounding == "stochastic" and own:values()[zero + 1] == 0 then
    lift_zeros(codes, t, zero, p.bits)
  end
  return codes, absmax
end

--- A bf16 parameter's further bits in another width: 16 bits are rounded to 8, 8 become the upper
-- ones of 16, and where there were none the parameter stands as it is.
-- @tparam ?tensor from u8, [size * bits / 8]
-- @tparam ?number from_bits
-- @tparam tensor like u8, of the optimizer
-- @tparam number bits
-- @treturn tensor u8, of like's shape
function M.correction(from, from_bits, like, bits)
  if from_bits == bits then return from end
  local to = tensor.zeros(like:shape(), "u8")
  if not from then return to end
  local short, long = ffi.cast("int8_t *", (bits == 8 and to or from):data()),
    ffi.cast("int16_t *", (bits == 8 and from or to):data())
  for i = 0, like:size() * 8 / bits - 1 do
    if bits == 8 then
      short[i] = math.min(127, math.floor((long[i] + 128) / 256))
    else
      long[i] = short[i] * 256
    end
  end
  return to
end

return M
