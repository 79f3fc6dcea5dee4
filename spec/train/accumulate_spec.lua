-- Gradient accumulation: a step on several batches is the step on all their examples in one.
local file = require "octet.file"
local fit = require "octet.train.fit"
local octet = require "octet"
local run_folder = require "octet.train.run_folder"
local scratch = require "spec.scratch"
local nn, optim, tensor = octet.nn, octet.optim, octet.tensor

local EXAMPLES, EPOCHS = 70, 3
local IGNORED = -100

local folder
before_each(function() folder = scratch.folder() end)
after_each(scratch.clean)

--- Examples `first` to `first + count - 1` of an epoch's order; a part of them, `ignore`, has no
-- label.
local function batch_of(epoch, first, count, o)
  local xs, ys, counted = {}, {}, 0
  for i = 1, count do
    local n = (first + i - 2) * (2 * epoch + 1) % EXAMPLES
    xs[i] = {math.sin(n), math.cos(3 * n), n / EXAMPLES}
    ys[i] = n % 2
    if n * 0.7549 % 1 < (o.ignore or 0) then ys[i] = IGNORED else counted = counted + 1 end
  end
  return {x = tensor.from(xs, {count, 3}), y = tensor.from(ys, {count}, "i32"),
    tokens = 2 * count, examples = count, weight = o.ignore and counted or nil}
end

--- Train on batches of the given sizes, again and again; the last batch of an epoch takes what is
-- left.
local function train(run, o)
  octet.seed(5)
  local model = nn.Sequential(nn.Linear(3, 16, {activation = "tanh"}), nn.Dropout(o.dropout or 0),
    nn.Linear(16, 2))
  local optimizer = optim[o.optim or "adam"](model:parameters(), {min_8bit_size = 0})
  local batches, first = {}, 1
  while first <= EXAMPLES do
    local size = math.min(o.sizes[#batches % #o.sizes + 1], EXAMPLES - first + 1)
    batches[#batches + 1] = {first = first, count = size}
    first = first + size
  end
  local seen = 0
  local result = fit.fit {
    model = model, optimizer = optimizer, run = run, accumulate = o.accumulate,
    batches = function(epoch, start)
      local number = start
      return function()
        number = number + 1
        local at = batches[number]
        return at and batch_of(epoch, at.first, at.count, o)
      end
    end,
    loss = function(batch)
      seen = seen + 1
      if o.hook then o.hook(seen) end
      return nn.cross_entropy(model(batch.x), batch.y)
    end,
    lr = function(step) return 0.05 / step end, clip = o.clip,
    evaluate = function() return {accuracy = 0} end, metrics = {"accuracy"},
    steps_per_epoch = math.ceil(#batches / (o.accumulate or 1)), epochs = EPOCHS,
    checkpoint_every = o.checkpoint_every, steps = o.steps,
  }
  local weights = {}
  for _, p in ipairs(model:parameters()) do
    for _, value in ipairs(p.tensor:totable()) do weights[#weights + 1] = value end
  end
  return result, weights, seen
end

local function assert_near(expected, found, tolerance, what)
  assert.equal(#expected, #found, what)
  for i, value in ipairs(expected) do
    local off = math.abs(found[i] - value) / (1 + math.abs(value))
    if off > tolerance or off ~= off then
      error(("%s %d is %.9g, expected %.9g"):format(what, i, found[i], value), 0)
    end
  end
end

--- Hold runs on several batches a step against the run on one.
local function hold_against(one, others)
  local expected_run = scratch.run(folder, "one")
  local result, weights = train(expected_run, one)
  local log, metrics = expected_run:history()
  assert.equal(9, result.steps)
  for number, o in ipairs(others) do
    local run = scratch.run(folder, "several" .. number)
    local found, found_weights, seen = train(run, o)
    assert.is_true(seen > 9)
    assert.equal(result.steps, found.steps)
    assert.equal(result.tokens, found.tokens)
    assert.equal(EPOCHS * EXAMPLES, found.examples)
    local found_log, found_metrics = run:history()
    for _, column in ipairs {"step", "epoch", "lr", "tokens"} do
      assert.same(log[column], found_log[column])
    end
    assert_near(log.loss, found_log.loss, 1e-6, "loss of step")
    assert_near(log.grad_norm, found_log.grad_norm, 1e-5, "norm of step")
    assert_near(metrics.train_loss, found_metrics.train_loss, 1e-6, "mean loss of epoch")
    assert_near(weights, found_weights, 2e-5, "weight")
  end
end

describe("accumulated gradients", function()
  it("of 2 x 16 and 4 x 8 examples make the step of 32", function()
    for _, clip in ipairs {0, 0.1} do
      hold_against({sizes = {32}, clip = clip}, {
        {sizes = {16}, accumulate = 2, clip = clip}, {sizes = {8}, accumulate = 4, clip = clip},
      })
      file.remove_folder(folder)
    end
  end)

  it("of batches of unequal sizes count each example alike", function()
    hold_against({sizes = {32}, clip = 0.1}, {
      {sizes = {20, 12}, accumulate = 2, clip = 0.1}, {sizes = {1, 31}, accumulate = 2, clip = 0.1},
      {sizes = {5, 3, 24}, accumulate = 3, clip = 0.1},
    })
  end)

  it("count batches by their weight where the loss is a mean over something else", function()
    hold_against({sizes = {32}, ignore = 0.4}, {
      {sizes = {20, 12}, accumulate = 2, ignore = 0.4},
      {sizes = {8, 24}, accumulate = 2, ignore = 0.4},
    })
  end)

  it("go on to the same bytes where a run was stopped, also within a step", function()
    local function options(more)
      local o = {sizes = {7, 9}, accumulate = 3, dropout = 0.3, optim = "adam8", clip = 0.5,
        checkpoint_every = 2}
      for name, value in pairs(more or {}) do o[name] = value end
      return o
    end
    local function bytes_of(run)
      local all = {}
      for _, name in ipairs {"log.jsonl", "metrics.csv", "checkpoint/last.safetensors"} do
        all[name] = file.sha256(run:path(name))
      end
      return all
    end
    local whole = scratch.run(folder, "whole")
    local result, _, seen = train(whole, options())
    assert.equal(9, result.steps)
    assert.equal(27, seen)
    local expected = bytes_of(whole)
    for batch = 1, seen, 2 do
      local name = "stopped" .. batch
      local run = scratch.run(folder, name)
      assert.has_error(function()
        train(run, options {hook = function(number)
          if number == batch then error("killed", 0) end
        end})
      end, "killed")
      run:close_logs()
      train(run_folder.open(folder .. "/" .. name), options())
      assert.same(expected, bytes_of(run), name)
    end
    for _, batch in ipairs {4, 5, 8, 9, 10} do
      local name = "signal" .. batch
      local run = scratch.run(folder, name)
      local stopped = train(run, options {hook = function(number)
        if number == batch then io.popen "kill -TERM $PPID":close() end
      end})
      assert.equal(15, stopped.interrupted)
      train(run_folder.open(folder .. "/" .. name), options())
      assert.same(expected, bytes_of(run), name)
    end
  end)

  it("take less memory than one batch", function()
    local function peak(o)
      o.steps = 1
      collectgarbage() collectgarbage()
      octet.reset_peak_memory()
      -- Other specs' tensors may still be alive.
      local before = octet.memory().activations.now
      train(nil, o)
      return octet.memory().activations.peak - before
    end
    local one, four = peak {sizes = {64}}, peak {sizes = {16}, accumulate = 4}
    assert.is_true(four < 0.4 * one, ("%d, %d"):format(four, one))
  end)

  it("refuse a batch that weighs nothing, in one line", function()
    local ok, message = pcall(train, nil, {sizes = {2}, ignore = 1, accumulate = 2})
    assert.is_false(ok)
    assert.matches("^a batch's weight is 0, expected a number above 0$", message)
  end)
end)
