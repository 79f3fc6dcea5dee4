--- Optimizers, with 32-bit state and with block-wise 8-bit or 4-bit state (Dettmers et al., ICLR
-- 2022).
--
--     local opt = optim.adam8(model:parameters(), {lr = 1e-3})    -- optim.adam: 32-bit state
--     loss:backward()
--     opt:step()
--     opt:zero_grad()
--
-- There is a constructor for each rule and width: adam, adam8, adam4, adamw, sgd, adagrad, rmsprop,
-- adamax, nadam, lion, lars, lamb, ademamix, muon, adafactor. It takes a list of tensors, of
-- {name=, tensor=, bits=}, or of groups {params = {...}, lr = ..., weight_decay = ..., bits = ...},
-- and a table of options; docs/optimizers.md says what each is for.
--
-- Options and their defaults are in octet.optim.options and octet.optim.format, what an optimizer
-- does is in octet.optim.optimizer, learning-rate schedules are in octet.optim.schedule.
-- @module octet.optim
local optimizer = require "octet.optim.optimizer"
local rules = require "octet.optim.rules"

local M = {
  average = require "octet.optim.average",
  clip = require "octet.optim.clip",
  map = require "octet.optim.map",
  schedule = require "octet.optim.schedule",
}

--- Names of the optimizers, those of 32-bit state first.
M.NAMES = {}

for _, bits in ipairs {32, 8, 4} do
  for _, rule in ipairs(rules.all) do
    local name = rule.name .. (bits == 32 and "" or bits)
    M.NAMES[#M.NAMES + 1] = name
    M[name] = function(parameters, options)
      return optimizer.new(name, rule, bits, parameters, options)
    end
  end
end

return M
