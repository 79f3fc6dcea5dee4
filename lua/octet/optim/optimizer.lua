--- An optimizer: groups of parameters with their state, stepped by one call into the core.
--
-- `opt.groups` is the list of groups; lr, weight_decay and the rule's own options (betas, eps, ...)
-- of a group may be changed between steps.
-- @module octet.optim.optimizer
local ffi = require "ffi"
local binding = require "octet.binding"
local format_of = require "octet.optim.format"
local message = require "octet.message"
local nearest = require "octet.nearest"
local number = require "octet.number"
local options_of = require "octet.optim.options"
local rules = require "octet.optim.rules"

local C, call, check = binding.C, binding.call, binding.check

local M = {}
local Optimizer = {}
Optimizer.__index = Optimizer

local optim_out = ffi.new "oct_optim *[1]"
local double_out = ffi.new "double[1]"
local count_out = ffi.new "int64_t[1]"
local numbers_in = ffi.new "double[12]"

local DECAYS = {own = C.OCT_DECAY_OWN}

local function decay_of(group, rule)
  return DECAYS[rule.decay] or (group.decoupled and C.OCT_DECAY_DECOUPLED or C.OCT_DECAY_COUPLED)
end

-- The core's groups: ours, and where a rule is for matrices alone one more beside each, for the
-- parameters that are none.
local function core_groups(self)
  local list = {}
  for _, group in ipairs(self.groups) do
    list[#list + 1] = {numbers = group, rule = self.rule, parameters = {}}
    local rest = group.adamw and {numbers = group.adamw, rule = rules.all.adamw, parameters = {}}
    list[#list + 1] = rest or nil
    for _, p in ipairs(group.parameters) do
      local place = rest and options_of.is_for_rest(p) and rest or list[#list - (rest and 1 or 0)]
      table.insert(place.parameters, p)
      p.core_rule = place.rule
    end
  end
  return list
end

-- What pcall gave, or its error at the place in a program that led to it.
local function or_fail(ok, ...)
  if not ok then message.fail(message.without_place((...))) end
  return ...
end

local function set_numbers(self, factor)
  for place, group in ipairs(self.core_groups) do
    local numbers, rule = group.numbers, group.rule
    options_of.check_group("optim." .. self.name, numbers, rule)
    rules.write(numbers_in, rule, numbers)
    check(C.oct_optim_group(self.handle, place - 1, rule.index, numbers.lr * factor,
      numbers.weight_decay, decay_of(numbers, rule), numbers_in))
  end
end

local function add_parameter(self, place, p, group)
  local signed, unsigned = format_of.handles(p.format, p.bits)
  local ok, why = pcall(call, C.oct_optim_add, self.handle, p.tensor, p.name, place - 1, p.bits,
    p.format.block_size, format_of.flags(p.format), signed, unsigned, p.correction_bits,
    p.state_device)
  or_fail(ok, why)
  self.parameters[#self.parameters + 1] = {
    name = p.name, tensor = p.tensor, elements = p.tensor:size(), bits = p.bits, why = p.why,
    format = p.format, rule = p.core_rule, group = group, correction_bits = p.correction_bits,
  }
end

local function build(self)
  call(C.oct_optim_new, optim_out)
  self.handle = ffi.gc(optim_out[0], C.oct_optim_free)
  self.core_groups, self.parameters = core_groups(self), {}
  set_numbers(self, 1)
  for place, group in ipairs(self.core_groups) do
    for _, p in ipairs(group.parameters) do add_parameter(self, place, p, group.numbers) end
  end
end

--- A new optimizer; octet.optim has the constructors that people use.
-- @tparam string name "adam8"
-- @tparam table rule of octet.optim.rules
-- @tparam number bits of its state where nothing else is said
-- @tparam table parameters
-- @tparam[opt] table options
-- @treturn Optimizer
function M.new(name, rule, bits, parameters, options)
  local self = setmetatable({name = name, rule = rule, grad_scale = 1}, Optimizer)
  self.groups = or_fail(pcall(options_of.groups, "optim." .. name, parameters, options or {}, rule,
    bits))
  build(self)
  return self
end

local function handle_of(self)
  return self.handle or error(("optim.%s: it was released"):format(self.name), 3)
end

-- ---- stepping ----------------------------------------------------------------------------------

--- Set the learning rate of every group. Where a group has AdamW's numbers beside its own, those
-- keep their ratio.
-- @tparam number lr
-- @treturn Optimizer itself
function Optimizer:set_lr(lr)
  if not (number.is_finite(lr) and lr >= 0) then
    error(("optim.%s: lr is %s, expected a number, 0 or more"):format(self.name,
      message.shown(lr)), 2)
  end
  for _, group in ipairs(self.groups) do
    if group.adamw then
      group.adamw_ratio = group.adamw_ratio or group.lr > 0 and group.adamw.lr / group.lr or 1
      group.adamw.lr = lr * group.adamw_ratio
    end
    group.lr = lr
  end
  return self
end

--- Let the next step use gradients whose norm, over all parameters, is at most `max_norm`. The
-- gradients themselves stay as they are: the step scales them as it reads them.
-- @tparam number max_norm
-- @treturn number the norm before; infinite where a gradient is not finite
-- @treturn number how many elements are not finite; they take no part in the scale
function Optimizer:clip_norm(max_norm)
  if type(max_norm) ~= "number" or max_norm <= 0 or max_norm ~= max_norm then
    error(("optim.%s: max_norm is %s, expected more than 0"):format(self.name, tostring(max_norm)),
      2)
  end
  check(C.oct_optim_grad_norm(double_out, count_out, handle_of(self)))
  local norm, not_finite = double_out[0], tonumber(count_out[0])
  self.grad_scale = math.min(1, max_norm / (norm + 1e-6))
  return not_finite > 0 and math.huge or norm, not_finite
end

local STEP_NAMES = {"max_norm", "clip_value", "clip_percentile", "lr", "lr_factor", "grad_scale"}
local BACKWARD_NAMES = {"clip_value", "lr", "lr_factor", "grad_scale"}

local PLAIN_NUMBERS = {"max_norm", "lr_factor", "grad_scale"}

local function check_numbers(self, who, options)
  for _, name in ipairs(PLAIN_NUMBERS) do
    if options[name] ~= nil and not number.within(options[name]) then
      error(("optim.%s: %s: %s is a %s, %s, expected a number"):format(self.name, who, name,
        type(options[name]), tostring(options[name])), 3)
    end
  end
end

local function limit_of(self, options)
  local limit = options.clip_value
  if limit == nil then return math.huge end
  if type(limit) ~= "number" or limit ~= limit or limit <= 0 then
    error(("optim.%s: clip_value is %s, expected more than 0"):format(self.name,
      tostring(limit)), 0)
  end
  return limit
end

-- Clip by what is usual: the limit follows from the norms of the steps before.
local function clip_percentile(self, clip, scale)
  if type(clip) ~= "table" or type(clip.max_norm) ~= "function" then
    error(("optim.%s: clip_percentile is %s, expected what optim.clip.percentile gives"):format(
      self.name, tostring(clip)), 0)
  end
  local norm = self:clip_norm(math.huge)
  local most = clip:max_norm(norm * scale) / scale
  self.grad_scale = norm < math.huge and math.min(1, most / (norm + 1e-6)) or 1
  return norm
end

--- One step. A parameter without a gradient is passed over. An element whose gradient is infinite
-- or NaN is left as it is, its state too.
-- @tparam[opt] table options `max_norm`: as clip_norm; `clip_percentile`: an octet.optim.clip;
-- `lr`: as set_lr; for this step only: `lr_factor` on every group's learning rate, `grad_scale` on
-- the gradients, `clip_value`: each element of the scaled gradient is clipped to +- this
-- @treturn number elements left out
-- @treturn ?number the gradients' norm, where it was to be clipped
function Optimizer:step(options)
  handle_of(self)
  local factor, scale, limit, norm = 1, 1, math.huge, nil
  if options then
    nearest.check_options("step", options, STEP_NAMES)
    if options.max_norm and options.clip_percentile then
      message.fail "step: max_norm and clip_percentile are both given, expected one of them"
    end
    check_numbers(self, "step", options)
    if options.lr then self:set_lr(options.lr) end
    factor, scale, limit = options.lr_factor or 1, options.grad_scale or 1, limit_of(self, options)
    if options.max_norm then norm = self:clip_norm(options.max_norm / math.abs(scale)) end
    if options.clip_percentile then
      norm = clip_percentile(self, options.clip_percentile, math.abs(scale))
    end
  end
  set_numbers(self, factor)
  check(C.oct_optim_step(count_out, self.handle, self.grad_scale * scale, limit))
  self.grad_scale = 1
  return tonumber(count_out[0]), norm and norm * math.abs(scale)
end

--- backward and step at once: each parameter is stepped as soon as its gradient is complete, and
-- the gradient is freed, so that gradients of few parameters are held at a time (gradient release).
-- The same numbers, bit for bit, as backward and step by themselves. A norm over all gradients is
-- not known on the way: no max_norm. Where a step is made of several batches, the earlier ones'
-- backward leaves gradients of all parameters: nothing is saved. Where memory ends on the way, some
-- parameters have been stepped and the others not.
-- @tparam tensor loss a scalar
-- @tparam[opt] table options clip_value, lr, lr_factor, grad_scale: as step
-- @treturn number elements left out
function Optimizer:step_backward(loss, options)
  handle_of(self)
  options = options or {}
  nearest.check_options("step_backward", options, BACKWARD_NAMES)
  check_numbers(self, "step_backward", options)
  if options.lr then self:set_lr(options.lr) end
  set_numbers(self, options.lr_factor or 1)
  check(C.oct_optim_step_backward(count_out, self.handle, loss, options.grad_scale or 1,
    limit_of(self, options)), 2)
  return tonumber(count_out[0])
end

--- All gradients count as zero from here, and what clip_norm found of them no longer counts; their
-- memory is kept for the next ones.
function Optimizer:zero_grad()
  self.grad_scale = 1                       -- of gradients that no step has used
  check(C.oct_optim_zero_grad(handle_of(self)))
end

-- ---- what it holds -----------------------------------------------------------------------------

--- All that the optimizer remembers (octet.optim.state says in what form). The tensors are the
-- optimizer's own, which the next step changes: save() keeps what is there now.
-- @treturn table `tensors` and `numbers`, as load() takes them back
function Optimizer:state()
  handle_of(self)
  return require("octet.optim.state").read(self)
end

--- Go on from a state: all of it, or where anything is wrong with it nothing changes (where a
-- device fails while it is copied there, a part). It must be of the same rule and parameters.
-- State of 32 bits is quantized, and quantized state restored to 32 bits; between two quantized
-- formats, and to other correction bits, only where asked for. The groups' lr, weight_decay and
-- options of the rule are those of the state afterwards.
-- @tparam table state as state() gives it
-- @tparam[opt] table options `convert`: true where state of another format is to be converted;
-- `options`: false where the groups keep their own options
-- @treturn Optimizer itself
function Optimizer:load(state, options)
  handle_of(self)
  nearest.check_options("optim." .. self.name .. ": load", options, {"convert", "options"})
  require("octet.optim.state").load(self, state, options or {})
  return self
end

--- Save the state, and where the optimizer's random numbers stand, as safetensors: whole or not at
-- all, with a checksum for each tensor. docs/optimizer_state.md describes the file.
-- @tparam string path
-- @treturn Optimizer itself
function Optimizer:save(path)
  handle_of(self)
  require("octet.optim.state_file").save(self, path)
  return self
end

--- Go on from a file that save() has written, or from a run's checkpoint: the steps that follow are
-- the same, bit for bit, as those that would have followed there.
-- @tparam string path
-- @tparam[opt] table options as load(); `random`: false leaves random numbers where they are
-- @treturn Optimizer itself
function Optimizer:restore(path, options)
  handle_of(self)
  require("octet.optim.state_file").restore(self, path, options or {})
  return self
end

--- Go on from PyTorch's or bitsandbytes' state, as docs/optimizer_state.md says how to save it.
-- Learning rate, betas and the like are not taken over.
-- @tparam string path
-- @tparam[opt] table options `names`: what a parameter is called there, by its name here, as a
-- table or a function; where several of theirs are one here, its rows, a list of names. `order`:
-- true: the parameters are the same ones in the same order, whatever they are called
-- @treturn Optimizer itself
function Optimizer:import(path, options)
  handle_of(self)
  require("octet.optim.import").load(self, path, options or {})
  return self
end

local BUILT = {"handle", "core_groups", "parameters"}

-- Make the core's optimizer anew, with the parameters in `lists` and the state of now; where that
-- fails, all is as before.
local function rebuild(self, lists)
  local state, before, parameters = self:state(), {}, {}
  for _, name in ipairs(BUILT) do before[name] = self[name] end
  for i, group in ipairs(self.groups) do
    parameters[i], group.parameters = group.parameters, lists[i]
  end
  local ok, why = pcall(function()
    build(self)
    require("octet.optim.state").load(self, state,
      {convert = true, options = false, who = "override"})
    if self.kernels then self:use_kernels(self.kernels) end
    if self.watched then self:watch(true) end
  end)
  local useless = ok and before.handle or self.handle
  if not ok then
    for _, name in ipairs(BUILT) do self[name] = before[name] end
    for i, group in ipairs(self.groups) do group.parameters = parameters[i] end
  end
  -- Its memory now rather than when the collector comes by.
  if ok then
    for _, t in pairs(state.tensors) do C.oct_tensor_free(ffi.gc(t, nil)) end
  end
  if useless ~= self.handle then C.oct_optim_free(ffi.gc(useless, nil)) end
  or_fail(ok, why)
end

--- Other options for parameters, by patterns of their names, at any time: state is converted.
-- Parameters that are not named go on as they would have, bit for bit.
-- @tparam table overrides as the option of that name
-- @treturn Optimizer itself
function Optimizer:override(overrides)
  handle_of(self)
  rebuild(self, or_fail(pcall(options_of.override, "optim." .. self.name, self.groups, overrides,
    self.rule)))
  return self
end

--- Let each step note how well it kept its new state in 8 or 4 bits; report() then tells.
-- @tparam boolean on
-- @treturn Optimizer itself
function Optimizer:watch(on)
  check(C.oct_optim_watch(handle_of(self), on and 1 or 0))
  self.watched = on
  return self
end

--- What the state holds.
-- @treturn table `bytes`: all of it; `bytes_32`, `bytes_8`, `bytes_4`: by bits; `elements`,
-- `elements_8`, `elements_4`; `bytes_if_32`: what 32-bit state would take; `kept_32`: the
-- parameters with 32-bit state in an optimizer of less, as {name=, elements=, why=}; `parameters`:
-- of each {name, elements, bits, bytes, format, states}, where a state is {name, zeros, saturated:
-- shares of its codes; absolute_error, relative_error, lost: the last step's mean of
-- |kept - meant|, of the same over |meant|, and the share kept as 0 though it was not, where the
-- optimizer is watched; of roots, where sqrt_v has them kept}
function Optimizer:report()
  handle_of(self)
  return require("octet.optim.report").of(self)
end

local KERNELS = {
  usual = C.OCT_KERNELS_USUAL, scalar = C.OCT_KERNELS_SCALAR, plain = C.OCT_KERNELS_PLAIN,
  device = C.OCT_KERNELS_DEVICE,
}

--- Specs only: which kernels to use.
-- @tparam string kind "usual", "scalar" (the twins), "plain" (as without AVX-512 VBMI), "device"
-- (those of machine.open_device; everything is copied there and back)
-- @treturn Optimizer itself
function Optimizer:use_kernels(kind)
  check(C.oct_optim_kernels(handle_of(self), KERNELS[kind]))
  self.kernels = kind
  return self
end

--- Free the state now; the collector would do it later.
function Optimizer:release()
  if self.handle then C.oct_optim_free(ffi.gc(self.handle, nil)) end
  self.handle = nil
end

return M
