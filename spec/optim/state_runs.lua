--- Two parameters, one large and one small, whose gradients follow from the step alone: what the
-- specs of state step, save and take up again.
local gradients = require "spec.optim.gradients"
local optim = require "octet.optim"
local tensor = require "octet.tensor"

local M = {}

--- Numbers over some decades, with both signs.
function M.values(size, seed)
  local list, draw = {}, gradients.draws(seed or 7)
  for i = 1, size do list[i] = draw() * 10 ^ (4 * draw()) end
  return list
end

--- @tparam string rule
-- @tparam[opt] table options
-- @treturn table opt, parameters, rule (without the width)
function M.fresh(rule, options)
  local a = tensor.full({70, 64}, 0.5):parameter_()
  local b = tensor.full({30}, -0.5):parameter_()
  local opt = optim[rule]({{name = "layer.weight", tensor = a}, {name = "layer.bias", tensor = b}},
    options)
  return {opt = opt, parameters = {a, b}, rule = opt.rule.name}
end

--- Steps `from` to `to`.
function M.advance(run, from, to)
  for t = from, to do
    for _, w in ipairs(run.parameters) do
      gradients.set(w, M.values(w:size(), t))
    end
    run.opt:step {max_norm = 1}
    run.opt:zero_grad()
  end
end

return M
