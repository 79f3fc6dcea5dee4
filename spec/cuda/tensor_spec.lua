-- Tensors that lie on a device: copies, views, gradients from elsewhere, and that all else refuses
-- them in one line.
local emulation = require "spec.cuda.emulation"
local gradients = require "spec.optim.gradients"
local machine = require "octet.machine"
local nn = require "octet.nn"
local safetensors = require "octet.safetensors"
local scope = require "octet.scope"
local scratch = require "spec.scratch"
local tensor = require "octet.tensor"

local DEVICE = emulation.DEVICE

describe("a tensor on a device", function()
  local spec = emulation.specs(it, pending, teardown)

  teardown(scratch.clean)

  local function bytes(purpose)
    return machine.memory(DEVICE)[purpose].now
  end

  spec("comes back as it went, whatever its type", function()
    for _, dtype in ipairs {"f32", "f16", "bf16"} do
      local x = tensor.new({3, 5}):normal_(0, 1):to(dtype)
      local there = x:to(DEVICE)
      assert.equal(DEVICE, there:device())
      assert.equal("cpu", x:device())
      assert.equal(dtype, there:dtype())
      assert.same({3, 5}, there:shape())
      assert.same(x:totable(), there:totable())
      assert.same(x:totable(), there:to "cpu":totable())
    end
    for _, dtype in ipairs {"i32", "u8"} do
      assert.same({1, 2, 3}, tensor.from({1, 2, 3}, {3}, dtype):to(DEVICE):totable())
    end
    assert.equal(7, tensor.from {7}:to(DEVICE):item())
  end)

  spec("is itself where it is asked to go where it lies", function()
    local x = tensor.ones {2}
    assert.is_true(x:to "cpu" == x)
    local there = x:to(DEVICE)
    assert.is_true(there:to(DEVICE) == there)
  end)

  spec("says so when it is printed", function()
    assert.equal("tensor f32 [2] on cuda-emu\n  1  2", tostring(tensor.from {1, 2}:to(DEVICE)))
  end)

  spec("has views that share its memory", function()
    local there = tensor.from {{1, 2}, {3, 4}, {5, 6}}:to(DEVICE)
    there:rows(2):copy_(tensor.from {{7, 8}})
    assert.same({1, 2, 7, 8, 5, 6}, there:reshape(6):detach():totable())
  end)

  spec("is copied from there to here, from here to there, and within the device", function()
    local here, there = tensor.from {1, 2, 3, 4}, tensor.zeros {4}:to(DEVICE)
    there:copy_(here)
    assert.same({1, 2, 3, 4}, there:totable())
    local other = tensor.zeros {4}:to(DEVICE):copy_(there)
    assert.same({1, 2, 3, 4}, tensor.zeros {4}:copy_(other):totable())
    other:rows(1, 2):copy_(other:rows(3, 2))
    assert.same({3, 4, 3, 4}, other:totable())
    assert.has_error(function() other:rows(1, 2):copy_(other:rows(2, 2)) end,
      "copy: the two tensors share memory")
  end)

  spec("is accounted there and not here, exactly, by purpose", function()
    collectgarbage()
    collectgarbage()
    local here = machine.memory().total.now
    local before = bytes "activations"
    scope.scope(function()
      local x = tensor.new({1000}):normal_(0, 1)
      local there = x:to(DEVICE)
      assert.equal(here + 4000, machine.memory().total.now)
      assert.equal(before + 4000, bytes "activations")
      there:rows(1, 10):to "cpu"
    end)
    assert.equal(before, bytes "activations")
    assert.equal(here, machine.memory().total.now)
    local parameters = bytes "parameters"
    local w = tensor.zeros({10, 10}):to(DEVICE):parameter_()
    assert.equal(parameters + 400, bytes "parameters")
    assert.equal(before, bytes "activations")
    local gradient_bytes = bytes "gradients"
    w:set_grad(tensor.ones {100})
    assert.equal(gradient_bytes + 400, bytes "gradients")
    w:to_ "cpu"
    assert.equal(parameters, bytes "parameters")
    assert.equal(gradient_bytes, bytes "gradients")
  end)

  spec("is refused by ops in one line that names the device", function()
    local here, there = tensor.ones {2, 2}, tensor.ones({2, 2}):to(DEVICE)
    local ids = tensor.from({0, 1}, {2}, "i32")
    local refused = "lies on cuda-emu, expected on cpu; :to \"cpu\" copies it there"
    for name, op in pairs {
      add = function() return here + there end, affine = function() return there * 2 end,
      unary = function() return there:exp() end, reduce = function() return there:sum() end,
      argmax = function() return there:argmax() end,
      softmax = function() return there:softmax() end,
      matmul = function() return here:matmul(there) end,
      concat = function() return tensor.cat {here, there} end,
      transpose = function() return there:transpose() end,
      narrow = function() return there:narrow(2, 1, 1) end,
      cast = function() return there:to "bf16" end, fill = function() there:fill_(1) end,
      uniform = function() there:uniform_() end, normal = function() there:normal_() end,
      swap = function() here:swap_(there) end, lerp = function() here:lerp_(there, 0.5) end,
      data = function() return there:data() end, all_finite = function() there:all_finite() end,
      backward = function() tensor.ones({1}):to(DEVICE):parameter_():backward() end,
      cross_entropy = function() return nn.cross_entropy(there, ids) end,
    } do
      local ok, message = pcall(op)
      assert.is_false(ok, name)
      assert.matches(refused, message, 1, true)
      assert.is_nil(message:find "\n", 1, true)
    end
  end)

  spec("is a parameter that moves with its gradient, and back", function()
    local w = tensor.from {1, 2, 3}:parameter_()
    gradients.set(w, {4, 5, 6})
    w:to_(DEVICE)
    assert.equal(DEVICE, w:device())
    assert.equal(DEVICE, w:grad():device())
    assert.is_true(w:is_parameter())
    assert.same({1, 2, 3}, w:totable())
    assert.same({4, 5, 6}, w:grad():totable())
    w:to_(DEVICE):to_ "cpu"
    gradients.set(w, {1, 1, 1})
    assert.same({1, 1, 1}, w:grad():totable())
    assert.same({1, 2, 3}, w:totable())
  end)

  spec("does not move while views see it, and no result of an op does", function()
    local w = tensor.ones({4}):parameter_()
    local view = w:rows(1, 2)
    assert.has_error(function() w:to_(DEVICE) end,
      "move: [4] is an op's result, or has views; expected a tensor of its own")
    assert.same({1, 1}, view:totable())
    assert.error_matches(function() (w * 2):to_(DEVICE) end, "is an op's result, or has views")
  end)

  spec("does not move while what is recorded needs it", function()
    local x, b = tensor.ones {2, 3}, tensor.ones({3}):parameter_()
    local refused = "is part of what is recorded; it can move behind backward, or behind the end "
      .. "of the step's scope"
    local w = tensor.ones({3, 2}):parameter_()
    local loss = (x + b):sum() + x:matmul(w):sum()
    assert.error_matches(function() b:to_(DEVICE) end, "move: [3] " .. refused, 1, true)
    assert.error_matches(function() x:to_(DEVICE) end, "move: [2 x 3] " .. refused, 1, true)
    loss:backward()
    x:to_(DEVICE)
    b:to_(DEVICE)
    assert.same({2, 2, 2}, b:grad():totable())
  end)

  spec("does not move as a gradient or a state, away from whose it is", function()
    local w = tensor.ones({300}):parameter_()
    w:set_grad(tensor.ones {300})
    local opt = require "octet.optim".adam {w}
    for _, t in ipairs {w:grad(), opt:state().tensors["1.m"]} do
      assert.error_matches(function() t:to_(DEVICE) end,
        "move: [300] is a gradient, which moves with its parameter, or state, which stays", 1, true)
    end
    w:to_(DEVICE)
    assert.error_matches(function() w:grad():to_ "cpu" end, "is a gradient", 1, true)
  end)

  spec("moves as a part whose whole is gone", function()
    local part
    scope.scope(function()
      part = tensor.from {1, 2, 3, 4}:rows(3, 2):keep()
    end)
    assert.same({3, 4}, part:to_(DEVICE):totable())
    assert.same({3, 4}, part:to_ "cpu":totable())
  end)

  spec("goes nowhere by a name that is none", function()
    local x = tensor.ones {2}
    assert.error_matches(function() return x:to "gpu" end,
      "to: no type \"gpu\"; expected f32, f16, bf16, i32 or u8 or a device", 1, true)
    assert.error_matches(function() return x:to_ "gpu" end,
      "to_: no device \"gpu\"; expected cpu, cuda or cuda-emu", 1, true)
  end)

  spec("takes a gradient from elsewhere, of either device", function()
    local w = tensor.zeros({2, 2}):parameter_():to_(DEVICE)
    assert.is_nil(w:grad())
    w:set_grad(tensor.from {1, 2, 3, 4})
    assert.same({1, 2, 3, 4}, w:grad():totable())
    w:set_grad(tensor.from {5, 6, 7, 8}:to(DEVICE))
    assert.same({5, 6, 7, 8}, w:grad():totable())
    w:set_grad(w:grad())
    assert.same({5, 6, 7, 8}, w:grad():totable())
    w:zero_grad()
    assert.is_nil(w:grad())
    for _, case in ipairs {
      {tensor.ones {3}, "set_grad: the gradient is [3], expected [2 x 2]"},
      {tensor.zeros({4}, "i32"), "set_grad: the gradient is i32, expected f32"},
    } do
      assert.error_matches(function() w:set_grad(case[1]) end, case[2], 1, true)
    end
    assert.error_matches(function() tensor.ones({2}):set_grad(tensor.ones {2}) end,
      "set_grad: the tensor [2] is no parameter that collects a gradient", 1, true)
  end)

  spec("is what a model's parameters become by model:to", function()
    local model = nn.Linear(3, 2):to(DEVICE)
    for _, p in ipairs(model:named_parameters()) do assert.equal(DEVICE, p.tensor:device()) end
    assert.error_matches(function() model(tensor.ones {1, 3}) end, "linear: the weight")
    assert.same({1, 2}, model:to "cpu"(tensor.ones {1, 3}):shape())
    for _, any in ipairs {model, nn.Dropout(0.1)} do
      assert.error_matches(function() any:to "tpu" end,
        "to: no device \"tpu\"; expected cpu, cuda or cuda-emu", 1, true)
    end
  end)

  spec("is what all of a model's parameters become, or none", function()
    local model = nn.Linear(3, 2)
    local view = scope.no_grad(function() return model.bias:rows(1, 1) end)
    assert.error_matches(function() model:to(DEVICE) end, "move: [2] is an op's result", 1, true)
    assert.equal("cpu", model.weight:device())
    assert.equal(1, view:size())
    view = nil                                             -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.equal(DEVICE, model:to(DEVICE).bias:device())
  end)

  spec("is saved as any other, and read into", function()
    local path = scratch.folder() .. "/device.safetensors"
    local there = tensor.from {1, 2, 3}:to(DEVICE)
    safetensors.save(path, {x = there})
    assert.same({1, 2, 3}, safetensors.load(path).x:totable())
    local into = tensor.zeros {3}:to(DEVICE)
    safetensors.open(path):read("x", into)
    assert.equal(DEVICE, into:device())
    assert.same({1, 2, 3}, into:totable())
    assert.error_matches(function()
      safetensors.open(path):read("x", tensor.zeros({1, 3}):to(DEVICE))
    end, 'device.safetensors: tensor "x": its shape is [3], expected [1 x 3]', 1, true)
    assert.error_matches(function() safetensors.open(path):read("x", 1LL) end,
      "expected a tensor, got a int64_t", 1, true)
  end)

  spec("loses nothing where a call of the runtime fails", function()
    local w = tensor.from {1, 2, 3}:parameter_()
    w:set_grad(tensor.from {4, 5, 6})
    collectgarbage()
    collectgarbage()
    local _, kept = emulation.counts()
    -- Its value is allocated and copied, and then its gradient.
    for nth = 1, 4 do
      emulation.fail(nth)
      local moved, message = pcall(w.to_, w, DEVICE)
      local _, left = emulation.counts()
      if nth % 2 == 0 then
        assert.is_false(moved)
        assert.matches("device: cuda: copying to the GPU: [^\n]+$", message)
        assert.equal("cpu", w:device())
        assert.equal(kept, left)
      else
        assert.is_true(moved, message)
        w:to_ "cpu"
      end
      assert.same({1, 2, 3}, w:totable())
      assert.same({4, 5, 6}, w:grad():totable())
    end
  end)

  spec("has memory that ends only when what the collector knows of is freed", function()
    local x = tensor.ones {3}
    collectgarbage()
    collectgarbage()
    local _, kept = emulation.counts()
    for _ = 1, 5 do x:to(DEVICE) end
    emulation.fail(1)
    local there = x:to(DEVICE)
    assert.equal(kept + 1, select(2, emulation.counts()))
    assert.same({1, 1, 1}, there:totable())
  end)

  spec("gives its memory back where the processor's ends", function()
    local binding, ffi = require "octet.binding", require "ffi"
    local x, made = tensor.ones {3}, ffi.new "int64_t[1]"
    collectgarbage()
    collectgarbage()
    local _, kept = emulation.counts()
    binding.check(binding.C.oct_fail_allocation(made, 0, 0))
    scope.scope(function() x:to(DEVICE) end)
    binding.check(binding.C.oct_fail_allocation(made, 0, 0))
    local allocations = tonumber(made[0])
    assert.is_true(allocations >= 3)
    for nth = 1, allocations do
      binding.check(binding.C.oct_fail_allocation(made, nth, 1))
      local done, message = pcall(x.to, x, DEVICE)
      binding.check(binding.C.oct_fail_allocation(made, 0, 0))
      assert.is_false(done)
      assert.matches("out of memory", message)
      assert.equal(kept, select(2, emulation.counts()))
    end
  end)
end)
