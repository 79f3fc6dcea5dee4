-- State that is saved and taken up again, and failures on the way.
local ffi = require "ffi"
local binding = require "octet.binding"
local gradients = require "spec.optim.gradients"
local machine = require "octet.machine"
local optim = require "octet.optim"
local safetensors = require "octet.safetensors"
local tensor = require "octet.tensor"

local function failure(f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok)
  return message
end

-- Two parameters, one large and one small, whose gradients follow from the step alone.
local function fresh(rule, options)
  local a = tensor.full({70, 64}, 0.5):parameter_()
  local b = tensor.full({30}, -0.5):parameter_()
  local opt = optim[rule]({{name = "layer.weight", tensor = a}, {name = "layer.bias", tensor = b}},
    options)
  return {opt = opt, parameters = {a, b}}
end

local function advance(run, from, to)
  for t = from, to do
    for _, w in ipairs(run.parameters) do
      local g, draw = tensor.new(w:shape()), gradients.draws(t)
      local data = g:data()
      for i = 0, w:size() - 1 do data[i] = draw() * 10 ^ (4 * draw()) end
      gradients.set(w, g)
    end
    run.opt:step {max_norm = 1}
    run.opt:zero_grad()
  end
end

describe("an optimizer's state", function()
  for _, case in ipairs {{"adam", {}}, {"adamw", {}}, {"adam8", {}}, {"adamw8", {lr = 1e-2}},
    {"adam8", {format = "paper"}}} do
    it(("goes on bit for bit from a file: %s %s"):format(case[1], case[2].format or ""), function()
      local path = os.tmpname()
      machine.seed(5)
      local whole = fresh(case[1], case[2])
      advance(whole, 1, 12)
      local expected = gradients.everything(whole.opt, whole.parameters)

      machine.seed(5)
      local first = fresh(case[1], case[2])
      advance(first, 1, 7)
      local state, random = first.opt:state(), machine.random_state()
      local tensors = {a = first.parameters[1], b = first.parameters[2]}
      for name, t in pairs(state.tensors) do tensors["optim." .. name] = t end
      safetensors.save(path, tensors, {})

      machine.seed(5)
      local second = fresh(case[1], case[2])
      local file = safetensors.open(path)
      file:read("a", second.parameters[1])
      file:read("b", second.parameters[2])
      for name, t in pairs(second.opt:state().tensors) do file:read("optim." .. name, t) end
      second.opt:load {numbers = state.numbers}
      machine.set_random_state(random)
      file:close()
      os.remove(path)
      advance(second, 8, 12)
      local seen = gradients.everything(second.opt, second.parameters)
      for name, bytes in pairs(expected) do assert.is_true(seen[name] == bytes, name) end
    end)
  end

  it("has codes, absmax and steps by name", function()
    local run = fresh("adam8")
    advance(run, 1, 3)
    local state = run.opt:state()
    assert.same({70, 64}, state.tensors["layer.weight.m"]:shape())
    assert.equal("u8", state.tensors["layer.weight.v"]:dtype())
    assert.same({18}, state.tensors["layer.weight.m.absmax"]:shape())
    assert.equal("f32", state.tensors["layer.bias.v"]:dtype())
    assert.is_nil(state.tensors["layer.bias.v.absmax"])
    assert.same({["layer.weight"] = 3, ["layer.bias"] = 3}, state.numbers.steps)
    assert.equal("8 octet 256", state.numbers.layout["layer.weight"])
    assert.equal("32", state.numbers.layout["layer.bias"])
  end)

  it("can be handed over as tensors", function()
    local from, to = fresh("adam8"), fresh("adam8")
    advance(from, 1, 3)
    to.opt:load(from.opt:state())
    local seen = gradients.everything(to.opt, {})
    for name, bytes in pairs(gradients.everything(from.opt, {})) do
      assert.is_true(seen[name] == bytes, name)
    end
  end)

  it("is refused where it does not fit, by name", function()
    local run = fresh("adam8")
    local function refused(change, other)
      local state = (other or fresh("adam8")).opt:state()
      if change then change(state) end
      return failure(run.opt.load, run.opt, state)
    end
    assert.matches("load: the state is that of rule adamw, expected adam",
      refused(nil, fresh("adamw8")))
    assert.matches("state of parameter layer.weight is of layout 32, expected 8 octet 256",
      refused(nil, fresh("adam")))
    assert.matches("is of layout 8 octet 128, expected 8 octet 256",
      refused(nil, fresh("adam8", {block_size = 128})))
    assert.matches("tensor layer.weight.m is missing",
      refused(function(s) s.tensors["layer.weight.m"] = nil end))
    assert.matches("tensor layer.weight.m is f32 %[2%], expected u8 %[70 x 64%]",
      refused(function(s) s.tensors["layer.weight.m"] = tensor.zeros {2} end))
    assert.matches("tensor more is left over",
      refused(function(s) s.tensors.more = tensor.zeros {2} end))
    assert.matches("layout of parameter layer.bias is missing",
      refused(function(s) s.numbers.layout["layer.bias"] = nil end))
    assert.matches("layout of parameter head is left over",
      refused(function(s) s.numbers.layout.head = "32" end))
    assert.matches("steps of parameter layer.bias is %-1, expected a whole number",
      refused(function(s) s.numbers.steps["layer.bias"] = -1 end))
    assert.matches("the state has no numbers", refused(function(s) s.numbers = nil end))
    for _, bad in ipairs {0 / 0, math.huge, -1} do
      assert.matches("state layer.weight.v.absmax holds a number that no step leaves",
        refused(function(s) s.tensors["layer.weight.v.absmax"]:data()[3] = bad end))
    end
    assert.matches("state layer.bias.m holds a number that no step leaves",
      refused(function(s) s.tensors["layer.bias.m"]:data()[3] = 0 / 0 end))
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

describe("an optimizer that runs out of memory", function()
  it("says so, leaks nothing, and can be made afterwards", function()
    local C, check = binding.C, binding.check
    local made = ffi.new "int64_t[1]"
    local a = tensor.zeros({5000}):parameter_()
    collectgarbage()
    collectgarbage()
    local bytes, tensors = machine.memory().optimizer_state.now, machine.live_tensors()
    local failures = 0
    for nth = 1, 100 do
      check(C.oct_fail_allocation(made, nth, 1))
      local ok, message = pcall(function()
        local out = ffi.new "oct_optim *[1]"
        check(C.oct_optim_new(out, C.OCT_ADAM))
        local status = C.oct_optim_add(out[0], a, "a", 0, 8, C.OCT_FORMAT_OCTET, 256)
        if status == 0 then status = C.oct_optim_group(out[0], 0, 1e-3, 0.9, 0.999, 1e-8, 0) end
        local text = binding.last_error()
        C.oct_optim_free(out[0])
        if status ~= 0 then error(text, 0) end
      end)
      check(C.oct_fail_allocation(made, 0, 0))
      assert.equal(bytes, machine.memory().optimizer_state.now)
      assert.equal(tensors, machine.live_tensors())
      if ok then break end
      assert.matches("out of memory", message)
      failures = failures + 1
    end
    assert.is_true(failures > 8 and failures < 100, failures .. " failures")
  end)
end)
