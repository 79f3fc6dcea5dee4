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

return M
