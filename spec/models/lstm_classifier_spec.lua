local check = require "spec.ops.check"
local octet = require "octet"
local lstm = require "models.lstm_classifier"

local tensor = octet.tensor

--- Logits and gradients of a model of these settings for one batch.
local function run(o, texts)
  octet.seed(3)
  local model = lstm.Classifier {words = 9, embedding = 4, hidden = 6, layers = 3, classes = 2,
    padded = o.padded}
  local ids, offsets = {}, {0}
  for s, text in ipairs(texts) do
    for _, id in ipairs(text) do ids[#ids + 1] = id end
    offsets[s + 1] = #ids
  end
  local found = {}
  octet.scope(function()
    local batch = {ids = tensor.from(ids, {#ids}, "i32"), examples = #texts,
      offsets = tensor.from(offsets, {#offsets}, "i32"),
      labels = tensor.from({1, 0, 1}, {#texts}, "i32")}
    local logits = model(batch):keep()
    lstm.loss(logits, batch):backward()
    found.logits = logits:totable()
  end)
  for _, p in ipairs(model:parameters()) do found[p.name] = p.tensor:grad():totable() end
  return found
end

local function same(expected, actual)
  for name, values in pairs(expected) do check.near(actual[name], values, 1e-6, name) end
end

describe("a classifier of texts that count as padded", function()
  it("gives the logits and the gradients of texts that are", function()
    local texts = {{3, 4, 3}, {8, 2, 5, 6, 7}, {2}}
    local padded = {{0, 0, 0, 0, 3, 4, 3}, {0, 0, 8, 2, 5, 6, 7}, {0, 0, 0, 0, 0, 0, 2}}
    same(run({}, padded), run({padded = 7}, texts))
  end)

  it("adds nothing to texts of the length or longer", function()
    local texts = {{3, 4, 3}, {8, 2, 5, 6, 7}, {2, 2, 2}}
    same(run({}, texts), run({padded = 3}, texts))
    same(run({}, {{0, 3, 4, 3}, texts[2], {0, 2, 2, 2}}), run({padded = 4}, texts))
  end)
end)
