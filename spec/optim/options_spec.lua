-- What an optimizer is told, and what it says to what it cannot use: one clear line each.
local failure = require "spec.failure"
local gradients = require "spec.optim.gradients"
local optim = require "octet.optim"
local tensor = require "octet.tensor"

local function parameter(size) return tensor.zeros({size or 2}):parameter_() end

describe("an optimizer's options", function()
  it("have defaults", function()
    local group = optim.adam({parameter()}).groups[1]
    assert.same({1e-3, 0.9, 0.999, 1e-8, 0}, {group.lr, group.betas[1], group.betas[2], group.eps,
      group.weight_decay})
    assert.equal(0.01, optim.adamw({parameter()}).groups[1].weight_decay)
    assert.equal(256, optim.adam8({parameter()}).groups[1].block_size)
    assert.equal(2048, optim.adam8({parameter()}, {format = "paper"}).groups[1].block_size)
    local four = optim.adam4({parameter()}).groups[1]
    assert.same({128, "quadratic", "geometric", true, "stochastic"}, {four.block_size,
      four.map.signed, four.map.unsigned, four.sqrt_v, four.rounding})
    assert.is_false(optim.adam({parameter()}).groups[1].decoupled)
    assert.is_true(optim.adamw({parameter()}).groups[1].decoupled)
    local muon = optim.muon({parameter()}, {lr = 0.1, adamw = {lr = 0.2, eps = 1e-7}}).groups[1]
    assert.same({0.1, 0.95, true, 0.2, 1e-7}, {muon.lr, muon.momentum, muon.nesterov,
      muon.adamw.lr, muon.adamw.eps})
  end)

  it("are copied: what a caller does with his tables later changes nothing", function()
    local betas = {0.5, 0.6}
    local opt = optim.adam({parameter()}, {betas = betas})
    betas[1] = 7
    assert.equal(0.5, opt.groups[1].betas[1])
  end)

  it("are named, nearest first, where one is unknown", function()
    assert.matches('^optim.adam8: unknown option "wieght_decay"; it is one of weight_decay, ',
      failure(optim.adam8, {parameter()}, {wieght_decay = 1}))
    assert.matches('^optim.adam: group 1: unknown option "rl"; it is one of lr, ',
      failure(optim.adam, {{params = {parameter()}, rl = 1}}))
    assert.matches('^optim.adam8: unknown format "oktet"; it is one of octet, paper',
      failure(optim.adam8, {parameter()}, {format = "oktet"}))
    local opt = optim.adam({parameter()})
    assert.matches('unknown option "max_nrom"; it is one of max_norm, ', failure(opt.step, opt,
      {max_nrom = 1}))
  end)

  for _, case in ipairs {
    {"lr", -1, "0 or more"}, {"lr", 0 / 0, "0 or more"}, {"lr", "fast", "0 or more"},
    {"eps", 0, "more than 0"}, {"weight_decay", -0.1, "0 or more"},
    {"betas", {0.9, 1}, "two numbers from 0 to below 1"}, {"betas", {0.9}, "two numbers"},
    {"betas", 0.9, "two numbers"}, {"bits", 16, "4, 8 or 32"},
    {"block_size", 48, "a power of two from 32 to 4096"}, {"block_size", 16, "a power of two"},
    {"block_size", 8192, "a power of two"}, {"min_8bit_size", -1, "0 or more"},
    {"sqrt_v", 1, "true or false"}, {"decoupled", "yes", "true or false"},
    {"correction_bits", 4, "0, 8 or 16"}, {"map", 7, "a name or {signed"},
    {"map", {}, "a name or {signed"},
  } do
    local name, value, expected = case[1], case[2], case[3]
    it(("refuse %s = %s"):format(name, tostring(type(value) == "table" and #value or value)),
      function()
        local message = failure(optim.adam8, {parameter()}, {[name] = value})
        assert.matches("^optim.adam8: " .. name .. " is .*, expected " .. expected, message)
      end)
  end

  it("refuse a map, a rounding or a scale that there is not, and name the nearest", function()
    local function refused(options) return failure(optim.adam8, {parameter(5000)}, options) end
    local map = optim.map
    assert.matches('^optim.adam8: unknown map "linaer"; it is one of linear, ',
      refused {map = "linaer"})
    assert.matches('^optim.adam8: unknown map "dynamyc"; it is one of dynamic, ',
      refused {map = {signed = "dynamyc"}})
    assert.matches('unknown rounding "neerest"; it is one of nearest, stochastic',
      refused {rounding = "neerest"})
    assert.matches('unknown scale "row"; it is one of', refused {scale = "row"})
    assert.matches("the signed map is unsigned, expected a name or a signed map",
      refused {map = {signed = map.named("linear", 8, "unsigned")}})
    assert.matches("8 bits want maps of 256 values",
      refused {map = {signed = map.named("linear", 4, "signed")}})
    assert.matches('"fp8_e4m3" has no form of 16 levels',
      failure(optim.adam4, {parameter(5000)}, {map = "fp8_e4m3"}))
  end)

  it("say what state is kept in: by name, by its parts, or both", function()
    local function text(options, rule)
      return optim[rule or "adam8"]({parameter(5000)}, options):report().parameters[1].format
    end
    assert.equal("8 bits, dynamic, sqrt_v, blocks of 256", text {})
    assert.equal("8 bits, dynamic, blocks of 2048", text {format = "paper"})
    assert.equal("8 bits, dynamic, blocks of 256", text {format = "bnb"})
    assert.equal("8 bits, bnb-0.36, blocks of 2048", text {format = "bnb-0.36"})
    assert.equal("8 bits, linear, one scale",
      text {map = "linear", scale = "tensor", sqrt_v = false})
    assert.equal("8 bits, dynamic, sqrt_v, blocks of 2048", text {format = "paper", sqrt_v = true})
    assert.equal("4 bits, quadratic and geometric, sqrt_v, blocks of 128", text({}, "adam4"))
    assert.equal("4 bits, dynamic and linear_nonzero, blocks of 128",
      text({format = "torchao"}, "adam4"))
    assert.equal("4 bits, dynamic, blocks of 2048", text({format = "paper"}, "adam4"))
    assert.equal("4 bits, dynamic and linear, sqrt_v, blocks of 128",
      text({map = {unsigned = "linear"}}, "adam4"))
    assert.equal("8 bits, dynamic, sqrt_v, blocks of 256", text({bits = 8}, "adam4"))
    assert.equal("32 bits", text {bits = 32})
    local values = optim.map.named("linear", 8, "signed"):values()
    assert.equal("8 bits, custom and dynamic, sqrt_v, blocks of 256",
      text {map = {signed = optim.map.new(values, "signed")}})
  end)

  it("differ by parameter where overrides say so, at first or later", function()
    local function list()
      return {{name = "head.weight", tensor = parameter(5000)},
        {name = "body.weight", tensor = parameter(5000)},
        {name = "body.bias", tensor = parameter(8)}}
    end
    local function formats(opt)
      local of = {}
      for i, p in ipairs(opt:report().parameters) do of[i] = p.format end
      return of
    end
    local overrides = {["^head"] = {bits = 32}, ["^body%.weight$"] = {format = "paper", bits = 4}}
    local expected = {"32 bits", "4 bits, dynamic, blocks of 2048", "32 bits"}
    local opt = optim.adam8(list(), {overrides = overrides})
    assert.same(expected, formats(opt))
    assert.same({{name = "head.weight", elements = 5000, why = "asked for by its name"},
      {name = "body.bias", elements = 8, why = "fewer than 4096 elements"}}, opt:report().kept_32)
    assert.same(expected, formats(optim.adam8(list()):override(overrides)))
    assert.matches('overrides: unknown option "lr"', failure(optim.adam8, list(),
      {overrides = {head = {lr = 1}}}))
    assert.matches("overrides of head.weight: bits is 7, expected 4, 8 or 32",
      failure(optim.adam8, list(), {overrides = {head = {bits = 7}}}))
    assert.matches("rule: all parameters of adam have one rule",
      failure(optim.adam8, list(), {overrides = {head = {rule = "adamw"}}}))
    assert.matches('rule is "sgd", expected "adamw"',
      failure(optim.muon8, list(), {overrides = {head = {rule = "sgd"}}}))
  end)

  it("of muon's AdamW are a table of their own", function()
    assert.matches('^optim.muon: adamw: unknown option "momentum"; it is one of ',
      failure(optim.muon, {parameter()}, {adamw = {momentum = 0.9}}))
    assert.matches('^optim.muon: adamw: unknown option "block_size"',
      failure(optim.muon, {parameter()}, {adamw = {block_size = 64}}))
    assert.matches("^optim.muon: group 1: adamw: eps is 0, expected more than 0",
      failure(optim.muon, {{params = {parameter()}, adamw = {eps = 0}}}))
    assert.matches('^optim.adam: unknown option "adamw"', failure(optim.adam, {parameter()},
      {adamw = {}}))
    local opt = optim.muon({parameter()}, {lr = 1, adamw = {lr = 0.5}}):set_lr(0.1)
    assert.same({0.1, 0.05}, {opt.groups[1].lr, opt.groups[1].adamw.lr})
    local w = tensor.zeros({8, 8}):parameter_()
    local rest = optim.muon8({{name = "a", tensor = w}, {name = "b", tensor = parameter(64)}})
    assert.same({"muon", "adamw"}, {rest.parameters[1].rule.name, rest.parameters[2].rule.name})
  end)

  it("that a rule settles itself are refused", function()
    assert.matches("decoupled: lamb does its weight decay itself",
      failure(optim.lamb8, {parameter()}, {decoupled = true}))
  end)

  it("of a step are checked", function()
    local w = parameter()
    local opt = optim.adam({w})
    gradients.set(w, {1, 1})
    for _, bad in ipairs {0, -1, "much"} do
      assert.matches("clip_value is .*, expected more than 0", failure(opt.step, opt,
        {clip_value = bad}))
    end
    assert.matches("clip_percentile is 5, expected what optim.clip.percentile gives",
      failure(opt.step, opt, {clip_percentile = 5}))
    assert.matches("max_norm and clip_percentile are both given", failure(opt.step, opt,
      {max_norm = 1, clip_percentile = optim.clip.percentile()}))
    assert.equal(0, opt:state().numbers.steps["1"])
  end)

  it("of a step clip: each element, or by what norms are usual", function()
    local w = parameter(3)
    local opt = optim.sgd({w}, {lr = 1, momentum = 0})
    gradients.set(w, {0.5, -4, 3})
    opt:step {clip_value = 2}
    assert.same({-0.5, 2, -2}, w:totable())
    opt:step {clip_value = 2, grad_scale = 0.25}             -- the scaled gradient is clipped
    assert.same({-0.625, 3, -2.75}, w:totable())
    local clip = optim.clip.percentile {percentile = 50, window = 3}
    gradients.set(w, {0, 1, 0})
    opt:step {clip_percentile = clip}
    gradients.set(w, {0, 100, 0})
    local before = w:totable()
    local _, norm = opt:step {clip_percentile = clip}
    assert.equal(100, norm)
    assert.is_true(math.abs(w:totable()[2] - before[2] + 1) < 1e-5)
  end)

  it("changed to nonsense between steps are refused by the step", function()
    local w = parameter()
    local opt = optim.adam({w})
    gradients.set(w, {1, 1})
    opt.groups[1].lr = 0 / 0
    assert.matches("lr is .*nan, expected 0 or more", failure(opt.step, opt))
    opt.groups[1].lr = 1e-3
    assert.matches("max_norm is 0, expected more than 0", failure(opt.clip_norm, opt, 0))
    assert.matches('lr is "x", expected a number, 0 or more', failure(opt.set_lr, opt, "x"))
    assert.matches("parameters are a module, expected its list, model:parameters%(%)",
      failure(optim.adam, require "octet".nn.Linear(2, 2)))
    assert.equal(0, (opt:step()))
  end)

  it("are of groups of several modules, each with names of its own", function()
    local nn = require "octet.nn"
    local a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    local opt = optim.adam {{params = a:parameters()}, {params = b:parameters(), lr = 1e-4}}
    local names = {}
    for i, p in ipairs(opt.parameters) do names[i] = p.name end
    assert.same({"weight", "bias", "2.weight", "2.bias"}, names)
    assert.error_matches(function()
      optim.adam {{name = "w", tensor = a.weight}, {name = "w", tensor = b.weight}}
    end, 'optim.adam: two parameters are named "w"', 1, true)
  end)

  it("do not bring a state that was not made", function()
    for _, case in ipairs {
      {"sgd", {momentum = 0}, "momentum", 0.9}, {"rmsprop", {}, "centered", true},
      {"adafactor", {}, "beta1", 0.9},
    } do
      local w = tensor.ones({4, 4}):parameter_()
      local opt = optim[case[1]]({w}, case[2])
      w:set_grad(tensor.ones {16})
      opt:step()
      opt.groups[1][case[3]] = case[4]
      local before = w:totable()
      assert.error_matches(function() opt:step() end, ("optim: option %s was 0 when the optimizer "
        .. "was made, so there is no state for it: make a new one"):format(case[3]), 1, true)
      assert.same(before, w:totable())
    end
  end)

  it("of a step are numbers", function()
    local opt = optim.sgd {tensor.ones({4}):parameter_()}
    for _, name in ipairs {"max_norm", "lr_factor", "grad_scale"} do
      assert.error_matches(function() opt:step {[name] = "1"} end,
        ("optim.sgd: step: %s is a string, 1, expected a number"):format(name), 1, true)
    end
  end)

  it("of clipping hold for the gradients that were looked at", function()
    local w = tensor.zeros({1}):parameter_()
    local opt = optim.sgd({w}, {lr = 1, momentum = 0})
    w:set_grad(tensor.from {100})
    opt:clip_norm(1)
    opt:zero_grad()
    w:set_grad(tensor.from {1})
    opt:step()
    assert.equal(-1, w:item())
  end)
end)

describe("an optimizer's parameters", function()
  it("may be tensors, named tensors, groups, or what model:parameters() gives", function()
    local nn = require "octet.nn"
    local layer = nn.Linear(80, 80)
    assert.same({"weight", "bias"}, (function()
      local names = {}
      for i, p in ipairs(optim.adam8(layer:parameters()).parameters) do names[i] = p.name end
      return names
    end)())
    assert.equal("1", optim.adam({parameter()}).parameters[1].name)
    assert.equal("w", optim.adam({{name = "w", tensor = parameter()}}).parameters[1].name)
    local opt = optim.adam({{params = {parameter()}}, {params = {parameter()}, lr = 5}})
    assert.same({1e-3, 5}, {opt.groups[1].lr, opt.groups[2].lr})
  end)

  it("keep 32-bit state where they are small, or where their layer or group asks for it", function()
    local opt = optim.adam8({
      {params = {
        {name = "big", tensor = parameter(4096)}, {name = "small", tensor = parameter(4095)},
        {name = "norm", tensor = parameter(5000), bits = 32},
        {name = "forced", tensor = parameter(10), bits = 8},
      }},
      {params = {{name = "head", tensor = parameter(5000)}}, bits = 32},
    })
    local report = opt:report()
    assert.same({
      {name = "small", elements = 4095, why = "fewer than 4096 elements"},
      {name = "norm", elements = 5000, why = "asked for by the layer"},
      {name = "head", elements = 5000, why = "asked for by the group"},
    }, report.kept_32)
    assert.equal(8 * (4095 + 5000 + 5000), report.bytes_32)
    assert.equal(2 * 4106 + 8 * 17, report.bytes_8)
    assert.equal(4106, report.elements_8)
    assert.same({}, optim.adam({parameter()}):report().kept_32)
    local few = optim.adam {{name = "w", tensor = parameter(10), bits = 8}}
    assert.equal(8, few.parameters[1].bits)
  end)

  it("are refused where they are no parameters, with their place or name", function()
    assert.matches("^optim.adam: the list of parameters is empty", failure(optim.adam, {}))
    assert.matches("^optim.adam: parameters are a cdata, expected a list",
      failure(optim.adam, parameter()))
    assert.matches("^optim.adam: parameter 2 is a number, expected a tensor",
      failure(optim.adam, {parameter(), 3}))
    assert.matches('^optim.adam: parameter 1: unknown field "nmae"; it is one of name, ',
      failure(optim.adam, {{nmae = "w", tensor = parameter()}}))
    assert.matches("^optim.adam: parameter 1 has no tensor",
      failure(optim.adam, {{name = "w"}}))
    assert.matches("bits of parameter w is 5, expected 4, 8 or 32",
      failure(optim.adam, {{name = "w", tensor = parameter(), bits = 5}}))
    assert.matches('two parameters are named "w"', failure(optim.adam,
      {{name = "w", tensor = parameter()}, {name = "w", tensor = parameter()}}))
    assert.matches('optim: tensor "w" %[2%] is no parameter; call :parameter_%(%) on it',
      failure(optim.adam, {{name = "w", tensor = tensor.zeros {2}}}))
    assert.matches('optim: w is i32, expected f32',
      failure(optim.adam, {{name = "w", tensor = tensor.zeros({2}, "i32")}}))
    assert.matches("^optim.adam: entry 2 is no group",
      failure(optim.adam, {{params = {parameter()}}, parameter()}))
  end)

  it("are refused where two share memory", function()
    local w = tensor.zeros {10}
    local first, part, rest = w:rows(1, 3), w:rows(3, 2), w:rows(4, 7)
    for _, t in ipairs {w, first, part, rest} do t:parameter_() end
    for _, list in ipairs {{w, w}, {w, part}, {first, part}} do
      assert.matches('parameter "2" shares memory with "1": it would be stepped twice',
        failure(optim.adam, list))
    end
    assert.is_table(optim.adam {first, rest})
  end)
end)

describe("learning-rate schedules", function()
  it("rise and fall as the peer script's", function()
    local factor = optim.schedule.linear {steps = 10, warmup_steps = 4}
    local expected = {[0] = 0, 0.25, 0.5, 0.75, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0}
    for done = 0, 10 do assert.is_true(math.abs(factor(done) - expected[done]) < 1e-15) end
    assert.equal(0, factor(11))
    assert.equal(1, optim.schedule.linear {steps = 10}(0))
    assert.equal(0, optim.schedule.linear {steps = 0}(0))
    local constant = optim.schedule.constant {warmup_steps = 2}
    assert.same({0, 0.5, 1, 1}, {constant(0), constant(1), constant(2), constant(1000)})
    assert.equal(1, optim.schedule.constant()(0))
  end)

  it("refuse what is no number of steps", function()
    assert.matches("steps is nil, expected a whole number", failure(optim.schedule.linear, {}))
    assert.matches("warmup_steps is 1.5, expected a whole number",
      failure(optim.schedule.linear, {steps = 3, warmup_steps = 1.5}))
    assert.matches("warmup_steps is 5, but steps is 3",
      failure(optim.schedule.linear, {steps = 3, warmup_steps = 5}))
  end)
end)
