-- What an optimizer says of its state, against what its codes say.
local format = require "octet.optim.format"
local gradients = require "spec.optim.gradients"
local machine = require "octet.machine"
local optim = require "octet.optim"
local rules = require "octet.optim.rules"
local tensor = require "octet.tensor"

local abs, floor, ceil = math.abs, math.floor, math.ceil

-- Options with which a rule has all of its states.
local FULL = {rmsprop = {momentum = 0.9, centered = true}, adafactor = {beta1 = 0.9}}

local function options_of(rule, options)
  local all = {min_8bit_size = 0}
  for _, from in ipairs {FULL[rule] or {}, options or {}} do
    for name, value in pairs(from) do all[name] = value end
  end
  return all
end

local function width(bits) return bits == 32 and "" or bits end

-- The codes of a state, from 1, one by one.
local function codes_of(codes, bits, size)
  local list, data = {}, codes:data()
  for i = 0, size - 1 do
    local code = bits == 4 and data[floor(i / 2)] or data[i]
    if bits == 4 then code = i % 2 == 0 and code % 16 or floor(code / 16) end
    list[i + 1] = code
  end
  return list
end

-- An optimizer that has made some steps with gradients over six decades, some of them 0.
local function trained(rule, bits, options, size)
  machine.seed(2)
  local w = tensor.new(size):normal_(0, 1):parameter_()
  local opt = optim[rule .. width(bits)]({w}, options_of(rule, options))
  local draw, c = gradients.draws(3), tensor.zeros(size):keep()
  local function set_gradient()
    local g = c:data()
    for i = 0, w:size() - 1 do
      local y = draw()
      g[i] = y < -0.4 and 0 or y * 10 ^ (6 * draw())
    end
    gradients.set(w, c)
  end
  for _ = 1, 4 do
    set_gradient()
    opt:step()
  end
  return w, opt, set_gradient
end

describe("an optimizer's report", function()
  for _, rule in ipairs(rules.all) do
    it("counts bytes exactly, with 32, 8 and 4 bits: " .. rule.name, function()
      for _, bits in ipairs {32, 8, 4} do
        for _, shape in ipairs {{67, 65}, {4099}} do
          collectgarbage()
          collectgarbage()
          local before = machine.memory().optimizer_state.now
          local w = tensor.zeros(shape):parameter_()
          local opt = optim[rule.name .. width(bits)]({w}, options_of(rule.name))
          -- Muon gives what is no matrix to AdamW.
          local n, states = w:size(), #opt.parameters[1].rule.states
          local factors = 0
          if rule.matrix == "factored" then
            factors = 4 * (shape[2] and shape[1] + shape[2] or n)
          end
          local blocks = ceil(n / (bits == 4 and 128 or 256))
          local each = bits == 32 and 4 * n or (bits == 8 and n or ceil(n / 2)) + 4 * blocks
          local report = opt:report()
          assert.equal(states * each + factors, report.bytes)
          assert.equal(report.bytes, report.parameters[1].bytes)
          assert.equal(report.bytes, report["bytes_" .. bits])
          assert.equal(states * 4 * n + factors, report.bytes_if_32)
          assert.equal(before + report.bytes, machine.memory().optimizer_state.now)
          assert.equal(n, report.elements)
          assert.equal(bits == 8 and n or 0, report.elements_8)
          assert.equal(bits == 4 and n or 0, report.elements_4)
          opt:release()
        end
      end
    end)
  end

  for _, case in ipairs {
    {"adam", 8, {}}, {"adam", 8, {format = "paper"}}, {"adam", 4, {}},
    {"adam", 4, {map = "dynamic"}},
    {"adam", 8, {scale = "tensor"}}, {"ademamix", 8, {}}, {"rmsprop", 8, {map = "linear"}},
    {"sgd", 4, {}}, {"muon", 8, {}}, {"muon", 4, {}}, {"adafactor", 8, {}}, {"lamb", 4, {}},
    {"muon", 8, {scale = "tensor"}}, {"adafactor", 4, {scale = "tensor"}},
  } do
    local rule, bits, options = case[1], case[2], case[3]
    local name = rule .. bits
    for key, value in pairs(options) do name = name .. ", " .. key .. " " .. value end

    it("gives shares of zeros and of saturated codes as the codes do: " .. name, function()
      local w, opt = trained(rule, bits, options, {67, 65})
      local report, tensors, n = opt:report().parameters[1], opt:state().tensors, w:size()
      for i, kind in ipairs(rules.all[rule].states) do
        local seen = report.states[i]
        local sign = kind.kind == "signed" and "signed" or "unsigned"
        local values = format.map_of(opt.parameters[1].format, bits, sign):values()
        local absmax, own = tensors["1." .. kind.name .. ".absmax"]:data(), opt.parameters[1].format
        local block = own.scale == "tensor" and n or own.block_size
        local zeros, saturated = 0, 0
        for k, code in ipairs(codes_of(tensors["1." .. kind.name], bits, n)) do
          if values[code + 1] * absmax[floor((k - 1) / block)] == 0 then zeros = zeros + 1 end
          if code == #values - 1 or (sign == "signed" and code == 0) then
            saturated = saturated + 1
          end
        end
        assert.equal(kind.name, seen.name)
        assert.equal(zeros / n, seen.zeros)
        assert.equal(saturated / n, seen.saturated)
        assert.is_true(saturated > 0)
        assert.is_nil(seen.absolute_error)
      end
    end)

    it("gives the last step's errors as 32-bit state beside it shows them: " .. name, function()
      local w, opt, set_gradient = trained(rule, bits, options, {67, 65})
      opt:watch(true)
      -- 32-bit state goes on from the very numbers, and shows what the next ones should be.
      local twin = tensor.new {67, 65}
      twin:copy_(w):parameter_()
      local whole = optim[rule]({twin}, options_of(rule)):load(opt:state())
      for _ = 1, 2 do
        whole:load(opt:state())
        twin:copy_(w)
        set_gradient()
        gradients.set(twin, w:grad())
        opt:step()
        whole:step()
      end
      local p, n, report = opt.parameters[1], w:size(), opt:report().parameters[1]
      local block = p.format.scale == "tensor" and 8192 or p.format.block_size
      for i, kind in ipairs(rules.all[rule].states) do
        local state = opt:state().tensors
        local sign = kind.kind == "signed" and "signed" or "unsigned"
        local kept = format.map_of(p.format, bits, sign):dequantize(state["1." .. kind.name],
          state["1." .. kind.name .. ".absmax"], {n}, block):totable()
        local meant = whole:state().tensors["1." .. kind.name]:totable()
        local absolute, relative, lost, not_zero = 0, 0, 0, 0
        for k = 1, n do
          local x = meant[k]
          if kind.kind == "square" and p.format.sqrt_v then x = math.sqrt(x) end
          absolute = absolute + abs(kept[k] - x)
          if x ~= 0 then
            not_zero, relative = not_zero + 1, relative + abs(kept[k] - x) / abs(x)
            if kept[k] == 0 then lost = lost + 1 end
          end
        end
        local seen = report.states[i]
        local function near(a, b)
          assert.is_true(abs(a - b) <= 1e-4 * b, ("%s: %g, expected %g"):format(kind.name, a, b))
        end
        assert.is_true(absolute > 0)
        near(seen.absolute_error, absolute / n)
        near(seen.relative_error, relative / not_zero)
        near(seen.lost, lost / not_zero)
      end
    end)
  end

  it("shows v that is lost in the paper's format, and none in Octet's", function()
    local function lost(options)
      local _, opt, set_gradient = trained("adam", 8, options, {64, 64})
      opt:watch(true)
      set_gradient()
      opt:step()
      local v = opt:report().parameters[1].states[2]
      assert(v.name == "v")
      return v.lost
    end
    local paper = lost {format = "paper"}
    assert.is_true(paper > 0.02, "lost: " .. paper)
    assert.equal(0, lost {})
  end)

  it("counts state that has seen no step as zeros", function()
    for _, bits in ipairs {8, 4} do
      local opt = optim["adam" .. bits]({tensor.zeros({5000}):parameter_()})
      for _, seen in ipairs(opt:report().parameters[1].states) do
        assert.same({1, 0}, {seen.zeros, seen.saturated})
      end
    end
  end)

  it("tells errors only while the optimizer is watched, and of the last step alone", function()
    local _, opt, set_gradient = trained("adam", 8, {}, {64, 64})
    local function error_of() return opt:report().parameters[1].states[1].absolute_error end
    assert.is_nil(error_of())
    opt:watch(true)
    assert.equal(0, error_of())
    set_gradient()
    opt:step()
    local once = error_of()
    assert.is_true(once > 0)
    set_gradient()
    opt:step()
    assert.is_true(error_of() < 1.9 * once)
    opt:watch(false)
    assert.is_nil(error_of())
  end)

  it("says whose word it is that a state has 32 bits, behind an override too", function()
    local list = {{name = "small", tensor = tensor.ones({4}):parameter_()},
      {name = "large", tensor = tensor.ones({8192}):parameter_()}}
    local opt = optim.adam8(list)
    opt:override {large = {block_size = 64}}
    local kept = opt:report().kept_32
    assert.same({{name = "small", elements = 4, why = "fewer than 4096 elements"}}, kept)
  end)
end)
