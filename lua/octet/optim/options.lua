--- What an optimizer is told: its options, and the many ways to name parameters.
-- @module octet.optim.options
local format = require "octet.optim.format"
local message = require "octet.message"
local nearest = require "octet.nearest"
local number = require "octet.number"
local patterns = require "octet.optim.patterns"
local rules = require "octet.optim.rules"
local tensor = require "octet.tensor"

local M = {}

-- Beside these, every rule has options of its own (octet.optim.rules), and every format those of
-- octet.optim.format. All may differ from group to group.
--   lr             learning rate
--   weight_decay   how strongly parameters are drawn to 0
--   decoupled      weight decay apart from the gradient (true), or added to it; by default as the
--                  rule's paper has it
--   bits           of the state: 32, 8 or 4; from parameter to parameter, too
--   min_8bit_size  a tensor with fewer elements keeps 32-bit state (4096)
--   correction_bits  of a bf16 parameter: 8 or 16 further bits are kept; 0: it is rounded by chance
--   state_device   where the state lies: with the parameters, or, where those lie on a device,
--                  "cpu": each step copies it there and back, and the device holds none
--   overrides      options of parameters by patterns of their names (octet.optim.patterns): bits,
--                  format, and the format's options, state_device
local NUMBERS = {"lr", "weight_decay", "decoupled"}
local COMMON = {"lr", "weight_decay", "decoupled", "bits", "format", "block_size", "map", "sqrt_v",
  "rounding", "scale", "min_8bit_size", "correction_bits", "state_device"}
local PARAMETER_NAMES = {"tensor", "name", "bits", "lookup"}
local OVERRIDES = {bits = true, format = true, block_size = true, map = true, sqrt_v = true,
  rounding = true, scale = true, rule = true, correction_bits = true, state_device = true}

local show = message.shown

local function not_negative(x) return number.is_finite(x) and x >= 0 end

local CHECKS = {
  lr = {"0 or more", not_negative},
  weight_decay = {"0 or more", not_negative},
  decoupled = {"true or false", function(x) return type(x) == "boolean" end},
  bits = {"4, 8 or 32", function(x) return x == 4 or x == 8 or x == 32 end},
  min_8bit_size = {"0 or more", function(x) return number.within(x, 0) end},
  correction_bits = {"0, 8 or 16", function(x) return x == 0 or x == 8 or x == 16 end},
  state_device = {"the parameters' device, or \"cpu\"", function(x) return type(x) == "string" end},
}

local function shown_list(x)
  if type(x) ~= "table" then return show(x) end
  local parts = {}
  for i, v in ipairs(x) do parts[i] = show(v) end
  return "{" .. table.concat(parts, ", ") .. "}"
end

local function contains(list, wanted)
  for _, value in ipairs(list) do
    if value == wanted then return true end
  end
  return false
end

local function fail_value(who, name, value, expected)
  error(("%s: %s is %s, expected %s"):format(who, name, shown_list(value), expected), 0)
end

-- Names of all options of a rule's optimizer, its own first behind lr.
local function names_of(rule, common, more)
  local names = {"lr"}
  for _, option in ipairs(rule.options) do names[#names + 1] = option.name end
  for _, list in ipairs {common, more} do
    for _, name in ipairs(list) do
      if not contains(names, name) then names[#names + 1] = name end
    end
  end
  return names
end

local function check_values(who, given, rule)
  for name, check in pairs(CHECKS) do
    if given[name] ~= nil and not check[2](given[name]) then
      fail_value(who, name, given[name], check[1])
    end
  end
  for _, option in ipairs(rule.options) do
    local value = given[option.name]
    if value ~= nil and not option.fits(value) then
      fail_value(who, option.name, value, option.expected)
    end
  end
  if given.decoupled ~= nil and rule.decay == "own" then
    error(("%s: decoupled: %s does its weight decay itself"):format(who, rule.name), 0)
  end
  format.check(who, given)
end

-- Muon steps what is no matrix by AdamW, whose options are a table of their own.
local function more_names(rule, name)
  return rule.matrix == "orthogonal" and {"adamw", name} or {name}
end

local check_options

--- Check one table of options; what is nil stays open.
function check_options(who, given, rule, common, more)
  nearest.check_options(who, given, names_of(rule, common, more))
  check_values(who, given, rule)
  if given.adamw ~= nil then
    check_options(who .. ": adamw", given.adamw, rules.all.adamw, NUMBERS, {})
  end
end

--- One parameter of a list: a tensor, or {name=, tensor=, bits=}.
local function parameter_of(who, entry, place)
  if tensor.is_tensor(entry) then return {name = tostring(place), tensor = entry} end
  if type(entry) ~= "table" then
    error(("%s: parameter %d is a %s, expected a tensor or {name=, tensor=}"):format(who, place,
      type(entry)), 0)
  end
  for key in pairs(entry) do
    if not contains(PARAMETER_NAMES, key) then
      error(("%s: parameter %d: %s"):format(who, place,
        nearest.message("field", tostring(key), PARAMETER_NAMES)), 0)
    end
  end
  if not tensor.is_tensor(entry.tensor) then
    error(("%s: parameter %d has no tensor: its field 'tensor' is a %s"):format(who, place,
      type(entry.tensor)), 0)
  end
  local name = entry.name or tostring(place)
  if type(name) ~= "string" or name == "" or name:find("%z") then
    error(("%s: the name of parameter %d is %s, expected a text"):format(who, place, show(name)), 0)
  end
  if entry.bits ~= nil and not CHECKS.bits[2](entry.bits) then
    error(("%s: bits of parameter %s is %s, expected %s"):format(who, name, show(entry.bits),
      CHECKS.bits[1]), 0)
  end
  return {name = name, tensor = entry.tensor, layer_bits = entry.bits, lookup = entry.lookup}
end

local function is_group(entry) return type(entry) == "table" and entry.params ~= nil end

-- Bits of a parameter's state, and whose word that is: by its name, by the layer, by the group.
local function bits_asked_for(parameter, override, group)
  if override.bits then return override.bits, "asked for by its name" end
  if parameter.layer_bits then return parameter.layer_bits, "asked for by the layer" end
  if group.bits ~= 32 and parameter.tensor:size() < group.min_8bit_size then
    return 32, ("fewer than %d elements"):format(group.min_8bit_size)
  end
  return group.bits, "asked for by the group"
end

-- The same, and why they are 32 where the optimizer's are fewer.
local function choose_bits(parameter, override, group)
  local bits, why = bits_asked_for(parameter, override, group)
  return bits, bits == 32 and group.optimizer_bits ~= 32 and why or nil
end

local function copied(value)
  if type(value) ~= "table" or value.signed or value.unsigned then return value end
  local copy = {}
  for i, x in ipairs(value) do copy[i] = x end
  return copy
end

local complete

--- A group with every option filled in: its own, else the optimizer's, else the default.
function complete(own, options, rule, bits)
  local group, defaults = {}, {
    lr = rule.lr, weight_decay = rule.weight_decay, bits = bits, min_8bit_size = 4096,
    correction_bits = 0, decoupled = rule.decay == "decoupled",
  }
  for _, option in ipairs(rule.options) do defaults[option.name] = option.usual end
  for _, name in ipairs(names_of(rule, COMMON, {})) do
    group[name] = own[name]
    if group[name] == nil then group[name] = options[name] end
    if group[name] == nil then group[name] = defaults[name] end
    group[name] = copied(group[name])
  end
  if rule.decay == "own" then group.decoupled = nil end
  if rule.matrix == "orthogonal" then
    group.adamw = complete(own.adamw or {}, options.adamw or {}, rules.all.adamw, bits)
  end
  for name, value in pairs(format.resolve({own, options}, group.bits)) do group[name] = value end
  return group
end

-- A parameter may be given to the rule that stands beside one for matrices, and to no other.
local function check_rule(who, given, rule)
  if given == nil then return end
  if rule.matrix ~= "orthogonal" then
    error(("%s: rule: all parameters of %s have one rule"):format(who, rule.name), 0)
  end
  if given ~= "adamw" then fail_value(who, "rule", given, '"adamw"') end
end

local function checked_overrides(who, given, names, rule)
  if given == nil then return {} end
  local by_name = patterns.resolve(who .. ": overrides", given, names)
  for name, options in pairs(by_name) do
    for key in pairs(options) do
      if not OVERRIDES[key] then
        local known = {}
        for other in pairs(OVERRIDES) do known[#known + 1] = other end
        table.sort(known)
        error(("%s: overrides: %s"):format(who, nearest.message("option", tostring(key), known)), 0)
      end
    end
    local about = ("%s: overrides of %s"):format(who, name)
    check_values(about, options, rule)
    check_rule(about, options.rule, rule)
  end
  return by_name
end

-- What is said of a parameter, from near to far: by its name, its group, the optimizer.
local function settle(parameter, override, group)
  local own, options = parameter.own, parameter.options
  parameter.override = override
  parameter.bits, parameter.why = choose_bits(parameter, override, group)
  parameter.format = format.resolve({override, own, options}, parameter.bits)
  parameter.correction_bits = override.correction_bits or group.correction_bits
  if parameter.tensor:dtype() ~= "bf16" then parameter.correction_bits = 0 end
  parameter.state_device = override.state_device or group.state_device
  parameter.rule = override.rule
end

--- Groups of parameters, checked and complete.
-- @tparam string who the optimizer's name, for errors
-- @tparam table parameters as optim.adam takes them
-- @tparam table options
-- @tparam table rule of octet.optim.rules
-- @tparam number bits of the state, where nothing else is said
-- @treturn table groups, each with lr, betas, ... and a list `parameters` of {name, tensor, bits,
-- why, format, correction_bits, state_device, rule}
function M.groups(who, parameters, options, rule, bits)
  if type(parameters) ~= "table" then
    error(("%s: parameters are a %s, expected a list"):format(who, type(parameters)), 0)
  elseif type(parameters.parameters) == "function" then
    error(who .. ": parameters are a module, expected its list, model:parameters()", 0)
  end
  check_options(who, options, rule, COMMON, more_names(rule, "overrides"))
  local raw = parameters
  if #parameters == 0 then error(who .. ": the list of parameters is empty", 0) end
  if not is_group(parameters[1]) then raw = {{params = parameters}} end
  local groups, by_name, names = {}, {}, {}
  for i, own in ipairs(raw) do
    if not is_group(own) then
      error(("%s: entry %d is no group, expected {params = {...}}, as the first is"):format(who, i),
        0)
    end
    check_options(("%s: group %d"):format(who, i), own, rule, COMMON, more_names(rule, "params"))
    if type(own.params) ~= "table" then
      error(("%s: params of group %d is a %s, expected a list"):format(who, i, type(own.params)), 0)
    end
    groups[i] = complete(own, options, rule, bits)
    groups[i].optimizer_bits, groups[i].parameters = options.bits or bits, {}
    for _, entry in ipairs(own.params) do
      local parameter = parameter_of(who, entry, #names + 1)
      local other = by_name[parameter.name]
      -- Groups of several modules, each of which knows its own names alone.
      if other and other.group ~= i then parameter.name = ("%d.%s"):format(i, parameter.name) end
      parameter.group = i
      if by_name[parameter.name] then
        error(("%s: two parameters are named %s"):format(who, show(parameter.name)), 0)
      end
      by_name[parameter.name] = parameter
      names[#names + 1] = parameter.name
      table.insert(groups[i].parameters, parameter)
    end
  end
  if #names == 0 then error(who .. ": the groups have no parameters", 0) end
  local overrides = checked_overrides(who, options.overrides, names, rule)
  for i, group in ipairs(groups) do
    for _, parameter in ipairs(group.parameters) do
      parameter.own, parameter.options = raw[i], options
      settle(parameter, overrides[parameter.name] or {}, group)
    end
  end
  return groups
end

--- Other options for parameters of groups that have been settled.
-- @tparam string who
-- @tparam {table,...} groups as groups() gives them; they stay as they are
-- @tparam table overrides by pattern, as the option of that name
-- @tparam table rule
-- @treturn {{table,...},...} of each group the list of its parameters anew
function M.override(who, groups, overrides, rule)
  local names, lists = {}, {}
  for _, group in ipairs(groups) do
    for _, parameter in ipairs(group.parameters) do names[#names + 1] = parameter.name end
  end
  local by_name = checked_overrides(who, overrides, names, rule)
  for i, group in ipairs(groups) do
    lists[i] = {}
    for k, parameter in ipairs(group.parameters) do
      local override, anew = {}, {}
      for _, from in ipairs {parameter.override, by_name[parameter.name] or {}} do
        for key, value in pairs(from) do override[key] = value end
      end
      for key, value in pairs(parameter) do anew[key] = value end
      settle(anew, override, group)
      lists[i][k] = anew
    end
  end
  return lists
end

--- Whether a parameter goes to the rule that stands beside one for matrices: it is none, or a table
-- of rows to be looked up, or that was said of it.
-- @tparam table parameter
-- @treturn boolean
function M.is_for_rest(parameter)
  local shape = parameter.tensor:shape()
  local columns = parameter.tensor:size() / (shape[1] or 1)
  return parameter.rule == "adamw" or parameter.lookup or #shape < 2 or shape[1] == 1
    or columns == 1
end

--- Check numbers that may have been changed since.
-- @tparam string who
-- @tparam table group
-- @tparam table rule
function M.check_group(who, group, rule)
  for _, name in ipairs {"lr", "weight_decay"} do
    if not CHECKS[name][2](group[name]) then fail_value(who, name, group[name], CHECKS[name][1]) end
  end
  for _, option in ipairs(rule.options) do
    if not option.fits(group[option.name]) then
      fail_value(who, option.name, group[option.name], option.expected)
    end
  end
end

--- Options of a group that may be changed between steps: what a state keeps of them.
-- @tparam table group
-- @tparam table rule
-- @treturn table
function M.changeable(group, rule)
  local values = {lr = group.lr, weight_decay = group.weight_decay, decoupled = group.decoupled,
    adamw_ratio = group.adamw_ratio}
  for _, option in ipairs(rule.options) do values[option.name] = copied(group[option.name]) end
  if group.adamw then values.adamw = M.changeable(group.adamw, rules.all.adamw) end
  return values
end

--- Check such options that come from outside.
-- @tparam string who
-- @tparam table given
-- @tparam table group that they are for
-- @tparam table rule
function M.check_changeable(who, given, group, rule)
  if given == nil then error(who .. ": options are missing, expected a table", 0) end
  local own, names = M.changeable(group, rule), {"adamw_ratio"}
  for name in pairs(own) do names[#names + 1] = name end
  table.sort(names)
  nearest.check_options(who, given, names)
  M.check_group(who, given, rule)
  if own.decoupled ~= nil and type(given.decoupled) ~= "boolean" then
    fail_value(who, "decoupled", given.decoupled, "true or false")
  end
  if given.adamw_ratio ~= nil and not not_negative(given.adamw_ratio) then
    fail_value(who, "adamw_ratio", given.adamw_ratio, "0 or more")
  end
  if own.adamw then
    M.check_changeable(who .. ": adamw", given.adamw, group.adamw, rules.all.adamw)
  end
end

--- Change a group's options to such as have been checked.
-- @tparam table group
-- @tparam table values
function M.change(group, values)
  for name, value in pairs(values) do
    if name == "adamw" then M.change(group.adamw, value) else group[name] = copied(value) end
  end
end

return M
