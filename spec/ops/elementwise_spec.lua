local octet = require "octet"
local check = require "spec.ops.check"

local tensor = octet.tensor

--- The error function: its series for small arguments, a continued fraction for large ones.
local function erf(x)
  if x < 0 then return -erf(-x) end
  if x < 3 then
    local term, sum = x, x
    for n = 1, 100 do
      term = -term * x * x / n
      sum = sum + term / (2 * n + 1)
    end
    return 2 / math.sqrt(math.pi) * sum
  end
  local f = 0
  for k = 60, 1, -1 do f = k / 2 / (x + f) end
  return 1 - math.exp(-x * x) / ((x + f) * math.sqrt(math.pi))
end

local FORMULAS = {
  neg = function(x) return -x end,
  exp = math.exp,
  log = math.log,
  sqrt = math.sqrt,
  abs = math.abs,
  square = function(x) return x * x end,
  reciprocal = function(x) return 1 / x end,
  tanh = math.tanh,
  sigmoid = function(x) return 1 / (1 + math.exp(-x)) end,
  relu = function(x) return math.max(x, 0) end,
  gelu = function(x) return x * (1 + erf(x / math.sqrt(2))) / 2 end,
  silu = function(x) return x / (1 + math.exp(-x)) end,
}
local POSITIVE = {log = true, sqrt = true, reciprocal = true}

local function map(f)
  return function(values)
    local t = {}
    for i = 1, #values do t[i] = f(values[i]) end
    return t
  end
end

describe("the instruction sets", function()
  it("tried here are AVX2 and AVX-512", function()
    if not check.has_avx512 then pending "this processor has no AVX-512" end
    assert.equal(2, #check.isas)
  end)
end)

for name, f in pairs(FORMULAS) do
  describe(name, function()
    it("is its formula, and its gradient the formula's", function()
      for _, n in ipairs {1, 7, 33, 1000} do
        local low = POSITIVE[name] and 0.1 or -3.01
        check.op{inputs = {{check.values(n, low, 3, n), {n}}},
          op = function(x) return x[name](x) end, formula = map(f)}
      end
    end)

    it("gives the same bits with two threads on many elements", function()
      local n = 20001
      check.op{inputs = {{check.values(n, 0.2, 4, 3), {n}}}, probes = 5, backward = 2e-5,
        op = function(x) return x[name](x) end, formula = map(f)}
    end)
  end)
end

describe("a power", function()
  for _, power in ipairs {0, 1, 2, 3, 7, -1, -2, 0.5, 1.5, -0.5, 20} do
    it(("of %g is its formula, and its gradient the formula's"):format(power), function()
      local above_0 = power < 0 or power ~= math.floor(power)
      check.op{inputs = {{check.values(33, above_0 and 0.3 or -1.1, 1.2, 33), {33}}},
        op = function(x) return x ^ power end, formula = map(function(x) return x ^ power end)}
    end)
  end
end)

describe("over its whole range", function()
  -- Values spread over the exponents of f32, both signs.
  local values = {0, -0.0}
  for exponent = -120, 126 do
    for k = 0, 15 do
      values[#values + 1] = (1 + k / 16) * 2 ^ exponent
      values[#values + 1] = -(1 + k / 16 + 1 / 37) * 2 ^ exponent
    end
  end
  for i = 1, 20000 do values[#values + 1] = -100 + i * 0.01 end

  local float = require("ffi").new "float[2]"
  local function as_float(x)
    float[0] = x
    return float[0]
  end
  for i = 1, #values do values[i] = as_float(values[i]) end

  --- Units in the last place between y and the exact value.
  local function ulps(y, exact)
    local nearest = as_float(exact)
    if y == nearest or (y ~= y and nearest ~= nearest) then return 0 end
    local _, exponent = math.frexp(math.abs(nearest))
    return math.abs(y - exact) / 2 ^ math.max(exponent - 24, -149)
  end

  for name, limit in pairs {exp = 1, log = 1, tanh = 1.5, sqrt = 0.51} do
    it(name .. " is within " .. limit .. " ulp", function()
      check.everywhere(function(isa)
        local x = tensor.from(values)
        local y = x[name](x):totable()
        for i, v in ipairs(values) do
          local exact = FORMULAS[name](v)
          -- Numbers below 2^-126 count as 0 (core/machine.c).
          if math.abs(exact) >= 2 ^ -126 or exact ~= exact or exact == 0 then
            local off = ulps(y[i], exact)
            if off > limit or off ~= off then
              error(("%s %s(%.9g) = %.9g, exactly %.9g: %.2f ulp"):format(isa, name, v, y[i], exact,
                off), 0)
            end
          end
        end
      end)
    end)
  end

  it("sigmoid, gelu and tanh are within 2e-7 of a range of 1", function()
    check.everywhere(function()
      local x = tensor.from(values)
      for _, name in ipairs {"sigmoid", "tanh", "gelu", "silu"} do
        local y = x[name](x):totable()
        for i, v in ipairs(values) do
          local scale = (name == "gelu" or name == "silu") and math.max(1, math.abs(v)) or 1
          local off = math.abs(y[i] - FORMULAS[name](v)) / scale
          if off > 2e-7 or off ~= off then
            error(("%s(%.9g) = %.9g, off by %.2g"):format(name, v, y[i], off), 0)
          end
        end
      end
    end)
  end)

  it("infinities and NaN come out as IEEE arithmetic has them", function()
    local inf, nan = math.huge, 0 / 0
    local cases = {
      {"exp", inf, inf}, {"exp", -inf, 0}, {"exp", nan, nan}, {"exp", 89, inf}, {"exp", -1e30, 0},
      {"log", 0, -inf}, {"log", -1, nan}, {"log", inf, inf}, {"log", nan, nan}, {"log", -inf, nan},
      {"tanh", inf, 1}, {"tanh", -inf, -1}, {"tanh", nan, nan},
      {"sigmoid", inf, 1}, {"sigmoid", -inf, 0}, {"sigmoid", nan, nan},
      {"relu", inf, inf}, {"relu", -inf, 0}, {"relu", nan, nan},
      {"gelu", inf, inf}, {"gelu", -1e30, 0}, {"gelu", 1e30, as_float(1e30)}, {"gelu", nan, nan},
      {"sqrt", -1, nan}, {"abs", -inf, inf}, {"reciprocal", 0, inf},
    }
    check.everywhere(function(isa)
      for _, case in ipairs(cases) do
        local name, x, expected = unpack(case)
        local y = tensor.full({3}, x)
        y = y[name](y):totable()[2]
        if y ~= expected and not (y ~= y and expected ~= expected) then
          error(("%s %s(%g) = %g, expected %g"):format(isa, name, x, y, expected), 0)
        end
      end
    end)
  end)
end)

describe("an op of two tensors", function()
  local OPS = {
    add = function(a, b) return a + b end, sub = function(a, b) return a - b end,
    mul = function(a, b) return a * b end, div = function(a, b) return a / b end,
    maximum = math.max, minimum = math.min,
  }

  --- The formula under broadcasting, place by place.
  local function broadcast(f, a_shape, b_shape, shape)
    local function place(index, own)
      local at, first = 0, #shape - #own
      for d = 1, #own do at = at * own[d] + (own[d] == 1 and 0 or index[first + d]) end
      return at + 1
    end
    return function(a, b)
      local y = {}
      for i, index in check.places(shape) do
        y[i] = f(a[place(index, a_shape)], b[place(index, b_shape)])
      end
      return y
    end
  end

  local function product(shape)
    local n = 1
    for _, size in ipairs(shape) do n = n * size end
    return n
  end

  for name, f in pairs(OPS) do
    it(name .. " follows broadcasting, forwards and backwards", function()
      for _, shapes in ipairs {
        {{1}, {1}, {1}}, {{33}, {33}, {33}}, {{5, 7}, {7}, {5, 7}}, {{5, 7}, {5, 1}, {5, 7}},
        {{5, 7}, {1}, {5, 7}}, {{7, 1}, {1, 19}, {7, 19}}, {{2, 1, 3, 1}, {3, 1, 2}, {2, 3, 3, 2}},
        {{3, 4, 5}, {4, 5}, {3, 4, 5}}, {{2, 3, 4, 5}, {2, 1, 4, 1}, {2, 3, 4, 5}},
      } do
        local a_shape, b_shape, shape = unpack(shapes)
        check.op{
          inputs = {{check.values(product(a_shape), -2, 2, 1), a_shape},
            {check.values(product(b_shape), 0.5, 2, 2), b_shape}},
          op = function(a, b) return a[name](a, b) end,
          formula = broadcast(f, a_shape, b_shape, shape)}
      end
    end)

    it(name .. " gives the same bits with two threads on many elements", function()
      local a_shape, b_shape = {300, 70}, {70}
      check.op{probes = 4, backward = 2e-5,
        inputs = {{check.values(21000, -2, 2, 1), a_shape}, {check.values(70, 0.5, 2, 2), b_shape}},
        op = function(a, b) return a[name](a, b) end,
        formula = broadcast(f, a_shape, b_shape, a_shape)}
    end)
  end

  it("works with a number in its place", function()
    check.op{inputs = {{check.values(37, 0.5, 2, 5), {37}}},
      op = function(x) return (3 - x) * 2.5 + 4 / x - x / 8 end,
      formula = map(function(x) return (3 - x) * 2.5 + 4 / x - x / 8 end)}
  end)

  it("works where both are one", function()
    check.op{inputs = {{check.values(9, 0.5, 2, 5), {9}}},
      op = function(x) return x * x + x / x - (x + x) end,
      formula = map(function(x) return x * x + 1 - 2 * x end)}
  end)

  it("maximum, as relu, gives 0 to what was not taken, of an infinite gradient too", function()
    check.everywhere(function()
      for _, cut in ipairs {function(x) return x:maximum(0) end, function(x) return x:relu() end} do
        local x = tensor.from({-1, 4}):parameter_()
        cut(x):sqrt():sum():backward()
        assert.same({0, 0.25}, x:grad():totable())
      end
    end)
  end)

  it("maximum and minimum pass NaN on, and halve the gradient between equals", function()
    check.everywhere(function()
      local nan = 0 / 0
      for _, name in ipairs {"maximum", "minimum"} do
        local a = tensor.from({nan, 1, 2, 2}):parameter_()
        local b = tensor.from({1, nan, 2, 3}):parameter_()
        local y = a[name](a, b)
        local values = y:totable()
        assert.is_true(values[1] ~= values[1] and values[2] ~= values[2])
        y:narrow(1, 3, 2):sum():backward()
        local first = name == "minimum" and 1 or 0
        assert.same({0, 0, 0.5, first}, a:grad():totable())
        assert.same({0, 0, 0.5, 1 - first}, b:grad():totable())
      end
    end)
  end)
end)

describe("a comparison", function()
  local inf, nan = math.huge, 0 / 0
  local VALUES = {-inf, -1, -0.0, 0, 2 ^ -149, 1, inf, nan}
  local TRUTHS = {
    lt = function(a, b) return a < b end, le = function(a, b) return a <= b end,
    gt = function(a, b) return a > b end, ge = function(a, b) return a >= b end,
    eq = function(a, b) return a == b end, ne = function(a, b) return a ~= b end,
  }

  for name, truth in pairs(TRUTHS) do
    it(name .. " gives 1 or 0 as IEEE arithmetic has it, of tensors and numbers", function()
      check.everywhere(function()
        local x = tensor.from(VALUES)
        local pairwise = x:reshape {8, 1}
        pairwise = pairwise[name](pairwise, x):totable()
        for i, a in ipairs(VALUES) do
          local with_number = tensor.full({1}, a)
          for j, b in ipairs(VALUES) do
            -- Numbers below 2^-126 count as 0 (core/machine.c).
            local p = a == 2 ^ -149 and 0 or a
            local q = b == 2 ^ -149 and 0 or b
            local expected = truth(p, q) and 1 or 0
            assert.equal(expected, pairwise[(i - 1) * 8 + j], ("%g %s %g"):format(a, name, b))
            assert.equal(expected, with_number[name](with_number, b):item())
          end
        end
      end)
    end)
  end

  it("of ids and labels sees every bit", function()
    local few = {-2 ^ 31, -1, 0, 16777216, 16777217, 2 ^ 31 - 1}
    local ids = tensor.from(few, {6}, "i32")
    for name, truth in pairs(TRUTHS) do
      local column = ids:reshape {6, 1}
      local pairwise = column[name](column, ids):totable()
      for i, a in ipairs(few) do
        local with_number = ids[name](ids, a):totable()
        for j, b in ipairs(few) do
          assert.equal(truth(a, b) and 1 or 0, pairwise[(i - 1) * 6 + j])
          assert.equal(truth(b, a) and 1 or 0, with_number[j])
        end
      end
    end
    local labels = tensor.from({0, 1, 1}, {3}, "i32")
    local logits = tensor.from {{2, 1}, {0, 3}, {5, 4}}
    assert.near(2 / 3, logits:argmax():eq(labels):mean():item(), 1e-6)
  end)

  it("passes no gradient, and is told of what does not fit", function()
    local x = tensor.from({1, 2}):parameter_()
    local y = x:gt(1)
    assert.is_false(y:requires_grad())
    assert.error_matches(function() return x:lt(tensor.ones {3}) end, "lt: .*%[2%] and %[3%]")
    assert.error_matches(function() return x:eq "1" end, "eq: .*expected a tensor or a number")
    local ids = tensor.zeros({2}, "i32")
    assert.error_matches(function() return x:gt(ids) end, "gt: the second tensor is i32")
    assert.error_matches(function() return ids:ge(x) end, "ge: the first tensor is i32")
    assert.error_matches(function() return ids:eq(0.5) end, "0.5 is not a value of type i32")
  end)
end)

describe("where", function()
  it("is its formula, and its gradient passes to what was taken", function()
    local condition = {1, 0, 0, 2, -1, 0}
    local function formula(a, b)
      local y = {}
      for i, c in ipairs(condition) do
        y[i] = c ~= 0 and a[(i - 1) % 3 + 1] or b[math.ceil(i / 3)]
      end
      return y
    end
    check.op{inputs = {{{1, 2, 3}, {3}}, {{4, 5}, {2, 1}}}, forward = 0, formula = formula,
      op = function(a, b) return tensor.from(condition, {2, 3}):where(a, b) end}
  end)

  it("does not see what is not taken, however it came about", function()
    local x = tensor.from({4, 0, -1}):parameter_()
    local root = x:gt(0):where(x:clamp(1e-3):sqrt(), 0)
    local y = x:gt(0):where(root, -math.huge)
    assert.same({2, -math.huge, -math.huge}, y:totable())
    assert.same({0, 7, 7}, tensor.from({1, 0, 0}):where(0, 7):totable())
    root:sum():backward()
    assert.same({0.25, 0, 0}, x:grad():totable())
    local undefined = tensor.from({1, 0}):where(tensor.from {3, 0 / 0}, tensor.from {0 / 0, 4})
    assert.same({3, 4}, undefined:totable())
  end)

  it("gives no gradient to the condition, and needs none", function()
    local condition, x = tensor.from({1, 0}):parameter_(), tensor.from({1, 2})
    assert.is_false(condition:where(x, 0):requires_grad())
    x = tensor.from({1, 2}):parameter_()
    condition:where(x, 0):sum():backward()
    assert.is_nil(condition:grad())
    assert.same({1, 0}, x:grad():totable())
  end)

  it("names shapes that do not fit", function()
    local two = tensor.ones {2}
    assert.error_matches(function() return two:where(tensor.ones {3}, 0) end,
      "where: shapes %[3%] and %[2%]")
    assert.error_matches(function()
      return tensor.ones({1}):where(two, tensor.ones {3})
    end, "where: shapes %[2%] and %[3%]")
  end)
end)

describe("clamp", function()
  it("holds values within bounds and passes a gradient there, on the bounds too", function()
    local x = tensor.from({-2, -1, 0, 1, 2, 0 / 0}):parameter_()
    local y = x:clamp(-1, 1)
    local values = y:totable()
    assert.same({-1, -1, 0, 1, 1}, {unpack(values, 1, 5)})
    assert.is_true(values[6] ~= values[6])
    y:narrow(1, 1, 5):sum():backward()
    assert.same({0, 1, 1, 1, 0}, {unpack(x:grad():totable(), 1, 5)})
    assert.same({-2, -1, 0, 0, 0}, {unpack(x:clamp(nil, 0):totable(), 1, 5)})
    assert.same({0, 0, 0, 1, 2}, {unpack(x:clamp(0):totable(), 1, 5)})
  end)

  it("refuses bounds that are none", function()
    local x = tensor.ones {2}
    assert.error_matches(function() return x:clamp(2, 1) end, "clamp: from 2 to 1")
    assert.error_matches(function() return x:clamp(0 / 0) end, "expected low <= high")
    assert.error_matches(function() return x:clamp(0, "1") end, "expected a number, got a string")
  end)
end)
