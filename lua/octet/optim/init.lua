--- Optimizers, with 32-bit state and with block-wise 8-bit state (Dettmers et al., ICLR 2022).
--
--     local opt = optim.adam8(model:parameters(), {lr = 1e-3})    -- optim.adam: 32-bit state
--     loss:backward()
--     opt:step()
--     opt:zero_grad()
--
-- Options and their defaults are in octet.optim.options, what an optimizer does is in
-- octet.optim.optimizer, learning-rate schedules are in octet.optim.schedule.
-- @module octet.optim
local optimizer = require "octet.optim.optimizer"

local M = {schedule = require "octet.optim.schedule"}

local function constructor(name, rule, bits)
  return function(parameters, options)
    return optimizer.new(name, rule, bits, parameters, options)
  end
end

--- Adam (Kingma and Ba, 2015); weight decay is added to the gradient.
-- @function adam
-- @tparam table parameters a list of tensors, of {name=, tensor=, bits=}, or of groups
-- {params = {...}, lr = ..., weight_decay = ..., bits = ...}
-- @tparam[opt] table options
-- @treturn Optimizer
M.adam = constructor("adam", "adam", 32)

--- Adam with 8-bit state.
-- @function adam8
M.adam8 = constructor("adam8", "adam", 8)

--- AdamW (Loshchilov and Hutter, 2019): weight decay apart from the gradient, 0.01 by default.
-- @function adamw
M.adamw = constructor("adamw", "adamw", 32)

--- AdamW with 8-bit state.
-- @function adamw8
M.adamw8 = constructor("adamw8", "adamw", 8)

--- Names of the optimizers.
M.NAMES = {"adam", "adam8", "adamw", "adamw8"}

return M
