--- The machine and the run's global settings: threads, instruction set, precision, seed, memory.
-- @module octet.machine
local ffi = require "ffi"
local binding = require "octet.binding"
local message = require "octet.message"
local number = require "octet.number"

local C, check = binding.C, binding.check
local M = {}

local int_out = ffi.new "int[1]"
local wide_out = ffi.new "int64_t[2]"
local seconds_out = ffi.new "double[1]"
local name_out = ffi.new "const char *[1]"

--- Threads for all that follows. Results do not depend on their number, but where oneDNN divides a
-- product's long sums among them (docs/design.md).
-- @tparam number count 1 to 1024
function M.set_threads(count)
  if not number.is_whole(count, 1, 1024) then
    message.fail(("set_threads: %s, expected a whole number from 1 to 1024"):format(
      message.shown(count)))
  end
  check(C.oct_set_threads(count))
end

--- @treturn number threads in use
function M.threads()
  check(C.oct_threads(int_out))
  return int_out[0]
end

--- Choose the kernels: "avx512", "avx2", or "auto".
function M.set_isa(name)
  if type(name) ~= "string" then
    message.fail(("set_isa: %s, expected a name"):format(message.shown(name)))
  end
  check(C.oct_set_isa(name))
end

--- @treturn string the kernels in use
function M.isa()
  check(C.oct_isa(name_out))
  return ffi.string(name_out[0])
end

--- Open a device; an error says what is missing. What takes a device's name opens it by itself.
-- Tensors can lie there, and optimizers step them there; ops take the processor's alone.
-- @tparam string name "cpu"; "cuda": the first GPU; "cuda-emu": CUDA's kernels on the processor
-- @treturn string what it is
function M.open_device(name)
  if type(name) ~= "string" then
    message.fail(("open_device: %s, expected a name"):format(message.shown(name)))
  end
  check(C.oct_device_open(name_out, name))
  return ffi.string(name_out[0])
end

--- @treturn boolean does the processor multiply bf16?
function M.has_bf16()
  check(C.oct_has_bf16(int_out))
  return int_out[0] == 1
end

--- Precision of matrix products: "f32", or "bf16" (products in bf16, sums in f32).
function M.set_precision(name)
  local code = ({f32 = C.OCT_F32, bf16 = C.OCT_BF16})[name]
    or error(("precision: '%s', expected f32 or bf16"):format(tostring(name)), 2)
  check(C.oct_set_precision(code))
end

--- @treturn string "f32" or "bf16"
function M.precision()
  check(C.oct_precision(int_out))
  return int_out[0] == C.OCT_BF16 and "bf16" or "f32"
end

--- Seed every stream of random numbers.
-- @tparam number seed a whole number
function M.seed(seed)
  if not number.is_whole(seed, -2 ^ 53) then
    message.fail(("seed: %s, expected a whole number"):format(message.shown(seed)))
  end
  check(C.oct_seed(seed))
end

local STREAMS = {
  init = C.OCT_STREAM_INIT, dropout = C.OCT_STREAM_DROPOUT, optimizer = C.OCT_STREAM_OPTIMIZER,
}

--- Where random numbers stand: what a checkpoint keeps.
-- @treturn table `seed`, and the offset of each stream: init, dropout, optimizer
function M.random_state()
  check(C.oct_seed_now(wide_out))
  local state = {seed = tonumber(wide_out[0])}
  for name, stream in pairs(STREAMS) do
    check(C.oct_random_offset(wide_out, stream))
    state[name] = tonumber(wide_out[0])
  end
  return state
end

local function check_random(name, x, low)
  if not number.is_whole(x, low) then
    error(("random state: %s is %s, expected a whole number from %d on"):format(name, tostring(x),
      low), 0)
  end
end

--- Check a state of random numbers that comes from outside.
-- @tparam table state
function M.check_random_state(state)
  if state.seed ~= nil then check_random("seed", state.seed, -2 ^ 53) end
  for name in pairs(STREAMS) do
    if state[name] ~= nil then check_random(name, state[name], 0) end
  end
end

--- Put random numbers where random_state() found them.
-- @tparam table state what is missing in it stays as it is, or after another seed begins
function M.set_random_state(state)
  M.check_random_state(state)
  if state.seed ~= nil and state.seed ~= M.random_state().seed then M.seed(state.seed) end
  for name, stream in pairs(STREAMS) do
    if state[name] ~= nil then check(C.oct_set_random_offset(stream, state[name])) end
  end
end

local PURPOSES = {
  parameters = C.OCT_PARAMETERS, gradients = C.OCT_GRADIENTS,
  optimizer_state = C.OCT_OPTIMIZER_STATE, activations = C.OCT_ACTIVATIONS,
  workspace = C.OCT_WORKSPACE, data = C.OCT_DATA, total = -1,
}

--- Bytes by purpose, exact: parameters, gradients, optimizer_state, activations, workspace, data,
-- and total.
-- @tparam[opt="cpu"] string device
-- @treturn table {now = bytes, peak = bytes} for each
function M.memory(device)
  local accounts = {}
  for name, purpose in pairs(PURPOSES) do
    check(C.oct_memory(wide_out, wide_out + 1, device or "cpu", purpose))
    accounts[name] = {now = tonumber(wide_out[0]), peak = tonumber(wide_out[1])}
  end
  return accounts
end

--- Let the peaks start again from what is in use now.
function M.reset_peak_memory() check(C.oct_memory_reset_peak()) end

--- Give memory that is cached but not in use back to the system.
-- @treturn number bytes
function M.trim_memory()
  check(C.oct_memory_trim(wide_out))
  return tonumber(wide_out[0])
end

--- Tensors alive, as C counts them: the leak test's figure.
-- @treturn number
function M.live_tensors()
  check(C.oct_live_tensors(wide_out))
  return tonumber(wide_out[0])
end

--- Monotonic clock.
-- @treturn number seconds
function M.clock()
  check(C.oct_clock(seconds_out))
  return seconds_out[0]
end

--- @treturn string MAJOR.MINOR.PATCH
function M.version() return ffi.string(C.oct_version()) end

return M
