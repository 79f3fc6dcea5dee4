local gradients = require "spec.optim.gradients"
local optim = require "octet.optim"
local tensor = require "octet.tensor"

describe("32-bit Adam", function()
  it("passes over a parameter without a gradient, and counts its steps apart", function()
    local a, b = gradients.parameter {1, 2}, gradients.parameter {3, 4}
    local opt = optim.adam({a, b}, {lr = 0.1})
    gradients.set(a, {1, 1})
    opt:step()
    opt:zero_grad()
    assert.same({3, 4}, b:totable())
    local before = a:totable()
    gradients.set(b, {1, -1})
    opt:step()
    assert.same(before, a:totable())
    assert.same({["1"] = 1, ["2"] = 1}, opt:state().numbers.steps)
    -- The first step of either is lr long, so b's bias was corrected for its first step.
    assert.is_true(gradients.difference(b:totable(), {2.9, 4.1}, 1) < 1e-6)
  end)

  it("corrects each bias by its parameter's own steps", function()
    local a, b, alone = gradients.parameter {1}, gradients.parameter {1}, gradients.parameter {1}
    local opt, other = optim.adam({a, b}), optim.adam({alone})
    gradients.set(a, {1})
    opt:step()
    gradients.set(b, {2})
    gradients.set(alone, {2})
    opt:step()
    other:step()
    assert.same(alone:totable(), b:totable())
    assert.same({["1"] = 2, ["2"] = 1}, opt:state().numbers.steps)
  end)

  it("moves groups by their own numbers", function()
    local a, b = gradients.parameter {1}, gradients.parameter {1}
    local opt = optim.adamw({{params = {a}, weight_decay = 0.5}, {params = {b}, lr = 0.2}},
      {lr = 0.1, weight_decay = 0})
    gradients.set(a, {0})
    gradients.set(b, {1})
    opt:step()
    assert.is_true(math.abs(a:item() - 0.95) < 1e-6)       -- 1 - lr * weight_decay
    assert.is_true(math.abs(b:item() - 0.8) < 1e-6)
    opt.groups[1].lr = 0
    gradients.set(a, {5})
    opt:step()
    assert.is_true(math.abs(a:item() - 0.95) < 1e-6)
  end)

  it("takes lr, a factor on it, and a scale of the gradients for a step", function()
    local w = gradients.parameter {1}
    local opt = optim.adam({w}, {lr = 1})
    gradients.set(w, {7})
    opt:step {lr = 0.5, lr_factor = 0.1, grad_scale = 1e-3}
    assert.is_true(math.abs(w:item() - 0.95) < 1e-6)
    assert.is_true(math.abs(opt:state().tensors["1.m"]:item() - 7e-4) < 1e-9)
    assert.equal(0.5, opt.groups[1].lr)
  end)

  it("clips by the norm over all parameters, and leaves the gradients alone", function()
    local a, b = gradients.parameter {0, 0}, gradients.parameter {0}
    local opt = optim.adam({a, b}, {lr = 0.1})
    gradients.set(a, {3, 0})
    gradients.set(b, {4})
    local norm, not_finite = opt:clip_norm(1)
    assert.equal(5, norm)
    assert.equal(0, not_finite)
    opt:step()
    local state = opt:state().tensors
    assert.is_true(gradients.difference(state["1.m"]:totable(), {0.06, 0}, 1) < 1e-6)
    assert.is_true(gradients.difference(state["2.m"]:totable(), {0.08}, 1) < 1e-6)
    assert.same({3, 0}, a:grad():totable())
    opt:step()                                  -- the scale was for one step
    assert.is_true(math.abs(state["2.m"]:item() - (0.08 * 0.9 + 0.4)) < 1e-6)
    local _, again = opt:step {max_norm = 100}
    assert.equal(5, again)
  end)

  it("sums the norm exactly alike in every instruction set and number of threads", function()
    local machine = require "octet.machine"
    local isa, threads = machine.isa(), machine.threads()
    local w, c = tensor.new({300, 301}):parameter_(), tensor.new({300, 301}):normal_(0, 1):keep()
    gradients.set(w, c)
    local opt = optim.adam({w})
    local expected = opt:use_kernels("scalar"):clip_norm(1)
    opt:use_kernels "usual"
    for _, name in ipairs {"avx2", "avx512"} do
      if pcall(machine.set_isa, name) then
        for count = 1, 3 do
          machine.set_threads(count)
          assert.equal(expected, (opt:clip_norm(1)))
        end
      end
    end
    machine.set_isa(isa)
    machine.set_threads(threads)
  end)
end)
