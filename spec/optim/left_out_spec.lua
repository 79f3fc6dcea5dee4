-- Gradients that are infinite or NaN: their elements stay as they are, state and all, and are
-- counted.
local format = require "octet.optim.format"
local gradients = require "spec.optim.gradients"
local machine = require "octet.machine"
local optim = require "octet.optim"
local rules = require "octet.optim.rules"
local tensor = require "octet.tensor"

local SIDE = 66
local SIZE = SIDE * SIDE

-- Options with which a rule has all of its states.
local FULL = {rmsprop = {momentum = 0.9, centered = true}, adafactor = {beta1 = 0.9}}

-- Two steps, the second with the gradients `bad` at places from 0: parameter and state, as they
-- were before it and are after it.
local function two_steps(rule, bits, bad, step_options)
  machine.seed(9)
  local w = tensor.ones({SIDE, SIDE}):parameter_()
  local options = {lr = 0.1, min_8bit_size = 0}
  for name, value in pairs(FULL[rule.name] or {}) do options[name] = value end
  local opt = optim[rule.name .. (bits == 32 and "" or bits)]({w}, options)
  local c = tensor.zeros({SIDE, SIDE}):keep()
  local function seen()
    local of, p = {w = w:totable()}, opt.parameters[1]
    for _, kind in ipairs(rule.states) do
      local values = opt:state().tensors["1." .. kind.name]
      if bits ~= 32 then
        local absmax = opt:state().tensors["1." .. kind.name .. ".absmax"]
        values = format.map_of(p.format, bits, kind.kind == "signed" and "signed" or "unsigned")
          :dequantize(values, absmax, {SIZE}, p.format.block_size)
        of[kind.name .. ".absmax"] = absmax:totable()
      end
      of[kind.name] = values:totable()
    end
    return of
  end
  c:normal_(0, 1)
  gradients.set(w, c)
  assert(opt:step() == 0)
  local before = seen()
  c:normal_(0, 1)
  for place, value in pairs(bad) do c:data()[place] = value end
  gradients.set(w, c)
  local left_out = opt:step(step_options)
  return before, seen(), left_out, opt
end

-- The neighbours of x in a map: what it may have become when it was rounded anew.
local function neighbours(x, absmax, values)
  local low, high = values[1], values[#values]
  for _, value in ipairs(values) do
    if value * absmax <= x * (1 + 1e-6) then low = math.max(low, value) end
    if value * absmax >= x * (1 - 1e-6) then high = math.min(high, value) end
  end
  return low * absmax, high * absmax
end

describe("a gradient that is not finite", function()
  local bad = {[5] = 0 / 0, [700] = math.huge, [4000] = -math.huge, [SIZE - 1] = 0 / 0}

  for _, rule in ipairs(rules.all) do
    for _, bits in ipairs {32, 8, 4} do
      it(("leaves its element and the element's state alone: %s, %d bits"):format(rule.name, bits),
        function()
          local before, after, left_out, opt = two_steps(rule, bits, bad)
          assert.equal(4, left_out)
          local moved = 0
          for i = 1, SIZE do
            assert.equal(after.w[i], after.w[i])
            if bad[i - 1] then
              assert.equal(before.w[i], after.w[i])
            elseif before.w[i] ~= after.w[i] then
              moved = moved + 1
            end
          end
          -- Adafactor's rows and columns would be spoilt: the whole parameter is passed over.
          if rule.matrix == "factored" then return assert.equal(0, moved) end
          assert.is_true(moved > SIZE * 0.9)
          local p = opt.parameters[1]
          for _, kind in ipairs(rule.states) do
            local sign = kind.kind == "signed" and "signed" or "unsigned"
            local values = bits ~= 32 and format.map_of(p.format, bits, sign):values()
            for place in pairs(bad) do
              local old, new = before[kind.name][place + 1], after[kind.name][place + 1]
              local low, high = old, old
              if values then
                local block = math.floor(place / p.format.block_size) + 1
                low, high = neighbours(old, after[kind.name .. ".absmax"][block], values)
              end
              low, high = low - math.abs(low) * 1e-5, high + math.abs(high) * 1e-5
              assert.is_true(new >= low and new <= high,
                ("%s of element %d: %.9g became %.9g"):format(kind.name, place, old, new))
            end
          end
        end)
    end
  end

  for _, rule in ipairs(rules.all) do
    if not rule.matrix and rule.name ~= "lars" and rule.name ~= "lamb" then
      it("changes nothing for the other elements: " .. rule.name, function()
        for _, bits in ipairs {32, 8, 4} do
          local _, clean = two_steps(rule, bits, {})
          local _, after = two_steps(rule, bits, bad)
          for i = 1, SIZE do
            if not bad[i - 1] then assert.equal(clean.w[i], after.w[i]) end
          end
        end
      end)
    end
  end

  for _, rule in ipairs(rules.all) do
    it("is not clipped to one that is: " .. rule.name, function()
      for _, bits in ipairs {32, 8, 4} do
        local before, after, left_out = two_steps(rule, bits, bad, {clip_value = 0.5})
        assert.equal(4, left_out)
        for place in pairs(bad) do assert.equal(before.w[place + 1], after.w[place + 1]) end
      end
    end)
  end

  it("is left out of the norm, and counted beside it", function()
    local _, _, _, opt = two_steps(rules.all.adam, 8, bad)
    local norm, not_finite = opt:clip_norm(1)
    assert.equal(math.huge, norm)
    assert.equal(4, not_finite)
  end)

  it("is not the only one: what would bring a state to 2^126 is left out as well", function()
    for _, name in ipairs {"adam", "adagrad", "rmsprop", "ademamix"} do
      for _, bits in ipairs {32, 8, 4} do
        local before, after, left_out = two_steps(rules.all[name], bits, {[77] = 1e25})
        assert.equal(1, left_out)
        assert.equal(before.w[78], after.w[78])
      end
    end
  end)
end)
