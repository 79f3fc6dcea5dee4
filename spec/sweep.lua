-- Every allocation of a piece of work fails: an error of one line, nothing leaked, nothing broken.
local ffi = require "ffi"
local assert = require "luassert"
local file = require "octet.file"
local C = require("octet.binding").C

local M = {}

local made = ffi.new "int64_t[2]"

--- Let the nth allocation from now fail, and with `on_and_on` those after it; 0: none.
-- @treturn number allocations since the last call
function M.fail_allocation(nth, on_and_on)
  C.oct_fail_allocation(made, nth, on_and_on and 1 or 0)
  return tonumber(made[0])
end

--- What is alive: tensors, and bytes of memory.
function M.live()
  collectgarbage()
  collectgarbage()
  C.oct_live_tensors(made)
  local tensors = tonumber(made[0])
  C.oct_memory(made, made + 1, "cpu", -1)
  return {tensors, tonumber(made[0])}
end

local function open_files()
  return #file.list "/proc/self/fd"
end

--- Let each allocation of `f` fail in turn, for good, and once.
function M.allocations(f, before_each_run, after_each_failure)
  f()
  M.fail_allocation(0)
  f()
  local calls = M.fail_allocation(0)
  assert.is_true(calls > 2)
  local before, descriptors = M.live(), open_files()
  for nth = 1, calls do
    if before_each_run then before_each_run() end
    M.fail_allocation(nth, true)
    local ok, message = pcall(f)
    M.fail_allocation(0)
    assert.is_false(ok, "allocation " .. nth)
    assert.is_truthy(message:find("out of memory", 1, true), message)
    assert.is_nil(message:find("\n", 1, true))
    if after_each_failure then after_each_failure() end
    -- Once only: the second try, after a collection, may succeed.
    M.fail_allocation(nth)
    pcall(f)
    M.fail_allocation(0)
  end
  f()
  -- Less is well: what specs before this one left may be collected meanwhile.
  for i, now in ipairs(M.live()) do
    assert.is_true(now <= before[i], ("%d tensors or bytes, then %d"):format(before[i], now))
  end
  assert.equal(descriptors, open_files())
end

return M
