--- A classifier of texts: embedding, LSTM, and a linear layer on its last state.
-- @module models.lstm_classifier
local octet = require "octet"

local nn = octet.nn
local M = {}

--- @function Classifier
-- @tparam table o `words`: rows of the embedding, `embedding`: its width; `hidden`, `layers`,
-- `bidirectional`, `dropout` (between layers), `forget_bias`: of the LSTM; `dropout_last`: of its
-- last state; `classes`: 2 make one logit
M.Classifier = nn.module "LstmClassifier"

function M.Classifier:init(o)
  self.embed = nn.Embedding(o.words, o.embedding)
  self.lstm = nn.LSTM(o.embedding, o.hidden, {layers = o.layers, bidirectional = o.bidirectional,
    dropout = o.dropout, forget_bias = o.forget_bias})
  self.drop = nn.Dropout(o.dropout_last or 0)
  self.out = nn.Linear((o.bidirectional and 2 or 1) * o.hidden, o.classes > 2 and o.classes or 1)
end

--- @tparam table batch `ids` and `offsets`
-- @treturn tensor logits [sequences x classes], of two classes [sequences x 1]
function M.Classifier:forward(batch)
  local _, last = self.lstm(self.embed(batch.ids), batch.offsets)
  return self.out(self.drop(last))
end

--- Mean loss of logits with a batch's labels.
-- @treturn tensor a scalar
function M.loss(logits, batch)
  if logits:size(2) > 1 then return nn.cross_entropy(logits, batch.labels) end
  return nn.binary_cross_entropy_with_logits(logits, batch.labels)
end

--- The classes that logits stand for.
-- @tparam tensor logits
-- @tparam table into receives them at its end
function M.decide(logits, into)
  if logits:size(2) > 1 then return octet.train.evaluate.decide(logits, into) end
  local data = logits:data()
  for row = 0, logits:size(1) - 1 do into[#into + 1] = data[row] > 0 and 1 or 0 end
end

return M
