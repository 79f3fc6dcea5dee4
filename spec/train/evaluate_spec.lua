local octet = require "octet"
local evaluate = require "octet.train.evaluate"
local nn, tensor = octet.nn, octet.tensor

local Model = nn.module "Model"
function Model:init(outputs)
  self.drop = nn.Dropout(0.5)
  self.out = nn.Linear(2, outputs)
end
function Model:forward(batch) return self.out(self.drop(batch.x)) end

--- Seven rows in batches of at most three.
local function batches(labels, dtype)
  local at = 0
  return function()
    if at >= #labels then return nil end
    local n = math.min(3, #labels - at)
    local x, y = {}, {}
    for i = 1, n do x[i], y[i] = {at + i, (at + i) % 3}, labels[at + i] end
    at = at + n
    return {x = tensor.from(x, {n, 2}), labels = tensor.from(y, {n}, dtype), examples = n,
      tokens = 2 * n}
  end
end

local function model(weights, bias)
  local made = Model(#bias)
  made.out.weight:copy_(tensor.from(weights, {#bias, 2}))
  made.out.bias:copy_(tensor.from(bias, {#bias}))
  return made
end

describe("an evaluation", function()
  local labels = {0, 1, 1, 0, 1, 0, 1}

  it("is without dropout and without a record, and leaves the model in training", function()
    local m = model({{1, 0}, {0, 1}}, {0, 0.5})
    local first = evaluate.run(m, batches(labels, "i32"), {})
    local second = evaluate.run(m, batches(labels, "i32"), {})
    assert.same(first, second)
    assert.is_true(m.training)
    -- x = (n, n mod 3): class 1 where n mod 3 + 0.5 > n.
    assert.same({1, 1, 0, 0, 0, 0, 0}, first.predictions)
    assert.same(labels, first.labels)
    assert.is_nil(m.out.weight:grad())
  end)

  it("has the mean loss of all rows, whatever the batches", function()
    local found = evaluate.run(model({{1, 0}, {0, 1}}, {0, 0.5}), batches(labels, "i32"), {})
    local sum = 0
    for n = 1, 7 do
      local z = {[0] = n, n % 3 + 0.5}
      sum = sum + math.log(math.exp(z[0]) + math.exp(z[1])) - z[labels[n]]
    end
    assert.near(sum / 7, found.loss, 1e-5)
  end)

  it("of a single output gives numbers and the mean squared error", function()
    local found = evaluate.run(model({{0.5, 1}}, {0}), batches({1, 2, 3, 4, 5, 6, 7}, "f32"), {})
    local sum = 0
    for n = 1, 7 do
      local z = 0.5 * n + n % 3
      assert.near(z, found.predictions[n], 1e-6)
      sum = sum + (z - n) ^ 2
    end
    assert.near(sum / 7, found.loss, 1e-4)
  end)

  it("can be the mean of any loss, which counts by the examples of its batch", function()
    local m, modes = model({{1, 0}, {0, 1}}, {0, 0.5}), {}
    local mean = evaluate.mean_loss(m, batches(labels, "i32"), function(batch)
      modes[#modes + 1] = m.training
      return batch.x:mean()
    end, {})
    assert.near((1 + 2 + 3 + 4 + 5 + 6 + 7 + 1 + 2 + 0 + 1 + 2 + 0 + 1) / 14, mean, 1e-6)
    assert.same({false, false, false}, modes)
  end)

  it("ends where it is told to, in training mode", function()
    local m, asked = model({{1, 0}, {0, 1}}, {0, 0.5}), 0
    assert.is_nil(evaluate.run(m, batches(labels, "i32"), {stop = function()
      asked = asked + 1
      return asked == 2
    end}))
    assert.is_true(m.training)
  end)

  it("leaves no tensor behind", function()
    local m = model({{1, 0}, {0, 1}}, {0, 0.5})
    collectgarbage() collectgarbage()
    local before = octet.live_tensors()
    evaluate.run(m, batches(labels, "i32"), {})
    collectgarbage() collectgarbage()
    assert.equal(before, octet.live_tensors())
  end)
end)

describe("a decision", function()
  it("is the first of the largest", function()
    local said = {}
    evaluate.decide(tensor.from({{1, 3, 3}, {5, 1, 2}, {-3, -2, -1}}, {3, 3}), said)
    assert.same({1, 0, 2}, said)
  end)
end)
