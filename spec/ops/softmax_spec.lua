local octet = require "octet"
local check = require "spec.ops.check"

local tensor, nn = octet.tensor, octet.nn

local function by_rows(width, f)
  return function(x)
    local y = {}
    for row = 0, #x / width - 1 do
      local sum = 0
      for i = 1, width do sum = sum + math.exp(x[row * width + i]) end
      for i = 1, width do y[row * width + i] = f(x[row * width + i], sum) end
    end
    return y
  end
end

local FORMULAS = {
  softmax = function(x, sum) return math.exp(x) / sum end,
  log_softmax = function(x, sum) return x - math.log(sum) end,
}

for name, f in pairs(FORMULAS) do
  describe(name, function()
    it("is its formula, and its gradient the formula's", function()
      for _, shape in ipairs {{1, 1}, {3, 2}, {2, 7}, {5, 16}, {2, 33}, {3, 4, 5}} do
        local n = 1
        for _, size in ipairs(shape) do n = n * size end
        check.op{inputs = {{check.values(n, -5, 5, n), shape}},
          op = function(x) return x[name](x) end, formula = by_rows(shape[#shape], f)}
      end
    end)

    it("gives the same bits with two threads on many rows, and on long ones", function()
      for _, shape in ipairs {{2000, 10}, {4, 5000}} do
        check.op{inputs = {{check.values(shape[1] * shape[2], -5, 5, 3), shape}}, probes = 4,
          op = function(x) return x[name](x) end, formula = by_rows(shape[2], f)}
      end
    end)

    it("bears scores of any size", function()
      check.everywhere(function()
        local y = tensor.from({1e38, -1e38, 0, 1e4, 1e4, -math.huge}, {2, 3})
        y = y[name](y):totable()
        if name == "softmax" then
          check.near(y, {1, 0, 0, 0.5, 0.5, 0}, 1e-7, name)
        else
          check.near(y, {0, -2e38, -1e38, -math.log(2), -math.log(2), -math.huge}, 1e-7, name)
        end
      end)
    end)
  end)
end

describe("cross-entropy", function()
  local function formula(classes, labels, ignore)
    return function(x)
      local loss, count = 0, 0
      for row = 0, #x / classes - 1 do
        local label = labels[row + 1]
        if label ~= ignore then
          local sum = 0
          for i = 1, classes do sum = sum + math.exp(x[row * classes + i]) end
          loss = loss + math.log(sum) - x[row * classes + label + 1]
          count = count + 1
        end
      end
      return {loss / count}
    end
  end

  local function case(rows, classes, ignore, more)
    local labels = {}
    for row, v in ipairs(check.values(rows, 0, classes, 5)) do labels[row] = math.floor(v) end
    if rows > 2 then labels[2] = ignore end
    local ids = tensor.from(labels, {rows}, "i32")
    local o = {inputs = {{check.values(rows * classes, -4, 4, rows), {rows, classes}}},
      op = function(x) return nn.cross_entropy(x, ids, {ignore = ignore}) end,
      formula = formula(classes, labels, ignore)}
    for k, v in pairs(more or {}) do o[k] = v end
    check.op(o)
  end

  it("is the mean over the rows that count, and its gradient the formula's", function()
    for _, shape in ipairs {{1, 2}, {3, 2}, {5, 3}, {7, 33}, {4, 16}} do
      case(shape[1], shape[2], -100)
    end
  end)

  it("gives the same bits with two threads on many rows", function()
    case(3000, 9, -1, {probes = 4})
    case(4, 6000, -1, {probes = 4})
  end)

  it("bears logits of any size", function()
    check.everywhere(function()
      local logits = tensor.from({1e4, 0, 0, 1e4}, {2, 2}):parameter_()
      local loss = nn.cross_entropy(logits, tensor.from({0, 0}, {2}, "i32"))
      loss:backward()
      assert.equal(5000, loss:item())
      assert.same({0, 0, -0.5, 0.5}, logits:grad():totable())
    end)
  end)

  it("refuses a label out of range, and says which", function()
    local logits = tensor.zeros {2, 3}
    assert.error_matches(function()
      nn.cross_entropy(logits, tensor.from({1, 3}, {2}, "i32"))
    end, "label 3")
  end)
end)

describe("the cross-entropy of yes or no", function()
  local function case(n, targets, options)
    local o = {inputs = {{check.values(n, -6, 6, n), {n}}},
      op = function(x)
        return nn.binary_cross_entropy_with_logits(x, tensor.from(targets, {n}))
      end,
      formula = function(x)
        local sum = 0
        for i = 1, n do
          local p = 1 / (1 + math.exp(-x[i]))
          sum = sum - (targets[i] * math.log(p) + (1 - targets[i]) * math.log(1 - p)) / n
        end
        return {sum}
      end}
    for k, v in pairs(options or {}) do o[k] = v end
    check.op(o)
  end

  it("is its formula, and its gradients the formula's", function()
    case(1, {1})
    case(3, {0, 1, 0.25})
    case(37, check.values(37, 0, 1, 2))
  end)

  it("gives the same bits with two threads on many", function()
    case(40000, check.values(40000, 0, 1, 2), {probes = 3})
  end)

  it("takes labels, and bears logits of any size", function()
    check.everywhere(function()
      local logits = tensor.from({1e4, -1e4, -1e4, 0}, {2, 2}):parameter_()
      local labels = tensor.from({0, 1, 0, 1}, {4}, "i32")
      local loss = nn.binary_cross_entropy_with_logits(logits, labels)
      loss:backward()
      check.near({loss:item()}, {(2e4 + math.log(2)) / 4}, 1e-6, "loss")
      assert.same({0.25, -0.25, 0, -0.125}, logits:grad():totable())
    end)
  end)

  it("refuses a target out of range, and says which", function()
    assert.error_matches(function()
      nn.binary_cross_entropy_with_logits(tensor.zeros {3}, tensor.from({0, 1, 2}, {3}, "i32"))
    end, "target 2 at place 3, expected 0 to 1")
    assert.error_matches(function()
      nn.binary_cross_entropy_with_logits(tensor.zeros {3}, tensor.zeros {2})
    end, "logits %[3%], targets %[2%]")
  end)
end)

describe("the mean squared error", function()
  it("is its formula, and its gradients the formula's", function()
    check.op{inputs = {{check.values(7, -1, 1, 1), {7}}, {check.values(7, -1, 1, 2), {7}}},
      op = function(a, b) return nn.mse_loss(a, b) end,
      formula = function(a, b)
        local sum = 0
        for i = 1, 7 do sum = sum + (a[i] - b[i]) ^ 2 / 7 end
        return {sum}
      end}
  end)
end)
