-- Learning-rate schedules, held against those of PyTorch and transformers: the figures are printed
-- by spec/optim/peers/schedules.py.
local failure = require "spec.failure"
local json = require "octet.json"
local optim = require "octet.optim"
local peers = require "spec.optim.peers.schedules"
local schedule = require "octet.optim.schedule"

local function near(expected, value, what)
  if math.abs(value - expected) > 1e-12 then
    error(("%s: %.17g, expected %.17g"):format(what, value, expected), 0)
  end
end

describe("schedules", function()
  it("are the peers', at every step", function()
    local seen = {}
    for number, case in ipairs(peers) do
      seen[case.name] = true
      local factor = schedule.new(case.name, case.options)
      for i, expected in ipairs(case.factors) do
        local what = ("case %d, %s, step %d"):format(number, case.name, i - 1)
        if case.metrics then factor:update(case.metrics[i]) end
        near(expected, factor(i - 1), what)
      end
    end
    for _, name in ipairs(schedule.NAMES) do assert.is_true(seen[name], name) end
  end)

  it("are reached as optim.schedule.NAME", function()
    for _, name in ipairs(schedule.NAMES) do
      local options = {steps = 10}
      local ok = pcall(schedule[name], options)
      if not ok then options = {} end
      assert.equal(schedule.new(name, options)(3), optim.schedule[name](options)(3))
    end
  end)

  it("depend on the steps done alone, in any order", function()
    for _, name in ipairs(schedule.NAMES) do
      if name ~= "plateau" then
        local options = (name == "constant" or name == "inverse_sqrt") and {warmup_steps = 3}
          or {steps = 20, warmup_steps = 3}
        local one, other, values = schedule.new(name, options), schedule.new(name, options), {}
        for done = 0, 30 do values[done] = one(done) end
        for done = 30, 0, -1 do assert.equal(values[done], other(done)) end
      end
    end
  end)

  it("rise from 0 to 1 within warmup_steps, all of them", function()
    for _, name in ipairs(schedule.NAMES) do
      local fixed = name == "constant" or name == "inverse_sqrt" or name == "plateau"
      local options = fixed and {warmup_steps = 8} or {steps = 40, warmup_steps = 8}
      if name == "one_cycle" then options.anneal, options.div_factor = "linear", 1e15 end
      local factor = schedule.new(name, options)
      for done = 0, 8 do near(done / 8, factor(done), name) end
    end
  end)

  it("stay at their end beyond the last step", function()
    for name, expected in pairs {linear = 0.125, cosine = 0.125, polynomial = 0.125,
        one_cycle = 1 / (25 * 1e4)} do
      local options = {steps = 10}
      if name ~= "one_cycle" then options.end_factor = expected end
      local factor = schedule.new(name, options)
      for _, done in ipairs {10, 11, 1000} do near(expected, factor(done), name) end
    end
  end)

  it("begin anew at 1 at each restart, however the steps divide", function()
    for _, case in ipairs {{30, 2, 1}, {33, 10, 1}, {70, 2, 2}, {242, 4, 3}, {11, 1, 1.2},
        {331, 2, 1.1}} do
      local steps, restarts, growth = unpack(case)
      local factor = schedule.cosine {steps = steps, restarts = restarts, growth = growth}
      local anew = 0
      for done = 1, steps - 1 do
        if factor(done) > factor(done - 1) then
          anew = anew + 1
          near(1, factor(done), ("%d steps, step %d"):format(steps, done))
        end
      end
      assert.equal(restarts, anew)
    end
    local factor = schedule.cosine {steps = 70, restarts = 2, growth = 2}
    assert.same({1, 1, 1}, {factor(0), factor(10), factor(30)})
  end)

  it("take no steps at all, or a warm-up alone", function()
    for _, name in ipairs {"linear", "cosine", "polynomial", "one_cycle"} do
      for _, options in ipairs {{steps = 0}, {steps = 1}, {steps = 4, warmup_steps = 4}} do
        local factor = schedule.new(name, options)
        for done = 0, 5 do
          local value = factor(done)
          assert.is_true(value >= 0 and value <= 1, name)
        end
      end
    end
  end)

  it("say in one line what they cannot use", function()
    for _, case in ipairs {
      {"linear", {}, "steps is nil, expected a whole number, 0 or more"},
      {"cosine", {steps = 1.5}, "steps is 1.5, expected a whole number, 0 or more"},
      {"polynomial", {steps = 3, warmup_steps = 5}, "warmup_steps is 5, but steps is 3"},
      {"cosine", {steps = 3, restart = 1},
        'unknown option "restart"; it is one of restarts, '},
      {"cosine", {steps = 3, restarts = -1}, "restarts is %-1, expected a whole number, 0 or more"},
      {"cosine", {steps = 3, growth = 0.5}, "growth is 0.5, expected a number, 1 or more"},
      {"linear", {steps = 3, end_factor = 2}, "end_factor is 2, expected a number from 0 to 1"},
      {"polynomial", {steps = 3, power = 0}, "power is 0, expected a number above 0"},
      {"inverse_sqrt", {timescale = 0 / 0}, "timescale is .*nan, expected a number above 0"},
      {"one_cycle", {steps = 9, anneal = "cosine"},
        'anneal is cosine, expected "cos" or "linear"'},
      {"one_cycle", {steps = 9, three_phase = 1}, "three_phase is 1, expected true or false"},
      {"one_cycle", {steps = 9, pct_start = 0.5, warmup_steps = 3},
        "pct_start and warmup_steps are both given, expected one of them"},
      {"one_cycle", {steps = 100, pct_start = 0.6, three_phase = true},
        "it rises for 59 of 100 steps, expected half of them at most with three_phase"},
      {"constant", {steps = 3}, 'unknown option "steps"; it is one of warmup_steps'},
      {"linear", "fast", "options are a string, expected a table"},
      {"plateau", {patient = 1}, 'unknown option "patient"; it is one of patience, '},
      {"plateau", {factor = 1}, "factor is 1, expected a number above 0 and below 1"},
      {"plateau", {mode = "least"}, 'mode is least, expected "min" or "max"'},
      {"plateau", {patience = 1.5}, "patience is 1.5, expected a whole number, 0 or more"},
    } do
      local name, options, expected = unpack(case)
      assert.matches("^schedule." .. name .. ": " .. expected, failure(schedule[name], options))
    end
    assert.matches('^schedule: unknown schedule "cosin"; it is one of cosine, ',
      failure(schedule.new, "cosin", {}))
  end)
end)

describe("a plateau", function()
  local OPTIONS = {patience = 1, factor = 0.5, cooldown = 1, mode = "max"}
  local METRICS = {0.1, 0.2, 0.2, 0.2, 0.15, 0.1, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3}

  it("goes on from its state, through a file of JSON, wherever it was stopped", function()
    local whole, expected = schedule.plateau(OPTIONS), {}
    for i, metric in ipairs(METRICS) do
      whole:update(metric)
      expected[i] = whole(i)
    end
    assert.is_true(expected[#METRICS] < 0.5)
    for stop = 0, #METRICS - 1 do
      local first = schedule.plateau(OPTIONS)
      for i = 1, stop do first:update(METRICS[i]) end
      local state = json.decode(json.encode(first:state()), "state")
      local second = schedule.plateau(OPTIONS):load(state)
      for i = stop + 1, #METRICS do
        second:update(METRICS[i])
        assert.equal(expected[i], second(i))
      end
    end
  end)

  it("says when it lowers the learning rate", function()
    local factor = schedule.plateau {patience = 0, factor = 0.5, min_factor = 0.3}
    assert.same({false, true, true, false}, {factor:update(1), factor:update(1), factor:update(1),
      factor:update(1)})
    assert.equal(0.3, factor(0))
  end)

  it("takes a metric that is not finite for one that is no better", function()
    for _, metric in ipairs {math.huge, -math.huge, 0 / 0} do
      local factor = schedule.plateau {patience = 1}
      factor:update(metric)
      assert.is_nil(factor:state().best)
      assert.is_true(factor:update(metric))
      factor:update(3)
      factor:update(metric)
      assert.equal(3, factor:state().best)
    end
  end)

  it("refuses what is no metric, and no state", function()
    local factor = schedule.plateau()
    assert.matches("the metric is a nil, expected a number", failure(factor.update, factor))
    assert.matches("load: bad is nil, expected a whole number", failure(factor.load, factor,
      {cooling = 0, reached = 1}))
    assert.matches("load: best is high, expected a number", failure(factor.load, factor,
      {bad = 0, cooling = 0, reached = 1, best = "high"}))
  end)
end)
