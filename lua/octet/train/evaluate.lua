--- What a model says of a data set, without recording: predictions, labels, mean loss.
-- @module octet.train.evaluate
local nn = require "octet.nn"
local progress = require "octet.train.progress"
local scope = require "octet.scope"

local M = {}

local function largest(at, first, classes)
  local best = 0
  for class = 1, classes - 1 do
    if at(first + class) > at(first + best) then best = class end
  end
  return best
end

--- What the model gives for one batch: a class for each row, or, from a single output, a number.
-- @tparam tensor logits [rows x classes]
-- @tparam table into receives them at its end
function M.decide(logits, into)
  local rows, classes = logits:size(1), logits:size(2)
  local at = logits:reader()
  for row = 0, rows - 1 do
    into[#into + 1] = classes == 1 and at(row) or largest(at, row * classes, classes)
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

--- Mean of a loss over a data set, the model in evaluation mode.
-- @tparam table model
-- @tparam function batches an iterator over batches with `examples`, by which the loss of each
-- counts, and `tokens`
-- @tparam function loss loss(batch): the mean loss of the batch's examples, a scalar tensor
-- @tparam table o `stop`: a function asked before each batch; `show`: a progress bar; `total`:
-- batches there are, for the bar
-- @treturn ?number nil where stop() became true
function M.mean_loss(model, batches, loss, o)
  local bar = o.show and progress.columns() > 0 and progress.new {label = "evaluation",
    total = o.total, unit = "tokens"}
  local sum, examples, count = 0, 0, 0
  local function item(batch) return loss(batch):item() end
  model:eval()
  for batch in batches do
    if o.stop and o.stop() then
      sum = nil
      break
    end
    sum = sum + scope.scope(scope.no_grad, item, batch) * batch.examples
    examples, count = examples + batch.examples, count + 1
    if bar then bar:update(count, {units = batch.tokens}) end
  end
  model:train()
  if bar then bar:finish(true) end
  return sum and sum / math.max(1, examples)
end

--- Run a model over a data set in evaluation mode.
-- @tparam table model
-- @tparam function batches an iterator over batches with `labels`, `examples` and `tokens`
-- @tparam table o as of mean_loss; and `decide` and `loss`: in place of this module's
-- @treturn ?table predictions, labels, loss; nil where stop() became true
function M.run(model, batches, o)
  local result = {predictions = {}, labels = {}}
  result.loss = M.mean_loss(model, batches, function(batch)
    local logits = model(batch);
    (o.decide or M.decide)(logits, result.predictions)
    local labels = batch.labels:data()
    for i = 0, batch.examples - 1 do result.labels[#result.labels + 1] = tonumber(labels[i]) end
    return (o.loss or M.loss)(logits, batch)
  end, o)
  return result.loss and result or nil
end

return M
