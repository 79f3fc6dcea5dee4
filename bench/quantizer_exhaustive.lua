--- The quantizer against the definition of the nearest entry, for every float32 from -1 to 1.
--
--     luajit bench/quantizer_exhaustive.lua [--maps dynamic,linear] [--isa avx2,avx512]
--
-- Of each map, signed and unsigned, and each instruction set, all floats are quantized: for a
-- signed map 2,130,706,434, both zeros and all denormals among them, for an unsigned one
-- 1,065,353,217. Expected is what follows from the map's values alone, in double: a code holds from
-- the first float that is nearer to its value than to the one below, and the float exactly midway
-- goes to the larger magnitude. Each code is compared; the first one that is wrong ends the run.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = ("%s/../lua/?.lua;%s/../lua/?/init.lua;"):format(here, here) .. package.path
local bit = require "bit"
local ffi = require "ffi"
local cli = require "octet.cli"

ffi.cdef "int memcmp(const void *a, const void *b, size_t n);"

-- A block begins with a 1, its largest magnitude, so that the others are quantized as they are.
local BLOCK, BLOCKS = 4096, 1024
local IN_BLOCK = BLOCK - 1
local CHUNK = IN_BLOCK * BLOCKS
local ONE = 0x3F800000                      -- the bits of 1.0

local float_cell, bits_cell = ffi.new "float[1]", ffi.new "uint32_t[1]"

local function float_of(bits)
  bits_cell[0] = bits
  ffi.copy(float_cell, bits_cell, 4)
  return float_cell[0]
end

-- Floats in ascending order have ascending places: their bits where they are not below 0, else the
-- negative of the magnitude's bits, less one: -0.0 is at -1.
local function float_at(place) return place >= 0 and float_of(place) or -float_of(-1 - place) end

-- The first place from `low` to `high` for which holds(x); it holds from there on.
local function first_place(low, high, holds)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if holds(float_at(middle)) then high = middle else low = middle + 1 end
  end
  return low
end

-- Where each code begins, from 0, and one place behind the last float.
local function beginnings(values, lowest)
  local begins = {[0] = lowest}
  for code = 1, #values - 1 do
    local below, above = values[code], values[code + 1]
    begins[code] = first_place(begins[code - 1], ONE + 1, function(x)
      local to_below, to_above = math.abs(x - below), math.abs(x - above)
      if to_above == to_below then return math.abs(above) > math.abs(below) end
      return to_above < to_below
    end)
  end
  begins[#values] = ONE + 1
  return begins
end

-- Bits of the floats from a place on, ascending, block by block; behind 1.0 the ones go on.
local function fill(bits, place)
  local sign = bit.tobit(0x80000000)
  for b = 0, BLOCKS - 1 do
    local at = b * BLOCK
    bits[at] = ONE
    for i = 1, IN_BLOCK do
      local p = place + b * IN_BLOCK + i - 1
      bits[at + i] = p < 0 and bit.bor(-1 - p, sign) or p > ONE and ONE or p
    end
  end
end

-- What the codes of that must be. `code`: that of the first; returns that of the last.
local function expect(expected, place, begins, code, last_code)
  local flat = ffi.new("uint8_t[?]", CHUNK)
  local at = 0
  while at < CHUNK do
    while code < last_code and begins[code + 1] <= place + at do code = code + 1 end
    local count = code < last_code and math.min(CHUNK - at, begins[code + 1] - place - at)
      or CHUNK - at
    ffi.fill(flat + at, count, code)
    at = at + count
  end
  for b = 0, BLOCKS - 1 do
    expected[b * BLOCK] = last_code
    ffi.copy(expected + b * BLOCK + 1, flat + b * IN_BLOCK, IN_BLOCK)
  end
  return code
end

local function run(o)
  local machine, map = require "octet.machine", require "octet.optim.map"
  local binding = require "octet.binding"
  local C, check = binding.C, binding.check
  machine.set_threads(o.threads)
  local bits = ffi.new("int32_t[?]", BLOCK * BLOCKS)
  local codes = ffi.new("uint8_t[?]", BLOCK * BLOCKS)
  local expected = ffi.new("uint8_t[?]", BLOCK * BLOCKS)
  local absmax = ffi.new("float[?]", BLOCKS)
  local values_in = ffi.cast("float *", bits)

  local isas = {}
  for isa in o.isa:gmatch "[^,]+" do
    if pcall(machine.set_isa, isa) then
      isas[#isas + 1] = isa
    else
      print(isa .. " is left out: this processor lacks it")
    end
  end

  local function compare(name, sign, isa, place)
    if ffi.C.memcmp(codes, expected, BLOCK * BLOCKS) == 0 then return end
    for i = 0, BLOCK * BLOCKS - 1 do
      if codes[i] ~= expected[i] then
        error(("%s %s, %s: %.9g has code %d, expected %d"):format(name, sign, isa, values_in[i],
          codes[i], expected[i]), 0)
      end
    end
    error(("%s %s, %s: codes from place %d on differ"):format(name, sign, isa, place), 0)
  end

  local function sweep(name, sign)
    local own = map.named(name, 8, sign)
    local values = own:values()
    local lowest = sign == "signed" and -1 - ONE or 0
    local begins, code = beginnings(values, lowest), 0
    local started, floats, transitions = machine.clock(), 0, 0
    for k = 1, #values - 1 do
      if begins[k] > begins[k - 1] then transitions = transitions + 1 end
    end
    for place = lowest, ONE, CHUNK do
      fill(bits, place)
      code = expect(expected, place, begins, code, #values - 1)
      for _, isa in ipairs(isas) do
        machine.set_isa(isa)
        check(C.oct_quantize(codes, absmax, values_in, BLOCK * BLOCKS, BLOCK, own.handle, 0))
        compare(name, sign, isa, place)
      end
      floats = floats + math.min(CHUNK, ONE + 1 - place)
    end
    print(("%s %s: %.0f floats, %d changes of code, each at its float, the same in %s (%.0f s)")
      :format(name, sign, floats, transitions, table.concat(isas, " and "),
        machine.clock() - started))
    io.flush()
  end

  for name in o.maps:gmatch "[^,]+" do
    for _, sign in ipairs {"signed", "unsigned"} do sweep(name, sign) end
  end
end

cli.main("quantizer_exhaustive", function()
  local options = cli.parse(arg, {
    name = "quantizer_exhaustive", command = "luajit bench/quantizer_exhaustive.lua",
    about = "The quantizer against the nearest entry, for every float32 from -1 to 1.",
    options = {
      cli.text("maps", {default = "dynamic", help = "names of maps, with commas between"}),
      cli.text("isa", {default = "avx2,avx512", help = "instruction sets"}),
      cli.common.threads{default = 2},
    },
  })
  jit.on()                                  -- the floats are made and compared in Lua
  run(options)
end)
