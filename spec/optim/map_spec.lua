local ffi = require "ffi"
local binding = require "octet.binding"
local gradients = require "spec.optim.gradients"

local C, check = binding.C, binding.check
local SIGNED, UNSIGNED = 1, 0

local function map(is_signed)
  local values = ffi.new "float[256]"
  check(C.oct_quantization_map(values, is_signed))
  return values
end

-- The dynamic map from its definition, in double precision.
local function defined(is_signed)
  local values = {0, 1}
  for i = 0, 6 do
    local n = 2 ^ (i + 1 - is_signed)
    for k = 0, n - 1 do
      local low, high = 0.1 + 0.9 * k / n, 0.1 + 0.9 * (k + 1) / n
      local value = (low + high) / 2 * 10 ^ (i - 6)
      values[#values + 1] = value
      if is_signed == 1 then values[#values + 1] = -value end
    end
  end
  table.sort(values)
  return values
end

-- The nearest entry by looking at all of them; of two equally near, the larger magnitude.
local function nearest(x, values)
  local best, distance = 0, math.huge
  for code = 0, 255 do
    local d = math.abs(tonumber(values[code]) - x)
    if d < distance or d == distance and math.abs(values[code]) > math.abs(values[best]) then
      best, distance = code, d
    end
  end
  return best
end

local function quantize(x, n, block, is_signed, reference)
  local codes = ffi.new("uint8_t[?]", n)
  local absmax = ffi.new("float[?]", math.ceil(n / block))
  check(C.oct_quantize(codes, absmax, x, n, block, is_signed, reference and 1 or 0), 2)
  return codes, absmax
end

local function each_isa(f)
  local machine = require "octet.machine"
  local before = machine.isa()
  for _, isa in ipairs {"avx2", "avx512"} do
    if pcall(machine.set_isa, isa) then f(isa) end
  end
  machine.set_isa(before)
end

-- Numbers around every decision: the midpoints of neighbours and the entries, and floats beside
-- them; each block of 256 gets a 1 in front, so that numbers stay what they are.
local function hard_cases(is_signed)
  local values, list = map(is_signed), {}
  local bits = ffi.new "union { float f; int32_t i; }"
  local function around(x)
    bits.f = x
    local center = bits.i
    for d = -3, 3 do
      bits.i = center + d
      local y = tonumber(bits.f)
      if math.abs(y) <= 1 and (y >= 0 or is_signed == 1) then list[#list + 1] = y end
    end
  end
  for code = 0, 255 do
    if values[code] ~= 0 then around(values[code]) end
    local middle = code < 255 and (tonumber(values[code]) + values[code + 1]) / 2 or 0
    if middle ~= 0 then around(middle) end
  end
  list[#list + 1] = 0
  return list
end

local function in_blocks(list)
  local n = math.ceil(#list / 255) * 256
  local x, at = ffi.new("float[?]", n), 0
  for i, y in ipairs(list) do
    if (i - 1) % 255 == 0 then
      x[at] = 1
      at = at + 1
    end
    x[at] = y
    at = at + 1
  end
  for i = at, n - 1 do x[i] = i % 256 == 0 and 1 or 0 end
  return x, n
end

local function check_nearest(x, n, is_signed)
  local values = map(is_signed)
  local expected = {}
  for i = 0, n - 1 do expected[i] = nearest(tonumber(x[i]), values) end
  local function compare(who, codes)
    for i = 0, n - 1 do
      if codes[i] ~= expected[i] then
        error(("%s: %.9g got code %d, the nearest is %d"):format(who, x[i], codes[i], expected[i]))
      end
    end
  end
  compare("reference", (quantize(x, n, 256, is_signed, true)))
  each_isa(function(isa) compare(isa, (quantize(x, n, 256, is_signed))) end)
end

describe("the dynamic map", function()
  for name, is_signed in pairs {signed = SIGNED, unsigned = UNSIGNED} do
    it("has the values of its definition, " .. name, function()
      local values, expected = map(is_signed), defined(is_signed)
      assert.equal(256, #expected)
      for code = 0, 255 do
        local e = expected[code + 1]
        assert.is_true(math.abs(values[code] - e) <= math.abs(e) * 2 ^ -24 * 1.0001,
          ("code %d: %.9g, expected %.9g"):format(code, values[code], e))
      end
    end)
  end

  it("has its zeros and ends where they belong", function()
    local signed, unsigned = map(SIGNED), map(UNSIGNED)
    assert.equal(0, signed[127])
    assert.equal(1, signed[255])
    assert.is_true(math.abs(signed[0] + 0.9929687) < 1e-7)
    assert.equal(0, unsigned[0])
    assert.is_true(math.abs(unsigned[1] - 3.25e-7) < 1e-13)
    assert.equal(1, unsigned[255])
  end)
end)

describe("the quantizer", function()
  for name, is_signed in pairs {signed = SIGNED, unsigned = UNSIGNED} do
    it("finds the nearest entry beside every decision, " .. name, function()
      local x, n = in_blocks(hard_cases(is_signed))
      check_nearest(x, n, is_signed)
    end)

    it("finds the nearest entry of random numbers over all magnitudes, " .. name, function()
      local draw, list = gradients.draws(5), {}
      for i = 1, 5100 do
        local y = 10 ^ (-9 * (draw() + 0.5))
        list[i] = is_signed == SIGNED and draw() < 0 and -y or y
      end
      local x, n = in_blocks(list)
      check_nearest(x, n, is_signed)
    end)

    it("gives the same million codes by scalars and by vectors, " .. name, function()
      local n, draw = 1000000, gradients.draws(7)
      local x = ffi.new("float[?]", n)
      for i = 0, n - 1 do
        local y = draw()
        x[i] = (is_signed == SIGNED and y or math.abs(y)) * 10 ^ (7 * draw())
      end
      for _, block in ipairs {256, 2048} do
        local codes, absmax = quantize(x, n, block, is_signed, true)
        each_isa(function(isa)
          local fast, fast_absmax = quantize(x, n, block, is_signed)
          assert.equal(ffi.string(codes, n), ffi.string(fast, n), isa)
          local blocks = math.ceil(n / block) * 4
          assert.equal(ffi.string(absmax, blocks), ffi.string(fast_absmax, blocks), isa)
        end)
      end
    end)
  end

  it("keeps codes when what they stand for is quantized again", function()
    for _, is_signed in ipairs {SIGNED, UNSIGNED} do
      local codes, absmax = ffi.new "uint8_t[256]", ffi.new("float[1]", 0.0123)
      for i = 0, 255 do codes[i] = i end
      local x = ffi.new "float[256]"
      check(C.oct_dequantize(x, codes, absmax, 256, 256, is_signed, 0))
      each_isa(function(isa)
        local again = quantize(x, 256, 256, is_signed)
        assert.equal(ffi.string(codes, 256), ffi.string(again, 256), isa)
      end)
    end
  end)

  it("keeps zero zero, and a block of zeros, or of nearly none, zeros", function()
    for _, is_signed in ipairs {SIGNED, UNSIGNED} do
      local zero = is_signed == SIGNED and 127 or 0
      local x = ffi.new "float[96]"
      x[0], x[32], x[40] = 3, 1e-39, 0
      each_isa(function()
        local codes, absmax = quantize(x, 96, 32, is_signed)
        assert.equal(3, absmax[0])
        assert.equal(0, absmax[1])
        assert.equal(0, absmax[2])
        for i = 1, 95 do assert.equal(zero, codes[i]) end
        assert.equal(255, codes[0])
      end)
    end
  end)

  it("cuts sizes that are no multiple of the block", function()
    for _, n in ipairs {1, 2, 31, 33, 63, 65, 257} do
      local x = ffi.new("float[?]", n)
      for i = 0, n - 1 do x[i] = math.sin(i + 1) end
      local codes, absmax = quantize(x, n, 64, SIGNED, true)
      each_isa(function(isa)
        local fast, fast_absmax = quantize(x, n, 64, SIGNED)
        assert.equal(ffi.string(codes, n), ffi.string(fast, n), isa)
        assert.equal(absmax[0], fast_absmax[0])
        local back, twin = ffi.new("float[?]", n), ffi.new("float[?]", n)
        check(C.oct_dequantize(back, fast, fast_absmax, n, 64, SIGNED, 0))
        check(C.oct_dequantize(twin, codes, absmax, n, 64, SIGNED, 1))
        assert.equal(ffi.string(twin, 4 * n), ffi.string(back, 4 * n))
      end)
    end
  end)

  it("refuses what has no code", function()
    local function refused(value, is_signed, block)
      local ok, message = pcall(quantize, ffi.new("float[1]", value), 1, block or 32, is_signed)
      assert.is_false(ok)
      return message
    end
    assert.matches("element 0 is not a number below 2%^126", refused(0 / 0, SIGNED))
    assert.matches("element 0 is not a number below 2%^126", refused(math.huge, SIGNED))
    assert.matches("not below 0", refused(-1, UNSIGNED))
    assert.matches("a block of 48, expected a power of two from 32 to 4096", refused(1, SIGNED, 48))
  end)
end)
