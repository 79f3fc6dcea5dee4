--- The one file that touches the C library: finds it, declares it, and turns a failed status into
-- an error.
-- @module octet.binding
local ffi = require "ffi"
local message = require "octet.message"

-- LuaJIT 2.1.0-beta3 may fold the reading of a C buffer into a later operation, past a call that
-- writes the buffer anew: stop - start of two readings of a clock was 0. Without that folding it
-- reads where the program says.
jit.opt.start "-fuse"

local M = {}

local function directory_of_this_file()
  return debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."
end

--- Where the library may be: where the environment says, else in the build tree or an installation.
local function candidates()
  local named, root = os.getenv "OCTET_LIBRARY", directory_of_this_file() .. "/../.."
  if named and named ~= "" then return {named} end
  return {root .. "/build/liboctet.so", root .. "/../../lib/liboctet.so.0", "liboctet.so.0"}
end

local function exists(path)
  local f = io.open(path, "rb")
  if f then f:close() end
  return f ~= nil
end

local function load_library()
  local reasons = {}
  for _, path in ipairs(candidates()) do
    if not path:find("/", 1, true) or exists(path) then
      local ok, library = pcall(ffi.load, path)
      if ok then return library end
      reasons[#reasons + 1] = tostring(library)
    end
  end
  error("octet: liboctet.so was not found; build it with ./setup, or set OCTET_LIBRARY to its path"
    .. (reasons[1] and (" (" .. table.concat(reasons, "; ") .. ")") or ""), 0)
end

ffi.cdef [[
const char *oct_cdef(void);
int setenv(const char *name, const char *value, int overwrite);
]]

-- A worker that waits for work spins, some milliseconds by libgomp's default; where
-- another program wants the core too, the one that has work waits for the one that spins, and a
-- training step took six times as long. A thousand turns cost nothing on a quiet machine.
ffi.C.setenv("GOMP_SPINCOUNT", "1000", 0)

local C = load_library()
ffi.cdef(ffi.string(C.oct_cdef()))

--- The C library; held for ever, since finalizers call into it.
M.C = C

--- The text of the last failure.
-- @treturn string
function M.last_error()
  return ffi.string(C.oct_last_error())
end

--- Raise the core's error text where a status is not 0.
-- @tparam number status what an oct_ function returned
function M.check(status)
  if status ~= 0 then message.fail(M.last_error()) end
end

--- The same where what is wrong lies in a file or a text: the error names no place in a program.
-- @tparam number status what an oct_ function returned
function M.check_input(status)
  if status ~= 0 then error(M.last_error(), 0) end
end

local NUMBERS = {int = true, int64_t = true, int32_t = true, float = true, double = true}

--- What LuaJIT says of an argument that it cannot convert, in our words.
local function refusal(text)
  local got, wanted = text:match "cannot convert '([^']*)' to '([^']*)'"
  local what = wanted == "struct oct_tensor *" and "a tensor" or NUMBERS[wanted] and "a number"
  if not what then return message.without_place(text) end
  -- The op, by the name of the function that makes the call, where Lua still knows it.
  local op = debug.getinfo(3, "n").name
  got = got == "nil" and got or got == "struct oct_tensor *" and "a tensor" or "a " .. got
  return ("%sexpected %s, got %s"):format(op and op .. ": " or "", what, got)
end

--- Free what only the garbage collector knows of, and what was recorded for losses among it.
function M.collect()
  collectgarbage()
  collectgarbage()
  C.oct_forget_unreached()
end

--- Call a function of the library and raise its error. Where memory has ended, the processor's or a
-- device's, tensors that only the garbage collector knows of are freed first and the call is made
-- once more.
-- @param f a function of the library
-- @param ... its arguments
local function call(f, ...)
  local ok, status = pcall(f, ...)
  if not ok then message.fail(refusal(status)) end
  if status == 0 then return end
  if M.last_error():find("out of memory", 1, true) then
    M.collect()
    status = f(...)
  end
  M.check(status)
end

-- Recording `f(...)` crashed LuaJIT 2.1.0-beta3 in one run of twenty of a spec that makes it fail.
-- Interpreted, the call costs some hundred nanoseconds more, which an op on a tensor outweighs.
jit.off(call)
M.call = call

return M
