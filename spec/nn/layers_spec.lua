-- What layers refuse; that they compute the right thing is seen with their ops and models.
local octet = require "octet"
local nn, tensor = octet.nn, octet.tensor

describe("layers", function()
  it("refuse sizes that are none, and say where", function()
    for name, make in pairs {
      ["Linear: outputs is nil"] = function() return nn.Linear(3), 1 end,
      ["Linear: inputs is a"] = function() return nn.Linear("a", 2), 1 end,
      ["Embedding: rows is 0"] = function() return nn.Embedding(0, 2), 1 end,
      ["StableEmbedding: width is nil"] = function() return nn.StableEmbedding(2), 1 end,
      ["LayerNorm: width is nil"] = function() return nn.LayerNorm(), 1 end,
      ["LSTM: hidden is nil"] = function() return nn.LSTM(3), 1 end,
      ["GRU: inputs is 3.5"] = function() return nn.GRU(3.5, 2), 1 end,
    } do
      local ok, message = pcall(make)
      assert.is_false(ok)
      assert.matches("layers_spec.lua:%d+: " .. name .. ", expected a whole number", message)
    end
    assert.error_matches(function() return nn.Dropout(1), 1 end, "p is 1, expected 0 to below 1")
  end)

  it("refuse options that they do not have", function()
    for option, make in pairs {
      ['Linear: unknown option "biass"; it is one of bias'] = function()
        return nn.Linear(4, 8, {biass = false}), 1
      end,
      ['LSTM: unknown option "layer"; it is one of layers'] = function()
        return nn.LSTM(4, 8, {layer = 2}), 1
      end,
      ['GRU: unknown option "forget_bias"'] = function()
        return nn.GRU(4, 8, {forget_bias = 1}), 1
      end,
      ['attention: unknown option "casual"; it is one of causal'] = function()
        return nn.attention(tensor.zeros {4, 12}, tensor.from({0, 4}, {2}, "i32"), 2,
          {casual = true}), 1
      end,
    } do
      local ok, message = pcall(make)
      assert.is_false(ok)
      assert.matches("layers_spec.lua:%d+: ", message)
      assert.is_truthy(message:find(option, 1, true), message)
    end
    assert.error_matches(function() return nn.Linear(4, 8, "relu"), 1 end,
      "Linear: options are a string, expected a table")
  end)

  it("are shown as a tree with the shapes of its parameters", function()
    local model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.LayerNorm(3), nn.Dropout(0.1)))
    assert.equal("Sequential\n  1: Linear weight [3 x 2], bias [3]\n  2: Sequential\n"
      .. "    1: LayerNorm weight [3], bias [3]\n    2: Dropout\n15 parameters", tostring(model))
  end)

  it("stand in a sequence with functions, and with nothing else", function()
    local twice = nn.Sequential(function(x) return x + 1 end, function(x) return x * 2 end)
    assert.same({4, 6}, twice(tensor.from {1, 2}):totable())
    assert.error_matches(function()
      return nn.Sequential(nn.Linear(2, 2), nil, nn.Linear(2, 2)), 1
    end, "Sequential: number 2 is nil, expected a module or a function")
    assert.error_matches(function() return nn.List(1), 1 end, "List: number 1 is 1")
  end)

  it("share a weight: one parameter, which counts and is stepped once", function()
    local Tied = nn.module "Tied"
    function Tied:init()
      self.embed = nn.Embedding(8, 4)
      self.out = nn.Linear(4, 8, {bias = false})
      self.out.weight = self.embed.weight
    end
    function Tied:forward(ids) return self.out(self.embed(ids)) end
    local model = Tied()
    assert.equal(1, #model:parameters())
    assert.equal(32, model:parameter_count())
    local names = {}
    for name in pairs(model:state()) do names[#names + 1] = name end
    table.sort(names)
    assert.same({"embed.weight", "out.weight"}, names)
    local opt = require "octet.optim".sgd(model:parameters(), {lr = 0.1})
    local average = require "octet.optim.average".ema(model:parameters(), {decay = 0.5})
    nn.cross_entropy(model(tensor.from({1, 2}, {2}, "i32")), tensor.from({1, 2}, {2}, "i32"))
      :backward()
    opt:step()
    average:update()
    local before = model.embed.weight:totable()
    average:with(function() assert.is_true(model.out.weight == model.embed.weight) end)
    assert.same(before, model.embed.weight:totable())
    assert.same(before, Tied():load(model:state()).out.weight:totable())
  end)

  it("are listed once, though assigned anew", function()
    local model = nn.Linear(2, 2)
    model.weight = nil
    model.weight = tensor.ones({2, 2}):parameter_()
    assert.equal(2, #model:parameters())
  end)

  it("load floats of other types, and refuse all else before anything has changed", function()
    local model, other = nn.Linear(2, 3), nn.Linear(2, 3)
    local state = {weight = other.weight:to "bf16", bias = other.bias:to "f16"}
    model:load(state)
    assert.same(state.weight:totable(), model.weight:totable())
    local before = model.bias:totable()
    assert.error_matches(function()
      model:load {bias = other.bias, weight = tensor.zeros({3, 2}, "i32")}
    end, "load: tensor 'weight' is i32, expected f32", 1, true)
    assert.same(before, model.bias:totable())
  end)

  it("take true or false for a switch", function()
    assert.error_matches(function() nn.Linear(2, 2, {bias = "no"}) end,
      "Linear: bias is no, expected true or false", 1, true)
    assert.error_matches(function() nn.LSTM(2, 2, {bidirectional = "no"}) end,
      "LSTM: bidirectional is no, expected true or false", 1, true)
  end)
end)
