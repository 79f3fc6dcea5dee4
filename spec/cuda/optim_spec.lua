-- CUDA's kernels of the optimizers give the same bits as the processor's scalar twins. Where there
-- is no GPU they run in the emulation, which is the same source and finds missing barriers.
local bits = require "spec.optim.bits"
local emulation = require "spec.cuda.emulation"
local machine = require "octet.machine"

local function describe_device(name, settings)
  local is_open, why = pcall(machine.open_device, name)
  describe(("the same bits on %s:"):format(name), function()
    local isa, threads
    if not is_open then
      -- A plug-in that was not built, or no GPU; the emulation, where it was built, must open.
      it("a case for each rule, width, map, block and format of parameters", function()
        if name == "cuda-emu" then assert.matches("is not there", why) end
        pending(why)
      end)
      return
    end
    setup(function()
      isa, threads = machine.isa(), machine.threads()
      machine.open_device(name)
    end)
    teardown(function()
      machine.set_isa(isa)
      machine.set_threads(threads)
      bits.forget()
    end)
    for _, case in ipairs(bits.cases) do
      it(case.title, function() bits.check(case, settings) end)
    end
  end)
end

describe_device("cuda", {
  {text = "CUDA", device = "cuda"},
  {text = "CUDA, state on the processor", device = "cuda", state_device = "cpu"},
})
describe_device("cuda-emu", {
  {text = "emulated CUDA, everything copied, threads in the reverse order", kernels = "device",
    begin = emulation.reverse},
  {text = "emulated CUDA", device = "cuda-emu", begin = emulation.usual},
  {text = "emulated CUDA, state on the processor", device = "cuda-emu", state_device = "cpu"},
})
