--- Ctrl-C and SIGTERM as a question that loops ask: a training loop ends with a checkpoint instead
-- of in the middle of a step. The second signal ends the process at once.
-- @module octet.train.signals
local ffi = require "ffi"
local binding = require "octet.binding"

local C, check = binding.C, binding.check
local M = {}

local number_out = ffi.new "int[1]"
local NAMES = {[1] = "SIGHUP", [2] = "Ctrl-C", [15] = "SIGTERM"}

--- The signal that came while signals were caught.
-- @treturn ?number its number, or nil
function M.seen()
  check(C.oct_signal_seen(number_out))
  return number_out[0] ~= 0 and number_out[0] or nil
end

--- @tparam number number
-- @treturn string as a person knows it
function M.name(number) return NAMES[number] or ("signal %d"):format(number) end

local depth = 0

--- Run a function with signals caught; what stood before holds again afterwards. Within such a
-- function it is a plain call.
-- @tparam function fn
-- @param ... its arguments
-- @return what it returns
function M.caught(fn, ...)
  if depth == 0 then check(C.oct_catch_signals(1)) end
  depth = depth + 1
  local function finish(ok, ...)
    depth = depth - 1
    if depth == 0 then check(C.oct_catch_signals(0)) end
    if not ok then error((...), 0) end
    return ...
  end
  return finish(pcall(fn, ...))
end

return M
