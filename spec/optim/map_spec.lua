-- The quantization maps, and the quantizer: always the nearest entry, on every instruction set.
local ffi = require "ffi"
local binding = require "octet.binding"
local definitions = require "spec.optim.map_definitions"
local gradients = require "spec.optim.gradients"
local machine = require "octet.machine"
local map = require "octet.optim.map"
local tensor = require "octet.tensor"

local C, check = binding.C, binding.check

local function float_of(x) return tonumber(ffi.new("float", x)) end

local function each_isa(f)
  local before = machine.isa()
  for _, isa in ipairs {"avx2", "avx512"} do
    if pcall(machine.set_isa, isa) then f(isa) end
  end
  machine.set_isa(before)
end

local function buffer_size(n, own) return own:bits() == 4 and math.ceil(n / 2) or n end

local function quantize(own, x, n, block, reference)
  local codes = ffi.new("uint8_t[?]", buffer_size(n, own))
  local absmax = ffi.new("float[?]", math.ceil(n / block))
  check(C.oct_quantize(codes, absmax, x, n, block, own.handle, reference and 1 or 0), 2)
  return codes, absmax
end

local function code_at(own, codes, i)
  if own:bits() == 8 then return codes[i] end
  return math.floor(codes[math.floor(i / 2)] / 16 ^ (i % 2)) % 16
end

local function same_bytes(a, b, bytes, what)
  assert.is_true(ffi.string(a, bytes) == ffi.string(b, bytes), what .. " differs")
end

-- Values that any map of the user's could have: evenly standing runs, whose codes lines give, or
-- none, whose codes are searched for.
local function runs(levels, sign)
  local n, side = sign == "signed" and levels / 2 or levels - 1, {}
  for k = 1, n do side[k] = k <= n / 2 and k / n / 4 or 0.125 + (k - n / 2) / (n / 2) * 0.875 end
  return definitions.both_sides(side, sign)
end

local function cubes(levels, sign)
  local n, side = sign == "signed" and levels / 2 or levels - 1, {}
  for k = 1, n do side[k] = (k / n) ^ 3 end
  return definitions.both_sides(side, sign)
end

-- With entries that stand several times, none that is 0, and no end at -1 or 1.
local function uneven(levels, sign)
  local values = {}
  for k = 1, levels do
    local x = (k - 0.7) / levels
    if sign == "signed" then x = 2 * x - 1 end
    values[k] = math.floor(k / 3) == k / 3 and values[k - 1] or 0.9 * x * math.abs(x)
  end
  return values
end

local MAPS = {}
for _, bits in ipairs {8, 4} do
  for _, sign in ipairs {"signed", "unsigned"} do
    for _, name in ipairs(map.NAMES) do
      if definitions[name](bits == 8 and 256 or 16, sign) then
        MAPS[#MAPS + 1] = {("%s, %d bits, %s"):format(name, bits, sign),
          map.named(name, bits, sign), definitions[name](bits == 8 and 256 or 16, sign),
          sign = sign}
      end
    end
    for _, own in ipairs {{"the user's runs", runs}, {"the user's cubes", cubes},
      {"the user's, uneven", uneven}} do
      local name, values = own[1], own[2](bits == 8 and 256 or 16, sign)
      MAPS[#MAPS + 1] = {("%s, %d bits, %s"):format(name, bits, sign), map.new(values, sign),
        values, sign = sign}
    end
  end
end

-- ---- the nearest entry, in doubles -------------------------------------------------------------

-- Entry number of the one nearest to x, from 1; of two equally near ones the larger magnitude. Of
-- equal entries, any. The middle of two f32 neighbours is exact in double precision.
local function nearest(values, x)
  local low, high = 1, #values
  while low < high do
    local at = math.floor((low + high) / 2)
    local middle = (values[at] + values[at + 1]) / 2
    if x > middle or (x == middle and middle >= 0) then low = at + 1 else high = at end
  end
  return low
end

local function check_nearest(case, x, n)
  local own, values = case[2], case[2]:values()
  local codes = quantize(own, x, n, 256, true)
  local is_byte = own:bits() == 8
  for i = 0, n - 1 do
    local code = is_byte and codes[i] or code_at(own, codes, i)
    local expected = nearest(values, x[i])
    if values[code + 1] ~= values[expected] then
      error(("%.9g got code %d, %.9g; the nearest is %d, %.9g"):format(x[i], code,
        values[code + 1], expected - 1, values[expected]))
    end
  end
  each_isa(function(isa)
    same_bytes(codes, (quantize(own, x, n, 256)), buffer_size(n, own), isa)
  end)
end

-- Numbers into blocks of 256 that begin with 1, so that they are not scaled.
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

-- The entries, the middles between neighbours, and the floats beside these.
local function hard_cases(values, sign)
  local list, bits = {0}, ffi.new "union { float f; int32_t i; }"
  local function around(x)
    if x == 0 then return end
    bits.f = x
    local center = bits.i
    for d = -3, 3 do
      bits.i = center + d
      local y = tonumber(bits.f)
      if math.abs(y) <= 1 and (y >= 0 or sign == "signed") then list[#list + 1] = y end
    end
  end
  for code = 1, #values do
    around(values[code])
    if values[code + 1] then around((values[code] + values[code + 1]) / 2) end
  end
  return list
end

-- n random numbers of all magnitudes; each 256th is 1.
local function random_numbers(n, sign, seed)
  local draw, x = gradients.draws(seed), ffi.new("float[?]", n)
  for i = 0, n - 1 do
    local y, spread = draw(), draw()
    y = 2 * y * (spread < 0 and 1 or 10 ^ (-18 * spread))
    x[i] = i % 256 == 0 and 1 or sign == "signed" and y or math.abs(y)
  end
  return x
end

-- ---- maps --------------------------------------------------------------------------------------

describe("a quantization map", function()
  for _, case in ipairs(MAPS) do
    it("has the values of its definition: " .. case[1], function()
      local values, expected = case[2]:values(), case[3]
      assert.equal(#expected, #values)
      for code, e in ipairs(expected) do
        assert.is_true(math.abs(values[code] - e) <= math.abs(e) * 2 ^ -24 * 1.0001,
          ("code %d: %.9g, expected %.9g"):format(code - 1, values[code], e))
        assert.is_true(code == 1 or values[code] >= values[code - 1])
      end
    end)
  end

  it("has the zeros and ends that make it what it is", function()
    local function of(name, bits, sign)
      local own = map.named(name, bits, sign)
      return own:values(), own:zero()
    end
    local signed, zero = of("dynamic", 8, "signed")
    assert.equal(127, zero)
    assert.equal(0, signed[128])
    assert.equal(1, signed[256])
    assert.equal(float_of(-0.99296875), signed[1])
    local unsigned, at = of("dynamic", 8, "unsigned")
    assert.equal(0, at)
    assert.equal(float_of(3.25e-7), unsigned[2])
    assert.equal(1, unsigned[256])
    -- The largest code of the broken map, as published.
    assert.is_true(math.abs(of("bnb-0.36", 8, "unsigned")[256] - 0.0933) < 5e-5)
    assert.same(signed, (of("bnb-0.36", 8, "signed")))
    -- 448 over the smallest step, 2^-9; 57344 over 2^-16.
    assert.equal(float_of(2 ^ -9 / 448), of("fp8_e4m3", 8, "unsigned")[2])
    assert.equal(float_of(2 ^ -16 / 57344), of("fp8_e5m2", 8, "unsigned")[2])
    local four, middle = of("linear", 4, "signed")
    assert.equal(7, middle)
    assert.equal(-0.875, four[1])
  end)

  it("of 16 levels exists of four of them, and what does not exist is refused by name", function()
    for _, name in ipairs {"fp8_e4m3", "fp8_e5m2", "bnb-0.36"} do
      local ok, message = pcall(map.named, name, 4, "signed")
      assert.is_false(ok)
      assert.matches(('"%s" has no form of 16 levels'):format(name:gsub("%-", "%%-")), message)
    end
    assert.error_matches(function() map.named("dinamic", 8, "signed") end,
      'unknown map "dinamic"; it is one of dynamic, linear')
    assert.error_matches(function() map.named("dynamic", 8, "both") end,
      'sign is both, expected "signed" or "unsigned"')
  end)

  it("of the user's is refused where its values do not ascend from -1, or 0, to 1", function()
    local function refused(change, sign, levels)
      local values = definitions.linear(levels or 256, sign)
      change(values)
      local ok, message = pcall(map.new, values, sign)
      assert.is_false(ok)
      return message
    end
    assert.matches("value 7 is out of order or out of range: they ascend from %-1 to 1",
      refused(function(v) v[7] = v[6] - 0.01 end, "signed"))
    assert.matches("value 1 is out of order or out of range: they ascend from 0 to 1",
      refused(function(v) v[1] = -0.5 end, "unsigned"))
    assert.matches("value 16 is out of order",
      refused(function(v) v[16] = 1.5 end, "signed", 16))
    assert.matches("value 3 is out of order", refused(function(v) v[3] = 0 / 0 end, "signed"))
    assert.matches("255 values, expected a list of 256 or 16",
      refused(function(v) v[256] = nil end, "signed"))
    assert.matches("value 2 is a string, expected a number",
      refused(function(v) v[2] = "x" end, "signed"))
    assert.error_matches(function() map.new("dynamic", "signed") end, "a string, expected a list")
  end)

  it("of a tensor's quantiles stands for equally many of its values each", function()
    machine.seed(5)
    for _, sign in ipairs {"signed", "unsigned"} do
      local t = tensor.new({20000}):normal_(0, 3)
      local own = map.quantiles_of(t, sign)
      local list, most, counts = t:totable(), 0, {}
      for _, x in ipairs(list) do most = math.max(most, math.abs(x)) end
      local values = own:values()
      for _, x in ipairs(list) do
        local code = nearest(values, (sign == "signed" and x or math.abs(x)) / most)
        counts[code] = (counts[code] or 0) + 1
      end
      table.sort(counts)
      local near = 0
      for code = 1, 256 do
        if math.abs((counts[code] or 0) - 20000 / 256) < 20000 / 256 * 0.6 then near = near + 1 end
      end
      assert.is_true(near > 245, near .. " of 256 codes")
      assert.equal(1, values[256])
    end
  end)
end)

-- ---- the quantizer -----------------------------------------------------------------------------

describe("the quantizer", function()
  for i, case in ipairs(MAPS) do
    it("finds the nearest entry beside every decision: " .. case[1], function()
      local x, n = in_blocks(hard_cases(case[2]:values(), case.sign))
      check_nearest(case, x, n)
    end)

    local million = i <= 2 or case[1]:find "^dynamic, 8"
    it(("finds the nearest entry of %s random numbers: %s"):format(
      million and "a million" or "50,000", case[1]), function()
      local n = million and 1000000 or 50000
      check_nearest(case, random_numbers(n, case.sign, i), n)
    end)

    it("keeps codes when what they stand for is quantized again: " .. case[1], function()
      -- Two values stand for one code where entries are equal, and 1 must be there to be the scale.
      local own, values = case[2], case[2]:values()
      if values[#values] ~= 1 then return end
      local n, x = #values, ffi.new("float[256]")
      for k = 0, n - 1 do x[k] = values[k + 1] * float_of(0.0123) end
      local absmax
      each_isa(function(isa)
        local codes
        codes, absmax = quantize(own, x, n, 256)
        local back = ffi.new("float[?]", n)
        check(C.oct_dequantize(back, codes, absmax, n, 256, own.handle, 0))
        same_bytes(x, back, 4 * n, isa)
      end)
      assert.equal(float_of(0.0123), absmax[0])
    end)

    it("scales and cuts alike at any size and block: " .. case[1], function()
      local own, seed = case[2], gradients.draws(i)
      for _, n in ipairs {1, 2, 31, 33, 63, 64, 65, 257, 4097} do
        for _, block in ipairs {32, 64, 4096} do
          local x = ffi.new("float[?]", n)
          for k = 0, n - 1 do
            x[k] = (case.sign == "signed" and seed() or math.abs(seed())) * 10 ^ (20 * seed())
          end
          local blocks = math.ceil(n / block)
          local codes, absmax = quantize(own, x, n, block, true)
          local twin = ffi.new("float[?]", n)
          check(C.oct_dequantize(twin, codes, absmax, n, block, own.handle, 1))
          each_isa(function(isa)
            local fast, fast_absmax = quantize(own, x, n, block)
            same_bytes(codes, fast, math.floor(buffer_size(n, own) - n % 2), isa)
            assert.equal(code_at(own, codes, n - 1), code_at(own, fast, n - 1))
            same_bytes(absmax, fast_absmax, 4 * blocks, isa)
            local back = ffi.new("float[?]", n)
            check(C.oct_dequantize(back, fast, fast_absmax, n, block, own.handle, 0))
            same_bytes(twin, back, 4 * n, isa)
          end)
        end
      end
    end)

    it("keeps a block of zeros, or of what has no reciprocal, as code " .. case[2]:zero() .. ": "
      .. case[1], function()
      local own, x = case[2], ffi.new "float[96]"
      x[0] = 3
      -- Numbers below 2^-126, which Lua itself may round to 0.
      local bits = ffi.cast("uint32_t *", x)
      bits[32], bits[40] = 0x7FFFFF, 1
      if case.sign == "signed" then bits[33] = 0x807FFFFF end
      each_isa(function()
        local codes, absmax = quantize(own, x, 96, 32)
        assert.same({3, 0, 0}, {absmax[0], absmax[1], absmax[2]})
        local zero = own:zero()
        -- Zero may lie midway between two entries, of a map that has none.
        for k = 1, 95 do
          assert.equal(math.abs(own:values()[zero + 1]),
            math.abs(own:values()[code_at(own, codes, k) + 1]))
        end
        assert.equal(own:values()[#own:values()], own:values()[code_at(own, codes, 0) + 1])
        local back = ffi.new "float[96]"
        check(C.oct_dequantize(back, codes, absmax, 96, 32, own.handle, 0))
        for k = 32, 95 do assert.equal(0, back[k]) end
      end)
    end)
  end

  it("is scaled by the smallest and the largest magnitude that has a reciprocal", function()
    local own = map.named("dynamic", 8, "signed")
    for _, most in ipairs {2 ^ -126, 2 ^ 126 * (1 - 2 ^ -24)} do
      local x = ffi.new("float[2]", most, -most)
      each_isa(function()
        local codes, absmax = quantize(own, x, 2, 32)
        assert.equal(most, absmax[0])
        assert.same({255, 0}, {codes[0], codes[1]})
      end)
    end
  end)

  it("takes tensors, and gives them back in their shape", function()
    local t = tensor.from({0, 1, -0.5, 0.25, -1, 0.125}, {2, 3})
    for _, bits in ipairs {8, 4} do
      local own = map.named("linear", bits, "signed")
      local codes, absmax = own:quantize(t, 32)
      assert.same(bits == 8 and {2, 3} or {3}, codes:shape())
      assert.same({1}, absmax:totable())
      local back = own:dequantize(codes, absmax, {2, 3}, 32):totable()
      -- -1 has no entry: the negative side ends one step before.
      local least = bits == 8 and -127 / 128 or -7 / 8
      assert.same({0, 1, -0.5, 0.25, least, 0.125}, back)
    end
  end)

  it("refuses what has no code", function()
    local function refused(value, sign, block)
      local ok, message = pcall(quantize, map.named("dynamic", 8, sign), ffi.new("float[1]", value),
        1, block or 32)
      assert.is_false(ok)
      return message
    end
    assert.matches("element 0 is not a number below 2%^126", refused(0 / 0, "signed"))
    assert.matches("element 0 is not a number below 2%^126", refused(math.huge, "signed"))
    assert.matches("element 0 is not a number below 2%^126", refused(-2 ^ 126, "signed"))
    assert.matches("not below 0", refused(-1, "unsigned"))
    assert.matches("a block of 48, expected a power of two from 32 on", refused(1, "signed", 48))
    assert.matches("a block of 16, expected a power of two from 32 on", refused(1, "signed", 16))
  end)
end)
