local machine = require "octet.machine"
local octet = require "octet"
local language_model = require "models.lstm_language_model"

local nn, tensor = octet.nn, octet.tensor

local WORDS, COLUMNS, LENGTH = 7, 2, 4

local function make(o)
  octet.seed(3)
  local settings = {words = WORDS, embedding = 5, hidden = 6, layers = 2, dropout = 0, scale = 0.5}
  for key, value in pairs(o or {}) do settings[key] = value end
  return language_model.Model(settings)
end

--- Ids of stretch `number`, and the labels that go with them.
local function stretch(number, length)
  local ids, labels = {}, {}
  for column = 1, COLUMNS do
    for i = 1, length do
      local at = (number - 1) * length + i + 10 * column
      ids[#ids + 1], labels[#labels + 1] = at * at % WORDS, (at + 1) * (at + 1) % WORDS
    end
  end
  return tensor.from(ids, {COLUMNS, length}, "i32"), tensor.from(labels, {#labels}, "i32")
end

local function gradients_of(model)
  local all = {}
  for _, p in ipairs(model:parameters()) do all[p.name] = p.tensor:grad():totable() end
  return all
end

describe("a language model of LSTMs", function()
  it("starts uniform, all weights alike", function()
    for _, p in ipairs(make({embedding = 40, hidden = 40, scale = 0.1}):parameters()) do
      local most, sum = 0, 0
      for _, value in ipairs(p.tensor:totable()) do
        most, sum = math.max(most, math.abs(value)), sum + value * value
      end
      assert.is_true(most <= 0.1, p.name)
      local size = p.tensor:size()
      -- The mean of a square is a third of that of the bound.
      assert.near(1, 3 * sum / size / 0.01, 6 / math.sqrt(size), p.name)
    end
  end)

  it("reads on where it was: in stretches, the logits of the whole text", function()
    local model = make()
    octet.no_grad(function()
      local text = stretch(1, 3 * LENGTH)
      local whole = model(text, language_model.memory(model, COLUMNS)):totable()
      local memory, ids = language_model.memory(model, COLUMNS), text:totable()
      for part = 0, 2 do
        local cut = {}
        for column = 0, COLUMNS - 1 do
          for i = 1, LENGTH do
            cut[#cut + 1] = ids[column * 3 * LENGTH + part * LENGTH + i]
          end
        end
        local logits = model(tensor.from(cut, {COLUMNS, LENGTH}, "i32"), memory):totable()
        for column = 0, COLUMNS - 1 do
          for i = 1, LENGTH * WORDS do
            assert.near(whole[(column * 3 + part) * LENGTH * WORDS + i],
              logits[column * LENGTH * WORDS + i], 1e-6)
          end
        end
      end
    end)
  end)

  it("has the gradients of its last stretch, from the state that it began with", function()
    local model = make()
    local memory = language_model.memory(model, COLUMNS)
    local ids, labels = stretch(1, LENGTH)
    nn.cross_entropy(model(ids, memory), labels):backward()
    for _, p in ipairs(model:parameters()) do p.tensor:zero_grad() end
    ids, labels = stretch(2, LENGTH)
    nn.cross_entropy(model(ids, memory), labels):backward()
    local carried = gradients_of(model)

    for _, p in ipairs(model:parameters()) do p.tensor:zero_grad() end
    local _, _, state = model.lstm(model.embed((stretch(1, LENGTH))))
    local y = model.lstm(model.embed(ids), nil, nn.detach(state))
    nn.cross_entropy(model.out(y:reshape(-1, 6)), labels):backward()
    assert.same(gradients_of(model), carried)
  end)

  it("forgets all at a text's start", function()
    local model = make()
    octet.no_grad(function()
      local memory, ids = language_model.memory(model, COLUMNS), (stretch(1, LENGTH))
      local first = model(ids, memory):totable()
      assert.not_same(first, model(ids, memory):totable())
      memory:clear()
      assert.same(first, model(ids, memory):totable())
    end)
  end)

  it("holds its logits and their gradient, and no other copy of them", function()
    local words, length = 5000, 50
    local model = make {words = words}
    local memory = language_model.memory(model, COLUMNS)
    local ids, labels = stretch(1, length)
    octet.reset_peak_memory()
    local before = machine.memory().activations.now
    octet.scope(function() nn.cross_entropy(model(ids, memory), labels):backward() end)
    local accounts = machine.memory()
    local logits = 4 * COLUMNS * length * words
    assert.is_true(accounts.activations.peak - before < 2.1 * logits)
    assert.is_true(accounts.workspace.peak < logits)
  end)

  it("is trained in a step that leaves no tensor behind", function()
    local model = make {dropout = 0.5}
    local memory = language_model.memory(model, COLUMNS)
    local function step(number)
      octet.scope(function()
        local ids, labels = stretch(number, LENGTH)
        nn.cross_entropy(model(ids, memory), labels):backward()
      end)
      require "octet.binding".collect()
      return octet.live_tensors()
    end
    local after = step(1)
    assert.equal(after, step(2))
    assert.equal(after, step(3))
  end)
end)
