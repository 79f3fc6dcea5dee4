--- What must give the same bits wherever a step is computed: cases for every rule, width, map,
-- rounding, block size and format of parameters, and a run of one.
local assert = require "luassert"
local gradients = require "spec.optim.gradients"
local machine = require "octet.machine"
local map = require "octet.optim.map"
local optim = require "octet.optim"
local rules = require "octet.optim.rules"
local tensor = require "octet.tensor"

local M = {}

local STEPS = 6
local SMALL = {{1}, {7, 9}, {300}, {3, 1667}}
local LARGE = {{5}, {70001}, {257, 130}, {1000}}

-- Numbers that span six decades, some exactly 0, in two steps, without and with clipping, some that
-- are not finite, or so large that a second moment overflows or a first one passes 2^126; drawn
-- once.
local drawn = {}

local function too_large(y)
  return y > 0.495 and 0 / 0 or y > 0.493 and math.huge or y > 0.4915 and 2e38 or 1e30
end

--- The gradient of a step, of so many elements.
function M.gradient(step, size)
  if not drawn[step] or drawn[step]:size() < size then
    local draw = gradients.draws(11 + step)
    drawn[step] = tensor.zeros({math.max(size, 8000)}):keep()
    local g = drawn[step]:data()
    for i = 0, drawn[step]:size() - 1 do
      local y = draw()
      g[i] = y < -0.45 and 0 or y * 10 ^ (6 * draw())
      if (step == 3 or step == 4) and y > 0.49 then g[i] = too_large(y) end
    end
  end
  return drawn[step]:rows(1, size)
end

--- Forget the gradients.
function M.forget() drawn = {} end

--- Train a case's parameters for some steps.
-- @tparam table case
-- @tparam table settings `isa`, `threads`, `kernels`; `device`: where the parameters lie;
-- `state_device`: where the state does
-- @treturn table bytes of all state and parameters, by name
-- @treturn {number,...} elements left out, by step
-- @treturn {number,...} the gradients' norms, by step
function M.run(case, settings)
  machine.seed(3)
  machine.set_isa(settings.isa or "auto")
  machine.set_threads(settings.threads or 2)
  local parameters, left_out, norms = {}, {}, {}
  for i, shape in ipairs(case.shapes or SMALL) do
    local w = tensor.new(shape):normal_(0, 1)
    parameters[i] = (case.bf16 and w:to "bf16" or w):parameter_():to_(settings.device or "cpu")
  end
  local options = {state_device = settings.state_device}
  for name, value in pairs(case.options) do options[name] = value end
  local opt = optim[case.name](parameters, options):use_kernels(settings.kernels or "usual")
  for t = 1, case.steps or STEPS do
    for _, w in ipairs(parameters) do
      w:set_grad(M.gradient(t, w:size()))
    end
    norms[t] = opt:clip_norm(math.huge)
    left_out[t] = opt:step(t % 2 == 0 and {clip_value = 0.3, grad_scale = 0.7} or nil)
  end
  local all = gradients.everything(opt, parameters)
  opt:release()
  return all, left_out, norms
end

-- Everything on the processor that must not change a bit.
local PROCESSOR = {
  {text = "avx2", isa = "avx2"}, {text = "avx512", isa = "avx512"},
  {text = "no VBMI", kernels = "plain"}, {text = "1 thread", threads = 1},
  {text = "3 threads", threads = 3},
}

--- A case gives the same bits as the scalar twins under each of some settings.
-- @tparam table case
-- @tparam[opt] {table,...} list settings, with `text`: what to call them, and `begin`: called
-- before the run; without a list, instruction sets and numbers of threads
function M.check(case, list)
  local expected, left_out, norms = M.run(case, {kernels = "scalar"})
  for _, settings in ipairs(list or PROCESSOR) do
    if not settings.isa or pcall(machine.set_isa, settings.isa) then
      if settings.begin then settings.begin() end
      local all, left, seen_norms = M.run(case, settings)
      local who = settings.text
      assert.same(left_out, left, who)
      for t, norm in ipairs(norms) do assert.is_true(norm == seen_norms[t], who .. ": a norm") end
      for name, bytes in pairs(expected) do
        assert.is_true(all[name] == bytes, ("%s differs with %s"):format(name, who))
      end
    end
  end
  if not case.shapes then assert.is_true(left_out[3] > 0) end
end

-- ---- cases -------------------------------------------------------------------------------------

-- Options of a rule with which it has all of its states.
local FULL = {
  rmsprop = {centered = true, momentum = 0.9}, lars = {trust = 0.1}, adafactor = {beta1 = 0.9},
  sgd = {momentum = 0.9, dampening = 0.1}, ademamix = {warmup = 4},
}

local function options_of(rule, more)
  local options = {min_8bit_size = 0, weight_decay = 0.1}
  for _, from in ipairs {FULL[rule] or {}, more or {}} do
    for name, value in pairs(from) do options[name] = value end
  end
  return options
end

-- Values of which no two neighbours stand as far apart as the next two.
local function custom(levels, sign, with_zero)
  local values = {}
  for k = 1, levels do
    local x = sign == "signed" and 2 * (k - 1) / (levels - 1) - 1 or (k - 1) / (levels - 1)
    values[k] = x * x * x * 0.7 + 0.3 * x + (with_zero and 0 or 1e-4 * (1 - x * x))
  end
  local middle = math.floor((levels + 1) / 2)
  if with_zero then values[sign == "signed" and middle or 1] = 0 end
  return map.new(values, sign)
end

local function custom_pair(levels, with_zero)
  return {signed = custom(levels, "signed", with_zero),
    unsigned = custom(levels, "unsigned", with_zero)}
end

local function own_quantiles(bits)
  machine.seed(1)
  local t = tensor.new({5000}):normal_(0, 1)
  return {signed = map.quantiles_of(t, "signed", bits),
    unsigned = map.quantiles_of(t, "unsigned", bits)}
end

local MAPS = {
  [8] = {"dynamic", "linear", "quantile", "inverse_dynamic", "fp8_e4m3", "fp8_e5m2", "bnb-0.36",
    {"the user's own", custom_pair(256, true)}, {"without a zero", custom_pair(256, false)},
    {"quantiles of a tensor", own_quantiles(8)}},
  [4] = {"dynamic", "linear", "quantile", "inverse_dynamic",
    {"the user's own", custom_pair(16, true)}, {"quantiles of a tensor", own_quantiles(4)}},
}
local ROUNDINGS = {"nearest", "stochastic"}

local function add(cases, title, case)
  case.title = title
  cases[#cases + 1] = case
end

local function add_rules(cases)
  for _, rule in ipairs(rules.all) do
    for _, bits in ipairs {"", "8", "4"} do
      add(cases, rule.name .. bits, {name = rule.name .. bits, options = options_of(rule.name)})
    end
    add(cases, rule.name .. "8 of many pieces",
      {name = rule.name .. "8", options = options_of(rule.name), shapes = LARGE, steps = 3})
  end
end

local function add_maps(cases, bits)
  for _, named in ipairs(MAPS[bits]) do
    local text, chosen = named, named
    if type(named) == "table" then text, chosen = named[1], named[2] end
    for _, rounding in ipairs(ROUNDINGS) do
      for _, sqrt_v in ipairs {true, false} do
        local title = ("%d bits, map %s, %s%s"):format(bits, text, rounding,
          sqrt_v and ", sqrt_v" or "")
        add(cases, title, {name = "adam" .. bits,
          options = options_of("adam", {map = chosen, rounding = rounding, sqrt_v = sqrt_v})})
      end
    end
  end
end

local function add_blocks(cases, bits)
  for _, size in ipairs {32, 64, 128, 512, 1024, 2048, 4096} do
    for _, rounding in ipairs(ROUNDINGS) do
      add(cases, ("%d bits, blocks of %d, %s"):format(bits, size, rounding),
        {name = "adamw" .. bits, shapes = {{31}, {size}, {3 * size + 17}},
          options = options_of("adamw", {block_size = size, rounding = rounding})})
    end
  end
  for _, name in ipairs {"adam", "rmsprop", "lamb", "lars", "muon"} do
    for _, rounding in ipairs(ROUNDINGS) do
      add(cases, ("%d bits, one scale a tensor, %s, %s"):format(bits, name, rounding),
        {name = name .. bits, options = options_of(name, {scale = "tensor", rounding = rounding})})
    end
  end
  add(cases, ("%d bits, one scale a tensor of many pieces"):format(bits),
    {name = "adam" .. bits, shapes = LARGE, steps = 3,
      options = options_of("adam", {scale = "tensor", block_size = 64})})
end

local function add_bf16(cases)
  for _, correction_bits in ipairs {0, 8, 16} do
    for _, bits in ipairs {"", "8", "4"} do
      for _, name in ipairs {"adamw", "sgd", "lamb", "lars", "muon", "adafactor"} do
        add(cases, ("%s%s, bf16 with %d correction bits"):format(name, bits, correction_bits),
          {name = name .. bits, bf16 = true, options = options_of(name,
            {correction_bits = correction_bits, block_size = bits == "8" and 32 or nil})})
      end
    end
    add(cases,
      ("adam8, bf16 with %d correction bits, decay coupled, many pieces"):format(correction_bits),
      {name = "adam8", bf16 = true, shapes = LARGE, steps = 3,
        options = options_of("adam", {correction_bits = correction_bits})})
  end
end

--- All cases: title, name and options of an optimizer; `shapes` of its parameters and `steps`,
-- where they are not the usual ones; `bf16`: its parameters are.
M.cases = {}
add_rules(M.cases)
for _, bits in ipairs {8, 4} do
  add_maps(M.cases, bits)
  add_blocks(M.cases, bits)
end
add_bf16(M.cases)

return M
