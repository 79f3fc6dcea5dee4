-- What an optimizer is told, and what it says to what it cannot use: one clear line each.
local gradients = require "spec.optim.gradients"
local optim = require "octet.optim"
local tensor = require "octet.tensor"

local function failure(f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok)
  assert.is_nil(message:find("\n", 1, true))
  return message
end

local function parameter(size) return tensor.zeros({size or 2}):parameter_() end

describe("an optimizer's options", function()
  it("have defaults", function()
    local group = optim.adam({parameter()}).groups[1]
    assert.same({1e-3, 0.9, 0.999, 1e-8, 0}, {group.lr, group.betas[1], group.betas[2], group.eps,
      group.weight_decay})
    assert.equal(0.01, optim.adamw({parameter()}).groups[1].weight_decay)
    assert.equal(256, optim.adam8({parameter()}).groups[1].block_size)
    assert.equal(2048, optim.adam8({parameter()}, {format = "paper"}).groups[1].block_size)
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
    {"betas", 0.9, "two numbers"}, {"bits", 16, "8 or 32"},
    {"block_size", 48, "a power of two from 32 to 4096"}, {"block_size", 16, "a power of two"},
    {"block_size", 8192, "a power of two"}, {"min_8bit_size", -1, "0 or more"},
  } do
    local name, value, expected = case[1], case[2], case[3]
    it(("refuse %s = %s"):format(name, tostring(type(value) == "table" and #value or value)),
      function()
        local message = failure(optim.adam8, {parameter()}, {[name] = value})
        assert.matches("^optim.adam8: " .. name .. " is .*, expected " .. expected, message)
      end)
  end

  it("changed to nonsense between steps are refused by the step", function()
    local w = parameter()
    local opt = optim.adam({w})
    gradients.set(w, {1, 1})
    opt.groups[1].lr = 0 / 0
    assert.matches("lr is .*nan, expected 0 or more", failure(opt.step, opt))
    opt.groups[1].lr = 1e-3
    assert.matches("max_norm is 0, expected more than 0", failure(opt.clip_norm, opt, 0))
    assert.equal(0, (opt:step()))
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
    assert.matches("bits of parameter w is 4, expected 8 or 32",
      failure(optim.adam, {{name = "w", tensor = parameter(), bits = 4}}))
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
