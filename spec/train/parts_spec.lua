-- What a training run remembers beside its model and optimizer: averages of the weights, a plateau,
-- and what a recipe adds.
local average = require "octet.optim.average"
local file = require "octet.file"
local fit = require "octet.train.fit"
local octet = require "octet"
local run_folder = require "octet.train.run_folder"
local scratch = require "spec.scratch"
local nn, optim, tensor = octet.nn, octet.optim, octet.tensor

local STEPS_PER_EPOCH, EPOCHS = 4, 4

local folder
before_each(function() folder = scratch.folder() end)
after_each(scratch.clean)

--- Train with an average and a plateau, or as `o` has it.
local function train(run, o)
  octet.seed(2)
  local model = nn.Linear(3, 2)
  local optimizer = optim.adam8(model:parameters())
  local mean = o.average ~= false and average.ema(model:parameters(), {decay = 0.5}) or nil
  local plateau = o.plateau ~= false
    and optim.schedule.plateau {mode = "max", patience = 0, factor = 0.5} or nil
  local x = tensor.from({1, 2, 3, 3, 1, 0}, {2, 3}):keep()
  local y = tensor.from({0, 1}, {2}, "i32"):keep()
  -- A part of the recipe's own, each of whose values depends on the last one.
  local trail = o.trail ~= false and tensor.zeros {2}:keep() or nil
  local seen, epoch = {}, nil
  fit.fit {
    model = model, optimizer = optimizer, run = run, average = mean, plateau = plateau,
    parts = trail and {trail = {
      state = function() return {tensors = {values = trail}, numbers = {}} end,
      load = function() end,
    }},
    batches = function(number, first)
      epoch = number
      return function()
        first = first + 1
        return first <= STEPS_PER_EPOCH and {tokens = 1, examples = 2} or nil
      end
    end,
    loss = function()
      if o.hook then o.hook(model) end
      if trail then trail:lerp_(model.bias, 0.5) end
      return nn.cross_entropy(model(x), y)
    end,
    lr = function(step) return 0.1 * (plateau and plateau(step - 1) or 1) end,
    evaluate = function()
      seen[epoch] = model.weight:totable()
      return {accuracy = epoch == 1 and 0.5 or 0.4}
    end,
    metrics = {"accuracy"}, steps_per_epoch = STEPS_PER_EPOCH, epochs = EPOCHS,
  }
  return seen, model
end

local function bytes_of(run)
  local all = {}
  for _, name in ipairs {"log.jsonl", "metrics.csv", "checkpoint/last.safetensors"} do
    all[name] = file.sha256(run:path(name))
  end
  return all
end

describe("a training run with an average of its weights", function()
  it("evaluates the averages, and trains on as without them", function()
    local before = {}                    -- the weights before each step, and after the last
    local function hook(model) before[#before + 1] = model.weight:totable() end
    local averaged, model = train(nil, {plateau = false})
    local plain, plain_model = train(nil, {average = false, plateau = false, hook = hook})
    hook(plain_model)
    assert.same(plain_model.weight:totable(), model.weight:totable())
    assert.same(plain[EPOCHS], plain_model.weight:totable())
    local mean = before[1]
    for step = 1, STEPS_PER_EPOCH * EPOCHS do
      for i, weight in ipairs(before[step + 1]) do mean[i] = 0.5 * mean[i] + 0.5 * weight end
      if step % STEPS_PER_EPOCH == 0 then
        for i, value in ipairs(averaged[step / STEPS_PER_EPOCH]) do
          assert.near(mean[i], value, 1e-6)
        end
      end
    end
  end)
end)

describe("a training run with a plateau", function()
  it("lowers the learning rate after the evaluations that were no better", function()
    local run = scratch.run(folder, "a")
    train(run, {average = false})
    local log = run:history()
    for step = 1, STEPS_PER_EPOCH * EPOCHS do
      local expected = 0.1 * 0.5 ^ math.max(0, math.floor((step - 1) / STEPS_PER_EPOCH) - 1)
      assert.equal(expected, log.lr[step], "step " .. step)
    end
  end)
end)

describe("a checkpoint", function()
  it("carries all of them: a run that was stopped goes on to the same bytes", function()
    local whole = scratch.run(folder, "whole")
    train(whole, {})
    local expected = bytes_of(whole)
    for stop = 1, STEPS_PER_EPOCH * EPOCHS, 3 do
      local name = "stopped" .. stop
      local run, steps = scratch.run(folder, name), 0
      assert.has_error(function()
        train(run, {hook = function()
          steps = steps + 1
          if steps == stop then error("killed", 0) end
        end})
      end, "killed")
      run:close_logs()
      train(run_folder.open(folder .. "/" .. name), {})
      assert.same(expected, bytes_of(run), name)
    end
  end)

  it("is refused, by name, where the run has other parts", function()
    local function refused(written, read)
      local run = scratch.run(folder, "a")
      train(run, written)
      local ok, message = pcall(train, run_folder.open(folder .. "/a"), read)
      assert.is_false(ok)
      assert.is_nil(message:find("\n", 1, true))
      file.remove_folder(folder .. "/a")
      return message
    end
    assert.matches("last.safetensors: it holds the average of a run, and this run has none",
      refused({}, {average = false}))
    assert.matches("it holds the plateau of a run", refused({}, {plateau = false}))
    assert.matches("it holds the trail of a run", refused({}, {trail = false}))
    assert.matches("metadata part.trail is missing", refused({trail = false}, {}))
    assert.matches("metadata part.average is missing", refused({average = false}, {}))
    assert.matches("metadata part.plateau is missing", refused({plateau = false}, {}))
  end)
end)
