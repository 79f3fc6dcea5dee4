--- Scopes: what a step makes and does not keep is released when the step ends, and recording can be
-- switched off for a while.
-- @module octet.scope
local ffi = require "ffi"
local binding = require "octet.binding"
local tensor = require "octet.tensor"

local C, check = binding.C, binding.check
local M = {}

local before_out = ffi.new "int[1]"

local function escape(...)
  for i = 1, select("#", ...) do
    local value = select(i, ...)
    if tensor.is_tensor(value) then check(C.oct_scope_escape(value)) end
  end
  return ...
end

local function finish_scope(ok, ...)
  if ok then escape(...) end
  check(C.oct_scope_end())
  if not ok then error((...), 0) end
  return ...
end

--- Run a function; every tensor made in it is released afterwards, except parameters, what was
-- kept, and the tensors that it returns.
-- @tparam function f
-- @param ... its arguments
-- @return what f returns
function M.scope(f, ...)
  check(C.oct_scope_begin())
  return finish_scope(pcall(f, ...))
end

--- Run a part of a model: where nothing is being recorded, what it makes is released at once, so
-- that inference holds one layer's results at a time; where something is, it is a plain call.
-- @tparam function f
-- @param ... its arguments
-- @return what f returns
function M.tidy(f, ...)
  check(C.oct_grad_enabled(before_out))
  if before_out[0] ~= 0 then return f(...) end
  return M.scope(f, ...)
end

--- Open and close a scope by hand, as an iterator over batches does.
function M.begin_scope() check(C.oct_scope_begin()) end
function M.end_scope() check(C.oct_scope_end()) end

local function finish_no_grad(before, ok, ...)
  check(C.oct_set_grad_enabled(nil, before))
  if not ok then error((...), 0) end
  return ...
end

--- Run a function without recording: no gradients, less memory.
-- @tparam function f
-- @param ... its arguments
-- @return what f returns
function M.no_grad(f, ...)
  check(C.oct_set_grad_enabled(before_out, 0))
  return finish_no_grad(before_out[0], pcall(f, ...))
end

return M
