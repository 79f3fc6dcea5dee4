local ffi = require "ffi"
local tensorboard = require "octet.train.tensorboard"

local function hex(text)
  return (text:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

local function number(bytes)
  local n = 0
  for i = #bytes, 1, -1 do n = n * 256 + bytes:byte(i) end
  return n
end

--- Records of a file, framing checked.
local function records(text)
  local found, at = {}, 1
  local function unmask(bytes)
    local bit = require "bit"
    return bit.rol(bit.tobit(number(bytes) - 0xA282EAD8), 15) % 2^32
  end
  while at <= #text do
    local length_bytes = text:sub(at, at + 7)
    local length = number(length_bytes)
    assert.equal(tensorboard.crc32c(length_bytes), unmask(text:sub(at + 8, at + 11)))
    local data = text:sub(at + 12, at + 11 + length)
    assert.equal(length, #data)
    assert.equal(tensorboard.crc32c(data), unmask(text:sub(at + 12 + length, at + 15 + length)))
    found[#found + 1] = data
    at = at + 16 + length
  end
  return found
end

describe("event files", function()
  it("use CRC-32C", function()
    -- RFC 3720, B.4
    assert.equal(0xE3069283, tensorboard.crc32c("123456789"))
    assert.equal(0x8A9136AA, tensorboard.crc32c(("\0"):rep(32)))
    assert.equal(0x62A8AB43, tensorboard.crc32c(("\255"):rep(32)))
  end)

  it("frame their records", function()
    local text = tensorboard.header(1.5) .. tensorboard.scalars(2, 300, {loss = 0.5})
    assert.equal(2, #records(text))
  end)

  it("begin with the version and hold step, names and values", function()
    local data = records(tensorboard.header(1.5))[1]
    assert.equal("09" .. hex(ffi.string(ffi.new("double[1]", 1.5), 8)) .. "1a0d"
      .. hex "brain.Event:2", hex(data))
    data = records(tensorboard.scalars(2, 300, {lr = 1, loss = 0.5}))[1]
    assert.equal("09" .. hex(ffi.string(ffi.new("double[1]", 2), 8)) .. "10ac02" .. "2a18"
      .. "0a0b" .. "0a04" .. hex "loss" .. "150000003f"
      .. "0a09" .. "0a02" .. hex "lr" .. "150000803f", hex(data))
  end)

  it("write steps beyond 32 bits", function()
    assert.matches("\x10\x80\x80\x80\x80\x80\x01", tensorboard.scalars(2, 2^35, {}), 1, true)
  end)
end)
