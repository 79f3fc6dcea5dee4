--- Handles on tensors: how the core's results come to Lua, and who frees them.
-- @module octet.tensor_handle
local ffi = require "ffi"
local binding = require "octet.binding"

local C, check = binding.C, binding.check

local M = {}

local tensor_type = ffi.typeof "oct_tensor *"

--- Where a call of the core puts its result: made once, since ffi.new for each call costs ten times
-- a call.
M.out = ffi.new "oct_tensor *[1]"

local out = M.out
local pressure_out = ffi.new "const int *[1]"
check(C.oct_memory_pressure(pressure_out))
local pressure = pressure_out[0]
local soft_limit = 2 ^ 30

--- Free what only the garbage collector knows of, and let it be until half as much again is in use.
local function relieve()
  binding.collect()
  check(C.oct_memory_relieved(soft_limit))
end
jit.off(relieve)

--- Bytes in use from which on Lua collects its garbage: a last resort for loops without scopes.
-- @tparam number bytes 2^30 where it is not set
function M.set_soft_limit(bytes)
  soft_limit = bytes
  relieve()
end

--- A handle that a call of the core gave: the collector frees it.
-- @treturn tensor
function M.own(t) return ffi.gc(t, C.oct_tensor_free) end

--- The result in `out`, owned by Lua from here on.
-- @treturn tensor
function M.take()
  if pressure[0] ~= 0 then relieve() end
  return M.own(out[0])
end

--- Is it a tensor?
-- @treturn boolean
function M.is_tensor(x)
  return type(x) == "cdata" and ffi.istype(tensor_type, x)
end

return M
