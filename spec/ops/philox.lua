--- Philox 4x32-10 (Salmon et al., SC 2011) in Lua, one block at a time, to compare with.
local bit = require "bit"

local M = {INIT = 0, DROPOUT = 1}

--- high and low 32 bits of a product
local function multiply(a, b)
  local product = (a + 0ULL) * (b + 0ULL)
  return tonumber(product / 2 ^ 32), tonumber(product % 2 ^ 32)
end

local function xor(a, b, c)
  return bit.bxor(a, b, c) % 2 ^ 32
end

--- Four 32-bit numbers.
function M.block(seed, stream, offset)
  local c0, c1, c2, c3 = offset % 2 ^ 32, math.floor(offset / 2 ^ 32), stream, 0
  local k0, k1 = seed % 2 ^ 32, math.floor(seed / 2 ^ 32)
  for _ = 1, 10 do
    local high0, low0 = multiply(0xD2511F53, c0)
    local high1, low1 = multiply(0xCD9E8D57, c2)
    c0, c1, c2, c3 = xor(high1, c1, k0), low1, xor(high0, c3, k1), low0
    k0, k1 = (k0 + 0x9E3779B9) % 2 ^ 32, (k1 + 0xBB67AE85) % 2 ^ 32
  end
  return {c0, c1, c2, c3}
end

--- The 32-bit number of element i (0-based) of a stream's blocks from `first` on.
function M.word(seed, stream, i, first)
  return M.block(seed, stream, (first or 0) + math.floor(i / 4))[i % 4 + 1]
end

--- The 16-bit number of element i (0-based).
function M.half_word(seed, stream, i, first)
  local word = M.block(seed, stream, (first or 0) + math.floor(i / 8))[math.floor(i % 8 / 2) + 1]
  return i % 2 == 0 and word % 2 ^ 16 or math.floor(word / 2 ^ 16)
end

return M
