--- An optimizer: groups of parameters with their state, stepped by one call into the core.
--
-- `opt.groups` is the list of groups; lr, betas, eps and weight_decay of a group may be changed
-- between steps.
-- @module octet.optim.optimizer
local ffi = require "ffi"
local binding = require "octet.binding"
local options_of = require "octet.optim.options"
local tensor = require "octet.tensor"

local C, call, check = binding.C, binding.call, binding.check

local M = {}
local Optimizer = {}
Optimizer.__index = Optimizer

local RULES = {adam = C.OCT_ADAM, adamw = C.OCT_ADAMW}
local FORMATS = {octet = C.OCT_FORMAT_OCTET, paper = C.OCT_FORMAT_PAPER}
local WEIGHT_DECAY = {adam = 0, adamw = 0.01}

-- What a state tensor is called behind its parameter's name.
local STATE_NAMES = {
  {"m", C.OCT_STATE_M}, {"v", C.OCT_STATE_V}, {"m.absmax", C.OCT_STATE_M_ABSMAX},
  {"v.absmax", C.OCT_STATE_V_ABSMAX},
}

local optim_out = ffi.new "oct_optim *[1]"
local tensor_out = ffi.new "oct_tensor *[1]"
local double_out = ffi.new "double[1]"
local count_out = ffi.new "int64_t[1]"

local function add_parameters(self)
  for number, group in ipairs(self.groups) do
    for _, p in ipairs(group.parameters) do
      call(C.oct_optim_add, self.handle, p.tensor, p.name, number - 1, p.bits,
        FORMATS[group.format], group.block_size)
      self.parameters[#self.parameters + 1] = {
        name = p.name, elements = p.tensor:size(), bits = p.bits, why = p.why, group = group,
      }
    end
  end
end

--- A new optimizer; octet.optim has the constructors that people use.
-- @tparam string name "adam8"
-- @tparam string rule "adam" or "adamw"
-- @tparam number bits of its state where nothing else is said
-- @tparam table parameters
-- @tparam[opt] table options
-- @treturn Optimizer
function M.new(name, rule, bits, parameters, options)
  local defaults = setmetatable({bits = bits, weight_decay = WEIGHT_DECAY[rule]},
    {__index = options_of.DEFAULTS})
  local self = setmetatable({name = name, rule = rule, parameters = {}, grad_scale = 1}, Optimizer)
  self.groups = options_of.groups("optim." .. name, parameters, options or {}, defaults)
  call(C.oct_optim_new, optim_out, RULES[rule])
  self.handle = ffi.gc(optim_out[0], C.oct_optim_free)
  add_parameters(self)
  return self
end

local function handle_of(self)
  return self.handle or error(("optim.%s: it was released"):format(self.name), 3)
end

-- ---- stepping ----------------------------------------------------------------------------------

--- Set the learning rate of every group.
-- @tparam number lr
-- @treturn Optimizer itself
function Optimizer:set_lr(lr)
  for _, group in ipairs(self.groups) do group.lr = lr end
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
  check(C.oct_optim_grad_norm(double_out, count_out, handle_of(self)), 2)
  local norm, not_finite = double_out[0], tonumber(count_out[0])
  self.grad_scale = math.min(1, max_norm / (norm + 1e-6))
  return not_finite > 0 and math.huge or norm, not_finite
end

local STEP_NAMES = {"max_norm", "lr", "lr_factor", "grad_scale"}

--- One step. A parameter without a gradient is passed over. An element whose gradient is infinite
-- or NaN is left as it is, its state too.
-- @tparam[opt] table options `max_norm`: as clip_norm; `lr`: as set_lr; for this step only:
-- `lr_factor` on every group's learning rate, `grad_scale` on the gradients
-- @treturn number elements left out
-- @treturn ?number the gradients' norm, where it was to be clipped
function Optimizer:step(options)
  local handle, factor, scale, norm = handle_of(self), 1, 1, nil
  if options then
    options_of.check_names("step", options, STEP_NAMES)
    if options.lr then self:set_lr(options.lr) end
    factor, scale = options.lr_factor or 1, options.grad_scale or 1
    if options.max_norm then norm = self:clip_norm(options.max_norm / math.abs(scale)) end
  end
  for number, group in ipairs(self.groups) do
    options_of.check_group("optim." .. self.name, group)
    check(C.oct_optim_group(handle, number - 1, group.lr * factor, group.betas[1], group.betas[2],
      group.eps, group.weight_decay), 2)
  end
  check(C.oct_optim_step(count_out, handle, self.grad_scale * scale), 2)
  self.grad_scale = 1
  return tonumber(count_out[0]), norm and norm * math.abs(scale)
end

--- All gradients count as zero from here; their memory is kept for the next ones.
function Optimizer:zero_grad()
  check(C.oct_optim_zero_grad(handle_of(self)), 2)
end

-- ---- state -------------------------------------------------------------------------------------

local function state_tensor(self, index, which)
  check(C.oct_optim_state(tensor_out, self.handle, index - 1, which), 3)
  if tensor_out[0] ~= nil then return ffi.gc(tensor_out[0], C.oct_tensor_free) end
end

local function steps_of(self, index, set)
  check(C.oct_optim_steps(count_out, self.handle, index - 1, set or -1), 3)
  return tonumber(count_out[0])
end

--- All that the optimizer remembers.
-- @treturn table `tensors`: the live state by name ("PARAMETER.m", ".v", and for 8-bit state
-- ".m.absmax", ".v.absmax"); `numbers`: rule, format and steps, as load() takes them back
function Optimizer:state()
  handle_of(self)
  local tensors, steps, layout = {}, {}, {}
  for i, p in ipairs(self.parameters) do
    for _, entry in ipairs(STATE_NAMES) do
      tensors[p.name .. "." .. entry[1]] = state_tensor(self, i, entry[2])
    end
    steps[p.name] = steps_of(self, i)
    layout[p.name] = p.bits == 32 and "32" or ("8 %s %d"):format(p.group.format, p.group.block_size)
  end
  return {tensors = tensors, numbers = {rule = self.rule, steps = steps, layout = layout}}
end

local function check_same(who, own, other, what)
  for name, value in pairs(own) do
    if other[name] == nil then
      error(("%s: %s of parameter %s is missing"):format(who, what, name), 0)
    elseif what == "layout" and other[name] ~= value then
      error(("%s: the state of parameter %s is of layout %s, expected %s"):format(who, name,
        tostring(other[name]), value), 0)
    end
  end
  for name in pairs(other) do
    if own[name] == nil then
      error(("%s: %s of parameter %s is left over: this optimizer has none of that name")
        :format(who, what, tostring(name)), 0)
    end
  end
end

local function check_numbers(who, own, numbers)
  if type(numbers) ~= "table" or type(numbers.steps) ~= "table"
    or type(numbers.layout) ~= "table" then
    error(who .. ": the state has no numbers, or lacks steps and layout", 0)
  end
  if numbers.rule ~= own.rule then
    error(("%s: the state is that of rule %s, expected %s"):format(who, tostring(numbers.rule),
      own.rule), 0)
  end
  check_same(who, own.layout, numbers.layout, "layout")
  check_same(who, own.steps, numbers.steps, "steps")
  for name, count in pairs(numbers.steps) do
    if type(count) ~= "number" or count < 0 or count ~= math.floor(count) or count > 2 ^ 53 then
      error(("%s: steps of parameter %s is %s, expected a whole number, 0 or more")
        :format(who, name, tostring(count)), 0)
    end
  end
end

local function check_tensors(who, own, tensors)
  for name, mine in pairs(own) do
    local other = tensors[name]
    if not tensor.is_tensor(other) then error(("%s: tensor %s is missing"):format(who, name), 0) end
    if other:dtype() ~= mine:dtype() or other:size() ~= mine:size() then
      error(("%s: tensor %s is %s [%s], expected %s [%s]"):format(who, name, other:dtype(),
        table.concat(other:shape(), " x "), mine:dtype(), table.concat(mine:shape(), " x ")), 0)
    end
  end
  for name in pairs(tensors) do
    if not own[name] then
      error(("%s: tensor %s is left over: this optimizer has none of that name"):format(who, name),
        0)
    end
  end
end

--- Go on from a state. It must be of the same rule, parameters and layout.
-- @tparam table state `numbers`, and `tensors` by name; without `tensors`, those that state() gives
-- have been written into
-- @treturn Optimizer itself
function Optimizer:load(state)
  local who = ("optim.%s: load"):format(self.name)
  handle_of(self)
  local own = self:state()
  check_numbers(who, own.numbers, state.numbers)
  if state.tensors then
    check_tensors(who, own.tensors, state.tensors)
    for name, mine in pairs(own.tensors) do mine:copy_(state.tensors[name]) end
  end
  check(C.oct_optim_check(self.handle), 2)
  for i, p in ipairs(self.parameters) do steps_of(self, i, state.numbers.steps[p.name]) end
  return self
end

--- What the state holds.
-- @treturn table `bytes`: all of it; `bytes_32`, `bytes_8`: by kind; `elements`, `elements_8`;
-- `bytes_if_32`: what 32-bit state would take; `kept_32`: the parameters with 32-bit state in an
-- optimizer with 8-bit state, as {name=, elements=, why=}
function Optimizer:report()
  local report = {bytes = 0, bytes_32 = 0, bytes_8 = 0, elements = 0, elements_8 = 0, kept_32 = {}}
  for _, p in ipairs(self.parameters) do
    report.elements = report.elements + p.elements
    if p.bits == 32 then
      report.bytes_32 = report.bytes_32 + 8 * p.elements
      if p.why then
        report.kept_32[#report.kept_32 + 1] = {name = p.name, elements = p.elements, why = p.why}
      end
    else
      report.bytes_8 = report.bytes_8 + 2 * p.elements
        + 8 * math.ceil(p.elements / p.group.block_size)
      report.elements_8 = report.elements_8 + p.elements
    end
  end
  report.bytes = report.bytes_32 + report.bytes_8
  report.bytes_if_32 = 8 * report.elements
  return report
end

--- Specs only: use the scalar twins of the kernels.
function Optimizer:use_reference(on)
  check(C.oct_optim_reference(handle_of(self), on and 1 or 0), 2)
  return self
end

--- Free the state now; the collector would do it later.
function Optimizer:release()
  if self.handle then C.oct_optim_free(ffi.gc(self.handle, nil)) end
  self.handle = nil
end

return M
