--- A classifier of texts: embedding, LSTM, and a linear layer on its last state.
--
-- Texts may count as padded on the left to one length, as frameworks without packed sequences have
-- them: the LSTM then comes to each text with the state that the padding leaves it in. All texts
-- of a batch begin with the same token, so that the padding is walked once for all of them.
-- @module models.lstm_classifier
local file = require "octet.file"
local message = require "octet.message"
local number = require "octet.number"
local octet = require "octet"

local nn = octet.nn
local M = {}

-- Sizes of a classifier: the least and the most that are believed.
local SIZES = {embedding = {1, 4096}, hidden = {1, 4096}, layers = {1, 64}, classes = {2, 1000},
  padded = {1, 2^20}}

--- @function Classifier
-- @tparam table o `words`: rows of the embedding, `embedding`: its width; `hidden`, `layers`,
-- `bidirectional`, `dropout` (between layers), `forget_bias`: of the LSTM; `dropout_last`: of its
-- last state; `classes`: 2 make one logit; `padded`: tokens that texts count as padded to
M.Classifier = nn.module "LstmClassifier"

function M.Classifier:init(o)
  self.embed = nn.Embedding(o.words, o.embedding)
  self.lstm = nn.LSTM(o.embedding, o.hidden, {layers = o.layers, bidirectional = o.bidirectional,
    dropout = o.dropout, forget_bias = o.forget_bias})
  self.drop = nn.Dropout(o.dropout_last or 0)
  self.padded = o.padded
  self.out = nn.Linear((o.bidirectional and 2 or 1) * o.hidden, o.classes > 2 and o.classes or 1)
end

--- How many tokens each text of a batch lacks (i32 [sequences]), and the most of them.
local function padding_of(batch, padded)
  if not padded then return nil, 0 end
  local missing, most = octet.tensor.new({batch.examples}, "i32", "data"), 0
  local offsets, into = batch.offsets:data(), missing:data()
  for i = 0, batch.examples - 1 do
    into[i] = math.max(0, padded - (offsets[i + 1] - offsets[i]))
    most = math.max(most, into[i])
  end
  return missing, most
end

--- What the LSTM comes to behind each text.
local function last_states(self, batch)
  local words, rows = nn.distinct(batch.ids)
  local x = self.embed(words)
  local missing, most = padding_of(batch, self.padded)
  local _, last
  if most > 0 then
    local padding = octet.tensor.full({most}, octet.data.words.PAD, "i32")
    _, last = self.lstm:behind(self.embed(padding), missing, x, batch.offsets, rows)
  else
    _, last = self.lstm(x, batch.offsets, nil, rows)
  end
  return last
end

--- @tparam table batch `ids`, `offsets`, `examples`
-- @treturn tensor logits [sequences x classes], of two classes [sequences x 1]
function M.Classifier:forward(batch)
  return self.out(self.drop(last_states(self, batch)))
end

--- Mean loss of logits with a batch's labels.
-- @treturn tensor a scalar
function M.loss(logits, batch)
  if logits:size(2) > 1 then return nn.cross_entropy(logits, batch.labels) end
  return nn.binary_cross_entropy_with_logits(logits, batch.labels)
end

--- What a run's config.json says, checked.
local function described(path)
  local own = file.read_json(path).octet
  local built = type(own) == "table" and own.model
  if type(built) ~= "table" or type(own.labels) ~= "table" then
    error(path .. " does not say what LSTM it describes, as lstm_classify's does", 0)
  end
  for name, range in pairs(SIZES) do
    local x, least, most = built[name], unpack(range)
    if not number.is_whole(x, least, most) and not (name == "padded" and x == nil) then
      error(("%s: octet.model.%s is %s, expected a whole number from %d to %d"):format(path, name,
        tostring(x), least, most), 0)
    end
  end
  for i = 1, math.max(#own.labels, built.classes) do
    if type(own.labels[i]) ~= "string" or i > built.classes then
      error(("%s: octet.labels are %d, expected %d names"):format(path, #own.labels,
        built.classes), 0)
    end
  end
  return own
end

--- The classifier of a run's folder, in evaluation mode.
-- @tparam string folder with config.json, vocab.txt and model.safetensors
-- @treturn module
-- @treturn {string,...} its vocabulary
-- @treturn table `task` and `labels`
function M.load(folder)
  local own = described(folder .. "/config.json")
  local vocabulary = octet.data.words.read(folder .. "/vocab.txt")
  local weights = octet.safetensors.load(folder .. "/model.safetensors")
  local b = own.model
  local model = M.Classifier {words = octet.data.words.FIRST + #vocabulary,
    embedding = b.embedding, hidden = b.hidden, layers = b.layers,
    bidirectional = b.bidirectional == true, classes = b.classes, padded = b.padded}
  local ok, why = pcall(model.load, model, weights)
  if not ok then
    error(("%s/model.safetensors: %s"):format(folder, message.without_place(why)), 0)
  end
  return model:eval(), vocabulary, {task = own.task, labels = own.labels}
end

--- Logits of two classes where one stands for both: the same probabilities.
-- @tparam tensor logits [rows x 1] or [rows x classes]
-- @treturn tensor [rows x classes]
function M.of_each_class(logits)
  if logits:size(2) > 1 then return logits end
  return octet.tensor.cat({logits * 0, logits}, 2)
end

--- The classes that logits stand for.
-- @tparam tensor logits
-- @tparam table into receives them at its end
function M.decide(logits, into)
  if logits:size(2) > 1 then return octet.train.evaluate.decide(logits, into) end
  local at = logits:reader()
  for row = 0, logits:size(1) - 1 do into[#into + 1] = at(row) > 0 and 1 or 0 end
end

return M
