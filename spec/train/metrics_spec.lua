-- The figures to compare with were computed by scikit-learn 1.x and SciPy on the same lists.
local metrics = require "octet.train.metrics"

local P = {1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 1}
local Y = {1, 0, 0, 1, 0, 1, 1, 0, 1, 0, 0, 1}
local X = {3.2, 1.1, 4.8, 2.5, 2.5, 0.0, 5.0, 1.1, 3.9, 2.5}
local G = {3.0, 0.5, 5.0, 2.5, 3.0, 0.2, 4.6, 2.5, 3.0, 1.0}

describe("metrics", function()
  it("agree with scikit-learn and SciPy", function()
    assert.near(0.75, metrics.accuracy(P, Y), 1e-12)
    assert.near(0.7692307692307693, metrics.f1(P, Y), 1e-12)
    assert.near(0.7272727272727273, metrics.f1(P, Y, 0), 1e-12)
    assert.near(0.4, metrics.weighted_f1({0, 1, 0, 0, 1, 1, 2, 0, 2, 2},
      {0, 2, 1, 1, 0, 2, 2, 0, 1, 2}), 1e-12)
    assert.near(0.6428571428571428, metrics.weighted_f1({0, 0, 0, 0}, {0, 0, 0, 1}), 1e-12)
    assert.near(0.50709255283711, metrics.matthews(P, Y), 1e-12)
    assert.near(0.5539117094069973, metrics.matthews({0, 2, 1, 1, 0, 2, 2, 0, 1, 2},
      {0, 2, 1, 0, 0, 1, 2, 0, 2, 2}), 1e-12)
    assert.near(0.8776323612088568, metrics.pearson(X, G), 1e-12)
    assert.near(0.903125, metrics.spearman(X, G), 1e-12)
  end)

  it("give equal values the mean of their ranks", function()
    assert.same({1, 2.5, 4, 2.5}, metrics.ranks {-3, 7, 9, 7})
  end)

  it("are 0 where one side is constant", function()
    local constant, one = {}, {}
    for i = 1, 12 do constant[i], one[i] = 0.1, 1 end
    assert.equal(0, metrics.pearson(constant, Y))
    assert.equal(0, metrics.spearman(constant, Y))
    assert.equal(0, metrics.matthews(one, Y))
    assert.equal(0, metrics.f1({0, 0}, {0, 0}))
  end)

  it("keep a correlation of nearly 1 within 1", function()
    local x = {}
    for i = 1, 101 do x[i] = 1e9 + i / 3 end
    assert.near(1, metrics.pearson(x, x), 1e-9)
    assert.is_true(metrics.pearson(x, x) <= 1)
  end)

  it("refuse lists of different lengths and empty ones", function()
    assert.has_error(function() metrics.accuracy({1}, {1, 0}) end,
      "metrics: 1 predictions for 2 labels")
    assert.has_error(function() metrics.f1({}, {}) end,
      "metrics: 0 examples are too few; at least 1 are needed")
    assert.has_error(function() metrics.pearson({1}, {1}) end,
      "metrics: 1 examples are too few; at least 2 are needed")
    assert.has_error(function() metrics.spearman({1, 0 / 0}, {1, 2}) end,
      "metrics: value 2 is not a number")
  end)

  it("have a median", function()
    assert.equal(3, metrics.median {5, 1, 3})
    assert.equal(2.5, metrics.median {4, 1, 2, 3})
  end)

  it("point out predictions of a single class or value", function()
    local names = {"negative", "positive"}
    assert.is_nil(metrics.collapse({1, 1, 0}, names))
    assert.equal('every one of the 3 predictions is "positive": '
      .. "the model has fallen back on a single class", metrics.collapse({1, 1, 1}, names))
    assert.matches("every one of the 2 predictions is 2.5:", metrics.collapse({2.5, 2.5}))
  end)
end)
