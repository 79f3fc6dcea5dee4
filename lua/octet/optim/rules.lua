--- The optimizers' rules as the library describes them (kernels/rules.h): names, states, options
-- with their defaults and ranges. A rule that is added there needs nothing here.
-- @module octet.optim.rules
local ffi = require "ffi"
local binding = require "octet.binding"

local C, check = binding.C, binding.check

local M = {}

local KINDS = {
  [C.OCT_STATE_SIGNED] = "signed", [C.OCT_STATE_POSITIVE] = "positive",
  [C.OCT_STATE_SQUARE] = "square",
}
local DECAYS = {
  [C.OCT_DECAY_COUPLED] = "coupled", [C.OCT_DECAY_DECOUPLED] = "decoupled",
  [C.OCT_DECAY_OWN] = "own",
}
local MATRICES = {[C.OCT_MATRIX_ORTHOGONAL] = "orthogonal", [C.OCT_MATRIX_FACTORED] = "factored"}

local text_out, title_out = ffi.new "const char *[1]", ffi.new "const char *[1]"
local a, b, c = ffi.new "double[1]", ffi.new "double[1]", ffi.new "double[1]"
local i, j = ffi.new "int[1]", ffi.new "int[1]"

local function text(pointer) return pointer[0] ~= nil and ffi.string(pointer[0]) or nil end

local function number_text(x)
  local exponent = select(2, math.frexp(x)) - 1
  if math.abs(exponent) > 100 then return "2^" .. exponent end
  return ("%.14g"):format(x)
end

local function range_text(o)
  if o.switch then return "true or false" end
  local kind = o.whole and "a whole number " or ""
  local low, high = number_text(o.low), number_text(o.high)
  if o.high >= 2 ^ 53 then
    if o.above then return kind .. "more than " .. low end
    return o.low > 0 and o.low < 2 ^ -100 and kind .. "more than 0" or kind .. low .. " or more"
  end
  return ("%s%s %s to %s%s"):format(kind, o.above and "above" or "from", low,
    o.below and "below " or "", high)
end

local function in_range(o, x)
  if o.switch then return type(x) == "boolean" end
  if type(x) ~= "number" or x ~= x or (o.whole and x ~= math.floor(x)) then return false end
  return (x > o.low or (x == o.low and not o.above))
    and (x < o.high or (x == o.high and not o.below))
end

-- Option number `place` of a rule, from 0; nil behind the last one.
local function option_at(rule, place)
  check(C.oct_rule_option_info(text_out, a, b, c, i, rule, place))
  if text_out[0] == nil then return nil end
  local form = i[0]
  local function has(flag) return math.floor(form / flag) % 2 == 1 end
  local o = {
    name = text(text_out), place = place, low = b[0], high = c[0],
    above = has(C.OCT_OPTION_ABOVE), below = has(C.OCT_OPTION_BELOW),
    whole = has(C.OCT_OPTION_WHOLE), switch = has(C.OCT_OPTION_SWITCH),
  }
  o.usual = o.switch and a[0] ~= 0 or not o.switch and a[0]
  o.expected = range_text(o)
  function o.fits(x) return in_range(o, x) end
  return o
end

-- beta1, beta2, ... are written together, as `betas`.
local function betas_of(parts)
  local usual = {}
  for k, part in ipairs(parts) do usual[k] = part.usual end
  return {
    name = "betas", parts = parts, usual = usual,
    expected = ("%s numbers from 0 to below 1"):format(({"one", "two", "three"})[#parts]),
    fits = function(x)
      if type(x) ~= "table" or #x ~= #parts then return false end
      for k, part in ipairs(parts) do
        if not part.fits(x[k]) then return false end
      end
      return true
    end,
  }
end

local function options_of(rule)
  local options, betas = {}, {}
  for place = 0, 100 do
    local o = option_at(rule, place)
    if not o then break end
    if o.name:find "^beta%d$" then betas[#betas + 1] = o else options[#options + 1] = o end
  end
  if #betas == 1 then
    options[#options + 1] = betas[1]
  elseif #betas > 1 then
    table.insert(options, 1, betas_of(betas))
  end
  return options
end

local function states_of(rule)
  local states = {}
  for place = 0, 2 do
    check(C.oct_rule_state_info(text_out, i, j, rule, place))
    if text_out[0] ~= nil then
      states[#states + 1] = {name = text(text_out), kind = KINDS[i[0]], place = place}
    end
  end
  return states
end

local function read()
  check(C.oct_rule_count(i))
  local list = {}
  for index = 0, i[0] - 1 do
    check(C.oct_rule_info(text_out, title_out, a, b, i, j, index))
    local rule = {
      index = index, name = text(text_out), title = text(title_out), lr = a[0],
      weight_decay = b[0], decay = DECAYS[i[0]], matrix = MATRICES[j[0]],
    }
    rule.options, rule.states = options_of(index), states_of(index)
    list[index + 1], list[rule.name] = rule, rule
  end
  return list
end

--- All rules, as a list and by name: {index, name, title, lr, weight_decay, decay ("coupled",
-- "decoupled", "own"), matrix ("orthogonal", "factored", nil), options, states}. An option: {name,
-- usual, expected (what its values are, in words), fits(value)}. A state: {name, kind ("signed",
-- "positive", "square"), place}.
M.all = read()

--- Write a group's options where the library reads them.
-- @param buffer double[12]
-- @tparam table rule
-- @tparam table group with every option of the rule
function M.write(buffer, rule, group)
  for _, o in ipairs(rule.options) do
    local value = group[o.name]
    if o.parts then
      for k, part in ipairs(o.parts) do buffer[part.place] = value[k] end
    elseif o.switch then
      buffer[o.place] = value and 1 or 0
    else
      buffer[o.place] = value
    end
  end
end

return M
