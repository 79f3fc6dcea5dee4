-- Optimizers whose parameters lie on a device: where the state lies, what it takes there, and what
-- is refused. That their steps are right is optim_spec's.
local ffi = require "ffi"
local binding = require "octet.binding"
local bits = require "spec.optim.bits"
local emulation = require "spec.cuda.emulation"
local gradients = require "spec.optim.gradients"
local machine = require "octet.machine"
local optim = require "octet.optim"
local rules = require "octet.optim.rules"
local scratch = require "spec.scratch"
local tensor = require "octet.tensor"

local DEVICE = emulation.DEVICE
-- Of the parts that are on the device at a time, and a little for what describes them.
local ROOM = 2 ^ 24 + 2 ^ 16

describe("an optimizer of parameters on a device", function()
  local spec = emulation.specs(it, pending, teardown)

  teardown(function()
    scratch.clean()
    bits.forget()
  end)

  local function parameter(size, device)
    machine.seed(1)
    return tensor.new({size}):normal_(0, 1):parameter_():to_(device)
  end

  -- A step with the same random numbers wherever it is made.
  local function step(opt, w, t)
    machine.set_random_state {optimizer = 1000 * t}
    w:set_grad(bits.gradient(t, w:size()))
    opt:step()
  end

  local function in_use(device)
    return machine.memory(device).optimizer_state.now
  end

  spec("keeps its state beside them, or in the processor's memory, to the byte", function()
    local w = parameter(5000, DEVICE)
    collectgarbage()
    collectgarbage()
    local there, here = in_use(DEVICE), in_use "cpu"
    local opt = optim.adam8({w})
    -- A code for each element and a scale for each 256, of two states.
    assert.equal(2 * (5000 + 20 * 4), in_use(DEVICE) - there)
    assert.equal(here, in_use "cpu")
    assert.equal(DEVICE, opt:state().tensors["1.m"]:device())
    opt:release()
    collectgarbage()
    collectgarbage()
    assert.equal(there, in_use(DEVICE))
    opt = optim.adam8({w}, {state_device = "cpu"})
    assert.equal(there, in_use(DEVICE))
    assert.equal(2 * (5000 + 20 * 4), in_use "cpu" - here)
    assert.equal("cpu", opt:state().tensors["1.m"]:device())
    assert.equal(2 * (5000 + 20 * 4), opt:report().bytes)
    opt:release()
  end)

  spec("takes a bounded room there for what lies here, and makes the same steps", function()
    -- 9.6 MB each of states, or of parameter and gradient: they go through the room in parts.
    -- Clipping and LAMB sum over all elements first.
    local expected, norm, left_out
    for _, case in ipairs {{"cpu", "usual", emulation.usual, 0},
      {DEVICE, "usual", emulation.usual, ROOM}, {DEVICE, "usual", emulation.reverse, ROOM},
      {"cpu", "device", emulation.usual, ROOM}, {"cpu", "device", emulation.reverse, ROOM}} do
      local device, kernels, begin, most = unpack(case)
      begin()
      local list = {parameter(1200000, device), parameter(1200000, device), parameter(9, device)}
      machine.reset_peak_memory()
      local before = machine.memory(DEVICE).workspace.now
      local opt = optim.lamb(list, {state_device = "cpu"}):use_kernels(kernels)
      for k, w in ipairs(list) do
        local g = tensor.full({w:size()}, k / 1000)
        g:data()[k] = 0 / 0
        w:set_grad(g)
      end
      local seen_norm, not_finite = opt:clip_norm(math.huge)
      opt:clip_norm(1)
      local left = opt:step()
      local all = gradients.everything(opt, list)
      expected, norm, left_out = expected or all, norm or seen_norm, left_out or left
      for name, text in pairs(expected) do assert.is_true(all[name] == text, name) end
      assert.equal(norm, seen_norm)
      assert.same({3, 3, left_out}, {not_finite, left, left})
      local room = machine.memory(DEVICE).workspace.peak - before
      assert.is_true(room >= 0.9 * most and room <= most, room)
      opt:release()
      assert.equal(before, machine.memory(DEVICE).workspace.now)
    end
  end)

  spec("copies parts of a parameter, of every kind of state", function()
    local shapes = {{700001}, {5000}}
    local bf16 = {min_8bit_size = 0, correction_bits = 8}
    for _, case in ipairs {{name = "adam8", options = {}}, {name = "adam4", options = {}},
      {name = "adam8", options = {scale = "tensor"}},
      {name = "adamw8", bf16 = true, options = bf16}, {name = "ademamix", options = {}}} do
      case.shapes, case.steps = shapes, 2
      bits.check(case, {
        {text = "streams in their order", kernels = "device", begin = emulation.usual},
        {text = "streams in the reverse order", kernels = "device", begin = emulation.reverse},
      })
    end
  end)

  spec("says which of the calls of its parts has failed, and makes the next step", function()
    local w = tensor.new({600000}):normal_(0, 1):parameter_()
    local opt = optim.adam({w}):use_kernels "device"           -- three parts of some 4 MB
    w:set_grad(bits.gradient(1, 600000))
    opt:step()
    local _, kept = emulation.counts()
    opt:step()
    local calls = emulation.counts()
    for nth = 1, calls do
      emulation.fail(nth)
      local stepped, message = pcall(opt.step, opt)
      assert.is_false(stepped, "call " .. nth)
      assert.matches("^[^\n]*device: cuda: [^\n]+$", message)
      assert.equal(kept, select(2, emulation.counts()))
    end
    local steps = opt:state().numbers.steps["1"]
    opt:step()
    assert.equal(steps + 1, opt:state().numbers.steps["1"])
  end)

  spec("pins the memory of its state here, where it can, until that is freed", function()
    collectgarbage()
    collectgarbage()
    local _, _, pins = emulation.counts()
    local w = parameter(100000, DEVICE)
    local opt = optim.adam8({w}, {state_device = "cpu"})
    -- Codes of two states; their scales are too small.
    assert.equal(pins + 2, select(3, emulation.counts()))
    step(opt, w, 1)
    local expected = gradients.everything(opt, {w})
    opt:release()
    collectgarbage()
    collectgarbage()
    assert.equal(pins, select(3, emulation.counts()))
    w = parameter(100000, DEVICE)
    emulation.fail(1)
    opt = optim.adam8({w}, {state_device = "cpu"})
    assert.equal(pins + 1, select(3, emulation.counts()))
    step(opt, w, 1)
    assert.same(expected, gradients.everything(opt, {w}))
    opt:release()
  end)

  spec("changes where its state lies at any time, by a parameter's name", function()
    local expected
    for _, device in ipairs {"cpu", DEVICE} do
      local w = parameter(5000, device)
      local opt = optim.adam8({w})
      step(opt, w, 1)
      if device == DEVICE then
        opt:override {["1"] = {state_device = "cpu"}}
        assert.equal("cpu", opt:state().tensors["1.m"]:device())
      end
      step(opt, w, 2)
      if device == DEVICE then
        opt:override {["1"] = {state_device = DEVICE}}
        assert.equal(DEVICE, opt:state().tensors["1.m"]:device())
      end
      step(opt, w, 5)
      local all = gradients.everything(opt, {w})
      expected = expected or all
      assert.same(expected, all)
    end
  end)

  spec("saves what one on the processor goes on from, bit for bit, and the other way", function()
    local path = scratch.folder() .. "/state.safetensors"
    for _, ways in ipairs {{DEVICE, "cpu"}, {"cpu", DEVICE}} do
      local w = parameter(5000, ways[1])
      local opt = optim.adam8({w})
      step(opt, w, 1)
      opt:save(path)
      local other = tensor.new({5000}):copy_(w):parameter_():to_(ways[2])
      local resumed = optim.adam8({other}):restore(path)
      step(opt, w, 2)
      step(resumed, other, 2)
      assert.same(gradients.everything(opt, {w}), gradients.everything(resumed, {other}))
    end
  end)

  spec("makes one allocation there, before anything is stepped, and keeps it", function()
    -- The last part is of many parameters, whose work takes more than that of the first ones.
    local list = {parameter(1500000, DEVICE), parameter(1500000, DEVICE)}
    for i = 3, 60 do list[i] = parameter(4, DEVICE) end
    local opt = optim.adam(list, {state_device = "cpu"})
    for _, w in ipairs(list) do w:set_grad(tensor.ones {w:size()}) end
    local before = gradients.everything(opt, list)
    collectgarbage()
    collectgarbage()
    local _, kept = emulation.counts()
    emulation.fail(1)
    assert.error_matches(function() opt:step() end, "allocating %d+ bytes: out of memory")
    assert.same(before, gradients.everything(opt, list))
    opt:step()
    assert.equal(kept + 1, select(2, emulation.counts()))
    opt:step()
    assert.equal(kept + 1, select(2, emulation.counts()))
    opt:release()
    assert.equal(kept, select(2, emulation.counts()))
  end)

  spec("has averages, which lie on the processor", function()
    local average = require "octet.optim.average"
    local means = {}
    for i, device in ipairs {"cpu", DEVICE} do
      local w = parameter(300, device)
      local opt, ema = optim.adam {w}, average.ema({w}, {decay = 0.5})
      for t = 1, 3 do
        step(opt, w, t)
        ema:update()
      end
      local own = w:totable()
      means[i] = ema:with(function() return w:totable() end)
      assert.same(own, w:totable())
    end
    assert.same(means[1], means[2])
  end)

  spec("tells of its codes", function()
    local shares = {}
    for i, device in ipairs {"cpu", DEVICE} do
      local w = parameter(5000, device)
      local opt = optim.adam8({w})
      step(opt, w, 1)
      shares[i] = opt:report().parameters[1].states
    end
    assert.is_true(shares[1][1].zeros > 0)
    assert.same(shares[1], shares[2])
  end)

  spec("wants all of them on one device, and its state there or here", function()
    local here, there = parameter(4, "cpu"), parameter(4, DEVICE)
    for _, case in ipairs {
      {function() optim.adam {here, there} end,
        'optim: parameter "2" lies on cuda-emu and "1" on cpu, expected all on one device'},
      {function() optim.adam({there}, {state_device = "cuda"}) end,
        'optim: parameter "1" lies on cuda-emu, and state_device is cuda, expected the same or '
          .. "cpu"},
      {function() optim.adam({here}, {state_device = DEVICE}) end,
        'optim: parameter "1" lies on cpu, and state_device is cuda-emu, expected the same or '
          .. "cpu"},
      {function() optim.adam({there}, {state_device = 1}) end,
        'optim.adam: state_device is 1, expected the parameters\' device, or "cpu"'},
    } do
      assert.has_error(case[1], case[2])
    end
  end)

  spec("does not follow a parameter that moves, and says so", function()
    local w = parameter(4, "cpu")
    local opt = optim.adam {w}
    w:set_grad(tensor.ones {4})
    w:to_(DEVICE)
    assert.has_error(function() opt:step() end, 'optim: parameter "1" lies on cuda-emu, and lay on '
      .. "cpu when its optimizer was made; move it before")
  end)

  spec("does not note errors, nor take other kernels", function()
    local opt = optim.adam8 {parameter(4, DEVICE)}
    assert.has_error(function() opt:watch(true) end, "optim: how well state is kept is noted on "
      .. "cpu alone, and the parameters lie on cuda-emu")
    assert.has_error(function() opt:use_kernels "scalar" end,
      "optim: the parameters lie on cuda-emu, whose kernels there is no choice of")
    -- The core's own interface lets parameters come later.
    local C, check = binding.C, binding.check
    local out, options = ffi.new "oct_optim *[1]", ffi.new("double[12]", 0.9, 0.999, 1e-8)
    check(C.oct_optim_new(out))
    local handle = ffi.gc(out[0], C.oct_optim_free)
    check(C.oct_optim_group(handle, 0, rules.all.adam.index, 1e-3, 0, 0, options))
    check(C.oct_optim_watch(handle, 1))
    assert.equal(-1, C.oct_optim_add(handle, parameter(4, DEVICE), "w", 0, 32, 256, 0, nil, nil, 0,
      nil))
    assert.matches('optim: parameter "w" lies on cuda%-emu, and the optimizer is watched',
      binding.last_error())
  end)

  -- Muon's and Adafactor's matrices are stepped here, on copies.
  for _, case in ipairs {
    {"adam8", {300}, {min_8bit_size = 0}}, {"adam8", {300}, {min_8bit_size = 0, scale = "tensor"}},
    {"lars", {300}, {}}, {"muon8", {20, 30}, {min_8bit_size = 0}}, {"adafactor", {20, 30}, {}},
  } do
    local name, shape, options = unpack(case)
    spec(("with state here is as it was where a call fails before the step: %s%s"):format(name,
      options.scale and ", one scale" or ""), function()
      machine.seed(1)
      local w = tensor.new(shape):normal_(0, 1):parameter_():to_(DEVICE)
      options.state_device = "cpu"
      local opt = optim[name]({w}, options)
      w:set_grad(bits.gradient(1, w:size()))
      opt:step()
      emulation.counts()
      opt:step()
      local calls, kept = emulation.counts()
      -- The step's last calls: a matrix goes back there; else the state back here, and the count of
      -- elements left out.
      local last = 1
      for _ in pairs(shape[2] and {} or opt:state().tensors) do last = last + 1 end
      assert.is_true(calls > last)
      for nth = 1, calls do
        local before = gradients.everything(opt, {w})
        emulation.fail(nth)
        local stepped, message = pcall(opt.step, opt)
        local _, left = emulation.counts()
        assert.is_false(stepped, "call " .. nth)
        assert.matches("device: cuda: [^\n]+$", message)
        assert.equal(kept, left)
        if nth <= calls - last then
          assert.same(before, gradients.everything(opt, {w}))
        end
        opt:step()
      end
    end)
  end
end)
