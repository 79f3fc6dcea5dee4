-- 8-bit state: the same bits everywhere, faithful to 32-bit state, and none of the known hazards.
local gradients = require "spec.optim.gradients"
local machine = require "octet.machine"
local optim = require "octet.optim"
local tensor = require "octet.tensor"

describe("8-bit state", function()
  it("takes 2 bytes a parameter and 8 a block, to the byte, and gives them back", function()
    collectgarbage()
    collectgarbage()
    local before = machine.memory().optimizer_state.now
    for _, case in ipairs {{size = 4096, block = 256}, {size = 100001, block = 256},
      {size = 5000, block = 2048}} do
      local w = tensor.zeros({case.size}):parameter_()
      local opt = optim.adam8({w}, {block_size = case.block})
      local bytes = 2 * case.size + 8 * math.ceil(case.size / case.block)
      assert.equal(before + bytes, machine.memory().optimizer_state.now)
      assert.equal(bytes, opt:report().bytes)
      opt:release()
      collectgarbage()
      assert.equal(before, machine.memory().optimizer_state.now)
    end
  end)
end)

describe("8-bit state beside 32-bit state", function()
  -- Both run on their own from the same start with the same gradients: normal, with a mean of a
  -- tenth of their deviation, which differs by up to `decades` powers of ten within a block.
  local function free_run(decades, options, steps)
    machine.seed(1)
    local n, lr = 4096, 1e-3
    local draw = gradients.draws(2)
    local scales = tensor.new({n}):keep()
    for i = 0, n - 1 do scales:data()[i] = 10 ^ (-decades * (draw() + 0.5)) end
    local a, b = tensor.zeros({n}):parameter_(), tensor.zeros({n}):parameter_()
    local opt_a, opt_b = optim.adam({a}, {lr = lr}), optim.adam8({b}, options)
    local scope = require "octet.scope"
    local old_a, old_b = tensor.zeros({n}):keep(), tensor.zeros({n}):keep()
    local length_a, length_b, most_a, most_b = 0, 0, 0, 0
    for t = 1, steps do
      scope.scope(function()
        local c = tensor.new({n}):normal_(0.1, 1) * scales
        gradients.set(a, c)
        gradients.set(b, c)
        local watched = t > 100 and t % 20 == 0
        if watched then
          old_a:copy_(a)
          old_b:copy_(b)
        end
        opt_a:step()
        opt_b:step()
        if watched then
          local step_a, step_b = (a - old_a):abs(), (b - old_b):abs()
          length_a, length_b = length_a + step_a:mean():item(), length_b + step_b:mean():item()
          most_a = math.max(most_a, step_a:max():item())
          most_b = math.max(most_b, step_b:max():item())
        end
      end)
    end
    local dot, aa, bb = 0, 0, 0
    for i = 0, n - 1 do
      local x, y = a:data()[i], b:data()[i]
      dot, aa, bb = dot + x * y, aa + x * x, bb + y * y
    end
    return {length = length_b / length_a, most = most_b / most_a, cosine = dot / math.sqrt(aa * bb)}
  end

  for decades = 0, 3 do
    it(("takes steps as long, and in the direction, %d decades"):format(decades), function()
      local seen = free_run(decades, {}, 1500)
      assert.is_true(math.abs(seen.length - 1) < 0.02, "mean update " .. seen.length)
      assert.is_true(seen.most < 2, "largest update " .. seen.most)
      assert.is_true(seen.cosine > 0.99, "cosine " .. seen.cosine)
    end)
  end

  it("shows what the paper's format suffers from: v underflows beside large neighbours", function()
    local seen = free_run(3, {format = "paper"}, 500)
    assert.is_true(seen.most > 10, "largest update " .. seen.most)
  end)
end)

describe("a hazard of 8-bit state", function()
  local SIZE = 4096

  -- Gradients: element i has scale(i) times a normal number.
  local function run(options, steps, gradient)
    machine.seed(1)
    local w = tensor.zeros({SIZE}):parameter_()
    local opt = optim.adam8({w}, options)
    local c = tensor.zeros({SIZE}):keep()
    local scope = require "octet.scope"
    local most = 0
    for t = 1, steps do
      scope.scope(function()
        c:normal_(0, 1)
        gradient(c:data(), t)
        gradients.set(w, c)
        local before = t > 20 and w * 1
        opt:step()
        if before then most = math.max(most, (w - before):abs():max():item()) end
      end)
    end
    return w, opt, most
  end

  it("v underflow: a small gradient beside a large one makes no long step", function()
    -- 32-bit state: 1.1 lr. The paper's format has v = 0 under a living m.
    for _, case in ipairs {{scale = 1e-2, most = 1.5}, {scale = 4e-4, most = 2},
      {scale = 1e-4, most = 3}} do
      local function one_in_a_block_is_large(g)
        for i = 0, SIZE - 1 do
          if i % 256 ~= 0 then g[i] = g[i] * case.scale end
        end
      end
      local _, _, most = run({lr = 1}, 200, one_in_a_block_is_large)
      assert.is_true(most < case.most, ("%g: largest step %g"):format(case.scale, most))
      local _, _, paper = run({lr = 1, format = "paper", block_size = 256}, 200,
        one_in_a_block_is_large)
      assert.equal(case.scale < 1e-3, paper > 100)
    end
  end)

  it("v underflow: what is not 0 does not become 0", function()
    local _, opt = run({}, 50, function(g)
      for i = 0, SIZE - 1 do
        if i % 256 ~= 0 then g[i] = g[i] * 1e-9 end
      end
    end)
    local v = opt:state().tensors["1.v"]:data()
    for i = 0, SIZE - 1 do assert.is_true(v[i] > 0) end
  end)

  it("frozen v: sqrt(v) follows gradients that grow by one part in a hundred", function()
    -- To the nearest, a change of v by less than half a code each step never arrives.
    local function grown(format)
      local _, opt = run({format = format, betas = {0.9, 0.999}}, 1500, function(g, t)
        for i = 0, SIZE - 1 do g[i] = (t < 750 and 1 or 1.1) * (i % 256 == 0 and 4 or 1) end
      end)
      local state = opt:state().tensors
      local ffi, binding = require "ffi", require "octet.binding"
      local x = ffi.new("float[?]", SIZE)
      local block = format == "paper" and 2048 or 256
      binding.check(binding.C.oct_dequantize(x, state["1.v"]:data(), state["1.v.absmax"]:data(),
        SIZE, block, 0, 0))
      local sum, count = 0, 0
      for i = 0, SIZE - 1 do
        if i % 256 ~= 0 then sum, count = sum + x[i], count + 1 end
      end
      return sum / count
    end
    -- v after 1500 steps from its definition
    local v = 0
    for t = 1, 1500 do v = 0.999 * v + 0.001 * (t < 750 and 1 or 1.1) ^ 2 end
    local octet = grown "octet" ^ 2
    assert.is_true(math.abs(octet / v - 1) < 0.01, ("v is %g, expected %g"):format(octet, v))
  end)

  it("a parameter whose gradient is exactly 0 stays exactly where it is", function()
    for _, format in ipairs {"octet", "paper"} do
      local w, opt = run({format = format}, 300, function(g)
        for i = 0, SIZE - 1, 2 do g[i] = 0 end
      end)
      local p, m, v = w:data(), opt:state().tensors["1.m"]:data(), opt:state().tensors["1.v"]:data()
      for i = 0, SIZE - 1, 2 do
        assert.equal(0, p[i])
        assert.equal(127, m[i])
        assert.equal(0, v[i])
      end
      for i = 1, SIZE - 1, 2 do assert.is_true(p[i] ~= 0) end
    end
  end)

  it("frozen m: a parameter whose gradient ends comes to rest as with 32-bit state", function()
    -- To the nearest, a small m beside large ones is rounded back up after every decay.
    local function rested(rule, options)
      options.lr = 1
      machine.seed(1)
      local w = tensor.zeros({SIZE}):parameter_()
      local opt = optim[rule]({w}, options)
      local c = tensor.zeros({SIZE}):keep()
      local at_end
      for t = 1, 1200 do
        c:normal_(0.1, 1)
        local g = c:data()
        for i = 0, SIZE - 1 do
          g[i] = g[i] * 10 ^ -math.floor(i / 2 % 4)
          if t > 200 and i % 2 == 1 then g[i] = 0 end
        end
        gradients.set(w, c)
        opt:step()
        if t == 200 then at_end = w:totable() end
      end
      local sum, p = 0, w:data()
      for i = 1, SIZE - 1, 2 do sum = sum + math.abs(p[i] - at_end[i + 1]) end
      return sum / (SIZE / 2)
    end
    local whole, octet = rested("adam", {}), rested("adam8", {})
    assert.is_true(math.abs(octet / whole - 1) < 0.05, ("%g against %g lr"):format(octet, whole))
    local paper = rested("adam8", {format = "paper", block_size = 256})
    assert.is_true(paper > 1.5 * whole, ("%g against %g lr"):format(paper, whole))
  end)

  it("a gradient that is not finite leaves its element and the element's state alone", function()
    for _, rule in ipairs {"adam8", "adam"} do
      local function stepped(bad)
        machine.seed(9)
        local w = tensor.ones({SIZE}):parameter_()
        local opt = optim[rule]({w}, {lr = 0.1})
        local c = tensor.zeros({SIZE}):keep()
        c:normal_(0, 1)
        gradients.set(w, c)
        opt:step()
        local old = w:totable()
        c:normal_(0, 1)
        for place, value in pairs(bad) do c:data()[place] = value end
        gradients.set(w, c)
        return w:totable(), opt:step(), old, opt
      end
      local clean = stepped {}
      local bad = {[5] = 0 / 0, [700] = math.huge, [4000] = -math.huge, [4001] = 1e25}
      local w, left_out, old, opt = stepped(bad)
      assert.equal(4, left_out)
      for i = 1, SIZE do
        if bad[i - 1] then
          assert.equal(old[i], w[i])
        else
          assert.equal(clean[i], w[i])
        end
      end
      local norm, not_finite = opt:clip_norm(1)
      assert.equal(math.huge, norm)
      assert.equal(3, not_finite)
    end
  end)

  it("stochastic rounding is unbiased: the mean of a million draws", function()
    -- One step from zero state with beta2 = 0: sqrt(v) is |g|, rounded once. The first element of a
    -- block is 1, so that it is the scale.
    local n = 1024 * 1024
    local ffi, binding = require "ffi", require "octet.binding"
    machine.seed(4)
    for _, x in ipairs {0.5012, 0.0995, 0.997, 3.1e-5, 9e-7} do
      local w = tensor.zeros({n}):parameter_()
      local opt = optim.adam8({w}, {betas = {0, 0}})
      local c = tensor.full({n}, x):keep()
      for i = 0, n - 1, 256 do c:data()[i] = 1 end
      gradients.set(w, c)
      opt:step()
      local state = opt:state().tensors
      local values = ffi.new("float[?]", n)
      binding.check(binding.C.oct_dequantize(values, state["1.v"]:data(),
        state["1.v.absmax"]:data(), n, 256, 0, 0))
      local exact, sum, squares, count = tonumber(ffi.new("float", x)), 0, 0, 0
      for i = 0, n - 1 do
        if i % 256 ~= 0 then
          local d = values[i] - exact
          sum, squares, count = sum + d, squares + d * d, count + 1
        end
      end
      local error_of_mean = math.sqrt(squares / count / count)
      assert.is_true(math.abs(sum / count) < 4 * error_of_mean,
        ("%g: %g standard errors"):format(x, sum / count / error_of_mean))
      opt:release()
    end
  end)
end)
