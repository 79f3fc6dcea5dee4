--- Runs of an optimizer under everything that must not change a bit of its outcome.
local assert = require "luassert"
local gradients = require "spec.optim.gradients"
local machine = require "octet.machine"
local optim = require "octet.optim"
local tensor = require "octet.tensor"

local M = {}

local STEPS = 6
local SMALL = {{1}, {7, 9}, {300}, {3, 1667}}

local drawn = {}

--- Numbers that span six decades, some exactly 0, in steps 3 and 4 some that are not finite or so
-- large that a second moment overflows; drawn once.
function M.gradient(step, size)
  if not drawn[step] or drawn[step]:size() < size then
    local draw = gradients.draws(11 + step)
    drawn[step] = tensor.zeros({math.max(size, 8000)}):keep()
    local g = drawn[step]:data()
    for i = 0, drawn[step]:size() - 1 do
      local y = draw()
      g[i] = y < -0.45 and 0 or y * 10 ^ (6 * draw())
      if (step == 3 or step == 4) and y > 0.49 then
        g[i] = y > 0.495 and 0 / 0 or y > 0.493 and math.huge or 1e30
      end
    end
  end
  return drawn[step]:rows(1, size)
end

local function run(case, settings)
  machine.seed(3)
  machine.set_isa(settings.isa or "auto")
  machine.set_threads(settings.threads or 2)
  local parameters, left_out = {}, {}
  for i, shape in ipairs(case.shapes or SMALL) do
    local w = tensor.new(shape):normal_(0, 1)
    parameters[i] = (case.bf16 and w:to "bf16" or w):parameter_()
  end
  local opt = optim[case.name](parameters, case.options):use_kernels(settings.kernels or "usual")
  for t = 1, case.steps or STEPS do
    for _, w in ipairs(parameters) do
      gradients.set(w, M.gradient(t, w:size()):reshape(w:shape()))
    end
    left_out[t] = opt:step(t % 2 == 0 and {clip_value = 0.3, grad_scale = 0.7} or nil)
  end
  local all = gradients.everything(opt, parameters)
  opt:release()
  return all, left_out
end

local SETTINGS = {
  {isa = "avx2"}, {isa = "avx512"}, {kernels = "plain"}, {threads = 1}, {threads = 3},
}

--- Hold the scalar kernels' bits against everything else's.
-- @tparam table case `name` of the optimizer, `options`; `shapes` of the parameters, `bf16`: that
-- they are, `steps`: 6 where it is not said
function M.check(case)
  local expected, left_out = run(case, {kernels = "scalar"})
  for _, settings in ipairs(SETTINGS) do
    if not settings.isa or pcall(machine.set_isa, settings.isa) then
      local all, left = run(case, settings)
      local who = settings.isa or settings.kernels or settings.threads .. " threads"
      assert.same(left_out, left, who)
      for name, bytes in pairs(expected) do
        assert.is_true(all[name] == bytes, ("%s differs with %s"):format(name, who))
      end
    end
  end
  if not case.shapes then assert.is_true(left_out[3] > 0) end
end

--- Free the numbers that were drawn.
function M.forget() drawn = {} end

return M
