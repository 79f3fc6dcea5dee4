local gradients = require "spec.optim.gradients"
local optim = require "octet.optim"
local tensor = require "octet.tensor"

-- PyTorch's Adam and AdamW (foreach = False), float32. p starts as six draws times 2; the gradient
-- of step t is the next six draws, the i-th (0-based) times 10^-i. draws(): x = 1 at first, then
-- x = x * 16807 % 2147483647, each x / 2147483647 - 0.5.
local TRAJECTORIES = {
  {name = "adam", rule = "adam", options = {lr = 1e-2},
    [1] = {-0.989984334, -0.7469244, 0.50121069, -0.0926995054, 0.0755258948, -0.571591854},
    [10] = {-1.00967383, -0.728617251, 0.523906767, -0.110488728, 0.0566015616, -0.576666057},
    [50] = {-1.06273937, -0.814624727, 0.560391784, -0.134007096, -0.000167026534, -0.515035331},
    m = {0.0738763511, 0.0101730693, -0.000196982568, 2.46665422e-05, -5.71397595e-06,
      -8.76565935e-07},
    v = {0.00403096108, 4.43643949e-05, 3.70699468e-07, 3.631909e-09, 4.53210421e-11,
      4.14389009e-13}},
  {name = "adam with weight decay", rule = "adam", options = {lr = 1e-2, weight_decay = 0.1},
    [1] = {-0.989984334, -0.726924419, 0.50121063, -0.072699748, 0.0555344857, -0.552081645},
    [10] = {-0.983334243, -0.644332111, 0.411900401, 0.00709463889, -0.0169710405, -0.462745667},
    [50] = {-0.906397641, -0.35512355, 0.10058789, 0.00575399771, -0.000604893081, -0.138902158},
    m = {-0.0170323141, -0.0309158061, 0.0160034541, -7.12377587e-05, -0.000175363195,
      -0.0204485636},
    v = {0.00403202139, 0.000159807154, 4.68636827e-05, 2.88788812e-07, 1.63602621e-07,
      6.21239451e-05}},
  {name = "adamw", rule = "adamw", options = {lr = 1e-2, weight_decay = 0.1},
    [1] = {-0.988984346, -0.746187508, 0.500699461, -0.0926168039, 0.0754603595, -0.571029782},
    [10] = {-0.999762774, -0.721312821, 0.518759727, -0.109426238, 0.0559417009, -0.571000397},
    [50] = {-1.01295412, -0.77805829, 0.534483552, -0.128906205, -0.0012076142, -0.487623006},
    m = {0.0738763511, 0.0101730693, -0.000196982568, 2.46665422e-05, -5.71397595e-06,
      -8.76565935e-07},
    v = {0.00403096108, 4.43643949e-05, 3.70699468e-07, 3.631909e-09, 4.53210421e-11,
      4.14389009e-13}},
  {name = "adam with other betas and eps", rule = "adam",
    options = {lr = 3e-3, betas = {0.8, 0.95}, eps = 1e-4},
    [1] = {-0.996984959, -0.739907742, 0.508369088, -0.0851386711, 0.0658475012, -0.562087476},
    [10] = {-1.00415909, -0.735284388, 0.513908327, -0.0874901339, 0.0648889318, -0.562152207},
    [50] = {-1.02140033, -0.766423523, 0.524898529, -0.0945938155, 0.0622627698, -0.561444104},
    m = {0.0621869974, 0.00816802867, -0.000142576537, 1.50329815e-05, -8.71321572e-06,
      -6.65443622e-07},
    v = {0.0753855631, 0.000942483253, 5.93033747e-06, 6.49869918e-08, 9.73340963e-10,
      7.14135522e-12}},
  -- torch.nn.utils.clip_grad_norm_(p, 0.2) before each step; weight decay 0.01 by default
  {name = "adamw, clipped", rule = "adamw", options = {lr = 1e-2}, step = {max_norm = 0.2},
    [1] = {-0.989884317, -0.746850669, 0.501159608, -0.0926909447, 0.0755084977, -0.570980132},
    [10] = {-1.01059091, -0.721766233, 0.518301249, -0.112668186, 0.0552636385, -0.584989011},
    [50] = {-1.03364885, -0.815845668, 0.528891087, -0.144958481, -0.0292884503, -0.534944654},
    m = {0.0453300774, 0.00755243143, -6.6246489e-06, 1.62171673e-05, -2.80842914e-06,
      -4.76324317e-07},
    v = {0.00145628909, 3.15440011e-05, 2.41047189e-07, 2.27205832e-09, 2.62248365e-11,
      2.78328603e-13}},
}

local function start(trajectory, reference)
  local draw = gradients.draws(1)
  local w = gradients.parameter(function() return 2 * draw() end, 6)
  local opt = optim[trajectory.rule]({w}, trajectory.options)
  if reference then opt:use_reference(true) end
  return w, opt, draw
end

local function step(w, opt, draw, options)
  local g = {}
  for i = 1, 6 do g[i] = draw() * 10 ^ (1 - i) end
  gradients.set(w, g)
  opt:step(options)
end

describe("32-bit Adam", function()
  for _, trajectory in ipairs(TRAJECTORIES) do
    for _, reference in ipairs {false, true} do
      it(("follows PyTorch's trajectory: %s%s"):format(trajectory.name,
        reference and ", scalar twin" or ""), function()
        local w, opt, draw = start(trajectory, reference)
        for t = 1, 50 do
          step(w, opt, draw, trajectory.step)
          if trajectory[t] then
            assert.is_true(gradients.difference(w:totable(), trajectory[t], 0.1) < 2e-6,
              "step " .. t)
          end
        end
        local state = opt:state().tensors
        -- A sum near 0 keeps the rounding of its parts: relative to the gradients of its place.
        local m, v = state["1.m"]:totable(), state["1.v"]:totable()
        for i = 1, 6 do
          local scale = math.sqrt(trajectory.v[i])
          assert.is_true(math.abs(m[i] - trajectory.m[i]) < 2e-6 * scale, "m of element " .. i)
        end
        assert.is_true(gradients.difference(v, trajectory.v, 0) < 2e-6)
      end)
    end
  end

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
    local expected = opt:use_reference(true):clip_norm(1)
    opt:use_reference(false)
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
