-- Averages of weights, held against their formulas in double precision.
local average = require "octet.optim.average"
local failure = require "spec.failure"
local gradients = require "spec.optim.gradients"
local machine = require "octet.machine"
local octet = require "octet"
local optim = require "octet.optim"
local safetensors = require "octet.safetensors"
local json = require "octet.json"
local tensor = octet.tensor

local STEPS, SIZE = 60, 37

--- The weights at step t (0: before the first), the same ones for the same step.
local function weights(t)
  local draw, values = gradients.draws(100 + t), {}
  for i = 1, SIZE do values[i] = draw() + t / 50 end
  return values
end

--- Run `make`'s average over the steps, and call f(t, average, w) after each.
local function follow(make, f)
  local w = gradients.parameter(weights(0))
  local mean = make({{name = "w", tensor = w}})
  for t = 1, STEPS do
    w:copy_(tensor.from(weights(t)))
    mean:update()
    f(t, mean, w)
  end
end

--- Hold the averages against a function of t that gives the weight of each step's weights.
local function held_against(make, share)
  follow(make, function(t, mean, w)
    local expected, sum = {}, 0
    for s = 0, t do sum = sum + share(t, s) end
    assert.is_true(math.abs(sum - 1) < 1e-12)
    for i = 1, SIZE do expected[i] = 0 end
    for s = 0, t do
      for i, value in ipairs(weights(s)) do expected[i] = expected[i] + share(t, s) * value end
    end
    local seen = mean:with(function() return w:totable() end)
    local off = gradients.difference(seen, expected, 1)
    assert.is_true(off < 1e-6, ("step %d: off by %g"):format(t, off))
  end)
end

local function ema(options)
  return function(parameters) return average.ema(parameters, options) end
end

local function product(decay, from, to)
  local p = 1
  for s = from, to do p = p * decay(s) end
  return p
end

--- Weights of an exponential average whose decay at update s (1, 2, ...) is decay(s).
local function exponential(decay)
  return function(t, s)
    if s == 0 then return product(decay, 1, t) end
    return (1 - decay(s)) * product(decay, s + 1, t)
  end
end

describe("an exponential average of weights", function()
  it("is decay * mean + (1 - decay) * weights, from the first weights on", function()
    for _, decay in ipairs {0, 0.5, 0.9, 0.99} do
      held_against(ema {decay = decay}, exponential(function() return decay end))
    end
  end)

  it("with a warm-up has a decay of (1 + t) / (10 + t) at most", function()
    held_against(ema {decay = 0.8, warmup = true},
      exponential(function(s) return math.min(0.8, s / (9 + s)) end))
  end)

  it("debiased leaves the first weights out", function()
    for _, warmup in ipairs {false, true} do
      local function decay(s) return warmup and math.min(0.95, s / (9 + s)) or 0.95 end
      local with_bias = exponential(decay)
      held_against(ema {decay = 0.95, debias = true, warmup = warmup}, function(t, s)
        return s == 0 and 0 or with_bias(t, s) / (1 - product(decay, 1, t))
      end)
    end
  end)

  it("is the weights until `start`, and counts each `every` updates from there", function()
    held_against(ema {decay = 0.9, start = 20, every = 4}, function(t, s)
      if t < 20 then return s == t and 1 or 0 end
      local updates = math.floor((t - 20) / 4)
      if s == 20 then return 0.9 ^ updates end
      if s < 20 or (s - 20) % 4 ~= 0 or s > t then return 0 end
      return 0.1 * 0.9 ^ (updates - (s - 20) / 4)
    end)
  end)
end)

describe("an equal average of weights", function()
  it("is the mean over the updates", function()
    held_against(average.equal, function(t, s) return s == 0 and 0 or 1 / t end)
  end)

  it("begins after `start`, with each `every` updates", function()
    held_against(function(p) return average.equal(p, {start = 12, every = 5}) end, function(t, s)
      local updates = math.floor((t - 12) / 5)
      if t < 12 or updates == 0 then return s == math.min(t, math.max(12, 0)) and 1 or 0 end
      return s > 12 and (s - 12) % 5 == 0 and 1 / updates or 0
    end)
  end)
end)

describe("averaged weights", function()
  it("change places with the weights, and come back bit for bit, through errors too", function()
    for _, start in ipairs {0, 100} do
      follow(ema {decay = 0.9, start = start}, function(_, mean, w)
        local before = gradients.bytes(w)
        local a, b, c = mean:with(function(...) return ... end, 1, nil, 3)
        assert.same({1, nil, 3}, {a, b, c})
        assert.is_true(before == gradients.bytes(w))
        local seen
        assert.equal("lost", failure(mean.with, mean, function()
          seen = gradients.bytes(w)
          error("lost", 0)
        end))
        assert.equal(start == 100, seen == before)
        assert.is_true(before == gradients.bytes(w))
        mean:swap()
        assert.is_true(seen == gradients.bytes(w))
        assert.is_true(before == gradients.bytes(mean:swap() and w))
      end)
    end
  end)

  it("cannot be updated, saved or swapped again while they are in the weights' place", function()
    local w = gradients.parameter {1, 2}
    local mean = average.ema({w}):swap()
    for _, name in ipairs {"update", "state", "with", "load"} do
      assert.matches("average.ema: " .. name .. "%(%) while the averages are in the weights' "
        .. "place; swap%(%) back first", failure(mean[name], mean, {}))
    end
    mean:swap()
    assert.is_true(mean:update())
  end)

  it("do not change training", function()
    local function train(with_average)
      octet.seed(4)
      local w = tensor.new({80, 64}):normal_(0, 1):parameter_()
      local opt = optim.adam8({{name = "w", tensor = w}})
      local mean = with_average and average.ema({{name = "w", tensor = w}}, {decay = 0.5})
      for t = 1, 5 do
        octet.scope(function()
          local loss = (w * w):sum()
          loss:backward()
          opt:step()
          opt:zero_grad()
          if mean then
            mean:update()
            mean:with(function() return t end)
          end
        end)
      end
      return gradients.everything(opt, {w})
    end
    assert.is_true(train(false)["parameter 1"] == train(true)["parameter 1"])
  end)

  it("are what a model computes with, in bf16 too", function()
    local layer = octet.nn.Linear(64, 8)
    layer.weight:fill_(1)
    layer.bias:fill_(0)
    local mean = average.ema(layer:parameters(), {decay = 0.5})
    layer.weight:fill_(3)
    mean:update()
    octet.set_precision "bf16"
    local ok, message = pcall(function()
      local x = tensor.ones {1, 64}
      local function output() return octet.no_grad(function() return layer(x):totable()[1] end) end
      assert.equal(192, output())
      assert.equal(128, mean:with(output))
      assert.equal(192, output())
    end)
    octet.set_precision "f32"
    assert.is_true(ok, message)
  end)

  it("are optimizer state, 4 bytes an element, that outlives a scope and ends with them", function()
    local w = tensor.zeros({5000}):parameter_()
    collectgarbage() collectgarbage()
    local before, tensors = machine.memory().optimizer_state.now, machine.live_tensors()
    local mean
    octet.scope(function() mean = average.equal {w} end)
    mean:update()
    assert.equal(20000, mean:bytes())
    assert.equal(before + 20000, machine.memory().optimizer_state.now)
    mean:swap():swap()
    mean:update()
    assert.equal(before + 20000, machine.memory().optimizer_state.now)
    mean = nil -- luacheck: ignore
    collectgarbage() collectgarbage()
    assert.equal(before, machine.memory().optimizer_state.now)
    assert.equal(tensors, machine.live_tensors())
  end)

  it("of weights in bf16 are kept in f32, and rounded where they stand in their place", function()
    local w = tensor.ones({300}):to("bf16"):keep()
    local mean = average.ema({{name = "w", tensor = w}}, {decay = 0.999})
    for t = 1, 100 do
      octet.scope(function() w:copy_(tensor.full({300}, 2 + t % 2):to "bf16") end)
      mean:update()
    end
    local before, exact = w:totable(), 1
    for t = 1, 100 do exact = exact + 0.001 * (2 + t % 2 - exact) end
    local kept = mean:state().tensors["w.average"]
    assert.equal("f32", kept:dtype())
    assert.is_true(math.abs(kept:totable()[1] - exact) < 1e-5)
    collectgarbage() collectgarbage()
    local tensors = machine.live_tensors()
    assert.same(kept:to("bf16"):totable(), mean:with(function() return w:totable() end))
    assert.same(before, w:totable())
    assert.is_true(math.abs(kept:totable()[1] - exact) < 1e-5)
    collectgarbage() collectgarbage()
    assert.equal(tensors, machine.live_tensors())
  end)

  it("are all back in their places where memory ends while they are swapped in", function()
    local binding = require "octet.binding"
    local made = require "ffi".new "int64_t[1]"
    local half, w = tensor.ones({300}):to("bf16"):keep(), gradients.parameter {1, 1}
    local other = tensor.ones({300}):to("bf16"):keep()
    local mean = average.ema({w, half, other}, {decay = 0.5})
    w:fill_(5)
    half:copy_(tensor.full({300}, 5):to "bf16")
    mean:update()
    local failures = 0
    for nth = 1, 50 do
      binding.check(binding.C.oct_fail_allocation(made, nth, 1))
      local ok = pcall(mean.swap, mean)
      binding.check(binding.C.oct_fail_allocation(made, 0, 0))
      if ok then break end
      failures = failures + 1
      assert.same({5, 5}, w:totable())
      assert.equal(5, half:totable()[300])
    end
    assert.is_true(failures > 1 and failures < 50)
    assert.same({3, 3}, w:totable())
    assert.equal(3, half:totable()[300])
    mean:swap()
    assert.equal(5, half:totable()[300])
  end)

  it("do not depend on threads or instruction set", function()
    local everywhere = require "spec.ops.check".everywhere
    local expected
    everywhere(function()
      local w = tensor.new({30000}):fill_(0.3):parameter_()
      local mean = average.ema({w}, {decay = 0.7})
      for t = 1, 5 do
        w:fill_(1 / t)
        mean:update()
      end
      mean:swap()
      expected = expected or gradients.bytes(w)
      assert.is_true(expected == gradients.bytes(w))
    end)
  end)
end)

describe("an average's state", function()
  local KINDS = {
    {"ema", {decay = 0.9}}, {"ema", {decay = 0.9, debias = true, warmup = true}},
    {"ema", {start = 20, every = 3}}, {"equal", {}}, {"equal", {start = 20, every = 3}},
  }

  for number, kind in ipairs(KINDS) do
    it(("goes on bit for bit from a file: %s, %d"):format(kind[1], number), function()
      local path = os.tmpname()
      local function make(values)
        local w = gradients.parameter(values)
        return w, average[kind[1]]({{name = "w", tensor = w}}, kind[2])
      end
      local function advance(w, mean, from, to)
        for t = from, to do
          w:copy_(tensor.from(weights(t)))
          mean:update()
        end
        return mean:with(function() return gradients.bytes(w) end)
      end
      local whole, whole_mean = make(weights(0))
      local expected = advance(whole, whole_mean, 1, STEPS)
      for _, stop in ipairs {1, 19, 20, 21, 23, 40} do
        local w, mean = make(weights(0))
        advance(w, mean, 1, stop)
        local state = mean:state()
        safetensors.save(path, state.tensors, {average = json.encode(state.numbers)})
        local other, other_mean = make(weights(stop))
        local file = safetensors.open(path)
        for name, t in pairs(other_mean:state().tensors) do file:read(name, t) end
        other_mean:load {numbers = json.decode(file:metadata().average, "average")}
        file:close()
        assert.is_true(expected == advance(other, other_mean, stop + 1, STEPS), "stop " .. stop)
        -- Handed over as tensors.
        local third, third_mean = make(weights(stop))
        third_mean:load(state)
        assert.is_true(expected == advance(third, third_mean, stop + 1, STEPS), "stop " .. stop)
      end
      os.remove(path)
    end)
  end

  it("is refused where it does not fit, by name", function()
    local w = gradients.parameter {1, 2, 3}
    local function made(kind, options)
      return average[kind or "ema"]({{name = "w", tensor = w}}, options)
    end
    local mean = made()
    local function refused(change, other)
      local state = (other or made()):state()
      if change then change(state) end
      return failure(mean.load, mean, state)
    end
    assert.matches("^average.ema: load: the state is that of kind equal, expected ema",
      refused(nil, made "equal"))
    assert.matches("decay of the state is 0.5, expected 0.999", refused(nil, made("ema",
      {decay = 0.5})))
    assert.matches("tensor w.average is missing",
      refused(function(s) s.tensors["w.average"] = nil end))
    assert.matches("tensor w.average is f32 %[2%], expected f32 %[3%]",
      refused(function(s) s.tensors["w.average"] = tensor.zeros {2} end))
    assert.matches("tensor more is left over", refused(function(s) s.tensors.more = w end))
    assert.matches("calls is %-1, expected a whole number",
      refused(function(s) s.numbers.calls = -1 end))
    assert.matches("remains is 2, expected a number from 0 to 1",
      refused(function(s) s.numbers.remains = 2 end))
    assert.matches("the state has no numbers", refused(function(s) s.numbers = nil end))
  end)
end)

describe("an average", function()
  it("says in one line what it cannot use", function()
    local w = gradients.parameter {1}
    assert.matches('^average.ema: unknown option "decoy"; it is one of decay, ',
      failure(average.ema, {w}, {decoy = 1}))
    assert.matches('^average.equal: unknown option "decay"; it is one of ',
      failure(average.equal, {w}, {decay = 0.9}))
    for _, bad in ipairs {-0.1, 1, 0 / 0, "0.9"} do
      assert.matches("^average.ema: decay is .*, expected a number from 0 to below 1",
        failure(average.ema, {w}, {decay = bad}))
    end
    assert.matches("every is 0, expected a whole number, 1 or more",
      failure(average.equal, {w}, {every = 0}))
    assert.matches("debias is 1, expected true or false", failure(average.ema, {w}, {debias = 1}))
    assert.matches("parameters are an empty table, expected a list", failure(average.ema, {}))
    assert.matches("parameters are a cdata, expected a list", failure(average.ema, w))
    assert.matches("parameter 2 is a number, expected a tensor", failure(average.ema, {w, 3}))
    assert.matches('two parameters are named "w"', failure(average.ema,
      {{name = "w", tensor = w}, {name = "w", tensor = w}}))
    assert.matches("parameter 1 is i32, expected f32, f16 or bf16",
      failure(average.ema, {tensor.zeros({2}, "i32")}))
  end)
end)
