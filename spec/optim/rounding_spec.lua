-- Rounding by chance is right in the mean: a million draws, within four standard errors.
local ffi = require "ffi"
local format = require "octet.optim.format"
local gradients = require "spec.optim.gradients"
local machine = require "octet.machine"
local optim = require "octet.optim"
local tensor = require "octet.tensor"

local SIZE, BLOCK = 1024 * 1024, 256

local function count_bytes(counts, bytes, n)
  for i = 0, n - 1 do counts[bytes[i]] = counts[bytes[i]] + 1 end
end

-- How often each code occurs among those of all elements; by code, from 0.
local function code_counts(codes, bits)
  local bytes = ffi.new "double[256]"
  count_bytes(bytes, codes:data(), codes:size())
  if bits == 8 then return bytes end
  local counts = ffi.new "double[16]"
  for byte = 0, 255 do
    local low = byte % 16
    counts[low] = counts[low] + bytes[byte]
    counts[(byte - low) / 16] = counts[(byte - low) / 16] + bytes[byte]
  end
  return counts
end

describe("rounding by chance", function()
  local parameter, grad

  setup(function()
    machine.seed(4)
    parameter = tensor.zeros({SIZE}):parameter_()
    gradients.set(parameter, tensor.zeros {SIZE})
    grad = parameter:grad():keep()
  end)
  teardown(function() parameter, grad = nil, nil end)

  -- Codes after one step from state of zeros, when the state is the gradient, rounded once. The
  -- first element of a block is 1, so that it is the scale.
  local function codes_of(rule, bits, options, state, x)
    grad:fill_(x)
    for i = 0, SIZE - 1, BLOCK do grad:data()[i] = 1 end
    options.block_size = BLOCK
    local opt = optim[rule .. bits]({parameter}, options)
    opt:step()
    local codes = opt:state().tensors["1." .. state]
    local values = format.map_of(opt.parameters[1].format, bits,
      state == "v" and "unsigned" or "signed"):values()
    return codes, values, opt
  end

  -- The mean of what x became, but for the blocks' first elements, which are 1: how many standard
  -- errors it is away from x.
  local function deviation(rule, bits, options, state, x)
    local codes, values, opt = codes_of(rule, bits, options, state, x)
    local counts, exact = code_counts(codes, bits), tonumber(ffi.new("float", x))
    opt:release()
    counts[#values - 1] = counts[#values - 1] - SIZE / BLOCK
    local sum, squares, n, kinds = 0, 0, SIZE - SIZE / BLOCK, 0
    for code = 0, #values - 1 do
      local d = values[code + 1] - exact
      sum, squares = sum + counts[code] * d, squares + counts[code] * d * d
      if counts[code] > 0 then kinds = kinds + 1 end
    end
    assert.equal(2, kinds, ("%g lies between two values"):format(x))
    return sum / n / math.sqrt(squares / n / n)
  end

  -- Maps of lines and those that are searched: values near 1, at the end of a decade, near 0.
  for _, case in ipairs {
    {8, "dynamic", {0.5012, 0.0995, 0.97, 3.1e-5, 9e-7}}, {8, "linear", {0.5012, 0.0123}},
    {8, "quantile", {0.5012, 0.02}}, {8, "fp8_e4m3", {0.5012, 3.1e-3}},
    {4, "geometric", {0.5012, 0.12}}, {4, "dynamic", {0.5012, 0.0057}},
  } do
    local bits, name = case[1], case[2]
    it(("is unbiased: v and m, %d bits, %s"):format(bits, name), function()
      for k, x in ipairs(case[3]) do
        local off = deviation("adam", bits, {betas = {0, 0}, map = name}, "v", x)
        assert.is_true(math.abs(off) < 4, ("v of %g: %g standard errors"):format(x, off))
        x = k % 2 == 0 and x or -x
        off = deviation("sgd", bits, {map = name}, "m", x)
        assert.is_true(math.abs(off) < 4, ("m of %g: %g standard errors"):format(x, off))
      end
    end)
  end

  it("draws anew for each step, element and parameter, from the seed alone", function()
    local function drawn(seed)
      if seed then machine.seed(seed) end
      local codes, values, opt = codes_of("adam", 8, {betas = {0, 0}}, "v", 0.5012)
      local text = ffi.string(codes:data(), SIZE)
      opt:release()
      return text, values
    end
    local one, values = drawn(8)
    local two = drawn()
    assert.is_true(one == drawn(8))
    local k = 1
    while values[k + 1] <= 0.5012 do k = k + 1 end
    local share = (0.5012 - values[k]) / (values[k + 1] - values[k])
    local expected = share * share + (1 - share) * (1 - share)
    local function alike(a, b, shift)
      local x, y = ffi.cast("const uint8_t *", a), ffi.cast("const uint8_t *", b)
      local count = 0
      for i = 0, SIZE - 1 - shift do
        if x[i] == y[i + shift] then count = count + 1 end
      end
      return count / (SIZE - shift)
    end
    -- Steps; elements that share a random word, a block, or a vector.
    for _, seen in ipairs {alike(one, two, 0), alike(one, one, 1), alike(one, one, 16),
      alike(one, one, 32), alike(one, one, 64), alike(one, one, 256)} do
      assert.is_true(math.abs(seen - expected) < 0.01, ("%g, expected %g"):format(seen, expected))
    end
  end)

  it("draws for one parameter what it does not draw for another", function()
    local a, b = tensor.zeros({4096}):parameter_(), tensor.zeros({4096}):parameter_()
    for _, w in ipairs {a, b} do
      local list = {}
      for i = 1, 4096 do list[i] = i % BLOCK == 1 and 1 or 0.5012 end
      gradients.set(w, list)
    end
    for _, bits in ipairs {8, 4} do
      local opt = optim["adam" .. bits]({a, b}, {betas = {0, 0}, block_size = BLOCK})
      opt:step()
      local state = opt:state().tensors
      assert.is_true(gradients.bytes(state["1.v"]) ~= gradients.bytes(state["2.v"]))
    end
  end)
end)
