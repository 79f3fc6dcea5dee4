--- Learning-rate schedules: functions of the number of steps done (0 before the first), which give
-- a factor on the learning rate. They keep no state, so a resumed run needs nothing of them; only
-- `plateau`, which follows a metric, has some.
--
--     local factor = optim.schedule.cosine {steps = 1000, warmup_steps = 100}
--     opt:step {lr_factor = factor(done)}
--
-- Every schedule takes `warmup_steps` (0): the factor first rises linearly from 0 to 1 within so
-- many steps, and what the schedule's name says comes after that.
-- @module octet.optim.schedule
local message = require "octet.message"
local nearest = require "octet.nearest"
local number = require "octet.number"
local plateau = require "octet.optim.plateau"

local M = {}

local is_finite = number.is_finite

local COUNT = {"a whole number, 0 or more", function(x) return number.is_whole(x, 0) end}
local PART = {"a number from 0 to 1", function(x) return number.within(x, 0, 1) end}
local DIVISOR = {"a number, 1 or more", function(x) return is_finite(x) and x >= 1 end}
local SWITCH = {"true or false", function(x) return type(x) == "boolean" end}
local POSITIVE = {"a number above 0", function(x) return is_finite(x) and x > 0 end}

local ANNEALING = {
  cos = function(from, to, part) return to + (from - to) / 2 * (math.cos(math.pi * part) + 1) end,
  linear = function(from, to, part) return (to - from) * part + from end,
}

local CHECKS = {
  steps = COUNT, warmup_steps = COUNT, restarts = COUNT, growth = DIVISOR, end_factor = PART,
  power = POSITIVE, timescale = POSITIVE, pct_start = PART, div_factor = DIVISOR,
  final_div_factor = DIVISOR, three_phase = SWITCH,
  anneal = {'"cos" or "linear"', function(x) return ANNEALING[x] ~= nil end},
}

--- Options with the defaults filled in. `names` are those that the schedule has; all that has no
-- default and is not marked as open must be given.
local function read(who, given, names, defaults, open)
  nearest.check_options(who, given, names)
  given = given or {}
  local options = {}
  for _, name in ipairs(names) do
    local value = given[name]
    if value == nil then value = defaults[name] end
    if not (value == nil and open and open[name]) and not CHECKS[name][2](value) then
      message.fail(("%s: %s is %s, expected %s"):format(who, name, tostring(value),
        CHECKS[name][1]))
    end
    options[name] = value
  end
  if options.steps and options.warmup_steps and options.warmup_steps > options.steps then
    error(("%s: warmup_steps is %d, but steps is %d"):format(who, options.warmup_steps,
      options.steps), 0)
  end
  return options
end

--- The part of the steps after the warm-up that is still to come: from 1 down to 0, and 0 from then
-- on. Below it the warm-up: nil, and the factor.
local function left(done, o)
  if done < o.warmup_steps then return nil, done / o.warmup_steps end
  if done >= o.steps then return 0 end
  return (o.steps - done) / (o.steps - o.warmup_steps)
end

--- A constant factor of 1.
-- @tparam[opt] table options warmup_steps (0)
-- @treturn function done -> factor
function M.constant(options)
  local o = read("schedule.constant", options, {"warmup_steps"}, {warmup_steps = 0})
  return function(done) return done < o.warmup_steps and done / o.warmup_steps or 1 end
end

--- Linear decay from 1 to `end_factor` at `steps`.
-- @tparam table options steps, warmup_steps (0), end_factor (0)
-- @treturn function done -> factor
function M.linear(options)
  local o = read("schedule.linear", options, {"steps", "warmup_steps", "end_factor"},
    {warmup_steps = 0, end_factor = 0})
  return function(done)
    local part, rising = left(done, o)
    return rising or o.end_factor + (1 - o.end_factor) * part
  end
end

--- Polynomial decay from 1 to `end_factor` at `steps`: the part of the steps that is left, to the
-- power `power`.
-- @tparam table options steps, warmup_steps (0), power (1), end_factor (0)
-- @treturn function done -> factor
function M.polynomial(options)
  local o = read("schedule.polynomial", options, {"steps", "warmup_steps", "power", "end_factor"},
    {warmup_steps = 0, power = 1, end_factor = 0})
  return function(done)
    local part, rising = left(done, o)
    return rising or o.end_factor + (1 - o.end_factor) * part ^ o.power
  end
end

--- Half a cosine from 1 to `end_factor` at `steps`; with restarts (Loshchilov and Hutter, "SGDR",
-- 2017) it begins anew at 1 so many times, and each time it is `growth` times as long as before.
-- @tparam table options steps, warmup_steps (0), restarts (0), growth (1), end_factor (0)
-- @treturn function done -> factor
function M.cosine(options)
  local o = read("schedule.cosine", options,
    {"steps", "warmup_steps", "restarts", "growth", "end_factor"},
    {warmup_steps = 0, restarts = 0, growth = 1, end_factor = 0})
  local lengths, sum = {}, 0             -- of the cycles, in units of the first
  for cycle = 1, o.restarts + 1 do
    lengths[cycle] = o.growth ^ (cycle - 1)
    sum = sum + lengths[cycle]
  end
  local unit = (o.steps - o.warmup_steps) / sum
  return function(done)
    if done < o.warmup_steps then return done / o.warmup_steps end
    if done >= o.steps then return o.end_factor end
    local at, cycle = done - o.warmup_steps, 1
    -- A cycle's end that is a whole step must be found as such, whatever the rounding.
    while cycle < #lengths and at > lengths[cycle] * unit - 1e-9 * o.steps do
      at, cycle = math.max(0, at - lengths[cycle] * unit), cycle + 1
    end
    return ANNEALING.cos(1, o.end_factor, at / (lengths[cycle] * unit))
  end
end

--- Decay with the inverse square root of the steps (Vaswani et al. 2017):
-- sqrt(timescale / (timescale + steps since the warm-up)).
-- @tparam[opt] table options warmup_steps (0), timescale (the warm-up's steps; 10000 without one)
-- @treturn function done -> factor
function M.inverse_sqrt(options)
  local o = read("schedule.inverse_sqrt", options, {"warmup_steps", "timescale"},
    {warmup_steps = 0}, {timescale = true})
  local timescale = o.timescale or (o.warmup_steps > 0 and o.warmup_steps or 10000)
  return function(done)
    if done < o.warmup_steps then return done / o.warmup_steps end
    return math.sqrt(timescale / (timescale + done - o.warmup_steps))
  end
end

--- The phases of one cycle: each up to step `last`, from a factor to a factor.
local function one_cycle_phases(o, rise)
  local first = 1 / o.div_factor
  local final = first / o.final_div_factor
  if o.three_phase then
    return {{last = rise, from = first, to = 1}, {last = 2 * rise, from = 1, to = first},
      {last = o.steps - 1, from = first, to = final}}
  end
  return {{last = rise, from = first, to = 1}, {last = o.steps - 1, from = 1, to = final}}
end

--- One cycle (Smith and Topin, "Super-convergence", 2018), with PyTorch's options: from
-- 1 / `div_factor` up to 1 in the part `pct_start` of the steps, and down to
-- 1 / (div_factor * final_div_factor) at the last step. `three_phase`: down to where it began
-- first, in as many steps as it took to rise, and from there to the end. `warmup_steps` in place of
-- pct_start says in steps how long it rises.
-- @tparam table options steps, pct_start (0.3) or warmup_steps, anneal ("cos"; or "linear"),
-- div_factor (25), final_div_factor (1e4), three_phase (false)
-- @treturn function done -> factor
function M.one_cycle(options)
  local who = "schedule.one_cycle"
  local o = read(who, options, {"steps", "pct_start", "warmup_steps", "anneal", "div_factor",
    "final_div_factor", "three_phase"}, {anneal = "cos", div_factor = 25, final_div_factor = 1e4,
    three_phase = false}, {pct_start = true, warmup_steps = true})
  if o.pct_start and o.warmup_steps then
    message.fail(who .. ": pct_start and warmup_steps are both given, expected one of them")
  end
  local rise = o.warmup_steps or (o.pct_start or 0.3) * o.steps - 1
  if o.three_phase and 2 * rise > o.steps - 1 then
    message.fail(("%s: it rises for %g of %d steps, expected half of them at most with three_phase")
      :format(who, rise, o.steps))
  end
  local phases = one_cycle_phases(o, rise)
  local anneal = ANNEALING[o.anneal]
  return function(done)
    local begin = 0
    done = math.min(done, o.steps - 1)
    for i, phase in ipairs(phases) do
      if done <= phase.last or i == #phases then
        local length = phase.last - begin
        return anneal(phase.from, phase.to, length > 0 and (done - begin) / length or 1)
      end
      begin = phase.last
    end
  end
end

--- Decay where a metric no longer improves; see octet.optim.plateau.
-- @function plateau
M.plateau = plateau.new

--- Names of the schedules.
M.NAMES = {"constant", "linear", "cosine", "inverse_sqrt", "polynomial", "one_cycle", "plateau"}

--- A schedule by its name.
-- @tparam string name
-- @tparam[opt] table options
-- @return a function done -> factor; for "plateau" an object that is called like one
function M.new(name, options)
  for _, known in ipairs(M.NAMES) do
    if name == known then return M[name](options) end
  end
  message.fail("schedule: " .. nearest.message("schedule", tostring(name), M.NAMES))
end

return M
