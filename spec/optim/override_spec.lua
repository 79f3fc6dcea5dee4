-- Options of parameters by patterns of their names: said at the beginning, and at any time after.
local failure = require "spec.failure"
local gradients = require "spec.optim.gradients"
local machine = require "octet.machine"
local map = require "octet.optim.map"
local optim = require "octet.optim"
local runs = require "spec.optim.state_runs"
local tensor = require "octet.tensor"

local NAMES = {"embed.weight", "layer.1.weight", "layer.1.bias", "layer.2.weight", "head.weight"}

local function fresh(rule, options, numbers)
  local run = {parameters = {}}
  local list = {}
  for i, name in ipairs(NAMES) do
    local t = tensor.full(name:find "bias" and {40} or {70, 60 + i}, 0.5):parameter_()
    run.parameters[i], list[i] = t, {name = name, tensor = t}
  end
  if numbers then
    list = {{params = {list[1], list[2], list[3]}}, {params = {list[4], list[5]}, lr = 2e-3}}
  end
  run.opt = optim[rule](list, options)
  return run
end

local function bits_of(opt)
  local bits = {}
  for _, p in ipairs(opt:report().parameters) do bits[p.name] = p.bits end
  return bits
end

-- The bytes of those state tensors and parameters that a pattern does not match.
local function rest(run, pattern)
  local all = {}
  for name, bytes in pairs(gradients.everything(run.opt, {})) do
    if not name:find(pattern) then all[name] = bytes end
  end
  for i, name in ipairs(NAMES) do
    if not name:find(pattern) then all[name] = gradients.bytes(run.parameters[i]) end
  end
  return all
end

local function assert_same(expected, seen)
  local count = 0
  for name, bytes in pairs(expected) do
    count = count + 1
    assert.is_true(seen[name] == bytes, name)
  end
  assert.is_true(count > 0)
end

describe("options by name", function()
  it("hold from the beginning", function()
    local opt = fresh("adam8", {overrides = {
      ["^embed"] = {bits = 32}, ["2%.weight$"] = {bits = 4}, head = {block_size = 64},
      ["bias$"] = {bits = 8, format = "paper"},
    }}).opt
    assert.same({["embed.weight"] = 32, ["layer.1.weight"] = 8, ["layer.1.bias"] = 8,
      ["layer.2.weight"] = 4, ["head.weight"] = 8}, bits_of(opt))
    local formats = {}
    for _, p in ipairs(opt:report().parameters) do formats[p.name] = p.format end
    assert.equal("8 bits, dynamic, sqrt_v, blocks of 64", formats["head.weight"])
    assert.equal("8 bits, dynamic, blocks of 2048", formats["layer.1.bias"])
    assert.same({{name = "embed.weight", elements = 70 * 61, why = "asked for by its name"}},
      opt:report().kept_32)
  end)

  for _, case in ipairs {
    {"adam8", {bits = 32}}, {"adam8", {bits = 4}}, {"adam", {bits = 8}}, {"lamb8", {bits = 32}},
    {"adam8", {map = "linear"}}, {"ademamix8", {block_size = 64}}, {"adam8", {scale = "tensor"}},
    {"muon8", {bits = 4}}, {"adafactor", {bits = 8}}, {"sgd4", {bits = 8}},
    {"rmsprop8", {rounding = "nearest"}, {momentum = 0.9, centered = true}},
  } do
    local text = ""
    for name, value in pairs(case[2]) do text = ("%s = %s"):format(name, value) end
    it(("changed in training leave all others alone, bit for bit: %s, %s"):format(case[1], text),
      function()
        local plain, changed = fresh(case[1], case[3], true), fresh(case[1], case[3], true)
        for _, run in ipairs {plain, changed} do
          machine.seed(8)
          runs.advance(run, 1, 3)
          if run == changed then run.opt:override {["1.*weight"] = case[2]} end
          runs.advance(run, 4, 4)
        end
        -- Gradients do not depend on the parameters here, so neither do the others on this one.
        assert_same(rest(plain, "1.*weight"), rest(changed, "1.*weight"))
        assert.equal(4, changed.opt:state().numbers.steps["layer.1.weight"])
        -- The one that was named goes on from what it had.
        local a, b = plain.parameters[2]:totable(), changed.parameters[2]:totable()
        local off, far = 0, 0
        for i = 1, #a do
          off, far = off + (a[i] - b[i]) ^ 2, far + (b[i] - 0.5) ^ 2
        end
        assert.is_true(off < 0.05 * far, ("%g of %g"):format(off, far))
      end)
  end

  it("keep what was said since: rates, what was overridden before, watching", function()
    local run = fresh("adam8", {overrides = {["^embed"] = {bits = 32}}})
    run.opt:watch(true):set_lr(0.5)
    run.opt:override({["^head"] = {bits = 4}}):override({["^head"] = {block_size = 32}})
    assert.same({["embed.weight"] = 32, ["layer.1.weight"] = 8, ["layer.1.bias"] = 32,
      ["layer.2.weight"] = 8, ["head.weight"] = 4}, bits_of(run.opt))
    runs.advance(run, 1, 1)
    assert.is_true(run.opt:report().parameters[5].states[1].absolute_error > 0)
    assert.matches("^4 bits, .*, sqrt_v, blocks of 32$", run.opt:report().parameters[5].format)
    assert.equal(0.5, run.opt.groups[1].lr)
  end)

  it("give the memory of the former state back at once", function()
    local run = fresh("adam")
    local report = run.opt:report().bytes
    collectgarbage()
    collectgarbage()
    local before = machine.memory().optimizer_state.now
    run.opt:override {weight = {bits = 8}}
    local after = machine.memory().optimizer_state.now
    assert.equal(run.opt:report().bytes - report, after - before)
  end)

  it("that cannot be had leave the optimizer as it was", function()
    local run = fresh("muon8")
    machine.seed(1)
    runs.advance(run, 1, 2)
    local before = gradients.everything(run.opt, run.parameters)
    assert.matches('pattern "nothing" matches no parameter; nearest names: ',
      failure(run.opt.override, run.opt, {nothing = {bits = 32}}))
    assert.matches("overrides of head.weight: bits is 5, expected 4, 8 or 32",
      failure(run.opt.override, run.opt, {head = {bits = 5}}))
    assert.matches('overrides: unknown option "btis"; it is one of ',
      failure(run.opt.override, run.opt, {head = {btis = 8}}))
    assert.matches("override: tensor head.weight.v.* is missing",
      failure(run.opt.override, run.opt, {head = {rule = "adamw"}}))
    assert.matches("4 bits want maps of 16 values", failure(run.opt.override, run.opt,
      {head = {bits = 4, map = {signed = map.named("linear", 8, "signed")}}}))
    assert_same(before, gradients.everything(run.opt, run.parameters))
    assert.equal(8, bits_of(run.opt:override {["^embed"] = {bits = 8}})["head.weight"])
    runs.advance(run, 3, 3)
    local other = fresh("muon8")
    machine.seed(1)
    runs.advance(other, 1, 3)
    assert_same(gradients.everything(other.opt, other.parameters),
      gradients.everything(run.opt, run.parameters))
  end)
end)
