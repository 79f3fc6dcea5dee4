-- Every rule with 32-bit state, held against another program or its paper.
local ffi = require "ffi"
local gradients = require "spec.optim.gradients"
local optim = require "octet.optim"
local references = require "spec.optim.references"
local rules = require "octet.optim.rules"
local tensor = require "octet.tensor"
local trajectories = require "spec.optim.peers.trajectories"

local function product(shape)
  local size = 1
  for _, n in ipairs(shape) do size = size * n end
  return size
end

local float = ffi.new "float[1]"
local function as_f32(x)
  float[0] = x
  return tonumber(float[0])
end

-- Start values and gradients that trajectories.py draws too.
local function drawn(shape)
  local draw, size = gradients.draws(1), product(shape)
  local p = {}
  for i = 1, size do p[i] = as_f32(2 * draw()) end
  return p, function()
    local g = {}
    for i = 1, size do g[i] = as_f32(draw() * (#shape == 1 and 10 ^ (1 - i) or 1)) end
    return g
  end
end

local function beyond(difference, what) return ("off by %.2g: %s"):format(difference, what) end

-- Of centered RMSprop PyTorch keeps v and a, and subtracts a^2 in each step; kernels/rules/rmsprop.h
-- keeps the difference.
local function kept_states(case)
  local states = case.states
  if case.options.centered then
    local v, a = states.v, states.a
    local difference = {}
    for i, value in ipairs(v.values) do difference[i] = value - a.values[i] ^ 2 end
    return {v = {values = difference, largest = v.largest}, a = a, m = states.m}
  end
  return states
end

describe("32-bit state follows PyTorch's trajectory:", function()
  for _, case in ipairs(trajectories) do
    for _, kernels in ipairs {"usual", "scalar"} do
      it(("%s (%s kernels)"):format(case.name, kernels), function()
        local start, next_gradient = drawn(case.shape)
        local w = tensor.from(start, case.shape):parameter_()
        local opt = optim[case.rule]({w}, case.options):use_kernels(kernels)
        for t = 1, 50 do
          gradients.set(w, next_gradient())
          opt:step(case.step)
          if case[t] then
            local d = gradients.difference(w:totable(), case[t], 0.1)
            assert.is_true(d < 3e-6, beyond(d, "step " .. t))
          end
        end
        local tensors, count = opt:state().tensors, 0
        for name, expected in pairs(kept_states(case)) do
          local state = tensors["1." .. name]:totable()
          count = count + 1
          -- A sum near 0 keeps the rounding of its parts.
          for i, value in ipairs(expected.values) do
            local d = math.abs(state[i] - value) / expected.largest[i]
            assert.is_true(d < 3e-6, beyond(d, ("%s of element %d"):format(name, i)))
          end
        end
        for _ in pairs(tensors) do count = count - 1 end
        assert.equal(0, count, "states that PyTorch does not have")
      end)
    end
  end
end)

local CASES = {
  {rule = "lamb", options = {}},
  {rule = "lamb", options = {lr = 0.02, betas = {0.8, 0.95}, eps = 1e-3, weight_decay = 0.2}},
  {rule = "lamb", options = {lr = 0.02, weight_decay = 0}, step = {clip_value = 0.1}},
  {rule = "lamb", options = {lr = 0.02, weight_decay = 0.1}, shape = {40001}, steps = 3},
  {rule = "lamb", options = {lr = 0.02}, start = 0, shape = {3, 4}},
  {rule = "lars", options = {}},
  {rule = "lars", options = {lr = 0.01, trust = 0.02}, start = 0, shape = {3, 4}},
  {rule = "lars", options = {lr = 2, momentum = 0, trust = 0.01}},
  {rule = "lars", step = {grad_scale = 0.3},
    options = {lr = 0.5, momentum = 0.8, trust = 0.02, weight_decay = 0.3, eps = 1e-2}},
  {rule = "lars", options = {trust = 0.05, weight_decay = 0.1}, shape = {40001}, steps = 3},
  {rule = "lion", options = {lr = 1e-2}},
  {rule = "lion", options = {lr = 1e-2, betas = {0.7, 0.9}, weight_decay = 0.5}},
  {rule = "lion", options = {lr = 1e-2, weight_decay = 0.5, decoupled = false}},
  {rule = "ademamix", options = {lr = 1e-2}},
  {rule = "ademamix", options = {lr = 1e-2, alpha = 8, warmup = 40, weight_decay = 0.3}},
  {rule = "ademamix", options = {lr = 1e-2, betas = {0.8, 0.95, 0.99}, eps = 1e-3, alpha = 2,
    weight_decay = 0.3, decoupled = false}},
  {rule = "ademamix", options = {lr = 1e-2, warmup = 20},
    step = {clip_value = 0.1, grad_scale = 2}},
  {rule = "muon", options = {lr = 1e-2}, shape = {3, 5}},
  {rule = "muon", options = {lr = 1e-2, weight_decay = 0}, shape = {6, 4}},
  {rule = "muon", options = {lr = 1e-2, nesterov = false, momentum = 0.8, ns_steps = 6},
    shape = {4, 2, 3}},
  {rule = "muon", options = {lr = 1e-2, match_rms = true, weight_decay = 0.5}, shape = {40, 12},
    steps = 10},
  {rule = "muon", options = {lr = 1e-2, weight_decay = 0.5, decoupled = false}, shape = {4, 7}},
  {rule = "muon", options = {lr = 1e-2}, shape = {4, 7}, step = {clip_value = 0.2, grad_scale = 3}},
  {rule = "adafactor", options = {lr = 0.1}, shape = {4, 6}},
  {rule = "adafactor", options = {lr = 0.1, beta1 = 0.9, clip_threshold = 0.7, weight_decay = 0.2},
    shape = {3, 2, 4}},
  {rule = "adafactor", options = {lr = 0.1, eps1 = 1e-3, eps2 = 0.6, beta2_decay = 0.5}},
  {rule = "adafactor", options = {lr = 0.1, beta1 = 0.5, weight_decay = 0.3, decoupled = false},
    shape = {5, 4}},
  {rule = "adafactor", options = {lr = 0.1}, shape = {5, 4}, step = {clip_value = 0.2}},
}

local function words(options)
  local list = {}
  for name, value in pairs(options) do
    list[#list + 1] = (", %s = %s"):format(name,
      type(value) == "table" and table.concat(value, "/") or tostring(value))
  end
  table.sort(list)
  return table.concat(list)
end

describe("32-bit state follows its paper in double precision:", function()
  for _, case in ipairs(CASES) do
    local shape = case.shape or {6}
    for _, kernels in ipairs {"usual", "scalar"} do
      it(("%s%s, [%s]%s (%s kernels)"):format(case.rule, words(case.options),
        table.concat(shape, " x "), words(case.step or {start = case.start}), kernels), function()
        local p, next_gradient = drawn(#shape == 1 and shape[1] > 6 and {shape[1], 1} or shape)
        -- Without a norm there is no ratio of norms.
        if case.start then for i = 1, #p do p[i] = case.start end end
        local w = tensor.from(p, shape):parameter_()
        local opt = optim[case.rule]({w}, case.options):use_kernels(kernels)
        local reference = references.new(case.rule, case.options, shape)
        for t = 1, case.steps or 50 do
          local g = next_gradient()
          gradients.set(w, g)
          opt:step(case.step)
          reference:step(p, g, case.step)
          local d = gradients.difference(w:totable(), p, 0.1)
          assert.is_true(d < (case.rule == "muon" and 5e-5 or 3e-6), beyond(d, "step " .. t))
        end
      end)
    end
  end
end)

describe("a rule for matrices", function()
  it("leaves what is no matrix, or a table of rows, to AdamW with options of its own", function()
    local function each()
      return gradients.parameter {1, -2, 3}, tensor.full({4, 3}, 2):parameter_()
    end
    local a, table_a = each()
    local b, table_b = each()
    local matrix = tensor.ones({3, 4}):parameter_()
    local muon = optim.muon({{name = "a", tensor = a},
      {name = "t", tensor = table_a, lookup = true}, {name = "m", tensor = matrix}},
      {lr = 0.5, weight_decay = 0.3, adamw = {lr = 0.03, betas = {0.8, 0.9}}})
    local adamw = optim.adamw({b, table_b}, {lr = 0.03, betas = {0.8, 0.9}})
    for t = 1, 5 do
      for _, w in ipairs {a, b} do gradients.set(w, {1, t, -t * t}) end
      for _, w in ipairs {table_a, table_b} do gradients.set(w, tensor.full({4, 3}, t)) end
      gradients.set(matrix, tensor.ones {3, 4})
      muon:step()
      adamw:step()
    end
    assert.same(b:totable(), a:totable())
    assert.same(table_b:totable(), table_a:totable())
    -- Of rank one: the direction is the gradient over its norm, stretched to about 1.
    local moved = (1 - 0.15) ^ 5 - matrix:totable()[1]
    assert.is_true(moved > 0.1 and moved < 5 * 0.5 * 1.2 / math.sqrt(12), tostring(moved))
  end)

  it("muon moves neither an element whose gradient is not finite nor its momentum", function()
    for _, name in ipairs {"muon", "muon8", "muon4"} do
      local w = tensor.from({1, 2, 3, 4, 5, 6}, {2, 3}):parameter_()
      local opt = optim[name]({w}, {lr = 0.1, min_8bit_size = 0})
      gradients.set(w, {1, -1, 2, 3, 0.5, 1})
      assert.equal(0, opt:step())
      local before, m = w:totable(), gradients.bytes(opt:state().tensors["1.m"])
      gradients.set(w, {1, 0 / 0, 2, math.huge, 0.5, 1e38})
      assert.equal(3, opt:step())
      local now = w:totable()
      for i = 1, 6 do assert.equal(i == 2 or i == 4 or i == 6, before[i] == now[i], name .. i) end
      assert.is_true(m ~= gradients.bytes(opt:state().tensors["1.m"]))
      for i = 1, 6 do assert.equal(now[i], now[i]) end
    end
  end)

  it("adafactor passes over a parameter some of whose gradient is not finite", function()
    local w = tensor.from({1, 2, 3, 4, 5, 6}, {2, 3}):parameter_()
    local opt = optim.adafactor({w}, {lr = 0.1, beta1 = 0.9})
    gradients.set(w, {1, -1, 2, 3, 0.5, 1})
    opt:step()
    local before = gradients.everything(opt, {w})
    gradients.set(w, {1, 0 / 0, 2, math.huge, 0.5, 1})
    assert.equal(2, opt:step())
    assert.same(before, gradients.everything(opt, {w}))
    assert.same({["1"] = 1}, opt:state().numbers.steps)
  end)
end)

describe("every rule", function()
  it("is held against PyTorch or its paper", function()
    local held = {}
    for _, case in ipairs(trajectories) do held[case.rule] = true end
    for _, case in ipairs(CASES) do held[case.rule] = true end
    for _, rule in ipairs(rules.all) do
      assert.is_true(held[rule.name], rule.name .. " is not")
    end
  end)

  it("has a constructor for each width, and the defaults of its paper's reference", function()
    for _, rule in ipairs(rules.all) do
      for _, width in ipairs {"", "8", "4"} do
        local opt = optim[rule.name .. width] {tensor.zeros({64, 64}):parameter_()}
        local reference = references.rules[rule.name] and references.rules[rule.name][1]
        for name, value in pairs(reference or {}) do
          if name ~= "own_decay" then
            assert.same(value, opt.groups[1][name], rule.name .. "." .. name)
          end
        end
      end
    end
  end)
end)
