--- Options of parameters by patterns of their names: what `{["%.bias$"] = {bits = 32}}` means for
-- each parameter of a model.
-- @module octet.optim.patterns
local message = require "octet.message"
local nearest = require "octet.nearest"

local M = {}

--- How many names an error lists.
local LISTED = 5

local function is_list(patterns) return #patterns > 0 or next(patterns) == nil end

--- The patterns in their order, as {pattern, options}; those of a map have none and are sorted, so
-- that errors do not depend on chance.
local function entries_of(who, patterns)
  if type(patterns) ~= "table" then
    error(("%s: patterns are a %s, expected a table"):format(who, type(patterns)), 0)
  end
  local entries, ordered = {}, is_list(patterns)
  for key, value in pairs(patterns) do
    if type(value) ~= "table" then
      error(("%s: pattern %s has a %s, expected a table of options"):format(who, tostring(key),
        type(value)), 0)
    end
    local pattern = key
    if ordered then pattern = value.pattern end
    if type(pattern) ~= "string" or (ordered and type(key) ~= "number") then
      error(("%s: entry %s of the patterns has no field 'pattern'"):format(who, tostring(key)), 0)
    end
    local options = {}
    for name, option in pairs(value) do
      if not (ordered and name == "pattern") then options[name] = option end
    end
    if next(options) == nil then
      error(('%s: pattern "%s" says nothing of what it matches'):format(who, pattern), 0)
    end
    entries[#entries + 1] = {pattern = pattern, options = options, place = key}
  end
  table.sort(entries, function(a, b) return a.place < b.place end)
  return entries, ordered
end

local function matches(who, pattern, name)
  local ok, found = pcall(string.find, name, pattern)
  if not ok then
    error(('%s: pattern "%s" is malformed: %s'):format(who, pattern,
      message.without_place(found)), 0)
  end
  return found ~= nil
end

--- A pattern without its signs: the text that its writer had in mind.
local function plain(pattern)
  return (pattern:gsub("%%%a", ""):gsub("[%^%$%*%+%-%?%[%]%(%)%%]", ""))
end

local function matches_nothing(who, pattern, names)
  local near = nearest.sorted(plain(pattern), names)
  local more = #near > LISTED and (", ... (%d in all)"):format(#near) or ""
  error(('%s: pattern "%s" matches no parameter; nearest names: %s%s'):format(who, pattern,
    table.concat(near, ", ", 1, math.min(#near, LISTED)), more), 0)
end

local function twice(who, a, b, name)
  error(('%s: patterns "%s" and "%s" both match %s; in a list {{pattern = ...}, ...} the first one '
    .. 'that matches would hold'):format(who, a, b, name), 0)
end

--- Options by parameter.
-- @tparam string who begins the errors
-- @tparam table patterns Lua patterns, found anywhere in a name: a list of
-- {pattern = "%.weight$", bits = 32, ...}, of which the first that matches a name holds for it; or,
-- where no name is matched by two, a table {["%.weight$"] = {bits = 32, ...}, ...}
-- @tparam {string,...} names of all parameters
-- @treturn table name -> options (a table of its own for each name; nil where no pattern matches)
function M.resolve(who, patterns, names)
  local entries, ordered = entries_of(who, patterns)
  local resolved, holder = {}, {}
  for _, entry in ipairs(entries) do
    local found = false
    for _, name in ipairs(names) do
      if matches(who, entry.pattern, name) then
        found = true
        if holder[name] and not ordered then twice(who, holder[name], entry.pattern, name) end
        if not holder[name] then
          holder[name], resolved[name] = entry.pattern, {}
          for key, value in pairs(entry.options) do resolved[name][key] = value end
        end
      end
    end
    if not found then matches_nothing(who, entry.pattern, names) end
  end
  return resolved
end

return M
