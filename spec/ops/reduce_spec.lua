local octet = require "octet"
local check = require "spec.ops.check"

local tensor = octet.tensor

--- Reduces dimension `dim` of a row-major table.
local function reduced(shape, dim, f)
  return function(values)
    local outer, inner = 1, 1
    for d = 1, dim - 1 do outer = outer * shape[d] end
    for d = dim + 1, #shape do inner = inner * shape[d] end
    local size, y = shape[dim], {}
    for o = 0, outer - 1 do
      for i = 1, inner do
        local column = {}
        for s = 0, size - 1 do column[s + 1] = values[(o * size + s) * inner + i] end
        y[#y + 1] = f(column)
      end
    end
    return y
  end
end

local function sum(t)
  local total = 0
  for i = 1, #t do total = total + t[i] end
  return total
end
local FORMULAS = {
  sum = sum,
  mean = function(t) return sum(t) / #t end,
  max = function(t) return math.max(unpack(t)) end,
}

local function product(shape)
  local n = 1
  for _, size in ipairs(shape) do n = n * size end
  return n
end

for name, f in pairs(FORMULAS) do
  describe(name, function()
    it("is its formula over each dimension, forwards and backwards", function()
      for _, shape in ipairs {{1}, {7}, {33}, {5, 7}, {3, 4, 5}, {2, 3, 2, 5}, {4, 70},
        {9, 1, 66}} do
        for dim = 1, #shape do
          check.op{inputs = {{check.values(product(shape), -2, 2, dim), shape}},
            op = function(x) return x[name](x, dim) end, formula = reduced(shape, dim, f)}
        end
      end
    end)

    it("over all elements is that of one long row", function()
      check.op{inputs = {{check.values(60, -2, 2, 8), {3, 4, 5}}},
        op = function(x) return x[name](x) end, formula = reduced({60}, 1, f)}
    end)

    it("gives the same bits with two threads, along rows and down columns", function()
      for _, case in ipairs {{{200, 150}, 1}, {{200, 150}, 2}, {{40, 20, 50}, 2}, {{5000, 7}, 1}} do
        local shape, dim = unpack(case)
        check.op{probes = 3, forward = 4e-6,
          inputs = {{check.values(product(shape), -2, 2, 4), shape}},
          op = function(x) return x[name](x, dim) end, formula = reduced(shape, dim, f),
          backward = 1e-4}
      end
    end)
  end)
end

describe("a long sum", function()
  it("is as good as a short one, whichever way it runs", function()
    local n = 1000000
    local values = check.values(n, 0, 1, 3)
    check.everywhere(function()
      octet.scope(function()
        local x = tensor.from(values)
        local exact = sum(x:totable())
        for _, y in ipairs {x:sum(), x:reshape(n, 1):sum(1), x:reshape(10, n / 10):sum(2):sum()} do
          assert.near(exact, y:item(), exact * 1e-7)
        end
        local columns = x:reshape(n / 8, 8):sum(1):totable()
        assert.near(exact, sum(columns), exact * 1e-7)
      end)
    end)
  end)

  it("has the same bits for any number of threads", function()
    local x = tensor.new({300007}):normal_()
    local function sums()
      return {x:sum():item(), x:rows(1, 300000):reshape(100000, 3):sum(1):totable(),
        x:rows(1, 300000):reshape(3, 100000):mean(2):totable()}
    end
    for _, isa in ipairs(check.isas) do
      octet.set_isa(isa)
      local before, first = octet.threads(), nil
      for threads = 1, 4 do
        octet.set_threads(threads)
        first = first or sums()
        assert.same(first, sums())
      end
      octet.set_threads(before)
    end
    octet.set_isa "auto"
  end)
end)

describe("the largest", function()
  it("is the first of equals, and a NaN is greater than all", function()
    local nan = 0 / 0
    check.everywhere(function()
      local x = tensor.from({1, 3, 3, 2, -1, -1, -5, -1}, {2, 4})
      assert.same({1, 0}, x:argmax():totable())
      assert.same({3, -1}, x:max(2):totable())
      for _, n in ipairs {4, 40} do
        for place = 1, n, 3 do
          local values = check.values(n, -9, 9, n)
          values[place] = nan
          local t = tensor.from(values)
          assert.equal(place - 1, t:argmax():item())
          local most = t:max():item()
          assert.is_true(most ~= most)
          local column = t:reshape(n, 1):max(1):item()
          assert.is_true(column ~= column)
        end
      end
    end)
  end)

  it("may be minus infinity", function()
    check.everywhere(function()
      assert.equal(-math.huge, tensor.full({5}, -math.huge):max():item())
      assert.equal(0, tensor.full({5}, -math.huge):argmax():item())
    end)
  end)
end)

describe("all_finite", function()
  it("finds one infinity or NaN wherever it is", function()
    check.everywhere(function()
      for _, n in ipairs {1, 16, 33, 5000, 70001} do
        local x = tensor.full({n}, 3e38)
        assert.is_true(x:all_finite())
        for _, bad in ipairs {math.huge, -math.huge, 0 / 0} do
          for _, place in ipairs {0, math.floor(n / 2), n - 1} do
            x:data()[place] = bad
            assert.is_false(x:all_finite())
            x:data()[place] = 1
          end
        end
      end
    end)
  end)
end)
