-- Opening a device, and what happens where one of its calls fails.
local bits = require "spec.optim.bits"
local emulation = require "spec.cuda.emulation"
local gradients = require "spec.optim.gradients"
local machine = require "octet.machine"
local optim = require "octet.optim"
local tensor = require "octet.tensor"

describe("a device", function()
  it("that does not exist is refused by name", function()
    assert.has_error(function() machine.open_device "tpu" end,
      'device: no "tpu"; expected cpu, cuda or cuda-emu')
  end)

  it("of NVIDIA opens, or one line says what is missing: plug-in, driver or GPU", function()
    local is_open, what = pcall(machine.open_device, "cuda")
    assert.equal("string", type(what))
    assert.is_nil(what:find "\n")
    if not is_open then
      assert.is_true(what:find("needs liboctet%-cuda%.so beside liboctet%.so") ~= nil
        or what:find "device: cuda: looking for a GPU: " ~= nil, what)
    end
  end)

  it("must be open before an optimizer's steps can run there", function()
    local lua = [[local t = require "octet.tensor".zeros {4}
      local opt = require "octet.optim".adam {t:parameter_()}
      print(select(2, pcall(opt.use_kernels, opt, "device")))]]
    local out = io.popen(("LUA_PATH='%s' luajit -e '%s' 2>&1"):format(package.path, lua))
    assert.matches("optim: no device is open; oct_device_open opens one", out:read "*a")
    out:close()
  end)
end)

describe("the emulated device", function()
  local spec = emulation.specs(it, pending, teardown)

  spec("says that it is none", function()
    assert.equal("CUDA, emulated on the processor", machine.open_device "cuda-emu")
  end)

  spec("does not open where the runtime fails, and says at what", function()
    for nth, text in ipairs {"looking for a GPU", "asking what the GPU is", "choosing the GPU"} do
      emulation.fail(nth)
      local opened, message = pcall(machine.open_device, "cuda-emu")
      assert.is_false(opened)
      assert.matches("device: cuda: " .. text .. ": invalid device ordinal", message, 1, true)
    end
  end)

  -- A tensor's scale needs a first pass; LARS's norms need sums of squares.
  for _, case in ipairs {{"adam8", {min_8bit_size = 0, scale = "tensor"}}, {"lars", {}}} do
    spec(("a call of its runtime that fails fails the step, which changes nothing: " .. case[1]),
      function()
        machine.seed(1)
        local w = tensor.new({300}):normal_(0, 1):parameter_()
        local opt = optim[case[1]]({w}, case[2]):use_kernels "device"
        gradients.set(w, bits.gradient(1, 300))
        opt:step()
        local _, kept = emulation.counts()
        opt:step()
        local calls, after = emulation.counts()
        assert.equal(kept, after)
        -- At the end come the copies back, of state and parameter, and the count.
        local ending = case[1] == "adam8" and 5 + 1 or 2 + 1
        assert.is_true(calls > ending)
        for nth = 1, calls do
          local before = gradients.everything(opt, {w})
          local steps = opt:state().numbers
          emulation.fail(nth)
          local stepped, message = pcall(opt.step, opt)
          local _, left = emulation.counts()
          assert.is_false(stepped, "call " .. nth)
          assert.matches("^[^\n]*device: cuda: [^\n]+$", message)
          assert.is_true(left <= kept, "memory is not freed after call " .. nth)
          if nth <= calls - ending then
            assert.same(before, gradients.everything(opt, {w}))
            assert.same(steps, opt:state().numbers)
          end
          opt:step()
        end
      end)
  end

  spec("has its memory freed where the processor's ends", function()
    local binding, ffi = require "octet.binding", require "ffi"
    local w = tensor.ones({300}):parameter_()
    local opt = optim.adam8({w}, {min_8bit_size = 0}):use_kernels "device"
    gradients.set(w, bits.gradient(1, 300))
    opt:step()
    local _, kept = emulation.counts()
    local made = ffi.new "int64_t[1]"
    for nth = 1, 2 do
      binding.check(binding.C.oct_fail_allocation(made, nth, 0))
      local stepped, message = pcall(opt.step, opt)
      binding.check(binding.C.oct_fail_allocation(made, 0, 0))
      assert.is_false(stepped)
      assert.matches("out of memory", message)
      assert.equal(kept, select(2, emulation.counts()))
    end
    opt:step()
  end)
end)
