-- State of PyTorch's and bitsandbytes' optimizers: what was saved there goes on here.
local failure = require "spec.failure"
local gradients = require "spec.optim.gradients"
local json = require "octet.json"
local map = require "octet.optim.map"
local octet = require "octet"
local optim = require "octet.optim"
local peers = require "spec.optim.peers.optimizer_state"
local safetensors = require "octet.safetensors"
local scratch = require "spec.scratch"
local tensor = require "octet.tensor"

local function copied(t)
  local copy = {}
  for key, value in pairs(t) do copy[key] = value end
  return copy
end

-- The values of a map as another program has them: some differ in the last bit.
local function rounded(sign)
  local values = map.named("dynamic", 8, sign):values()
  for code = 2, 255, 3 do values[code] = values[code] * (1 + 1e-7) end
  return values
end

-- The file that PyTorch would have written of a case.
local function write(path, case, change)
  local tensors = {}
  local metadata = {optimizer = case.optimizer, parameters = case.parameters, steps = case.steps}
  for name, t in pairs(case.tensors) do
    tensors[name] = tensor.from(t[1], t.shape, t.dtype)
    local number = name:match "%.absmax(%d)$"
    if number then
      local sign = number == "1" and "signed" or "unsigned"
      tensors[name:gsub("absmax", "qmap")] = tensor.from(rounded(sign))
    end
  end
  if change then change(tensors, metadata) end
  safetensors.save(path, tensors, metadata)
end

local function fresh(name, options, case)
  local w = tensor.from(case.before, {2, 3}):parameter_()
  local unused = tensor.from({1, 2}):parameter_()
  local run = {w = w, opt = optim[name]({{name = "w", tensor = w},
    {name = "unused", tensor = unused}}, options)}
  function run.step()
    gradients.set(w, case.gradient)
    run.opt:step()
  end
  return run
end

local function named(name)
  for _, case in ipairs(peers) do
    if case.name == name then return case end
  end
end

-- The largest difference from where the peer's next step leads, over the longest part of that step.
local function difference(run, case)
  local most, length = 0, 0
  for i, x in ipairs(run.w:totable()) do
    most = math.max(most, math.abs(x - case.after[i]))
    length = math.max(length, math.abs(case.after[i] - case.before[i]))
  end
  return most / length
end

describe("imported state", function()
  local path
  before_each(function() path = scratch.path() end)
  after_each(function() os.remove(path) end)

  for _, case in ipairs(peers) do
    local refused = ({AMSGrad = "w.max_exp_avg_sq: state of AMSGrad cannot be imported"})[case.name]
    if case.name:find "LARS" then refused = "state of LARS%d+bit cannot be imported" end
    local what = refused and "is refused: " or "goes on with the next step as there: "
    it(what .. case.name, function()
      local run = fresh(case.rule, case.options, case)
      write(path, case)
      if refused then
        assert.matches(refused, failure(run.opt.import, run.opt, path))
        return
      end
      run.opt:import(path)
      run.step()
      assert.is_true(difference(run, case) < 2e-5, difference(run, case))
      assert.equal(0, run.opt:state().numbers.steps.unused)
    end)
  end

  for _, name in ipairs {"Adam", "AdamW", "SGD", "Lion", "AdEMAMix"} do
    it("of 8 bits keeps its codes in the format bnb: " .. name, function()
      local case = named("bitsandbytes " .. name .. "8bit")
      local options = copied(case.options)
      options.format, options.min_8bit_size = "bnb", 0
      local run = fresh(case.rule .. "8", options, case)
      write(path, case)
      run.opt:import(path)
      local state = run.opt:state()
      local codes = case.tensors["w.state1"]
      for i, code in ipairs(state.tensors["w.m"]:totable()) do assert.equal(codes[1][i], code) end
      run.step()
      assert.is_true(difference(run, case) < 2e-5, difference(run, case))
    end)
  end

  it("takes the format of the optimizer that it comes to", function()
    for _, name in ipairs {"Adam", "Adagrad", "bitsandbytes Adam8bit",
      "bitsandbytes RMSprop8bit"} do
      for _, bits in ipairs {8, 4} do
        local case = named(name)
        local options = copied(case.options)
        options.min_8bit_size = 0
        local run = fresh(case.rule .. bits, options, case)
        write(path, case)
        run.opt:import(path)
        assert.equal(bits, run.opt:report().parameters[1].bits)
        run.step()
        assert.is_true(difference(run, case) < (bits == 8 and 0.1 or 1), name .. bits
          .. difference(run, case))
      end
    end
  end)

  it("of 8 bits keeps its scales, of blocks whose largest value is negative, too", function()
    local case = named "bitsandbytes Adam8bit"
    local run = fresh("adam8", {format = "bnb", min_8bit_size = 0}, case)
    local scale = tensor.from(case.tensors["w.absmax1"][1]):data()[0]
    write(path, case, function(tensors)
      local codes = tensors["w.state1"]:data()
      for i = 0, 5 do codes[i] = math.max(0, 254 - codes[i]) end
    end)
    run.opt:import(path)
    assert.equal(scale, run.opt:state().tensors["w.m.absmax"]:data()[0])
  end)

  it("of RMSprop, centered, that holds NaN is refused", function()
    local case = named "RMSprop, centered"
    local run = fresh("rmsprop", case.options, case)
    write(path, case, function(tensors) tensors["w.square_avg"]:data()[4] = 0 / 0 end)
    assert.matches("state w.v holds a number", failure(run.opt.import, run.opt, path))
  end)

  it("of second moments in a signed map has none below 0", function()
    local case = named "bitsandbytes Adagrad8bit"
    local run = fresh("adagrad", {}, case)
    write(path, case, function(tensors) tensors["w.state1"]:data()[4] = 100 end)
    run.opt:import(path)
    assert.equal(0, run.opt:state().tensors["w.v"]:data()[4])
  end)

  it("finds parameters by name, by other names, by order, and as rows of one", function()
    local case = named "Adam"
    write(path, case)
    local function other(name, shape)
      local w = tensor.from(case.before, shape or {2, 3}):parameter_()
      local opt = optim.adam({{name = name, tensor = w},
        {name = "rest", tensor = tensor.zeros({2}):parameter_()}})
      return opt, function()
        return opt:state().tensors[name .. ".v"]:totable()
      end
    end
    local expected = tensor.from(case.tensors["w.exp_avg_sq"][1]):totable()
    local opt, seen = other "weight"
    assert.matches('parameter weight: unknown name "weight"; it is one of w, unused; options names '
      .. "or order say what it is called there", failure(opt.import, opt, path))
    opt:import(path, {order = true})
    assert.same(expected, seen())
    opt, seen = other "weight"
    opt:import(path, {names = {weight = "w", rest = "unused"}})
    assert.same(expected, seen())
    opt, seen = other "weight"
    opt:import(path, {names = function(name) return name == "rest" and "unused" or "w" end})
    assert.same(expected, seen())
    assert.matches("the state of w is wanted twice", failure(opt.import, opt, path,
      {names = {weight = {"w", "w"}, rest = "unused"}}))
    assert.matches("tensor weight.[mv] is f32 %[2 x 3%], expected f32 %[3 x 2%]",
      (function() local narrow = other("weight", {3, 2})
        return failure(narrow.import, narrow, path, {order = true}) end)())

    write(path, case, function(tensors, metadata)
      metadata.parameters = '["unused", "q", "k"]'
      metadata.steps = '{"q": 3, "k": 3}'
      for key, full in pairs {m = "exp_avg", v = "exp_avg_sq"} do
        local t = tensors["w." .. full]
        tensors["w." .. full], tensors["q." .. full] = nil, t:rows(1, 1)
        tensors["k." .. full] = t:rows(2, 1)
        assert.is_true(#key == 1)
      end
    end)
    opt, seen = other "weight"
    opt:import(path, {names = {weight = {"q", "k"}, rest = "unused"}})
    assert.same(expected, seen())
    assert.equal(3, opt:state().numbers.steps.weight)
  end)

  it("of a BERT by Hugging Face's names goes into layers that are one product here", function()
    local bert = require "models.bert"
    local model = bert.Classifier(bert.config({
      vocab_size = 11, hidden_size = 8, num_hidden_layers = 2, num_attention_heads = 2,
      intermediate_size = 16, max_position_embeddings = 8,
    }, "config"), {classes = 2, pooling = "cls"})
    local tensors, names, steps = {}, {}, {}
    for i, entry in ipairs(model:hugging_face_state()) do
      names[i], steps[entry.name] = entry.name, 7
      tensors[entry.name .. ".exp_avg"] = entry.tensor
      tensors[entry.name .. ".exp_avg_sq"] = octet.no_grad(function()
        return entry.tensor * entry.tensor
      end)
    end
    safetensors.save(path, tensors, {optimizer = "AdamW", parameters = json.encode(names),
      steps = json.encode(steps)})
    local opt = optim.adamw(model:parameters())
    opt:import(path, {names = model:hugging_face_names()})
    local state = opt:state()
    for _, p in ipairs(model:parameters()) do
      assert.is_true(gradients.bytes(p.tensor) == gradients.bytes(state.tensors[p.name .. ".m"]))
      assert.equal(7, state.numbers.steps[p.name])
    end
  end)

  for _, wrong in ipairs {
    {"no class", function(_, m) m.optimizer = nil end, "metadata optimizer is missing; docs"},
    {"another class", function(_, m) m.optimizer = "SGD" end,
      "the state is that of SGD, expected that of rule adam"},
    {"no parameters", function(_, m) m.parameters = nil end,
      "metadata parameters is missing; docs"},
    {"parameters that are a number", function(_, m) m.parameters = "3" end,
      "metadata parameters is a number, expected a list"},
    {"broken JSON", function(_, m) m.parameters = "[" end, "parameters"},
    {"a parameter twice", function(_, m) m.parameters = '["w", "w"]' end,
      "parameter 2 is w, expected a name that is not there before"},
    {"a parameter without a name", function(_, m) m.parameters = '["w", 3]' end,
      "parameter 2 is 3, expected a name"},
    {"no steps", function(_, m) m.steps = "{}" end,
      "steps of parameter w is nil, expected a number"},
    {"steps below 0", function(_, m) m.steps = '{"w": -3}' end,
      "steps of parameter w is %-3, expected a whole number"},
    {"a missing state", function(t) t["w.exp_avg"] = nil end, "tensor w.exp_avg is missing"},
    {"a parameter of no name", function(t) t["x.exp_avg"] = tensor.zeros {2} end,
      "tensor x.exp_avg is of no parameter"},
    {"a parameter too many", function(_, m) m.parameters = '["w", "unused", "more"]' end,
      "parameter more is left over"},
    {"a shape", function(t) t["w.exp_avg"] = tensor.zeros {6} end,
      "tensor w.m is f32 %[6%], expected f32 %[2 x 3%]"},
    {"NaN", function(t) t["w.exp_avg"]:data()[2] = 0 / 0 end, "state w.m holds a number"},
    {"NaN in a second moment", function(t) t["w.exp_avg_sq"]:data()[2] = 0 / 0 end,
      "state w.v holds a number that no step leaves"},
    {"a negative second moment", function(t) t["w.exp_avg_sq"]:data()[2] = -1 end,
      "state w.v holds a number that no step leaves"},
  } do
    it("that is not sound is refused in one line and changes nothing: " .. wrong[1], function()
      local run = fresh("adam", {}, named "Adam")
      run.step()
      local before = gradients.everything(run.opt, {})
      write(path, named "Adam", wrong[2])
      assert.matches(wrong[3], failure(run.opt.import, run.opt, path))
      for name, bytes in pairs(gradients.everything(run.opt, {})) do
        assert.is_true(before[name] == bytes, name)
      end
    end)
  end

  for _, wrong in ipairs {
    {"a map out of order", function(t) t["w.qmap1"]:data()[3] = 1 end, "value 5 is out of order"},
    {"a map too short", function(t) t["w.qmap1"] = tensor.zeros {3} end, "a qmap: .*3 values"},
    {"no map", function(t) t["w.qmap2"] = nil end, "tensor w.qmap2 is missing"},
    {"scales too many", function(t) t["w.absmax1"] = tensor.zeros {3} end,
      "parameter w has 3 scales for 6 elements, expected one for each block of 32 to 4096"},
    {"a negative scale", function(t) t["w.absmax1"]:data()[0] = -1 end, "holds a number"},
    {"NaN for a scale", function(t) t["w.absmax2"]:data()[0] = 0 / 0 end, "holds a number"},
    {"codes of another shape", function(t) t["w.state2"] = tensor.zeros({5}, "u8") end,
      "tensor w.v is u8 %[5%], expected u8 %[2 x 3%]"},
  } do
    it("of 8 bits that is not sound is refused: " .. wrong[1], function()
      local case = named "bitsandbytes Adam8bit"
      for _, format in ipairs {"bnb", "octet"} do
        local run = fresh("adam8", {format = format, min_8bit_size = 0}, case)
        write(path, case, wrong[2])
        assert.matches(wrong[3], failure(run.opt.import, run.opt, path))
      end
    end)
  end

  it("is refused where this rule keeps what there is not", function()
    local run = fresh("rmsprop", {momentum = 0.9}, named "bitsandbytes RMSprop32bit")
    write(path, named "bitsandbytes RMSprop32bit")
    assert.matches("parameter w has a state m here, and none there",
      failure(run.opt.import, run.opt, path))
    assert.matches('import: unknown option "name"; it is one of names, order',
      failure(run.opt.import, run.opt, path, {name = {}}))
    assert.is_table(json.decode(named("Adam").steps))
  end)
end)
