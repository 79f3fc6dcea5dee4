--- Learning-rate schedules: functions of the number of steps done (0 before the first), which give
-- a factor on the learning rate. They keep no state, so a resumed run needs nothing of them.
--
--     local factor = optim.schedule.linear{steps = 1000, warmup_steps = 100}
--     opt:step{lr_factor = factor(done)}
-- @module octet.optim.schedule
local M = {}

local function count_of(who, options, name, default)
  local value = options[name]
  if value == nil then value = default end
  if type(value) ~= "number" or value < 0 or value ~= math.floor(value) then
    error(("%s: %s is %s, expected a whole number, 0 or more"):format(who, name, tostring(value)),
      3)
  end
  return value
end

--- Linear warm-up over the first `warmup_steps`, then linear decay to 0 at `steps`.
-- @tparam table options steps, warmup_steps (0)
-- @treturn function done -> factor
function M.linear(options)
  local steps = count_of("schedule.linear", options, "steps")
  local warmup = count_of("schedule.linear", options, "warmup_steps", 0)
  if warmup > steps then
    error(("schedule.linear: warmup_steps is %d, but steps is %d"):format(warmup, steps), 2)
  end
  return function(done)
    if done < warmup then return done / math.max(1, warmup) end
    return math.max(0, (steps - done) / math.max(1, steps - warmup))
  end
end

--- Linear warm-up over the first `warmup_steps`, then 1.
-- @tparam[opt] table options warmup_steps (0)
-- @treturn function done -> factor
function M.constant(options)
  local warmup = count_of("schedule.constant", options or {}, "warmup_steps", 0)
  return function(done) return done < warmup and done / warmup or 1 end
end

return M
