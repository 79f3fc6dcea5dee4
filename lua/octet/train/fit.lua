--- The training loop with what a recipe needs around it: schedule, clipping, evaluation, log,
-- checkpoint, resume, and an end in good order when a signal comes.
--
-- All that the loop knows of where it stands is in its position, a table of numbers that a
-- checkpoint keeps: a loop that begins from a checkpoint does, bit for bit, what the one that wrote
-- it would have done.
-- @module octet.train.fit
local machine = require "octet.machine"
local nearest = require "octet.nearest"
local progress = require "octet.train.progress"
local scope = require "octet.scope"
local signals = require "octet.train.signals"

local M = {}

local NEEDED = {"model", "optimizer", "batches", "loss", "lr", "evaluate", "metrics",
  "steps_per_epoch", "epochs"}
local OPTIONS = {"run", "accumulate", "clip", "average", "plateau", "parts", "better", "steps",
  "evaluate_every", "checkpoint_every", "show", "say", "on_evaluation", unpack(NEEDED)}

local Fit = {}
Fit.__index = Fit

--- Where a run begins; what a position holds.
-- `epoch` and `batch`: epochs done, and steps done of the one after them; `due`: an evaluation
-- comes first; `ended`: no step is left; `loss_sum`, `loss_count`: since the last evaluation;
-- `best`: step, epoch and value of the best evaluation so far; `last`, `note`: of the last one.
function M.beginning()
  return {epoch = 0, batch = 0, step = 0, tokens = 0, examples = 0, loss_sum = 0, loss_count = 0,
    due = false, ended = false}
end

--- A number of single precision, with the digits that tell it from its neighbours and no more.
local function single(x) return tonumber(("%.9g"):format(x)) end

local function is_finite(x) return x == x and x ~= math.huge and x ~= -math.huge end

--- The end of a run whose numbers have left what floats can say: an error, and an outcome, since
-- the same run would come to the same end.
function Fit:fail_not_finite(what, value)
  local run = self.o.run
  local good = run and self.saved_step
  value = value ~= value and "nan" or tostring(value)
  -- Where that cannot be written down, it is still said.
  if run then
    pcall(run.save_json, run, "diverged.json", {step = self.position.step + 1,
      epoch = self.position.epoch + 1, what = what, value = value})
  end
  error(("%s is %s at step %d (epoch %d): training has diverged and stops here; %s. A smaller "
    .. "--lr often helps"):format(what, value, self.position.step + 1,
    self.position.epoch + 1, good and ("the last good checkpoint, of step %d, is kept in %s")
      :format(good, run:path "checkpoint") or "there is no checkpoint yet"), 0)
end

--- Clip, step, zero the gradients, which count `scale` times; returns their norm before it was
-- clipped.
function Fit:update(lr, scale)
  local optimizer = self.o.optimizer
  local clip = self.o.clip
  local norm = optimizer:clip_norm(clip and clip > 0 and clip / scale or math.huge) * scale
  if not is_finite(norm) then self:fail_not_finite("the gradient's norm", norm) end
  optimizer:set_lr(lr)
  optimizer:step(scale ~= 1 and {grad_scale = scale} or nil)
  optimizer:zero_grad()
  if self.o.average then self.o.average:update() end
  return norm
end

--- Add the gradients of a batch's loss, `scale` times; returns the loss.
function Fit:add_gradients(batch, scale)
  local loss = self.o.loss(batch)
  local value = loss:item()
  if not is_finite(value) then self:fail_not_finite("the loss", value) end
  if scale ~= 1 then loss = loss * scale end
  loss:backward()
  return value
end

--- What a batch's loss is a mean over, and so how much it counts beside the others of its step.
local function weight_of(batch)
  local weight = batch.weight or batch.examples
  if not (type(weight) == "number" and weight > 0) then
    error(("a batch's weight is %s, expected a number above 0"):format(tostring(weight)), 0)
  end
  return weight
end

--- One step of training, on the next `accumulate` batches or what is left of them. Each counts by
-- its weight, so that the gradient is that of all their examples in one batch: a loss is scaled by
-- its weight over the first one's, the sum by the first one's over all.
-- @treturn ?table loss, lr, norm, tokens; nil where no batch is left
function Fit:train_step(next_batch)
  local o, p = self.o, self.position
  local step = {loss = 0, lr = o.lr(p.step + 1), tokens = 0}
  local first, sum, examples = nil, 0, 0
  for _ = 1, o.accumulate do
    local batch = next_batch()
    if not batch then break end
    local weight = weight_of(batch)
    first, sum = first or weight, sum + weight
    local loss = scope.scope(self.add_gradients, self, batch, weight / first)
    step.loss = step.loss + (loss - step.loss) * (weight / sum)
    step.tokens, examples = step.tokens + batch.tokens, examples + batch.examples
  end
  if not first then return nil end
  step.norm = scope.scope(self.update, self, step.lr, first / sum)
  p.step, p.batch = p.step + 1, p.batch + 1
  p.tokens, p.examples = p.tokens + step.tokens, p.examples + examples
  p.loss_sum, p.loss_count = p.loss_sum + step.loss, p.loss_count + 1
  return step
end

--- Write the step down, and show it.
function Fit:report(step, seconds)
  local o, p = self.o, self.position
  local loss, lr, norm = step.loss, step.lr, step.norm
  -- A moving average, with as much weight on the past as there is past.
  self.seen = (self.seen or 0) + 1
  local weight = math.max(0.05, 1 / self.seen)
  self.recent_loss = (1 - weight) * (self.recent_loss or 0) + weight * loss
  if o.run then
    o.run:log {step = p.step, epoch = p.epoch + 1, loss = single(loss), lr = lr,
      grad_norm = single(norm), tokens = p.tokens}
    o.run:scalars(p.step, {["train/loss"] = loss, ["train/lr"] = lr, ["train/grad_norm"] = norm,
      ["train/tokens_per_second"] = step.tokens / math.max(seconds, 1e-9)})
  end
  if self.bar then
    self.bar:update(p.batch, {loss = self.recent_loss, units = step.tokens})
  end
end

--- Keep all that is needed to go on from here.
function Fit:checkpoint(is_best)
  local o = self.o
  if not o.run then return end
  local begun = machine.clock()
  o.run:checkpoint(self.position, {seconds = self.seconds,
    evaluation_seconds = self.evaluation_seconds}, is_best)
  self.saved_step = self.position.step
  if self.bar then self.bar:pause(machine.clock() - begun) end
end

--- Evaluate, write the scores down, keep the checkpoints. False where a signal cut it off: the
-- position then says that the evaluation is still due.
function Fit:evaluation()
  local o, p = self.o, self.position
  local begun = machine.clock()
  local metrics, note
  if o.average then
    metrics, note = o.average:with(o.evaluate, signals.seen)
  else
    metrics, note = o.evaluate(signals.seen)
  end
  if not metrics then return false end
  local took = machine.clock() - begun
  self.evaluation_seconds = self.evaluation_seconds + took
  p.due = false
  p.last, p.note = metrics, note
  local value = metrics[o.metrics[1]]
  local epochs = p.epoch + p.batch / o.steps_per_epoch
  local is_best = not p.best or o.better(value, p.best.value)
  if is_best then p.best = {step = p.step, epoch = epochs, value = value} end
  if o.plateau then o.plateau:update(value) end
  if o.run then
    local row = {step = p.step, epoch = single(epochs), train_loss = p.loss_count > 0
      and single(p.loss_sum / p.loss_count) or nil}
    local scalars = {}
    for name, score in pairs(metrics) do
      row[name] = single(score)
      scalars["dev/" .. name] = score
    end
    o.run:metrics(row)
    o.run:scalars(p.step, scalars)
  end
  p.loss_sum, p.loss_count = 0, 0
  self:checkpoint(is_best)
  if self.bar then self.bar:pause(machine.clock() - begun) end
  o.on_evaluation(metrics, epochs, function(line)
    if self.bar then self.bar:say(line) else o.say(line) end
  end)
  return true
end

local function is_due(every, step) return every and every > 0 and step % every == 0 end

--- Steps until the epoch or the run ends. False where a signal came.
function Fit:steps()
  local o, p = self.o, self.position
  local iterate, data, batch = o.batches(p.epoch + 1, p.batch * o.accumulate)
  local function next_batch()
    batch = iterate(data, batch)
    return batch
  end
  while true do
    local begun = machine.clock()
    local step = self:train_step(next_batch)
    if not step then break end
    local seconds = machine.clock() - begun
    self.seconds = self.seconds + machine.clock() - self.mark
    self:report(step, seconds)
    if p.batch == o.steps_per_epoch then
      p.epoch, p.batch, p.due = p.epoch + 1, 0, true
    end
    if p.step >= o.total_steps then p.due, p.ended = true, true end
    if p.due then return not signals.seen() end
    if is_due(o.evaluate_every, p.step) then
      p.due = true
      return not signals.seen()
    end
    if signals.seen() then return false end
    if is_due(o.checkpoint_every, p.step) then self:checkpoint() end
    self.mark = machine.clock()
  end
  error(("the data of epoch %d ended after %d steps of %d"):format(p.epoch + 1, p.batch,
    o.steps_per_epoch), 0)
end

function Fit:open_bar()
  local o, p = self.o, self.position
  if not o.show then return end
  self.bar = progress.new {
    label = ("epoch %d/%d"):format(p.epoch + 1, o.epochs), unit = "tokens", done = p.batch,
    total = math.min(o.steps_per_epoch, o.total_steps - (p.step - p.batch)),
  }
  self.bar_epoch = p.epoch
end

function Fit:close_bar()
  if self.bar then self.bar:finish() end
  self.bar = nil
end

function Fit:run()
  local p = self.position
  while not signals.seen() do
    if p.due then
      if self.bar and (p.epoch ~= self.bar_epoch or p.ended) then self:close_bar() end
      if not self:evaluation() then break end
    end
    if p.ended then break end
    if not self.bar then self:open_bar() end
    self.mark = machine.clock()
    if not self:steps() then break end
  end
  self:close_bar()
  local signal = not (p.ended and not p.due) and signals.seen() or nil
  if signal then self:checkpoint() end
  return {
    interrupted = signal, steps = p.step, tokens = p.tokens, examples = p.examples,
    epochs = p.epoch, seconds = self.seconds, evaluation_seconds = self.evaluation_seconds,
    metrics = p.last, note = p.note, best = p.best,
  }
end

local function larger(a, b) return a > b end
local function nothing() end

--- Go to the checkpoint of the run's folder, where there is one, and open its logs.
function Fit:begin()
  local o, run = self.o, self.o.run
  self.position, self.seconds, self.evaluation_seconds = M.beginning(), 0, 0
  if not run then return end
  local parts = {average = o.average, plateau = o.plateau}
  for name, part in pairs(o.parts or {}) do parts[name] = part end
  run:attach(o.model, o.optimizer, parts)
  local position, clock = run:restore()
  if position then
    self.position, self.saved_step = position, position.step
    self.seconds, self.evaluation_seconds = clock.seconds, clock.evaluation_seconds
    o.say(("goes on after step %d of %d"):format(position.step, o.total_steps))
  end
  run:open_logs({"step", "epoch", "train_loss", unpack(o.metrics)}, self.position)
end

--- Train. In a run's folder that holds a checkpoint, training goes on from there.
-- @tparam table o what to do:
--
-- - `model`, `optimizer`; `run`: the run's folder, where something is to be kept;
-- - `batches(epoch, first)`: an iterator over the batches of an epoch (1-based) from the one after
--   the first `first`; each with `tokens` (real ones) and `examples`, and `weight` where the loss
--   is a mean over something else than the examples;
-- - `accumulate`: batches whose gradients make one step (1); a step on several is, up to rounding,
--   the step on all their examples in one batch; the last step of an epoch takes what is left;
-- - `loss(batch)`: the loss, a scalar tensor; `lr(step)`: the learning rate of a step (1-based);
--   `clip`: largest norm of the gradient (0: any);
-- - `average`: an average of the weights (octet.optim.average), updated after each step, which
--   evaluations see in the weights' place; `plateau`: a schedule that is told the first metric of
--   each evaluation, and that `lr` may ask; `parts`: what else the run remembers, by name, such as
--   the state of an LSTM between two batches; checkpoints carry all of them (see checkpoint.save);
-- - `evaluate(stop)`: a table of metrics by name, or nil where stop() became true, and a sentence
--   worth noting, if there is one; `metrics`: their names, the first is the one that tells the
--   best; `better(a, b)`: is a better than b (the larger, where it is left out);
-- - `steps_per_epoch` (of `accumulate` batches), `epochs`, `steps` (a limit), `evaluate_every`,
--   `checkpoint_every` (steps);
-- - `show`: a progress bar; `say(line)`; `on_evaluation(metrics, epochs, say)`.
-- @treturn table steps, tokens, examples, epochs, seconds (of training), evaluation_seconds,
-- metrics, note, best, and `interrupted`: the number of the signal that ended it
function M.fit(o)
  nearest.check_options("fit", o, OPTIONS)
  for _, name in ipairs(NEEDED) do
    if o[name] == nil then error(("fit: %s is missing"):format(name), 2) end
  end
  local settings = setmetatable({
    accumulate = o.accumulate or 1, better = o.better or larger,
    on_evaluation = o.on_evaluation or nothing, say = o.say or nothing,
    total_steps = math.min(o.steps or math.huge, o.epochs * o.steps_per_epoch),
  }, {__index = o})
  local self = setmetatable({o = settings}, Fit)
  local ok, outcome = pcall(signals.caught, function()
    self:begin()
    return self:run()
  end)
  if ok then
    if o.run then o.run:close_logs() end
    return outcome
  end
  -- What the logs hold so far is of use; that they cannot be written is the lesser error.
  if o.run then pcall(o.run.close_logs, o.run) end
  error(outcome, 0)
end

return M
