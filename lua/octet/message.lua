--- What an error says.
-- @module octet.message
local M = {}

--- The text without the place in a program that Lua puts before it: for what is wrong in a file, or
-- in what somebody typed.
-- @param message as pcall returns it
-- @treturn string
function M.without_place(message)
  return (tostring(message):gsub("^.-:%d+: ", "", 1))
end

local LIBRARY = debug.getinfo(1, "S").source:match "^(.*)message%.lua$"

--- Raise an error at the place outside of the library from which it was called.
-- @tparam string text
function M.fail(text)
  local level = 2
  local at = debug.getinfo(level, "S")
  while at and (at.what == "C" or at.source:sub(1, #LIBRARY) == LIBRARY) do
    level = level + 1
    at = debug.getinfo(level, "S")
  end
  error(text, at and level or 0)
end

--- A value as an error shows it: a text in quotes, of a tensor what it is.
-- @param value
-- @treturn string
function M.shown(value)
  return type(value) == "string" and ('"%s"'):format(value) or tostring(value):match "^[^\n]*"
end

--- A text as one word of a shell's command.
-- @tparam string text
-- @treturn string
function M.word(text)
  if text:find "^[%w@%%+=:,./_-]+$" then return text end
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

return M
