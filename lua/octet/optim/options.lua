--- What an optimizer is told: its options, and the many ways to name parameters.
-- @module octet.optim.options
local nearest = require "octet.nearest"
local tensor = require "octet.tensor"

local M = {}

--- Defaults. The first five may differ from group to group, `bits` from parameter to parameter too.
-- @field lr learning rate
-- @field betas decay rates of the two moments
-- @field eps what the root of the second moment is increased by
-- @field weight_decay
-- @field bits of the state: 8 or 32
-- @field format of 8-bit state: "octet" (sqrt(v), rounded by chance) or "paper" (v, to the nearest)
-- @field block_size elements that share a scale: a power of two of 32 to 4096; 256, "paper" 2048
-- @field min_8bit_size a tensor with fewer elements keeps 32-bit state
M.DEFAULTS = {
  lr = 1e-3, betas = {0.9, 0.999}, eps = 1e-8, weight_decay = 0,
  format = "octet", min_8bit_size = 4096,
}

local NAMES = {"lr", "betas", "eps", "weight_decay", "bits", "format", "block_size",
  "min_8bit_size"}
local GROUP_NAMES = {"params", "lr", "betas", "eps", "weight_decay", "bits", "format",
  "block_size", "min_8bit_size"}
local PARAMETER_NAMES = {"tensor", "name", "bits"}
local FORMATS = {"octet", "paper"}
local BLOCK_SIZES = {octet = 256, paper = 2048}

local function show(value)
  return type(value) == "string" and ('"%s"'):format(value) or tostring(value)
end

local function is_number(x) return type(x) == "number" and x == x end

local CHECKS = {
  lr = {"0 or more", function(x) return is_number(x) and x >= 0 and x < math.huge end},
  weight_decay = {"0 or more", function(x) return is_number(x) and x >= 0 and x < math.huge end},
  eps = {"more than 0", function(x) return is_number(x) and x >= 2 ^ -126 and x < math.huge end},
  bits = {"8 or 32", function(x) return x == 8 or x == 32 end},
  block_size = {"a power of two from 32 to 4096", function(x)
    return is_number(x) and x >= 32 and x <= 4096 and math.frexp(x) == 0.5
  end},
  min_8bit_size = {"0 or more", function(x) return is_number(x) and x >= 0 end},
  betas = {"two numbers from 0 to below 1", function(x)
    if type(x) ~= "table" or #x ~= 2 then return false end
    for _, beta in ipairs(x) do
      if not is_number(beta) or beta < 0 or beta >= 1 then return false end
    end
    return true
  end},
}

local function shown_list(x)
  if type(x) ~= "table" then return show(x) end
  local parts = {}
  for i, v in ipairs(x) do parts[i] = show(v) end
  return "{" .. table.concat(parts, ", ") .. "}"
end

--- Check one table of options; what is nil stays open.
local function check_options(who, given, names)
  if type(given) ~= "table" then
    error(("%s: options are a %s, expected a table"):format(who, type(given)), 0)
  end
  for key, value in pairs(given) do
    local known = false
    for _, name in ipairs(names) do known = known or key == name end
    if not known then
      error(("%s: %s"):format(who, nearest.message("option", tostring(key), names)), 0)
    end
    local check = CHECKS[key]
    if check and not check[2](value) then
      error(("%s: %s is %s, expected %s"):format(who, key, shown_list(value), check[1]), 0)
    end
  end
  local format = given.format
  if format ~= nil and not BLOCK_SIZES[format] then
    error(("%s: %s"):format(who, nearest.message("format", tostring(format), FORMATS)), 0)
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
    local known = false
    for _, name in ipairs(PARAMETER_NAMES) do known = known or key == name end
    if not known then
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
  return {name = name, tensor = entry.tensor, bits = entry.bits}
end

local function is_group(entry) return type(entry) == "table" and entry.params ~= nil end

--- State bits of a parameter, and why they are 32 where the optimizer's are 8.
local function choose_bits(parameter, group, usual)
  if group.bits == 32 then return 32, usual == 8 and "asked for by the group" or nil end
  if parameter.bits == 32 then return 32, "asked for by the layer" end
  if parameter.bits == 8 then return 8 end
  if parameter.tensor:size() < group.min_8bit_size then
    return 32, ("fewer than %d elements"):format(group.min_8bit_size)
  end
  return 8
end

local function copy_betas(betas) return {betas[1], betas[2]} end

--- A group with every option filled in: its own, else the optimizer's, else the default.
local function complete(own, options, defaults)
  local group = {}
  for _, name in ipairs(NAMES) do
    group[name] = own[name]
    if group[name] == nil then group[name] = options[name] end
    if group[name] == nil then group[name] = defaults[name] end
  end
  group.betas = copy_betas(group.betas)
  group.block_size = group.block_size or BLOCK_SIZES[group.format]
  return group
end

--- Groups of parameters, checked and complete.
-- @tparam string who the optimizer's name, for errors
-- @tparam table parameters as optim.adam takes them
-- @tparam table options
-- @tparam table defaults
-- @treturn table groups, each with lr, betas, ... and a list `parameters` of
-- {name, tensor, bits, why}
function M.groups(who, parameters, options, defaults)
  if type(parameters) ~= "table" then
    error(("%s: parameters are a %s, expected a list"):format(who, type(parameters)), 0)
  end
  check_options(who, options, NAMES)
  local raw = parameters
  if #parameters == 0 then error(who .. ": the list of parameters is empty", 0) end
  if not is_group(parameters[1]) then raw = {{params = parameters}} end
  local groups, names, place = {}, {}, 0
  for i, own in ipairs(raw) do
    if not is_group(own) then
      error(("%s: entry %d is no group, expected {params = {...}}, as the first is"):format(who, i),
        0)
    end
    check_options(("%s: group %d"):format(who, i), own, GROUP_NAMES)
    if type(own.params) ~= "table" then
      error(("%s: params of group %d is a %s, expected a list"):format(who, i, type(own.params)), 0)
    end
    local group = complete(own, options, defaults)
    group.parameters = {}
    for _, entry in ipairs(own.params) do
      place = place + 1
      local parameter = parameter_of(who, entry, place)
      if names[parameter.name] then
        error(("%s: two parameters are named %s"):format(who, show(parameter.name)), 0)
      end
      names[parameter.name] = true
      parameter.bits, parameter.why = choose_bits(parameter, group, options.bits or defaults.bits)
      group.parameters[#group.parameters + 1] = parameter
    end
    groups[i] = group
  end
  if place == 0 then error(who .. ": the groups have no parameters", 0) end
  return groups
end

--- Check numbers that may have been changed since.
function M.check_group(who, group)
  for _, name in ipairs {"lr", "betas", "eps", "weight_decay"} do
    if not CHECKS[name][2](group[name]) then
      error(("%s: %s is %s, expected %s"):format(who, name, shown_list(group[name]),
        CHECKS[name][1]), 0)
    end
  end
end

--- Check options of a call, such as those of step.
function M.check_names(who, given, names)
  for key in pairs(given) do
    local known = false
    for _, name in ipairs(names) do known = known or key == name end
    if not known then
      error(("%s: %s"):format(who, nearest.message("option", tostring(key), names)), 0)
    end
  end
end

return M
