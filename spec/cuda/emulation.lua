--- The controls of the emulated device, which its library has for specs.
local ffi = require "ffi"
local binding = require "octet.binding"
local machine = require "octet.machine"

local M = {}

ffi.cdef [[
typedef struct oct_emulation_info { const char *dli_fname; void *dli_fbase; const char *dli_sname;
  void *dli_saddr; } oct_emulation_info;
int dladdr(const void *address, oct_emulation_info *info);
void oct_emulation(int64_t *calls, int64_t *allocations, int64_t *pins, int reversed, int64_t fail);
]]

local calls, allocations, pins = ffi.new "int64_t[1]", ffi.new "int64_t[1]", ffi.new "int64_t[1]"
local library

-- It lies beside liboctet.so, and the core has opened it.
local function control(reversed, fail)
  if not library then
    local info = ffi.new "oct_emulation_info"
    ffi.C.dladdr(ffi.cast("const void *", binding.C.oct_device_open), info)
    library = ffi.load(ffi.string(info.dli_fname):gsub("[^/]*$", "") .. "liboctet-cuda-emu.so")
  end
  library.oct_emulation(calls, allocations, pins, reversed, fail)
  return tonumber(calls[0]), tonumber(allocations[0]), tonumber(pins[0])
end

M.DEVICE = "cuda-emu"

--- Specs that run on the emulated device, each with the usual settings at its beginning, and that
-- are pending, with the reason, where its plug-in was not built.
-- @tparam function it busted's
-- @tparam function pending busted's
-- @tparam function teardown busted's: afterwards the settings are the usual ones again
-- @treturn function spec(title, f), in the place of it
function M.specs(it, pending, teardown)
  local is_open, why = pcall(machine.open_device, M.DEVICE)
  teardown(function() if is_open then M.usual() end end)
  return function(title, f)
    it(title, function()
      if not is_open then pending(why) end
      machine.open_device(M.DEVICE)
      M.usual()
      f()
    end)
  end
end

--- Threads of a block run in their order, and nothing fails.
function M.usual() control(0, 0) end

--- Threads of a block run in the reverse order, and so do streams.
function M.reverse() control(1, 0) end

--- Let the nth call of the runtime from now fail.
function M.fail(nth) control(0, nth) end

--- @treturn number calls of the runtime since the last use of a control
-- @treturn number allocations that are not freed
-- @treturn number stretches of the processor's memory that are pinned
function M.counts() return control(0, 0) end

return M
