--- A learning rate that falls where a metric no longer improves, by the rule of PyTorch's
-- ReduceLROnPlateau (with eps 0: a decay is never too small to be made).
--
--     local factor = optim.schedule.plateau {mode = "max", patience = 3}
--     opt:step {lr_factor = factor(done)}
--     factor:update(scores.accuracy)          -- after each evaluation
-- @module octet.optim.plateau
local message = require "octet.message"
local nearest = require "octet.nearest"
local number = require "octet.number"

local M = {}
local Plateau = {}
Plateau.__index = Plateau

--- Defaults.
-- @field mode "min": the metric should fall; "max": it should rise
-- @field factor what the learning rate is multiplied by
-- @field patience evaluations without an improvement that are put up with
-- @field threshold an improvement is more than this
-- @field threshold_mode "rel": of the best value, "abs": of the metric's own unit
-- @field cooldown evaluations after a decay in which none is counted as bad
-- @field min_factor the least factor on the learning rate, over all decays
-- @field warmup_steps the factor first rises linearly from 0 within so many steps
M.DEFAULTS = {
  mode = "min", factor = 0.1, patience = 10, threshold = 1e-4, threshold_mode = "rel", cooldown = 0,
  min_factor = 0, warmup_steps = 0,
}
local NAMES = {"mode", "factor", "patience", "threshold", "threshold_mode", "cooldown",
  "min_factor", "warmup_steps"}

local is_finite = number.is_finite

local COUNT = {"a whole number, 0 or more", function(x) return number.is_whole(x, 0) end}
local CHECKS = {
  mode = {'"min" or "max"', function(x) return x == "min" or x == "max" end},
  threshold_mode = {'"rel" or "abs"', function(x) return x == "rel" or x == "abs" end},
  factor = {"a number above 0 and below 1",
    function(x) return is_finite(x) and x > 0 and x < 1 end},
  min_factor = {"a number from 0 to 1", function(x) return number.within(x, 0, 1) end},
  threshold = {"a number, 0 or more", function(x) return is_finite(x) and x >= 0 end},
  patience = COUNT, cooldown = COUNT, warmup_steps = COUNT,
}

--- A new one.
-- @tparam[opt] table options as in DEFAULTS
-- @treturn Plateau called with the steps done it gives the factor on the learning rate
function M.new(options)
  nearest.check_options("schedule.plateau", options, NAMES)
  options = options or {}
  for name, value in pairs(options) do
    local check = CHECKS[name]
    if not check[2](value) then
      message.fail(("schedule.plateau: %s is %s, expected %s"):format(name, tostring(value),
        check[1]))
    end
  end
  return setmetatable({
    options = setmetatable({}, {__index = function(_, name)
      if options[name] ~= nil then return options[name] end
      return M.DEFAULTS[name]
    end}),
    reached = 1, bad = 0, cooling = 0,
  }, Plateau)
end

--- The factor on the learning rate.
-- @tparam number done steps done
-- @treturn number
function Plateau:__call(done)
  local warmup = self.options.warmup_steps
  return done < warmup and done / warmup * self.reached or self.reached
end

local function is_better(o, value, best)
  if not best or not is_finite(value) then return is_finite(value) end
  local sign = o.mode == "min" and -1 or 1
  if o.threshold_mode == "abs" then return sign * value > sign * best + o.threshold end
  return sign * value > sign * (best * (1 + sign * o.threshold))
end

--- Take the metric of an evaluation. One that is not finite is no improvement.
-- @tparam number metric
-- @treturn boolean has the learning rate been lowered?
function Plateau:update(metric)
  if type(metric) ~= "number" then
    error(("schedule.plateau: the metric is a %s, expected a number"):format(type(metric)), 2)
  end
  local o = self.options
  if is_better(o, metric, self.best) then
    self.best, self.bad = metric, 0
  else
    self.bad = self.bad + 1
  end
  if self.cooling > 0 then self.cooling, self.bad = self.cooling - 1, 0 end
  if self.bad <= o.patience then return false end
  local before = self.reached
  self.reached = math.max(self.reached * o.factor, math.min(o.min_factor, before))
  self.cooling, self.bad = o.cooldown, 0
  return self.reached < before
end

--- All that it remembers.
-- @treturn table best (nil before the first metric), bad, cooling, reached
function Plateau:state()
  return {best = self.best, bad = self.bad, cooling = self.cooling, reached = self.reached}
end

--- Go on from a state.
-- @tparam table state
-- @treturn Plateau itself
function Plateau:load(state)
  for name, check in pairs {bad = COUNT, cooling = COUNT, reached = CHECKS.min_factor} do
    local value = type(state) == "table" and state[name]
    if not check[2](value) then
      error(("schedule.plateau: load: %s is %s, expected %s"):format(name, tostring(value),
        check[1]), 0)
    end
  end
  if state.best ~= nil and type(state.best) ~= "number" then
    error(("schedule.plateau: load: best is %s, expected a number"):format(tostring(state.best)), 0)
  end
  self.best, self.bad, self.cooling, self.reached = state.best, state.bad, state.cooling,
    state.reached
  return self
end

return M
