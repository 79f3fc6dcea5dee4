-- State that is taken over: bit for bit, converted, or refused.
local failure = require "spec.failure"
local ffi = require "ffi"
local binding = require "octet.binding"
local gradients = require "spec.optim.gradients"
local json = require "octet.json"
local machine = require "octet.machine"
local map = require "octet.optim.map"
local optim = require "octet.optim"
local rules = require "octet.optim.rules"
local runs = require "spec.optim.state_runs"
local tensor = require "octet.tensor"

local fresh, advance = runs.fresh, runs.advance

-- Bytes of state and parameters, by name: an error names what differs, and does not print it.
local function assert_same(expected, seen)
  for name, bytes in pairs(expected) do assert.is_true(seen[name] == bytes, name) end
  for name in pairs(seen) do assert.is_true(expected[name] ~= nil, name) end
end

-- The distance of each element from where it should be, over what its map allows: half of the gap
-- between the two values that it lies between, or half of the largest gap for those beyond the map.
local function worst(seen, meant, absmax, values, block)
  local most, a, b, scale = 0, seen:data(), meant:data(), absmax:data()
  for i = 0, seen:size() - 1 do
    local s = scale[math.floor(i / block)]
    local x, low = s > 0 and b[i] / s or 0, 1
    while low < #values - 1 and values[low + 1] <= x do low = low + 1 end
    local half = (values[low + 1] - values[low]) / 2
    local allowed = math.max(half, values[1] - x, x - values[#values])
    most = math.max(most, math.abs(a[i] - b[i]) / math.max(allowed * s, 1e-30))
  end
  return most
end

describe("an optimizer's state", function()
  it("has codes, absmax, steps, layouts and options by name", function()
    local run = fresh("adam8", {lr = 0.5})
    advance(run, 1, 3)
    local state = run.opt:state()
    assert.same({70, 64}, state.tensors["layer.weight.m"]:shape())
    assert.equal("u8", state.tensors["layer.weight.v"]:dtype())
    assert.same({18}, state.tensors["layer.weight.m.absmax"]:shape())
    assert.equal("f32", state.tensors["layer.bias.v"]:dtype())
    assert.is_nil(state.tensors["layer.bias.v.absmax"])
    assert.same({["layer.weight"] = 3, ["layer.bias"] = 3}, state.numbers.steps)
    assert.same({bits = 8, block_size = 256, sqrt_v = true, scale = "block",
      signed = "dynamic.8.signed", unsigned = "dynamic.8.unsigned"},
      state.numbers.layout["layer.weight"])
    assert.same({bits = 32}, state.numbers.layout["layer.bias"])
    assert.same({{parameters = {"layer.weight", "layer.bias"}, options = {lr = 0.5,
      betas = {0.9, 0.999}, eps = 1e-8, weight_decay = 0, decoupled = false}}},
      state.numbers.groups)
    assert.same(map.named("dynamic", 8, "signed"):values(), state.numbers.maps["dynamic.8.signed"])
  end)

  it("has numbers that JSON keeps to the last bit, in few bytes", function()
    for _, name in ipairs(map.NAMES) do
      local numbers = fresh("adam8", {map = name}).opt:state().numbers
      local text = json.encode(numbers)
      assert.same(numbers.maps, json.decode(text).maps)
      assert.is_true(#text < 13000, #text .. " bytes")
    end
  end)

  it("can be handed over as tensors, options and all", function()
    local from, to = fresh("adam8"), fresh("adam8")
    from.opt.groups[1].betas = {0.5, 0.75}
    from.opt:set_lr(0.25)
    advance(from, 1, 3)
    to.opt:load(from.opt:state())
    assert_same(gradients.everything(from.opt, {}), gradients.everything(to.opt, {}))
    assert.same({0.5, 0.75}, to.opt.groups[1].betas)
    assert.equal(0.25, to.opt.groups[1].lr)
    local other = fresh("adam8", {lr = 3})
    other.opt:load(from.opt:state(), {options = false})
    assert.equal(3, other.opt.groups[1].lr)
  end)

  it("takes AdamW's numbers beside muon's, and their ratio", function()
    local from = fresh("muon", {lr = 0.1, adamw = {lr = 0.01}})
    from.opt:set_lr(0.2):set_lr(0)
    local to = fresh("muon")
    to.opt:load(from.opt:state())
    to.opt:set_lr(1)
    assert.near(0.1, to.opt.groups[1].adamw.lr, 1e-15)
    advance(to, 1, 2)
  end)

  it("is no tensor of the step's scope, and is freed with the optimizer", function()
    collectgarbage()
    collectgarbage()
    local scope = require "octet.scope"
    local bytes, tensors = machine.memory().optimizer_state.now, machine.live_tensors()
    local run
    scope.scope(function() run = fresh("adam8") end)
    advance(run, 1, 2)
    assert.is_true(machine.memory().optimizer_state.now > bytes)
    run.opt:release()
    assert.matches("it was released", failure(run.opt.step, run.opt))
    run = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.equal(bytes, machine.memory().optimizer_state.now)
    assert.equal(tensors, machine.live_tensors())
  end)
end)

describe("state of another format", function()
  -- State as f32 numbers, by name.
  local function numbers_of(run)
    local plain = fresh(run.rule, {min_8bit_size = 1e9})
    plain.opt:load(run.opt:state(), {convert = true})
    return plain.opt:state().tensors
  end

  -- Largest |a - b| over the largest |b|.
  local function distance(a, b)
    local x, y, most, largest = a:data(), b:data(), 0, 0
    for i = 0, a:size() - 1 do
      most, largest = math.max(most, math.abs(x[i] - y[i])), math.max(largest, math.abs(y[i]))
    end
    return most / largest
  end

  for _, rule in ipairs(rules.all) do
    it("becomes 8 or 4 bits from 32, and 32 from those, unasked: " .. rule.name, function()
      for bits, bar in pairs {[8] = 0.015, [4] = 0.3} do
        local wide, narrow, back = fresh(rule.name), fresh(rule.name .. bits), fresh(rule.name)
        advance(wide, 1, 5)
        narrow.opt:load(wide.opt:state())
        back.opt:load(narrow.opt:state())
        assert.equal(5, back.opt:state().numbers.steps["layer.weight"])
        local seen = back.opt:state().tensors
        for name, t in pairs(wide.opt:state().tensors) do
          if name:find "bias" or name:find "row$" or name:find "column$" then
            assert.is_true(gradients.bytes(t) == gradients.bytes(seen[name]), name)
          else
            local off = distance(seen[name], t)
            assert.is_true(off > 0 and off < bar, ("%s %d %g"):format(name, bits, off))
          end
        end
        advance(narrow, 6, 7)
        advance(back, 6, 7)
      end
    end)
  end

  for _, case in ipairs {
    {"paper", {format = "paper"}}, {"bnb", {format = "bnb"}}, {"sqrt_v", {}},
    {"blocks of 32", {format = "bnb", block_size = 32}}, {"one scale", {scale = "tensor"}},
    {"linear", {map = "linear"}}, {"quantile", {map = "quantile", sqrt_v = false}},
    {"fp8", {map = "fp8_e4m3", rounding = "nearest"}}, {"4 bits", {bits = 4}},
    {"a map of one's own", {map = {
      signed = map.quantiles_of(tensor.from(runs.values(999)), "signed"),
    }}},
  } do
    it("is quantized within its map's own error: " .. case[1], function()
      local wide, narrow = fresh("adam"), fresh("adam8", case[2])
      advance(wide, 1, 6)
      narrow.opt:load(wide.opt:state())
      local meant, seen, codes = wide.opt:state().tensors, numbers_of(narrow), narrow.opt:state()
      local layout = codes.numbers.layout["layer.weight"]
      local block = layout.scale == "tensor" and 1e9 or layout.block_size
      for _, kind in ipairs {{"m", "signed"}, {"v", "unsigned"}} do
        local name = "layer.weight." .. kind[1]
        local a, b = seen[name], meant[name]
        if kind[1] == "v" and layout.sqrt_v then a, b = a:sqrt(), b:sqrt() end
        local most = worst(a, b, codes.tensors[name .. ".absmax"],
          codes.numbers.maps[layout[kind[2]]], block)
        -- Where rounding is by chance, what is above 0 does not become 0: a whole gap.
        local allowed = kind[1] == "v" and case[2].rounding == nil and not case[2].format and 2 or 1
        assert.is_true(most > 0 and most < allowed * 1.0001, name .. " " .. most)
      end
    end)
  end

  it("becomes another narrow one where convert is given, and is refused otherwise", function()
    local from = fresh("adam8")
    advance(from, 1, 4)
    for _, case in ipairs {
      {"adam8", {block_size = 128}, ", dynamic, sqrt_v, blocks of 256, expected 8 bits, "
        .. "dynamic, sqrt_v, blocks of 128; with convert = true it is converted"},
      {"adam8", {map = "linear"}, "expected 8 bits, linear, sqrt_v, blocks of 256;"},
      {"adam8", {map = "bnb-0.36", sqrt_v = false}, "expected 8 bits, bnb%-0.36, blocks of 256;"},
      {"adam8", {sqrt_v = false}, "expected 8 bits, dynamic, blocks of 256;"},
      {"adam8", {scale = "tensor"}, "expected 8 bits, dynamic, sqrt_v, one scale;"},
      {"adam4", {}, "expected 4 bits, .*sqrt_v, blocks of 128;"},
    } do
      local to = fresh(case[1], case[2])
      advance(to, 1, 1)
      local before = gradients.everything(to.opt, to.parameters)
      assert.matches("load: the state of parameter layer.weight is of 8 bits.*" .. case[3],
        failure(to.opt.load, to.opt, from.opt:state()))
      assert_same(before, gradients.everything(to.opt, to.parameters))
      to.opt:load(from.opt:state(), {convert = true})
      assert.equal(4, to.opt:state().numbers.steps["layer.weight"])
      -- Through the same numbers as by way of 32 bits.
      local middle, other = fresh("adam"), fresh(case[1], case[2])
      middle.opt:load(from.opt:state())
      other.opt:load(middle.opt:state())
      assert_same(gradients.everything(other.opt, {}), gradients.everything(to.opt, {}))
    end
  end)

  it("that differs in rounding alone is the same storage", function()
    local from, to = fresh("adam8"), fresh("adam8", {rounding = "nearest"})
    advance(from, 1, 2)
    to.opt:load(from.opt:state())
    assert.equal(gradients.bytes(from.opt:state().tensors["layer.weight.v"]),
      gradients.bytes(to.opt:state().tensors["layer.weight.v"]))
  end)

  it("keeps no v of 0 beside an m: no step is the longer for it", function()
    local wide, narrow = fresh("adam"), fresh("adam8")
    advance(wide, 1, 3)
    local v = wide.opt:state().tensors["layer.weight.v"]
    for i = 0, v:size() - 1, 3 do v:data()[i] = 1e-25 end
    narrow.opt:load(wide.opt:state())
    local codes = narrow.opt:state().tensors["layer.weight.v"]:data()
    for i = 0, v:size() - 1 do assert.is_true(codes[i] > 0) end
  end)
end)

describe("correction bits of a bf16 parameter", function()
  local function bf16(options)
    local w = tensor.from(runs.values(64), {8, 8}):to("bf16")
    local ok = pcall(w.parameter_, w)
    return ok and optim.adam({{name = "w", tensor = w}}, options)
  end

  it("are converted where that is asked for, and refused otherwise", function()
    local sixteen, eight = bf16 {correction_bits = 16}, bf16 {correction_bits = 8}
    if not sixteen then return pending "bf16 parameters" end
    local given = ffi.cast("int16_t *", sixteen:state().tensors["w.correction"]:data())
    for i = 0, 63 do given[i] = i * 1000 - 32000 end
    assert.matches("is of 32 bits, 16 correction bits, expected 32 bits, 8 correction bits",
      failure(eight.load, eight, sixteen:state()))
    eight:load(sixteen:state(), {convert = true})
    local seen = ffi.cast("int8_t *", eight:state().tensors["w.correction"]:data())
    for i = 0, 63 do
      assert.equal(math.min(127, math.floor((i * 1000 - 32000) / 256 + 0.5)), seen[i])
    end
    sixteen:load(eight:state(), {convert = true})
    given = ffi.cast("int16_t *", sixteen:state().tensors["w.correction"]:data())
    for i = 0, 63 do assert.equal(256 * seen[i], given[i]) end
    local none = bf16 {}
    assert.matches("8 correction bits, expected 32 bits;", failure(none.load, none, eight:state()))
    none:load(eight:state(), {convert = true})
    eight:load(none:state(), {convert = true})
    seen = ffi.cast("int8_t *", eight:state().tensors["w.correction"]:data())
    for i = 0, 63 do assert.equal(0, seen[i]) end
  end)
end)

-- A change to a sound state, and what is said of it. `layout`, `maps`, `steps` and `group` are
-- those of the state.
local WRONG = {
  {"no state", function(s) s.numbers = nil end, "the state has no numbers"},
  {"no tensors", function(s) s.tensors = nil end, "the state has no tensors"},
  {"no steps", function(s) s.numbers.steps = 3 end, "steps of the state's numbers is a number"},
  {"no maps", function(s) s.numbers.maps = nil end, "maps of the state's numbers is a nil"},
  {"another rule", function(s) s.numbers.rule = "adamw" end,
    "is that of rule adamw, expected adam"},
  {"a rule's place", function(s) s.numbers.rule = 1 end, "is that of rule 1, expected adam"},
  {"a missing tensor", function(s) s.tensors["layer.weight.m"] = nil end,
    "tensor layer.weight.m is missing"},
  {"a tensor of another shape", function(s) s.tensors["layer.weight.m"] = tensor.zeros {2} end,
    "tensor layer.weight.m is f32 %[2%], expected u8 %[70 x 64%]"},
  {"a transposed tensor", function(s)
    s.tensors["layer.weight.v"] = tensor.zeros({64, 70}, "u8")
  end, "tensor layer.weight.v is u8 %[64 x 70%], expected u8 %[70 x 64%]"},
  {"scales too few", function(s) s.tensors["layer.weight.m.absmax"] = tensor.zeros {17} end,
    "tensor layer.weight.m.absmax is f32 %[17%], expected f32 %[18%]"},
  {"no tensor", function(s) s.tensors["layer.bias.m"] = "x" end, "tensor layer.bias.m is missing"},
  {"a tensor left over", function(s) s.tensors.more = tensor.zeros {2} end,
    "tensor more is left over"},
  {"a missing layout", function(s) s.numbers.layout["layer.bias"] = nil end,
    "layout of parameter layer.bias is missing"},
  {"a layout left over", function(s) s.numbers.layout.head = {bits = 32} end,
    "layout of parameter head is left over"},
  {"a layout that is a text", function(s) s.numbers.layout["layer.bias"] = "32" end,
    "layout of parameter layer.bias is a string, expected a table"},
  {"bits", function(s) s.numbers.layout["layer.weight"].bits = 7 end,
    "bits of the layout of parameter layer.weight is 7, expected 4, 8 or 32"},
  {"a block size too large", function(s) s.numbers.layout["layer.weight"].block_size = 8192 end,
    "block_size of the layout .* is 8192, expected a power of two from 32 to 4096"},
  {"a block size of 0", function(s) s.numbers.layout["layer.weight"].block_size = 0 end,
    "block_size of the layout .* is 0, expected"},
  {"a block size of 96", function(s) s.numbers.layout["layer.weight"].block_size = 96 end,
    "block_size of the layout .* is 96, expected"},
  {"another block size that does not fit", function(s)
    s.numbers.layout["layer.weight"].block_size = 32
  end, "sqrt_v, blocks of 32, expected 8 bits, dynamic, sqrt_v, blocks of 256"},
  {"a scale of no kind", function(s) s.numbers.layout["layer.weight"].scale = "row" end,
    'scale of the layout .* is "row", expected "block" or "tensor"'},
  {"sqrt_v", function(s) s.numbers.layout["layer.weight"].sqrt_v = 1 end,
    "sqrt_v of the layout .* is 1, expected true or false"},
  {"correction bits", function(s) s.numbers.layout["layer.weight"].correction_bits = 4 end,
    "correction_bits of the layout .* is 4, expected 8, 16 or none"},
  {"a map that is not there", function(s) s.numbers.layout["layer.weight"].signed = "x" end,
    'signed of the layout .* is "x", expected the name of one of the state\'s maps of 256 values'},
  {"a map too short", function(s) s.numbers.maps["dynamic.8.signed"][256] = nil end,
    "signed of the layout .* expected the name of one of the state's maps of 256 values"},
  {"a map out of order", function(s) s.numbers.maps["dynamic.8.signed"][3] = 0.5 end,
    "map dynamic.8.signed of the state: value 4 is out of order or out of range"},
  {"a map out of range", function(s) s.numbers.maps["dynamic.8.unsigned"][256] = 1.5 end,
    "map dynamic.8.unsigned of the state: value 256 is out of order or out of range"},
  {"a map of NaN", function(s) s.numbers.maps["dynamic.8.signed"][9] = 0 / 0 end,
    "map dynamic.8.signed of the state: value 9 is out of order"},
  {"a map of texts", function(s) s.numbers.maps["dynamic.8.signed"][9] = "x" end,
    "map dynamic.8.signed of the state: value 9 is a string, expected a number"},
  {"negative steps", function(s) s.numbers.steps["layer.bias"] = -1 end,
    "steps of parameter layer.bias is %-1, expected a whole number"},
  {"half a step", function(s) s.numbers.steps["layer.bias"] = 1.5 end,
    "steps of parameter layer.bias is 1.5"},
  {"endless steps", function(s) s.numbers.steps["layer.bias"] = math.huge end,
    "steps of parameter layer.bias is inf"},
  {"steps in words", function(s) s.numbers.steps["layer.bias"] = "3" end,
    "steps of parameter layer.bias is 3, expected"},
  {"another number of groups", function(s) s.numbers.groups[2] = s.numbers.groups[1] end,
    "the state is of 2 groups, expected 1; with options = false"},
  {"a group of others", function(s) s.numbers.groups[1].parameters[2] = "head" end,
    "group 1 of the state has other parameters"},
  {"an option left out", function(s) s.numbers.groups[1].options.betas = nil end,
    "group 1 of the state: betas is nil, expected two numbers"},
  {"an option out of range", function(s) s.numbers.groups[1].options.lr = -1 end,
    "group 1 of the state: lr is %-1, expected 0 or more"},
  {"null for an option", function(s) s.numbers.groups[1].options.eps = json.null end,
    "group 1 of the state: eps is .*, expected more than 0"},
  {"an option unknown", function(s) s.numbers.groups[1].options.trust = 1 end,
    'group 1 of the state: unknown option "trust"'},
  {"decoupled", function(s) s.numbers.groups[1].options.decoupled = 1 end,
    "decoupled is 1, expected true or false"},
}
for _, bad in ipairs {0 / 0, math.huge, -1, 1e38} do
  WRONG[#WRONG + 1] = {"an absmax of " .. bad, function(s)
    s.tensors["layer.weight.v.absmax"]:data()[3] = bad
  end, "state layer.weight.v.absmax holds a number that no step leaves"}
  WRONG[#WRONG + 1] = {"a v of " .. bad, function(s) s.tensors["layer.bias.v"]:data()[3] = bad end,
    "state layer.bias.v holds a number that no step leaves"}
end
WRONG[#WRONG + 1] = {"an m of NaN", function(s) s.tensors["layer.bias.m"]:data()[29] = 0 / 0 end,
  "state layer.bias.m holds a number that no step leaves"}

describe("state that is not sound", function()
  for _, case in ipairs(WRONG) do
    it("is refused in one line and changes nothing: " .. case[1], function()
      local run, from = fresh("adam8"), fresh("adam8", {lr = 0.5})
      advance(run, 1, 2)
      advance(from, 1, 3)
      local before, numbers = gradients.everything(run.opt, {}), run.opt:state().numbers
      local state = from.opt:state()
      case[2](state)
      assert.matches("^optim.adam8: load: .*" .. case[3], failure(run.opt.load, run.opt, state))
      assert_same(before, gradients.everything(run.opt, {}))
      assert.same(numbers, run.opt:state().numbers)
    end)
  end

  it("is found in what a conversion makes of it as well", function()
    local run, from = fresh("adam"), fresh("adam8")
    advance(from, 1, 3)
    local before, state = gradients.everything(run.opt, {}), from.opt:state()
    state.tensors["layer.weight.v.absmax"]:data()[3] = 1e30
    assert.matches("state layer.weight.v holds a number", failure(run.opt.load, run.opt, state))
    assert_same(before, gradients.everything(run.opt, {}))
    local other = fresh("adam8", {block_size = 128})
    before, state = gradients.everything(other.opt, {}), from.opt:state()
    state.numbers.layout["layer.weight"].block_size = 32
    assert.matches("tensor layer.weight.[mv].absmax is f32 %[18%], expected f32 %[140%]",
      failure(other.opt.load, other.opt, state, {convert = true}))
    assert_same(before, gradients.everything(other.opt, {}))
  end)
end)

describe("an optimizer that runs out of memory", function()
  local C, check = binding.C, binding.check

  -- Let each allocation of `act` fail in turn, this one alone; `after` sees what is left.
  local function sweep(make, act, after)
    local made, failures = ffi.new "int64_t[1]", 0
    for nth = 1, 400 do
      local subject = make()
      check(C.oct_fail_allocation(made, nth, 1))
      local ok, message = pcall(act, subject)
      check(C.oct_fail_allocation(made, 0, 0))
      after(subject, ok)
      if ok then return failures end
      assert.matches("out of memory", message)
      failures = failures + 1
    end
  end

  it("in being made says so, leaks nothing, and can be made afterwards", function()
    local a = tensor.zeros({5000}):parameter_()
    optim.adam8({a})
    collectgarbage()
    collectgarbage()
    local bytes, tensors = machine.memory().optimizer_state.now, machine.live_tensors()
    local failures = sweep(function() return {} end, function(run)
      run.opt = optim.adam8({a})
    end, function(run)
      if run.opt then run.opt:release() end
      collectgarbage()
      collectgarbage()
      assert.equal(bytes, machine.memory().optimizer_state.now)
      assert.equal(tensors, machine.live_tensors())
    end)
    assert.is_true(failures > 8, failures .. " failures")
  end)

  it("in taking a state is as it was", function()
    local from = fresh("adam8")
    advance(from, 1, 3)
    local expected = fresh("adam4")
    expected.opt:load(from.opt:state(), {convert = true})
    local after, before = gradients.everything(expected.opt, {}), nil
    local failures = sweep(function()
      local run = fresh("adam4")
      machine.seed(4)
      advance(run, 1, 1)
      before = before or gradients.everything(run.opt, {})
      return run
    end, function(run) run.opt:load(from.opt:state(), {convert = true}) end, function(run, ok)
      assert_same(ok and after or before, gradients.everything(run.opt, {}))
    end)
    assert.is_true(failures > 8, failures .. " failures")
  end)

  it("in taking other options is as it was", function()
    local before
    local failures = sweep(function()
      local run = fresh("adam8")
      machine.seed(4)
      advance(run, 1, 2)
      before = before or gradients.everything(run.opt, {})
      return run
    end, function(run) run.opt:override {weight = {bits = 4}} end, function(run, ok)
      if ok then return end
      assert_same(before, gradients.everything(run.opt, {}))
      assert.equal(8, run.opt:report().parameters[1].bits)
    end)
    assert.is_true(failures > 8, failures .. " failures")
  end)

  it("of the optimizer itself is refused once it has made steps since", function()
    local w = tensor.ones({4}):parameter_()
    local opt = optim.adam {w}
    w:set_grad(tensor.ones {4})
    opt:step()
    local state = opt:state()
    opt:load(state)
    opt:step()
    assert.error_matches(function() opt:load(state) end, "optim.adam: load: the state is this "
      .. "optimizer's own, which has made steps since; save() keeps one, restore() goes on from it",
      1, true)
  end)
end)
