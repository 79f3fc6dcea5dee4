-- Parameters in bf16: with further bits they are stepped as f32 is; without, they are rounded by
-- chance, so that steps below their precision arrive in the mean.
local ffi = require "ffi"
local gradients = require "spec.optim.gradients"
local machine = require "octet.machine"
local optim = require "octet.optim"
local tensor = require "octet.tensor"

local SIZE = 5000
local UNIT = 2 ^ -8                -- of a bf16 in [1, 2): half the way to the next one

-- A parameter and its twin in f32 of the same numbers, and their optimizers.
local function twins(name, correction_bits, values)
  machine.seed(1)
  local w = (values or tensor.new({SIZE / 50, 50}):normal_(0, 1)):to "bf16"
  local b = w:to("f32"):parameter_()
  local a = w:parameter_()
  local options = {lr = 1e-3, min_8bit_size = 0, rounding = "nearest"}
  local opt_b = optim[name]({b}, options)
  options.correction_bits = correction_bits
  return a, optim[name]({a}, options), b, opt_b
end

local function step_both(a, opt_a, b, opt_b, steps)
  for _ = 1, steps do
    local g = tensor.new(a:shape()):normal_(0, 1)
    gradients.set(a, g)
    gradients.set(b, g)
    opt_a:step()
    opt_b:step()
  end
end

-- The numbers that a bf16 parameter and its further bits are.
local function whole(a, opt, correction_bits)
  local high, bits = a:data(), ffi.new("uint32_t[?]", a:size())
  local rest = ffi.cast(correction_bits == 16 and "int16_t *" or "int8_t *",
    opt:state().tensors["1.correction"]:data())
  for i = 0, a:size() - 1 do
    bits[i] = high[i] * 65536 + rest[i] * (correction_bits == 16 and 1 or 256)
  end
  return ffi.cast("float *", bits), bits
end

describe("a parameter in bf16", function()
  it("with 16 further bits is stepped as one in f32 is, bit for bit", function()
    for _, name in ipairs {"adamw", "adamw8", "sgd4", "lamb8", "adagrad", "muon", "adafactor"} do
      local a, opt_a, b, opt_b = twins(name, 16)
      step_both(a, opt_a, b, opt_b, 20)
      local x, bits = whole(a, opt_a, 16)
      assert.is_true(ffi.string(x, 4 * SIZE) == gradients.bytes(b), name)
      -- What ops see is the nearest bf16; of two equally near, the larger magnitude.
      for i = 0, SIZE - 1 do
        assert.equal(math.floor((bits[i] + 0x8000) / 65536), a:data()[i])
      end
    end
  end)

  it("with 8 further bits stays with one in f32 to those bits", function()
    local a, opt_a, b, opt_b = twins("adamw", 8)
    step_both(a, opt_a, b, opt_b, 100)
    local x, most = whole(a, opt_a, 8), 0
    for i = 0, SIZE - 1 do
      most = math.max(most, math.abs(x[i] - b:data()[i]) / math.max(1, math.abs(b:data()[i])))
    end
    -- A hundred roundings by at most 2^-15 each, to either side; those of bf16 itself are by 2^-7.
    assert.is_true(most > 0 and most < 25 * 2 ^ -15, tostring(most))
  end)

  it("takes 2 or 1 bytes more for its further bits, and none without", function()
    for bits, bytes in pairs {[16] = 2, [8] = 1, [0] = 0} do
      local w = tensor.zeros({SIZE}, "bf16"):parameter_()
      local opt = optim.adam({w}, {correction_bits = bits})
      assert.equal((8 + bytes) * SIZE, opt:report().bytes)
    end
  end)

  it("takes steps far below its precision in the mean", function()
    -- Each step is a 20th of the way to the next bf16: to the nearest it would never move.
    local steps, n = 40, 20000
    local a, opt_a = twins("sgd", 0, tensor.full({n}, 1.5))
    for _ = 1, steps do
      gradients.set(a, tensor.full({n}, -UNIT * 2 / 20))
      opt_a.groups[1].lr, opt_a.groups[1].momentum = 1, 0
      opt_a:step()
    end
    local sum, squares, values = 0, 0, a:totable()
    for i = 1, n do
      local d = values[i] - 1.5 - steps * UNIT * 2 / 20
      sum, squares = sum + d, squares + d * d
    end
    local error_of_mean = math.sqrt(squares / n / n)
    assert.is_true(math.abs(sum / n) < 4 * error_of_mean,
      ("%g standard errors"):format(sum / n / error_of_mean))
    assert.is_true(error_of_mean > 0)
  end)

  it("stays where it is while its gradient is 0", function()
    for _, correction_bits in ipairs {0, 8, 16} do
      for _, name in ipairs {"adam", "adam8", "sgd", "lamb4"} do
        local a, opt = twins(name, correction_bits)
        opt.groups[1].weight_decay = 0
        local before = a:totable()
        for _ = 1, 3 do
          gradients.set(a, tensor.zeros(a:shape()))
          opt:step()
        end
        assert.equal(0, gradients.difference(a:totable(), before, 1))
      end
    end
  end)

  it("is stepped within backward to the same bits", function()
    local function run(at_once)
      machine.seed(2)
      local w = tensor.new({300}):normal_(0, 1):to("bf16"):parameter_()
      local opt = optim.adamw8({w}, {min_8bit_size = 0})
      for _ = 1, 5 do
        local x = w:to "f32"
        local loss = (x * x):sum()
        if at_once then
          opt:step_backward(loss)
          assert.is_nil(w:grad())
        else
          opt:zero_grad()
          loss:backward()
          opt:step()
        end
      end
      return gradients.everything(opt, {w})
    end
    assert.same(run(false), run(true))
  end)

  it("is the only kind with further bits", function()
    local w = tensor.zeros({SIZE}):parameter_()
    local opt = optim.adam({w}, {correction_bits = 16})
    assert.is_nil(opt:state().tensors["1.correction"])
    assert.error_matches(function()
      optim.adam({w}, {correction_bits = 4})
    end, "correction_bits is 4, expected 0, 8 or 16")
  end)
end)
