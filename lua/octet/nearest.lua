--- The names most like a word that was mistyped.
-- @module octet.nearest
local message = require "octet.message"

local M = {}

--- Edits that turn one word into the other: insertions, deletions, replacements, and swaps of
-- neighbours (optimal string alignment).
-- @tparam string a
-- @tparam string b
-- @treturn number edits
function M.distance(a, b)
  local before, last, row = {}, {}, {}
  for j = 0, #b do last[j] = j end
  for i = 1, #a do
    row[0] = i
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      local best = math.min(row[j - 1] + 1, last[j] + 1, last[j - 1] + cost)
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        best = math.min(best, before[j - 2] + 1)
      end
      row[j] = best
    end
    before, last, row = last, row, before
  end
  return last[#b]
end

--- Names by likeness to a word, nearest first; names equally near keep their order.
-- Case is no difference, and a name that begins with the word comes before others as far away.
-- @tparam string word
-- @tparam table names
-- @treturn table the names, sorted
function M.sorted(word, names)
  -- Past this length nobody mistypes; the cost of the comparison is bounded by it.
  local lower = word:sub(1, 64):lower()
  local rated = {}
  for i, name in ipairs(names) do
    local begins = name:lower():sub(1, #lower) == lower
    local far = M.distance(lower, name:lower()) - (begins and 0.5 or 0)
    rated[i] = {name = name, place = i, far = far}
  end
  table.sort(rated, function(a, b)
    if a.far ~= b.far then return a.far < b.far end
    return a.place < b.place
  end)
  for i, r in ipairs(rated) do rated[i] = r.name end
  return rated
end

--- What to say about a word that is none of the names.
-- @tparam string what the kind of thing: "task"
-- @tparam string word
-- @tparam table names
-- @treturn string `unknown task "sts2"; it is one of sst2, stsb, ...`, nearest first
function M.message(what, word, names)
  return ('unknown %s "%s"; it is one of %s'):format(what, word:sub(1, 64),
    table.concat(M.sorted(word, names), ", "))
end

--- Refuse options that are none: each by the name that somebody may have meant.
-- @tparam string who whose they are: "step"
-- @tparam ?table given nil for none
-- @tparam {string,...} names those there are
function M.check_options(who, given, names)
  if given == nil then return end
  if type(given) ~= "table" then
    message.fail(("%s: options are a %s, expected a table"):format(who, type(given)))
  end
  local known = {}
  for _, name in ipairs(names) do known[name] = true end
  for name in pairs(given) do
    if not known[name] then
      message.fail(("%s: %s"):format(who, M.message("option", tostring(name), names)))
    end
  end
end

--- Refuse an option that is neither true nor false; nil is fine.
-- @tparam string who whose it is
-- @tparam string name of the option
-- @param value
function M.check_switch(who, name, value)
  if value ~= nil and type(value) ~= "boolean" then
    message.fail(("%s: %s is %s, expected true or false"):format(who, name,
      tostring(value):match "^[^\n]*"))
  end
end

return M
