-- A step gives the same bits in scalar, AVX2, AVX-512 with and without VBMI, and 1 to 3 threads.
local bits = require "spec.optim.bits"
local ffi = require "ffi"
local gradients = require "spec.optim.gradients"
local machine = require "octet.machine"
local optim = require "octet.optim"
local tensor = require "octet.tensor"

describe("the same bits in every instruction set and number of threads:", function()
  local isa, threads
  setup(function() isa, threads = machine.isa(), machine.threads() end)
  teardown(function()
    machine.set_isa(isa)
    machine.set_threads(threads)
    bits.forget()
  end)

  for _, case in ipairs(bits.cases) do
    it(case.title, function() bits.check(case) end)
  end

  it("adds nothing to a block's scale for what lies behind its end", function()
    -- AdaMax gives state, eps, to an element whose gradient is 0.
    for _, width in ipairs {8, 4} do
      local w = tensor.zeros({5}):parameter_()
      local opt = optim["adamax" .. width]({w}, {min_8bit_size = 0})
      gradients.set(w, tensor.full({5}, 0 / 0))
      assert.equal(5, opt:step())
      assert.equal(0, opt:state().tensors["1.u.absmax"]:item())
    end
  end)

  it("runs of one seed are the same, and those of another are not", function()
    local function bytes_of(seed)
      machine.seed(seed)
      local w = tensor.zeros({5000}):parameter_()
      local opt = optim.adam8({w}, {min_8bit_size = 0})
      gradients.set(w, bits.gradient(1, 5000))
      opt:step()
      return ffi.string(opt:state().tensors["1.m"]:data(), 5000)
    end
    assert.is_true(bytes_of(1) == bytes_of(1))
    assert.is_true(bytes_of(1) ~= bytes_of(2))
  end)
end)
