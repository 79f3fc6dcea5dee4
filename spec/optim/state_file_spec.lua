-- An optimizer in a file: whole, and found damaged where it is.
local failure = require "spec.failure"
local file = require "octet.file"
local gradients = require "spec.optim.gradients"
local json = require "octet.json"
local machine = require "octet.machine"
local optim = require "octet.optim"
local runs = require "spec.optim.state_runs"
local safetensors = require "octet.safetensors"
local scratch = require "spec.scratch"
local tensor = require "octet.tensor"

local fresh, advance = runs.fresh, runs.advance

local function assert_same(expected, seen)
  for name, bytes in pairs(expected) do assert.is_true(seen[name] == bytes, name) end
end

describe("an optimizer's file", function()
  local path
  before_each(function() path = scratch.path() end)
  after_each(function() os.remove(path) end)

  for _, name in ipairs(optim.NAMES) do
    it("goes on bit for bit: " .. name, function()
      machine.seed(5)
      local whole = fresh(name)
      advance(whole, 1, 3)
      whole.opt:set_lr(0.02)
      advance(whole, 4, 4)
      whole.opt:save(path)
      local weights = {}
      for i, w in ipairs(whole.parameters) do weights[i] = w:totable() end
      advance(whole, 5, 7)

      machine.seed(77)
      machine.set_random_state {dropout = 12}
      local second = fresh(name)
      for i, w in ipairs(second.parameters) do w:copy_(tensor.from(weights[i], w:shape())) end
      second.opt:restore(path)
      assert.equal(12, machine.random_state().dropout)
      advance(second, 5, 7)
      assert_same(gradients.everything(whole.opt, whole.parameters),
        gradients.everything(second.opt, second.parameters))
    end)
  end

  it("says what it is, and is the same bytes for the same state", function()
    machine.seed(5)
    local run = fresh("adam8")
    advance(run, 1, 2)
    run.opt:save(path)
    local bytes = file.read(path)
    run.opt:save(path)
    assert.is_true(bytes == file.read(path))
    local metadata = safetensors.open(path):metadata()
    assert.equal("octet-optimizer-1", metadata.octet)
    assert.same({seed = 5, optimizer = machine.random_state().optimizer},
      json.decode(metadata.random))
    assert.same(run.opt:state().numbers, json.decode(metadata.optimizer))
    local _, count = bytes:gsub('"sha256:', "")
    assert.equal(6, count)
  end)

  it("is converted, keeps options and leaves random numbers alone as it is told", function()
    local from = fresh("adam8", {lr = 0.5})
    advance(from, 1, 2)
    from.opt:save(path)
    local to = fresh("adam4")
    machine.seed(9)
    assert.matches("with convert = true it is converted", failure(to.opt.restore, to.opt, path))
    assert.equal(9, machine.random_state().seed)
    to.opt:restore(path, {convert = true, options = false, random = false})
    assert.equal(1e-3, to.opt.groups[1].lr)
    assert.same({seed = 9, init = 0, dropout = 0, optimizer = 0}, machine.random_state())
    to.opt:restore(path, {convert = true})
    assert.equal(0.5, to.opt.groups[1].lr)
    assert.matches('restore: unknown option "covnert"; it is one of convert, ',
      failure(to.opt.restore, to.opt, path, {covnert = true}))
  end)

  it("is refused where it is none, or of another version", function()
    local run = fresh("adam")
    safetensors.save(path, {a = tensor.zeros {2}}, {})
    assert.matches("is no optimizer state of this version of Octet: its format is not given",
      failure(run.opt.restore, run.opt, path))
    safetensors.save(path, {a = tensor.zeros {2}}, {octet = "octet-optimizer-9"})
    assert.matches('format is "octet%-optimizer%-9", expected "octet%-optimizer%-1" or "octet%-',
      failure(run.opt.restore, run.opt, path))
    safetensors.save(path, {a = tensor.zeros {2}}, {octet = "octet-optimizer-1"})
    assert.matches("metadata random is missing", failure(run.opt.restore, run.opt, path))
    safetensors.save(path, {a = tensor.zeros {2}}, {octet = "octet-optimizer-1", random = "{}"})
    assert.matches("metadata optimizer is missing", failure(run.opt.restore, run.opt, path))
    for _, text in ipairs {"3", "[1, 2", "null", '"x"'} do
      safetensors.save(path, {a = tensor.zeros {2}},
        {octet = "octet-optimizer-1", random = "{}", optimizer = text})
      assert.matches("optimizer", failure(run.opt.restore, run.opt, path))
    end
    for _, random in ipairs {'{"seed": 0.5}', '{"seed": "x"}', '{"optimizer": -1}',
      '{"optimizer": 1e300}', '{"optimizer": null}'} do
      local metadata = {octet = "octet-optimizer-1", random = random,
        optimizer = json.encode(run.opt:state().numbers)}
      safetensors.save(path, run.opt:state().tensors, metadata)
      assert.matches("random state: %a+ is .*, expected a whole number",
        failure(run.opt.restore, run.opt, path))
    end
  end)

  it("is found damaged wherever a byte of its tensors is another, and changes nothing", function()
    local from, to = fresh("adam8"), fresh("adam8")
    advance(from, 1, 2)
    advance(to, 1, 1)
    from.opt:save(path)
    local bytes, before = file.read(path), gradients.everything(to.opt, {})
    local header = 8 + bytes:byte(1) + 256 * bytes:byte(2)
    for at = header + 1, #bytes, 379 do
      local other = string.char((bytes:byte(at) + 1) % 256)
      file.save(path, bytes:sub(1, at - 1) .. other .. bytes:sub(at + 1))
      assert.matches("damaged", failure(to.opt.restore, to.opt, path))
      assert_same(before, gradients.everything(to.opt, {}))
    end
    for length = 0, #bytes - 1, 997 do
      file.save(path, bytes:sub(1, length))
      failure(to.opt.restore, to.opt, path)
    end
    assert_same(before, gradients.everything(to.opt, {}))
  end)

  it("whose numbers are damaged under a sound checksum gives one line, or a state that steps",
    function()
      local from = fresh("adam8")
      advance(from, 1, 2)
      local state = from.opt:state()
      local text, draw = json.encode(state.numbers), gradients.draws(17)
      local function random(n) return math.floor((draw() + 0.5) * n) + 1 end
      local PIECES = {"", "null", "-1", "1e308", "0.5", '"x"', "[]", "{}", "true", "99999", ",",
        "3"}
      local refused = 0
      for _ = 1, 250 do
        -- Numbers and words outside of the maps, whose values are most of the text.
        local maps = text:find '"maps"'
        local at = random(2) == 1 and random(maps) or random(#text)
        local first, last = text:find("[%w%.%-]+", at)
        local damaged = text:sub(1, first - 1) .. PIECES[random(#PIECES)] .. text:sub(last + 1)
        safetensors.save(path, state.tensors, {octet = "octet-optimizer-1", random = "{}",
          optimizer = damaged})
        local to = fresh("adam8")
        local before, numbers = gradients.everything(to.opt, {}), to.opt:state().numbers
        local ok, message = pcall(to.opt.restore, to.opt, path, {convert = random(2) == 1})
        if not ok then
          refused = refused + 1
          assert.is_nil(message:find("\n", 1, true), message)
          assert.is_nil(message:find("%.lua:%d"), message)
          assert_same(before, gradients.everything(to.opt, {}))
          assert.same(numbers, to.opt:state().numbers)
        end
        advance(to, 3, 3)
      end
      assert.is_true(refused > 120, refused .. " refused")
    end)

  it("leaves the former one where it cannot be written", function()
    local run = fresh("adam8")
    run.opt:save(path)
    local bytes = file.read(path)
    failure(run.opt.save, run.opt, path .. "/there/is/none")
    assert.is_true(bytes == file.read(path))
  end)
end)

describe("a run's checkpoint", function()
  it("is taken by an optimizer of another width, by itself or with its run", function()
    local checkpoint = require "octet.train.checkpoint"
    local nn = require "octet.nn"
    local path = scratch.path()
    local function run(name)
      machine.seed(3)
      local model = nn.Linear(80, 64)
      local named = {}
      for i, p in ipairs(model:parameters()) do named[i] = p.tensor end
      return {model = model, parameters = named, opt = optim[name](model:parameters())}
    end
    local wide = run "adam"
    advance(wide, 1, 3)
    checkpoint.save(path, wide.model, wide.opt, {step = 3})
    for _, name in ipairs {"adam8", "adam4"} do
      local narrow, alone = run(name), run(name)
      assert.same({step = 3}, checkpoint.load(path, narrow.model, narrow.opt))
      alone.opt:restore(path)
      assert_same(gradients.everything(narrow.opt, {}), gradients.everything(alone.opt, {}))
      assert.equal(gradients.bytes(wide.model.weight), gradients.bytes(narrow.model.weight))
      assert.equal(3, narrow.opt:state().numbers.steps.weight)
      advance(narrow, 4, 5)
    end
    local eight, four = run "adam8", run "adam4"
    checkpoint.save(path, eight.model, eight.opt, {step = 3})
    assert.matches("is of 8 bits, .*, expected 4 bits", failure(checkpoint.load, path, four.model,
      four.opt))
    os.remove(path)
  end)
end)
