--- Clipping of gradients by a percentile of the norms before (the paper's released code): a limit
-- that finds itself, since it follows what norms are usual at this point of the training.
--
--     local clip = require "octet.optim.clip".percentile {percentile = 5}
--     local norm = opt:clip_norm(math.huge)                       -- measures, clips nothing
--     opt:step {grad_scale = math.min(1, clip:max_norm(norm) / norm)}
--
-- The last 100 norms are kept, the present one among them; the first one stands for all that are
-- not there yet. Where the present norm is above the percentile of them, the gradient is scaled
-- down to it. What is kept is the norm before it was clipped.
--
-- The released code does so for each parameter by itself; norms given under different names are
-- kept apart, so that a caller can do either.
-- @module octet.optim.clip
local nearest = require "octet.nearest"
local number = require "octet.number"

local M = {}
local Clip = {}
Clip.__index = Clip

local NAMES = {"percentile", "window"}

--- Clipping by percentile.
-- @tparam[opt] table options `percentile`: 0 to 100, of the norms kept (5; 100 clips nothing, 0
-- clips to the least of them); `window`: how many norms are kept (100)
-- @treturn Clip
function M.percentile(options)
  nearest.check_options("clip.percentile", options, NAMES)
  options = options or {}
  local percentile, window = options.percentile or 5, options.window or 100
  if not number.is_whole(percentile, 0, 100) then
    error(("clip.percentile: percentile is %s, expected a whole number from 0 to 100"):format(
      tostring(percentile)), 0)
  end
  if not number.is_whole(window, 1, 1e6) then
    error(("clip.percentile: window is %s, expected a whole number from 1 to 1000000"):format(
      tostring(window)), 0)
  end
  return setmetatable({percentile = percentile, window = window, histories = {}}, Clip)
end

--- The value of that rank among the norms kept: of 100, the one that `percentile` others come
-- before.
local function at_percentile(self, norms)
  local sorted = {}
  for i = 1, self.window do sorted[i] = norms[i] end
  table.sort(sorted)
  return sorted[1 + math.min(self.window - 1, math.floor(self.percentile * self.window / 100))]
end

--- Take a step's norm, and say how large it may be. To be called once a step for each name.
-- @tparam number norm of the gradient before clipping; one that is not finite is not kept, and its
-- limit is that of the norms before
-- @tparam[opt] string name whose norm it is, where norms of several parameters are kept apart
-- @treturn number max_norm: math.huge where the norm is not above the percentile
-- @treturn number the percentile itself; math.huge where no norm is known yet
function Clip:max_norm(norm, name)
  if type(norm) ~= "number" or norm < 0 then
    error(("clip.percentile: the norm is %s, expected a number, 0 or more"):format(tostring(norm)),
      2)
  end
  name = name or ""
  local history = self.histories[name]
  local is_finite = norm == norm and norm < math.huge
  if not history then
    if not is_finite then return math.huge, math.huge end
    history = {steps = 0, norms = {}}
    for i = 1, self.window do history.norms[i] = norm end
    self.histories[name] = history
  end
  if is_finite then
    history.steps = history.steps + 1
    history.norms[history.steps % self.window + 1] = norm
  end
  local limit = at_percentile(self, history.norms)
  return norm <= limit and math.huge or limit, limit
end

local function copied(norms)
  local copy = {}
  for i, norm in ipairs(norms) do copy[i] = norm end
  return copy
end

--- All that it remembers.
-- @treturn table percentile, window, and histories: by name, steps and norms
function Clip:state()
  local histories = {}
  for name, history in pairs(self.histories) do
    histories[name] = {steps = history.steps, norms = copied(history.norms)}
  end
  return {percentile = self.percentile, window = self.window, histories = histories}
end

local function check_history(self, name, history)
  local who = "clip.percentile: load"
  if type(name) ~= "string" or type(history) ~= "table" or type(history.norms) ~= "table"
    or not number.is_whole(history.steps, 0) then
    error(('%s: the history of "%s" lacks steps or norms'):format(who, tostring(name)), 0)
  end
  if #history.norms ~= self.window then
    error(('%s: the history of "%s" has %d norms, expected %d'):format(who, name, #history.norms,
      self.window), 0)
  end
  for i, norm in ipairs(history.norms) do
    if not (number.is_finite(norm) and norm >= 0) then
      error(('%s: norm %d of "%s" is %s, expected a number, 0 or more'):format(who, i, name,
        tostring(norm)), 0)
    end
  end
end

--- Go on from a state, which must be of the same percentile and window.
-- @tparam table state
-- @treturn Clip itself
function Clip:load(state)
  if type(state) ~= "table" or type(state.histories) ~= "table" then
    error("clip.percentile: load: the state has no histories", 0)
  end
  for _, name in ipairs(NAMES) do
    if state[name] ~= self[name] then
      error(("clip.percentile: load: %s is %s, expected %s"):format(name, tostring(state[name]),
        self[name]), 0)
    end
  end
  local histories = {}
  for name, history in pairs(state.histories) do
    check_history(self, name, history)
    histories[name] = {steps = history.steps, norms = copied(history.norms)}
  end
  self.histories = histories
  return self
end

return M
