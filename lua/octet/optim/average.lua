--- Averages of weights over the steps of training, which often score better than the last weights.
--
--     local average = require "octet.optim.average".ema(model:parameters(), {decay = 0.999})
--     opt:step()
--     average:update()                                 -- after each step
--     local scores = average:with(evaluate, model)     -- with the averages in the weights' place
--
-- `ema`: exponential moving average (Polyak and Juditsky, 1992, as used today); `equal`: all with
-- the same weight (SWA: Izmailov et al., "Averaging Weights Leads to Wider Optima", 2018).
-- Averages are f32, whatever the weights' type: 4 bytes an element, accounted as optimizer_state.
-- @module octet.optim.average
local message = require "octet.message"
local nearest = require "octet.nearest"
local number = require "octet.number"
local scope = require "octet.scope"
local tensor = require "octet.tensor"

local M = {}
local Average = {}
Average.__index = Average

local COUNT = {"a whole number, 0 or more", function(x) return number.is_whole(x, 0) end}
local SWITCH = {"true or false", function(x) return type(x) == "boolean" end}
local CHECKS = {
  decay = {"a number from 0 to below 1", number.is_share},
  warmup = SWITCH, debias = SWITCH, start = COUNT,
  every = {"a whole number, 1 or more", function(x) return number.is_whole(x, 1) end},
}

local function read(who, given, defaults)
  local names, options = {}, {}
  for name, value in pairs(defaults) do names[#names + 1], options[name] = name, value end
  table.sort(names)
  nearest.check_options(who, given, names)
  for name, value in pairs(given or {}) do
    if not CHECKS[name][2](value) then
      message.fail(("%s: %s is %s, expected %s"):format(who, name, tostring(value),
        CHECKS[name][1]))
    end
    options[name] = value
  end
  return options
end

-- Means lie on the processor. Where the weights do so too, and are f32, none of them is copied.
local function is_direct(m) return m.is_f32 and m.weight:device() == "cpu" end

--- The mean moves towards the weights by a share; 1: to where they are.
local function move(m, share)
  if is_direct(m) then
    m.mean:lerp_(m.weight, share)
  else
    scope.scope(function() m.mean:lerp_(m.weight:readable(), share) end)
  end
end

--- Mean and weights change places. Weights of fewer bits do not hold a mean: it stays, rounded into
-- their place, and they are kept aside; so are weights on a device.
local function exchange(m)
  if m.aside then
    m.weight:copy_(m.aside)
    m.aside = nil
  elseif is_direct(m) then
    m.weight:swap_(m.mean)
  else
    local aside = tensor.new(m.weight:shape(), m.weight:dtype(), "workspace"):keep()
    aside:copy_(m.weight)
    scope.scope(function() m.weight:copy_(m.mean:to(m.weight:dtype())) end)
    m.aside = aside
  end
end

--- Parameters with their names and a mean of each, which begins where they are.
local function members_of(who, parameters)
  if type(parameters) ~= "table" or #parameters == 0 then
    error(("%s: parameters are %s, expected a list that is not empty"):format(who,
      type(parameters) == "table" and "an empty table" or "a " .. type(parameters)), 0)
  end
  local members, known, tensors = {}, {}, {}
  for i, entry in ipairs(parameters) do
    local is_bare = tensor.is_tensor(entry)
    local weight = is_bare and entry or type(entry) == "table" and entry.tensor
    if not tensor.is_tensor(weight) then
      message.fail(("%s: parameter %d is a %s, expected a tensor or {name=, tensor=}"):format(who,
        i, type(entry)))
    end
    local name = not is_bare and entry.name or tostring(i)
    if known[name] then message.fail(('%s: two parameters are named "%s"'):format(who, name)) end
    if tensors[weight] then
      message.fail(('%s: "%s" and "%s" are one tensor, expected it once'):format(who,
        tensors[weight], name))
    end
    known[name], tensors[weight] = true, name
    local dtype = weight:dtype()
    if not tensor.FLOATS[dtype] then
      message.fail(("%s: parameter %s is %s, expected f32, f16 or bf16"):format(who, name, dtype))
    end
    members[i] = {name = name, weight = weight, is_f32 = dtype == "f32",
      mean = tensor.new(weight:shape(), "f32", "optimizer_state"):keep():fill_(0)}
    move(members[i], 1)
  end
  return members
end

local function new(kind, parameters, options, defaults)
  local who = "average." .. kind
  local self = {who = who, kind = kind, options = read(who, options, defaults)}
  self.members = members_of(who, parameters)
  -- `remains`: what the first weights would still count for, the product of all decays.
  self.calls, self.updates, self.remains = 0, 0, 1
  return setmetatable(self, Average)
end

--- Exponential moving average: mean = decay * mean + (1 - decay) * weights.
-- @tparam table parameters what model:parameters() gives, or a list of tensors
-- @tparam[opt] table options `decay` (0.999); `warmup` (false): the decay is at most
-- (1 + t) / (10 + t) after t updates, so that the first weights are soon forgotten (as in
-- TensorFlow); `debias` (false): the weights that training began with count for nothing, all else
-- accordingly more (as in Adam's moments); `start` (0): until so many calls of update() the average
-- is the weights themselves; `every` (1): from then on each so manyth call counts
-- @treturn Average
function M.ema(parameters, options)
  return new("ema", parameters, options,
    {decay = 0.999, warmup = false, debias = false, start = 0, every = 1})
end

--- Equal average of the weights at each update.
-- @tparam table parameters what model:parameters() gives, or a list of tensors
-- @tparam[opt] table options `start` (0) and `every` (1), as for ema
-- @treturn Average
function M.equal(parameters, options)
  return new("equal", parameters, options, {start = 0, every = 1})
end

--- How far the mean moves towards the weights in the next update, and `remains` behind it.
local function next_share(self)
  if self.kind == "equal" then return 1 / (self.updates + 1), self.remains end
  local o = self.options
  local decay = o.decay
  if o.warmup then decay = math.min(decay, (1 + self.updates) / (10 + self.updates)) end
  local remains = self.remains * decay
  return o.debias and (1 - decay) / (1 - remains) or 1 - decay, remains
end

local function refuse_swapped(self, what)
  if self.swapped then
    error(("%s: %s while the averages are in the weights' place; swap() back first"):format(
      self.who, what), 3)
  end
end

--- Take the weights in as they are now. To be called after each step.
-- @treturn boolean has the average changed?
function Average:update()
  refuse_swapped(self, "update()")
  local o, calls = self.options, self.calls + 1
  local begins = calls == o.start
  local counts = calls > o.start and (calls - o.start) % o.every == 0
  local share, remains = 1, self.remains
  if counts then share, remains = next_share(self) end
  if begins or counts then
    for _, m in ipairs(self.members) do move(m, share) end
  end
  self.calls, self.remains, self.updates = calls, remains, self.updates + (counts and 1 or 0)
  return begins or counts
end

--- Let averages and weights change places; a second call puts them back, bit for bit. Before
-- `start` both are the same, and nothing moves.
-- @treturn Average itself
function Average:swap()
  if self.calls >= self.options.start then
    for i, m in ipairs(self.members) do
      local ok, why = pcall(exchange, m)
      if not ok then
        -- Out of memory: those before it go back, which takes none.
        for before = 1, i - 1 do exchange(self.members[before]) end
        error(why, 0)
      end
    end
  end
  self.swapped = not self.swapped
  return self
end

local function swap_back(self, ok, ...)
  if self.swapped then self:swap() end
  if not ok then error((...), 0) end
  return ...
end

--- Call a function while the averages are in the weights' place.
-- @tparam function f
-- @param ... its arguments
-- @return what f returns
function Average:with(f, ...)
  refuse_swapped(self, "with()")
  self:swap()
  return swap_back(self, pcall(f, ...))
end

--- Bytes that the averages take.
-- @treturn number
function Average:bytes()
  local bytes = 0
  for _, m in ipairs(self.members) do bytes = bytes + 4 * m.mean:size() end
  return bytes
end

-- ---- state -------------------------------------------------------------------------------------

local NUMBERS = {calls = COUNT, updates = COUNT,
  remains = {"a number from 0 to 1", function(x) return number.within(x, 0, 1) end}}

--- All that it remembers.
-- @treturn table `tensors`: the live averages by "PARAMETER.average"; `numbers`: kind, options and
-- counts, as load() takes them back
function Average:state()
  refuse_swapped(self, "state()")
  local tensors, options = {}, {}
  for _, m in ipairs(self.members) do tensors[m.name .. ".average"] = m.mean end
  for name, value in pairs(self.options) do options[name] = value end
  return {tensors = tensors, numbers = {kind = self.kind, options = options, calls = self.calls,
    updates = self.updates, remains = self.remains}}
end

local function check_numbers(self, who, numbers)
  if type(numbers) ~= "table" or type(numbers.options) ~= "table" then
    error(who .. ": the state has no numbers, or lacks options", 0)
  end
  if numbers.kind ~= self.kind then
    error(("%s: the state is that of kind %s, expected %s"):format(who, tostring(numbers.kind),
      self.kind), 0)
  end
  for name, value in pairs(self.options) do
    if numbers.options[name] ~= value then
      error(("%s: %s of the state is %s, expected %s"):format(who, name,
        tostring(numbers.options[name]), tostring(value)), 0)
    end
  end
  for name, check in pairs(NUMBERS) do
    if not check[2](numbers[name]) then
      error(("%s: %s is %s, expected %s"):format(who, name, tostring(numbers[name]), check[1]), 0)
    end
  end
end

local function check_tensors(who, own, tensors)
  for name, mine in pairs(own) do
    local other = tensors[name]
    if not tensor.is_tensor(other) then error(("%s: tensor %s is missing"):format(who, name), 0) end
    if other:dtype() ~= "f32" or other:size() ~= mine:size() then
      error(("%s: tensor %s is %s [%s], expected f32 [%s]"):format(who, name, other:dtype(),
        table.concat(other:shape(), " x "), table.concat(mine:shape(), " x ")), 0)
    end
  end
  for name in pairs(tensors) do
    if not own[name] then
      error(("%s: tensor %s is left over: no parameter has that name"):format(who, name), 0)
    end
  end
end

--- Go on from a state. It must be of the same kind, options and parameters.
-- @tparam table state `numbers`, and `tensors` by name; without `tensors`, those that state() gives
-- have been written into
-- @treturn Average itself
function Average:load(state)
  refuse_swapped(self, "load()")
  local who, numbers = self.who .. ": load", state.numbers
  check_numbers(self, who, numbers)
  if state.tensors then
    local own = self:state().tensors
    check_tensors(who, own, state.tensors)
    for name, mine in pairs(own) do mine:copy_(state.tensors[name]) end
  end
  self.calls, self.updates, self.remains = numbers.calls, numbers.updates, numbers.remains
  return self
end

return M
