--- How the specs of the ops hold an op against its formula: forwards against the formula in double
-- precision, backwards against the formula's central differences, on every instruction set that
-- this processor has, with one thread against two, bit for bit.
local ffi = require "ffi"
local assert = require "luassert"
local octet = require "octet"

local tensor = octet.tensor
local M = {}

--- The instruction sets to try, and whether AVX-512 is among them.
M.isas = {"avx2"}
M.has_avx512 = pcall(octet.set_isa, "avx512")
if M.has_avx512 then M.isas[2] = "avx512" end
octet.set_isa "auto"

local threads_before = octet.threads()

--- Run f(isa, threads) under each instruction set with one thread and with two.
function M.everywhere(f)
  local ok, message = pcall(function()
    for _, isa in ipairs(M.isas) do
      for threads = 1, 2 do
        octet.set_isa(isa)
        octet.set_threads(threads)
        f(isa, threads)
      end
    end
  end)
  octet.set_isa "auto"
  octet.set_threads(threads_before)
  if not ok then error(message, 0) end
end

--- n numbers in [low, high) that depend on `seed` alone.
function M.values(n, low, high, seed)
  local state, values = (seed or 1) * 7919 % 2147483647, {}
  for i = 1, n do
    state = state * 48271 % 2147483647
    values[i] = low + (high - low) * state / 2147483647
  end
  return values
end

--- The exact values that an f32 tensor holds of a table.
local function rounded(values)
  local float, t = ffi.new "float[1]", {}
  for i = 1, #values do
    float[0] = values[i]
    t[i] = float[0]
  end
  return t
end

--- Largest |a - b| / (1 + |b|) and where; a NaN or an infinity must meet its like.
function M.distance(a, b)
  local most, place = 0, 0
  for i = 1, #b do
    local d = math.abs(a[i] - b[i]) / (1 + math.abs(b[i]))
    if a[i] == b[i] or (a[i] ~= a[i] and b[i] ~= b[i]) then d = 0 end
    if d ~= d then d = math.huge end
    if d > most then most, place = d, i end
  end
  return most, place
end

function M.near(actual, expected, tolerance, what)
  assert.equal(#expected, #actual, what)
  local most, place = M.distance(actual, expected)
  if most > tolerance then
    error(("%s: element %d is %.9g, expected %.9g (off by %.2g, tolerance %.2g)")
      :format(what, place, actual[place], expected[place], most, tolerance), 0)
  end
end

--- The places of a shape in the order of memory.
-- @tparam {number,...} shape
-- @treturn function iterator over number, index: 1, 2, ..., and the 0-based index along each
-- dimension, the same table each time
function M.places(shape)
  local n, index, i = 1, {}, 0
  for d = 1, #shape do n, index[d] = n * shape[d], 0 end
  return function()
    i = i + 1
    if i > n then return nil end
    if i > 1 then
      for d = #shape, 1, -1 do
        index[d] = index[d] + 1
        if index[d] < shape[d] then break end
        index[d] = 0
      end
    end
    return i, index
  end
end

local function bytes(t)
  return ffi.string(t:data(), t:size() * 4)
end

local function weighted(values, weights)
  local sum = 0
  for i = 1, #weights do sum = sum + values[i] * weights[i] end
  return sum
end

--- Places to probe: all of few, else some that are spread out, the ends among them.
local function probes(n, count)
  local places = {}
  if n <= count then
    for i = 1, n do places[i] = i end
    return places
  end
  for i = 1, count do places[i] = 1 + math.floor((i - 1) * (n - 1) / (count - 1)) end
  return places
end

--- d(sum of formula * weights) / d(inputs[which][place])
local function difference(formula, inputs, which, place, weights)
  local values = inputs[which]
  local x, h = values[place], 1e-4 * (1 + math.abs(values[place]))
  values[place] = x + h
  local above = weighted(formula(unpack(inputs)), weights)
  values[place] = x - h
  local below = weighted(formula(unpack(inputs)), weights)
  values[place] = x
  return (above - below) / (2 * h)
end

--- Hold an op against its formula.
-- @tparam table o `inputs`: list of {values, shape}; `op`: tensors to tensor; `formula`: flat
-- tables to flat table; `forward` and `backward`: tolerances, relative to 1 + |value| and to the
-- largest of the gradient; `probes`: elements of each input whose gradient is checked
function M.op(o)
  local inputs, differences = {}, {}
  for i, input in ipairs(o.inputs) do inputs[i] = rounded(input[1]) end
  local expected = o.formula(unpack(inputs))
  local weights = rounded(M.values(#expected, -1, 1, 77))
  local places = {}
  for i = 1, #inputs do
    places[i], differences[i] = probes(#inputs[i], o.probes or 60), {}
    for k, place in ipairs(places[i]) do
      differences[i][k] = difference(o.formula, inputs, i, place, weights)
    end
  end
  local first                      -- bytes of what one thread gave
  M.everywhere(function(isa, threads)
    octet.scope(function()
      local xs = {}
      for i, input in ipairs(o.inputs) do
        xs[i] = tensor.from(inputs[i], input[2]):parameter_()
      end
      local function loss_of(y)
        return (y * tensor.from(weights, y:shape())):sum()
      end
      local y = o.op(unpack(xs))
      M.near(y:totable(), expected, o.forward or 1e-6, isa .. " forward")
      local found = {bytes(y)}
      loss_of(y):backward()
      for i, x in ipairs(xs) do
        local gradient = x:grad()
        found[#found + 1] = bytes(gradient)
        gradient = gradient:totable()
        local scale = 1
        for _, d in ipairs(differences[i]) do scale = math.max(scale, math.abs(d)) end
        for k, place in ipairs(places[i]) do
          local off = math.abs(gradient[place] - differences[i][k]) / scale
          if off > (o.backward or 1e-5) or off ~= off then
            error(("%s backward: input %d, element %d is %.9g, expected %.9g"):format(isa, i, place,
              gradient[place], differences[i][k]), 0)
          end
        end
      end
      if threads == 1 then
        first = found
      else
        for i = 1, #found do
          assert.is_true(first[i] == found[i],
            isa .. ": two threads differ from one in result " .. i)
        end
      end
      -- Once more: gradients add up.
      local before = {}
      for i, x in ipairs(xs) do before[i] = x:grad():totable() end
      loss_of(o.op(unpack(xs))):backward()
      for i, x in ipairs(xs) do
        for k, v in ipairs(before[i]) do before[i][k] = 2 * v end
        M.near(x:grad():totable(), before[i], 1e-5, isa .. " second gradient")
      end
    end)
  end)
end

return M
