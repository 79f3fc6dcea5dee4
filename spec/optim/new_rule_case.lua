-- Run by new_rule_spec.lua, with a library that has the rule "signum".
local bits = require "spec.optim.bits"
local gradients = require "spec.optim.gradients"
local machine = require "octet.machine"
local optim = require "octet.optim"
local rules = require "octet.optim.rules"
local tensor = require "octet.tensor"

local SIZE, STEPS = 4096, 60

-- Bernstein et al. 2018, in double precision.
local function reference(p, m, g, o)
  for i = 1, #p do
    local d = g[i] + o.weight_decay * p[i]
    m[i] = o.momentum * m[i] + (1 - o.momentum) * d
    p[i] = p[i] - o.lr * (m[i] > 0 and 1 or m[i] < 0 and -1 or 0)
  end
end

-- Where an optimizer and the reference end up, from the same start with the same gradients.
local function run(name)
  machine.seed(1)
  local o = {lr = 1 / 256, momentum = 0.9, weight_decay = 0.01}
  local draw, start, p, m = gradients.draws(3), {}, {}, {}
  for i = 1, SIZE do
    p[i], m[i] = math.floor(8 * draw()) / 8, 0
    start[i] = p[i]
  end
  local w = tensor.from(p):parameter_()
  local opt = optim[name]({w}, o)
  local apart, way = 0, 0
  for _ = 1, STEPS do
    local g = tensor.new {SIZE}
    for i = 0, SIZE - 1 do g:data()[i] = draw() + 0.1 end
    reference(p, m, g:totable(), o)
    gradients.set(w, g)
    opt:step()
  end
  local now = w:totable()
  for i = 1, SIZE do
    apart, way = apart + math.abs(now[i] - p[i]), way + math.abs(p[i] - start[i])
  end
  return apart / way, opt
end

describe("a rule from a file of its own", function()
  it("is listed, with its title, options, defaults and states", function()
    local rule = rules.all.signum
    assert.equal("Signum (Bernstein et al., 2018)", rule.title)
    assert.equal("momentum", rule.options[1].name)
    assert.equal("m", rule.states[1].name)
    local names = table.concat(optim.NAMES, " ") .. " "
    for _, name in ipairs {"signum ", "signum8 ", "signum4 "} do
      assert.truthy(names:find(name, 1, true))
    end
    local opt = optim.signum {tensor.zeros({3}):parameter_()}
    assert.equal(0.9, opt.groups[1].momentum)
    assert.equal(1e-4, opt.groups[1].lr)
    assert.error_matches(function()
      optim.signum({tensor.zeros({3}):parameter_()}, {momentum = 1})
    end, "optim.signum: momentum is 1, expected from 0 to below 1")
  end)

  it("follows its paper in double precision, with 32, 8 and 4 bits", function()
    -- A sign turns earlier or later where an m near 0 is rounded.
    for name, most in pairs {signum = 1e-3, signum8 = 0.02, signum4 = 0.2} do
      local apart = run(name)
      assert.is_true(apart < most, ("%s: %g of the way"):format(name, apart))
    end
  end)

  it("takes the bytes of its width", function()
    local _, opt = run "signum8"
    assert.equal(SIZE + 4 * SIZE / 256, opt:report().bytes)
    _, opt = run "signum4"
    assert.equal(SIZE / 2 + 4 * SIZE / 128, opt:report().bytes)
  end)

  it("gives the same bits in every instruction set and number of threads", function()
    for _, name in ipairs {"signum", "signum8", "signum4"} do
      for _, rounding in ipairs {"nearest", "stochastic"} do
        bits.check {name = name,
          options = {min_8bit_size = 0, weight_decay = 0.1, rounding = rounding}}
      end
    end
    bits.check {name = "signum8", options = {min_8bit_size = 0}, bf16 = true}
  end)

  it("gives them on CUDA too", function()
    local is_open, why = pcall(machine.open_device, "cuda-emu")
    if not is_open then
      assert.matches("is not there", why)
      pending(why)
    end
    for _, name in ipairs {"signum", "signum8", "signum4"} do
      bits.check({name = name, options = {min_8bit_size = 0}},
        {{text = "emulated CUDA", kernels = "device"}})
    end
  end)

  it("leaves the rules that were there as they are", function()
    local w = tensor.ones({2}):parameter_()
    local opt = optim.adam({w}, {lr = 0.25})
    gradients.set(w, {3, -4})
    opt:step()
    assert.is_true(gradients.difference(w:totable(), {0.75, 1.25}, 1) < 1e-6)
  end)
end)
