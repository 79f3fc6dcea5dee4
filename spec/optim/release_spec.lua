-- Gradient release: each parameter is stepped as soon as its gradient is complete.
local failure = require "spec.failure"
local ffi = require "ffi"
local bert = require "models.bert"
local binding = require "octet.binding"
local gradients = require "spec.optim.gradients"
local machine = require "octet.machine"
local octet = require "octet"

local nn, optim, tensor = octet.nn, octet.optim, octet.tensor

local function i32(values) return tensor.from(values, nil, "i32"):keep() end

-- A BERT, and beside it what is used several times: a layer applied twice, and an embedding whose
-- weights are those of the output, too.
local Model = nn.module "Model"

function Model:init()
  self.bert = bert.Classifier(bert.config({
    vocab_size = 11, hidden_size = 16, num_hidden_layers = 2, num_attention_heads = 2,
    intermediate_size = 32, max_position_embeddings = 8,
  }, "config"), {classes = 2, pooling = "cls"})
  self.words = nn.Embedding(11, 16)
  self.twice = nn.Linear(16, 16, {activation = "tanh"})
  self.frozen = nn.Linear(16, 16)
end

function Model:forward(batch)
  local h = self.frozen(self.twice(self.twice(self.words(batch.ids))))
  local words = nn.cross_entropy(h:matmul(self.words.weight, {transpose_b = true}), batch.ids)
  return words + nn.cross_entropy(self.bert(batch), batch.labels)
end

local function fresh(name, options)
  machine.seed(21)
  local run = {model = Model(), weights = {}}
  local stepped = {}
  for _, p in ipairs(run.model:parameters()) do
    run.weights[#run.weights + 1] = p.tensor
    if p.name:find "^frozen" then p.tensor:parameter_(false) end
    if p.name ~= "bert.classifier.bias" then stepped[#stepped + 1] = p end
  end
  run.outside = run.model.bert.classifier.bias
  run.opt = optim[name](stepped, options)
  run.batch = {ids = i32 {1, 2, 3, 4, 5}, types = i32 {0, 0, 0, 1, 1},
    positions = i32 {0, 1, 2, 0, 1}, offsets = i32 {0, 3, 5}, labels = i32 {0, 1}}
  return run
end

local function plain_step(run, options)
  octet.scope(function()
    run.model(run.batch):backward()
    run.opt:step(options)
    run.opt:zero_grad()
  end)
end

local function released_step(run, options)
  octet.scope(function() run.opt:step_backward(run.model(run.batch), options) end)
end

local function assert_same(expected, seen)
  for name, bytes in pairs(expected) do assert.is_true(seen[name] == bytes, name) end
end

describe("a step within backward", function()
  for _, case in ipairs {
    {"adam8", {min_8bit_size = 0}}, {"adamw", {}}, {"sgd4", {min_8bit_size = 0}}, {"lars8", {}},
    {"lamb8", {min_8bit_size = 0}}, {"adam8", {min_8bit_size = 0, scale = "tensor"}},
    {"muon8", {min_8bit_size = 0}}, {"adafactor", {}}, {"ademamix8", {min_8bit_size = 0}},
  } do
    it("gives the bits of backward and step: " .. case[1] .. (case[2].scale or ""), function()
      local plain, released = fresh(case[1], case[2]), fresh(case[1], case[2])
      for _, run in ipairs {plain, released} do
        machine.seed(4)
        for t = 1, 3 do
          local options = {grad_scale = 1 / t, clip_value = 0.01, lr_factor = t}
          if run == plain then plain_step(run, options) else released_step(run, options) end
        end
      end
      assert_same(gradients.everything(plain.opt, plain.weights),
        gradients.everything(released.opt, released.weights))
      assert.equal(3, released.opt:state().numbers.steps["words.weight"])
      assert.equal(0, released.opt:state().numbers.steps["frozen.weight"])
      -- A parameter that is not the optimizer's has its gradient, those that are have none.
      assert.equal(gradients.bytes(plain.outside:grad()), gradients.bytes(released.outside:grad()))
      for _, w in ipairs(released.weights) do
        if w ~= released.outside then assert.is_nil(w:grad()) end
      end
    end)
  end

  it("holds gradients of few parameters at a time", function()
    local run = fresh("adam8")
    local all, largest = 0, 0
    for _, w in ipairs(run.weights) do
      all, largest = all + 4 * w:size(), math.max(largest, 4 * w:size())
    end
    collectgarbage()
    collectgarbage()
    local before = machine.memory().gradients.now
    machine.reset_peak_memory()
    released_step(run)
    local peak = machine.memory().gradients.peak - before
    assert.is_true(peak >= largest and peak < 3 * largest, ("%d of %d"):format(peak, all))
    assert.is_true(all > 7 * largest)
    assert.equal(4 * run.outside:size(), machine.memory().gradients.now - before)
    machine.reset_peak_memory()
    run.outside:zero_grad()
    plain_step(run)
    assert.is_true(machine.memory().gradients.peak - before > 0.9 * all)
  end)

  it("adds to what batches before it have left, as the last batch of a step", function()
    local plain, released = fresh("adam8"), fresh("adam8")
    for _, run in ipairs {plain, released} do
      machine.seed(4)
      octet.scope(function() run.model(run.batch):backward() end)
      if run == plain then plain_step(run, {grad_scale = 0.5})
      else released_step(run, {grad_scale = 0.5}) end
    end
    assert_same(gradients.everything(plain.opt, plain.weights),
      gradients.everything(released.opt, released.weights))
  end)

  it("steps no parameter whose value is still to be read, be it by an unrecorded view", function()
    for _, released in ipairs {false, true} do
      local w, x = tensor.from({2, 3}):parameter_(), tensor.from({1, 1}):parameter_()
      local opt = optim.sgd({w, x}, {lr = 1, momentum = 0})
      local view = octet.no_grad(function() return w:reshape(2) end)
      local early = (x * view):sum()
      local loss = early + (w * 5):sum()
      if released then
        opt:step_backward(loss)
      else
        loss:backward()
        opt:step()
      end
      assert.same({-3, -2}, w:totable())
      assert.same({-1, -2}, x:totable())
    end
  end)

  it("steps with gradients that only an earlier backward has left, too", function()
    local a, b = tensor.from({1}):parameter_(), tensor.from({1}):parameter_()
    local opt = optim.sgd({a, b}, {lr = 1, momentum = 0})
    a:sum():backward()
    opt:step_backward(b:sum())
    assert.same({0, 0}, {a:item(), b:item()})
    assert.is_nil(a:grad())
  end)

  it("passes over elements that are not finite, and counts them", function()
    local w = tensor.from({1, 2, 3}):parameter_()
    local opt = optim.adam {w}
    assert.equal(1, opt:step_backward((w * tensor.from {1, 1 / 0, 1}):sum()))
    assert.equal(2, w:data()[1])
    assert.is_true(w:data()[0] < 1 and w:data()[2] < 3)
  end)

  it("says what it cannot use", function()
    local w = tensor.from({1, 2, 3}):parameter_()
    local opt = optim.adam {w}
    assert.matches('step_backward: unknown option "max_norm"; it is one of ',
      failure(opt.step_backward, opt, w:sum(), {max_norm = 1}))
    assert.matches("backward: the loss is .*, expected a scalar",
      failure(opt.step_backward, opt, w * 2))
    assert.matches("clip_value is %-1, expected more than 0",
      failure(opt.step_backward, opt, w:sum(), {clip_value = -1}))
    assert.equal(0, opt:state().numbers.steps["1"])
    assert.equal(0, opt:step_backward(w:sum()))
  end)

  it("that runs out of memory anywhere leaks nothing, and the next one works", function()
    local C, check = binding.C, binding.check
    local made = ffi.new "int64_t[1]"
    local failures, run = 0, fresh("muon8", {min_8bit_size = 0})
    released_step(run)
    run.outside:zero_grad()
    -- Compiled traces hold on to what earlier specs left, which would go with them in between.
    jit.flush()
    binding.collect()
    local tensors = machine.live_tensors()
    for nth = 1, 2000, 3 do
      local loss = run.model(run.batch)
      check(C.oct_fail_allocation(made, nth, 1))
      local ok, message = pcall(run.opt.step_backward, run.opt, loss)
      check(C.oct_fail_allocation(made, 0, 0))
      loss = nil -- luacheck: ignore
      if ok then break end
      assert.matches("out of memory", message)
      failures = failures + 1
    end
    for _, w in ipairs(run.weights) do assert.is_true(w:all_finite()) end
    run.opt:zero_grad()
    run.outside:zero_grad()
    released_step(run)
    binding.collect()
    assert.is_true(failures > 30, failures .. " failures")
    assert.equal(tensors, machine.live_tensors())
  end)
end)
