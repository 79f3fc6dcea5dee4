local octet = require "octet"
local file = require "octet.file"
local fit = require "octet.train.fit"
local run_folder = require "octet.train.run_folder"
local scratch = require "spec.scratch"
local checkpoint = require "octet.train.checkpoint"
local nn, tensor = octet.nn, octet.tensor

local EXAMPLES, BATCH = 22, 4
local STEPS_PER_EPOCH = 6

-- Momentum in Lua, with state that a checkpoint must carry: stands for any optimizer.
local function momentum(parameters)
  local self = {tensors = {}, steps = 0}
  for _, p in ipairs(parameters) do
    self.tensors[p.name] = tensor.zeros(p.tensor:shape()):keep()
  end
  function self.clip_norm()
    local sum = 0
    for _, p in ipairs(parameters) do
      local g = p.tensor:grad():data()
      for i = 0, p.tensor:size() - 1 do sum = sum + g[i] * g[i] end
    end
    return math.sqrt(sum)
  end
  function self.set_lr(_, lr) self.lr = lr end
  function self.step(_, options)
    local scale = options and options.grad_scale or 1
    self.steps = self.steps + 1
    for _, p in ipairs(parameters) do
      local w, m, g = p.tensor:data(), self.tensors[p.name]:data(), p.tensor:grad():data()
      for i = 0, p.tensor:size() - 1 do
        m[i] = 0.9 * m[i] + scale * g[i]
        w[i] = w[i] - self.lr * m[i] * (1 + 0.01 * self.steps)
      end
    end
  end
  function self.zero_grad()
    for _, p in ipairs(parameters) do p.tensor:zero_grad() end
  end
  function self.state() return {tensors = self.tensors, numbers = {steps = self.steps}} end
  function self.load(_, state)
    self.steps = state.numbers.steps
    for name, t in pairs(self.tensors) do t:copy_(state.tensors[name]) end
  end
  return self
end

local folder

--- A run of 3 epochs of 6 steps. `hook(what, steps)` is called before each step and evaluation.
local function train(run, hook, o)
  o = o or {}
  octet.seed(7)
  local model = nn.Sequential(nn.Linear(3, 8, {activation = "tanh"}), nn.Dropout(0.2),
    nn.Linear(8, 2))
  local optimizer = momentum(model:parameters())
  local step = 0
  local function rows(epoch, number)
    local xs, ys = {}, {}
    for i = 1, BATCH do
      local n = ((number * BATCH + i) * (epoch + 2)) % EXAMPLES
      xs[i] = {n / EXAMPLES, (n * n) % 5 / 5, 1}
      ys[i] = n % 2
    end
    return {x = xs, y = ys, tokens = 10 + number, examples = BATCH}
  end
  return fit.fit {
    batches = function(epoch, first)
      local number = first
      return function()
        if number >= STEPS_PER_EPOCH then return nil end
        number = number + 1
        local batch = rows(epoch, number)
        batch.step = (epoch - 1) * STEPS_PER_EPOCH + number
        return batch
      end
    end,
    loss = function(batch)
      step = batch.step
      if hook then hook("step", step - 1) end
      local loss = nn.cross_entropy(model(tensor.from(batch.x, {BATCH, 3})),
        tensor.from(batch.y, {BATCH}, "i32"))
      if o.nan_at == step then loss = loss * (0 / 0) end
      return loss
    end,
    model = model, optimizer = optimizer, lr = function(n) return 0.1 / n end,
    evaluate = function(stop)
      if hook then hook("evaluation", step) end
      if stop() then return nil end
      model:eval()
      local score = octet.scope(function()
        return octet.no_grad(function()
          return model(tensor.from(rows(1, 1).x, {BATCH, 3})):softmax():data()[0]
        end)
      end)
      model:train()
      return {accuracy = score}
    end,
    metrics = {"accuracy"}, steps_per_epoch = STEPS_PER_EPOCH, epochs = 3, steps = o.steps,
    evaluate_every = o.evaluate_every, checkpoint_every = o.checkpoint_every,
    run = run,
  }
end

local function send(name) io.popen("kill -" .. name .. " $PPID"):close() end

local KEPT = {"log.jsonl", "metrics.csv", "checkpoint/last.safetensors",
  "checkpoint/best.safetensors"}

local function bytes_of(run)
  local all = {}
  for _, name in ipairs(KEPT) do all[name] = file.sha256(run:path(name)) end
  return all
end

before_each(function() folder = scratch.folder() end)
after_each(scratch.clean)

describe("a training loop", function()
  it("logs each step, scores each epoch, and keeps the last and the best checkpoint", function()
    local run = scratch.run(folder, "a")
    local result = train(run)
    assert.equal(18, result.steps)
    assert.equal(3, result.epochs)
    assert.is_nil(result.interrupted)
    local log, metrics = run:history()
    assert.equal(18, #log.loss)
    assert.same({6, 12, 18}, metrics.step)
    for epoch = 1, 3 do
      local sum = 0
      for i = 6 * epoch - 5, 6 * epoch do sum = sum + log.loss[i] end
      assert.near(sum / 6, metrics.train_loss[epoch], 1e-7)
    end
    assert.same({1, 2, 3}, metrics.epoch)
    assert.equal(0.1 / 18, log.lr[18])
    assert.equal(18, checkpoint.position(run:checkpoint_path()).step)
    assert.equal(result.best.step, checkpoint.position(run:checkpoint_path "best").step)
    assert.equal(3 * 10 * 6 + 3 * 21, result.tokens)
  end)

  it("stops after as many steps as asked, and scores there", function()
    local run = scratch.run(folder, "a")
    local result = train(run, nil, {steps = 8})
    assert.equal(8, result.steps)
    local _, metrics = run:history()
    assert.same({6, 8}, metrics.step)
  end)

  it("scores in between where asked", function()
    local run = scratch.run(folder, "a")
    train(run, nil, {evaluate_every = 4})
    local _, metrics = run:history()
    assert.same({4, 6, 8, 12, 16, 18}, metrics.step)
  end)

  it("gives the same bytes whether it was stopped by a signal anywhere or not", function()
    local whole = scratch.run(folder, "whole")
    train(whole, nil, {evaluate_every = 4})
    local expected = bytes_of(whole)
    for _, stop_at in ipairs {0, 3, 4, 5, 6, 13, 17} do
      for _, what in ipairs {"step", "evaluation"} do
        local run = scratch.run(folder, what .. stop_at)
        local sent = false
        local result = train(run, function(kind, at)
          if not sent and kind == what and at >= stop_at then
            sent = true
            send "TERM"
          end
        end, {evaluate_every = 4})
        if sent and not (result.steps == 18 and not result.interrupted) then
          assert.equal(15, result.interrupted)
          -- Nothing that was done is lost.
          assert.equal(result.steps, checkpoint.position(run:checkpoint_path()).step)
          result = train(run_folder.open(folder .. "/" .. what .. stop_at), nil,
            {evaluate_every = 4})
        end
        assert.is_nil(result.interrupted)
        assert.same(expected, bytes_of(run))
      end
    end
  end)

  it("gives the same bytes where it was killed, however far behind its checkpoint is", function()
    local whole = scratch.run(folder, "whole")
    train(whole, nil, {checkpoint_every = 5})
    local expected = bytes_of(whole)
    for kill_at = 0, 17, 4 do
      local run = scratch.run(folder, "killed" .. kill_at)
      assert.has_error(function()
        train(run, function(_, at)
          if at == kill_at then
            run:each_log(function(log) log:flush() end)
            error("killed", 0)
          end
        end, {checkpoint_every = 5})
      end, "killed")
      run:close_logs()
      train(run_folder.open(folder .. "/killed" .. kill_at), nil, {checkpoint_every = 5})
      assert.same(expected, bytes_of(run))
    end
  end)

  it("stops at a loss that is not a number, names the step, and keeps the last good checkpoint",
    function()
      local run = scratch.run(folder, "a")
      local ok, err = pcall(train, run, nil, {nan_at = 9})
      assert.is_false(ok, err)
      assert.matches("^the loss is nan at step 9 %(epoch 2%): .*the last good checkpoint, "
        .. "of step 6, is kept in " .. run:path "checkpoint":gsub("%p", "%%%0"), err)
      assert.equal(6, checkpoint.position(run:checkpoint_path()).step)
      assert.is_nil(err:find "\n")
      assert.same({step = 9, epoch = 2, what = "the loss", value = "nan"}, run:diverged())
      -- What goes on from there may do better.
      local resumed = run_folder.open(run.folder)
      assert.equal(18, train(resumed).steps)
      assert.is_nil(resumed:diverged())
    end)

  it("refuses an option that it does not have, and asks for what it needs", function()
    assert.error_matches(function() fit.fit {evalute = print} end,
      'fit: unknown option "evalute"; it is one of evaluate')
    assert.error_matches(function() fit.fit {model = nn.Linear(1, 1)} end,
      "fit: optimizer is missing")
  end)

  it("leaves no tensor behind", function()
    collectgarbage() collectgarbage()
    local before = octet.live_tensors()
    train(scratch.run(folder, "a"))
    collectgarbage() collectgarbage()
    assert.equal(before, octet.live_tensors())
  end)
end)

describe("a training loop on a disk that fails", function()
  local ffi = require "ffi"
  local C = require "octet.binding".C
  local made = ffi.new "int64_t[1]"
  local ENOSPC = 28

  it("says so, keeps the former checkpoint, and goes on from it to the same bytes", function()
    local options = {checkpoint_every = 5}
    local whole = scratch.run(folder, "whole")
    C.oct_fail_file(made, 0, 0, 0)
    train(whole, nil, options)
    C.oct_fail_file(made, 0, 0, 0)
    local calls, expected = tonumber(made[0]), bytes_of(whole)
    for nth = 1, calls, 5 do
      local run = scratch.run(folder, "full" .. nth)
      C.oct_fail_file(made, nth, ENOSPC, 1)
      local ok, err = pcall(train, run, nil, options)
      C.oct_fail_file(made, 0, 0, 0)
      if not ok then
        assert.is_nil(tostring(err):find "\n")
        assert.matches("full", err)
        run = run_folder.open(folder .. "/full" .. nth)
        train(run, nil, options)
      end
      assert.same(expected, bytes_of(run), "call " .. nth)
    end
  end)
end)

describe("a run's folder", function()
  it("is never one that exists", function()
    scratch.run(folder, "a")
    assert.has_error(function() scratch.run(folder, "a") end,
      ("--out: %s exists already; name a new folder, or go on with --resume %s"):format(
        folder .. "/a", folder .. "/a"))
  end)

  it("cannot be resumed where there is none, or none of a run", function()
    assert.error_matches(function() run_folder.open(folder .. "/none") end, "there is no folder ")
    file.make_folder(folder .. "/empty")
    assert.error_matches(function() run_folder.open(folder .. "/empty") end,
      "it has no config.json")
  end)
end)

describe("a checkpoint", function()
  it("is refused where a bit of it has flipped, where it is cut short, where it is another file",
    function()
      local run = scratch.run(folder, "a")
      train(run, nil, {steps = 3})
      local path = run:checkpoint_path()
      local text = file.read(path)
      local flipped = text:sub(1, -2) .. string.char(bit.bxor(text:byte(-1), 1))
      for _, damaged in ipairs {flipped, text:sub(1, -2), text:sub(1, 100), ""} do
        file.save(path, damaged)
        local ok, err = pcall(train, run_folder.open(folder .. "/a"))
        assert.is_false(ok, err)
        assert.is_nil(err:find "\n")
      end
      octet.safetensors.save(path, {x = tensor.zeros {2}})
      assert.error_matches(function() train(run_folder.open(folder .. "/a")) end,
        "is no checkpoint of this version of Octet")
    end)

  it("of another shape is refused by name", function()
    local run = scratch.run(folder, "a")
    local model = nn.Linear(2, 2)
    file.make_folder(run:path "checkpoint")
    checkpoint.save(run:checkpoint_path(), model, momentum(model:parameters()), {step = 1})
    assert.error_matches(function() train(run_folder.open(folder .. "/a")) end,
      "tensor model.* is left over")
  end)
end)
