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

--- A value as an error shows it: a text in quotes.
-- @param value
-- @treturn string
function M.shown(value)
  return type(value) == "string" and ('"%s"'):format(value) or tostring(value)
end

return M
