--- Event files that TensorBoard reads: scalars by step.
--
-- A file is a row of TFRecords: length (8 bytes, little end first), masked CRC-32C of the length,
-- data, masked CRC-32C of the data. The data is an Event in protobuf's wire format:
-- wall_time = 1 (double), step = 2 (varint), file_version = 3 (string), summary = 5 (message),
-- session_log = 7 (message); Summary: value = 1 (message); Value: tag = 1 (string), simple_value =
-- 2 (float); SessionLog: status = 1 (varint; 1: start).
-- @module octet.train.tensorboard
local bit = require "bit"
local ffi = require "ffi"

local M = {}

-- CRC-32C (Castagnoli), reflected polynomial 0x82F63B78.
local crc_table = ffi.new "uint32_t[256]"
for n = 0, 255 do
  local c = n
  for _ = 1, 8 do
    c = bit.band(c, 1) == 1 and bit.bxor(bit.rshift(c, 1), 0x82F63B78) or bit.rshift(c, 1)
  end
  crc_table[n] = bit.tobit(c) % 2^32
end

--- CRC-32C of a text, 0 to 2^32 - 1.
-- @tparam string text
-- @treturn number
function M.crc32c(text)
  local c = bit.bnot(0)
  for i = 1, #text do
    local place = bit.band(bit.bxor(c, text:byte(i)), 255)
    c = bit.bxor(bit.rshift(c, 8), bit.tobit(crc_table[place]))
  end
  return bit.bnot(c) % 2^32
end

local function masked_crc(text)
  local c = bit.tobit(M.crc32c(text))
  return (bit.ror(c, 15) + 0xA282EAD8) % 2^32
end

local function little_endian(n, bytes)
  local out = {}
  for i = 1, bytes do
    out[i] = string.char(n % 256)
    n = math.floor(n / 256)
  end
  return table.concat(out)
end

local function varint(n)
  local out = {}
  repeat
    local low = n % 128
    n = math.floor(n / 128)
    out[#out + 1] = string.char(n > 0 and low + 128 or low)
  until n == 0
  return table.concat(out)
end

local function floating(ctype, n)
  return ffi.string(ffi.new(ctype .. "[1]", n), ffi.sizeof(ctype))
end

-- A field's tag is its number and its wire type: 0 varint, 1 eight bytes, 2 bytes with their
-- length, 5 four bytes.
local function tag(field, wire) return varint(field * 8 + wire) end
local function bytes_field(field, bytes) return tag(field, 2) .. varint(#bytes) .. bytes end

--- One record as it stands in the file.
-- @tparam string data
-- @treturn string
function M.record(data)
  local length = little_endian(#data, 8)
  return table.concat {length, little_endian(masked_crc(length), 4),
    data, little_endian(masked_crc(data), 4)}
end

--- The record that begins a file.
-- @tparam number wall_time seconds since 1970
-- @treturn string
function M.header(wall_time)
  return M.record(tag(1, 1) .. floating("double", wall_time) .. bytes_field(3, "brain.Event:2"))
end

--- The record with which a resumed run begins: what earlier files hold of this step and those
-- after it no longer counts.
-- @tparam number wall_time seconds since 1970
-- @tparam number step
-- @treturn string
function M.restart(wall_time, step)
  return M.record(tag(1, 1) .. floating("double", wall_time) .. tag(2, 0) .. varint(step)
    .. bytes_field(7, tag(1, 0) .. varint(1)))
end

--- The record of a step's scalars.
-- @tparam number wall_time seconds since 1970
-- @tparam number step
-- @tparam table scalars numbers by name
-- @treturn string
function M.scalars(wall_time, step, scalars)
  local names, values = {}, {}
  for name in pairs(scalars) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do
    values[i] = bytes_field(1, bytes_field(1, name) .. tag(2, 5)
      .. floating("float", scalars[name]))
  end
  return M.record(tag(1, 1) .. floating("double", wall_time) .. tag(2, 0) .. varint(step)
    .. bytes_field(5, table.concat(values)))
end

--- The name of an event file, which TensorBoard finds by ".tfevents.".
-- @tparam number wall_time seconds since 1970
-- @tparam number number of this file among those of the run, so that they sort
-- @treturn string
function M.file_name(wall_time, number)
  return ("events.out.tfevents.%010d.octet.%d"):format(wall_time, number)
end

return M
