--- What a model says of a data set, without recording: predictions, labels, mean loss.
-- @module octet.train.evaluate
local nn = require "octet.nn"
local progress = require "octet.train.progress"
local scope = require "octet.scope"

local M = {}

local function largest(row, classes)
  local best = 0
  for class = 1, classes - 1 do
    if row[class] > row[best] then best = class end
  end
  return best
end

--- What the model gives for one batch: a class for each row, or, from a single output, a number.
-- @tparam tensor logits [rows x classes]
-- @tparam table into receives them at its end
function M.decide(logits, into)
  local rows, classes = logits:size(1), logits:size(2)
  local data = logits:data()
  for row = 0, rows - 1 do
    into[#into + 1] = classes == 1 and data[row] or largest(data + row * classes, classes)
  end
end

--- The loss of logits with a batch's labels: cross-entropy, or, of a single output, the mean
-- squared error.
-- @tparam tensor logits
-- @tparam table batch with `labels`
-- @treturn tensor a scalar
function M.loss(logits, batch)
  if logits:size(2) == 1 then return nn.mse_loss(logits, batch.labels) end
  return nn.cross_entropy(logits, batch.labels)
end

local function one_batch(model, batch, result, o)
  local logits = model(batch);
  (o.decide or M.decide)(logits, result.predictions)
  local labels = batch.labels:data()
  for i = 0, batch.examples - 1 do result.labels[#result.labels + 1] = tonumber(labels[i]) end
  return (o.loss or M.loss)(logits, batch):item()
end

--- Run a model over a data set in evaluation mode.
-- @tparam table model
-- @tparam function batches an iterator over batches with `labels`, `examples` and `tokens`
-- @tparam table o `stop`: a function asked before each batch; `show`: a progress bar; `total`:
-- batches there are, for the bar; `decide` and `loss`: in place of this module's
-- @treturn ?table predictions, labels, loss; nil where stop() became true
function M.run(model, batches, o)
  local result = {predictions = {}, labels = {}, loss = 0}
  local bar = o.show and progress.columns() > 0 and progress.new {label = "evaluation",
    total = o.total, unit = "tokens"}
  local count = 0
  model:eval()
  for batch in batches do
    if o.stop and o.stop() then
      result = nil
      break
    end
    local loss = scope.scope(scope.no_grad, one_batch, model, batch, result, o)
    result.loss = result.loss + loss * batch.examples
    count = count + 1
    if bar then bar:update(count, {units = batch.tokens}) end
  end
  model:train()
  if bar then bar:finish(true) end
  if result then result.loss = result.loss / math.max(1, #result.labels) end
  return result
end

return M
