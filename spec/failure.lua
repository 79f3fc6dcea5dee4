--- The error of a call that must fail, in one line.
local assert = require "luassert"

--- @tparam function f
-- @param ... its arguments
-- @treturn string the message
return function(f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok, "the call succeeded")
  assert.is_nil(message:find("\n", 1, true))
  return message
end
