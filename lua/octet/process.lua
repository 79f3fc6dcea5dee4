--- Other programs, run beside this one.
--
--     local other = process.start({"luajit", "recipes/lstm_classify.lua"}, "run.log")
--     repeat process.sleep(0.1) until other:ended()
-- @module octet.process
local ffi = require "ffi"
local binding = require "octet.binding"

local C, check = binding.C, binding.check
local M = {}

local Process = {}
Process.__index = Process

--- Start a program, looked for in PATH. Its input is empty. Ctrl-C does not reach it; it ends with
-- this process.
-- @tparam {string,...} arguments the first is the program's name
-- @tparam string output a file that what it prints is appended to
-- @treturn Process
function M.start(arguments, output)
  local list = ffi.new("const char *[?]", #arguments + 1)
  for i, argument in ipairs(arguments) do list[i - 1] = argument end
  local number = ffi.new "int64_t[1]"
  check(C.oct_process_start(number, list, output))
  return setmetatable({number = number[0]}, Process)
end

--- Has it ended?
-- @treturn ?number its exit status, 128 and more for a signal, 127 where it could not be run; nil
-- while it runs
function Process:ended()
  if not self.status then
    local ended, status = ffi.new "int[1]", ffi.new "int[1]"
    check(C.oct_process_ended(ended, status, self.number))
    if ended[0] ~= 0 then self.status = status[0] end
  end
  return self.status
end

--- Send it a signal; nothing where it has ended.
-- @tparam number number
function Process:signal(number)
  if not self:ended() then check(C.oct_process_signal(self.number, number)) end
end

--- Wait; less long where a signal comes.
-- @tparam number seconds
function M.sleep(seconds) check(C.oct_sleep(seconds)) end

return M
