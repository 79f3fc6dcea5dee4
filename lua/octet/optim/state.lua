--- An optimizer's state as tensors and numbers: what a checkpoint keeps, and how an optimizer goes
-- on from it, where need be in another format.
--
-- `tensors`, the live ones, by name: "PARAMETER.m" and the like for each state of the rule, f32 or
-- codes; ".m.absmax", the scales of codes; ".correction", a bf16 parameter's further bits; ".row",
-- ".column", adafactor's factors. `numbers`: `rule`; by parameter `steps` and `layout`
-- (octet.optim.layout); `maps`, the values of every map in use; `groups`: of each, the names of its
-- `parameters` and the `options` that may change between steps.
-- @module octet.optim.state
local ffi = require "ffi"
local binding = require "octet.binding"
local convert = require "octet.optim.convert"
local layout_of = require "octet.optim.layout"
local number = require "octet.number"
local options_of = require "octet.optim.options"
local scope = require "octet.scope"
local tensor = require "octet.tensor"

local C, check = binding.C, binding.check

local M = {}

local tensor_out = ffi.new "oct_tensor *[1]"
local count_out = ffi.new "int64_t[1]"
local sound_out = ffi.new "int[1]"

local EXTRAS = {
  {"correction", C.OCT_STATE_CORRECTION}, {"row", C.OCT_STATE_ROW},
  {"column", C.OCT_STATE_COLUMN},
}

-- ---- reading -----------------------------------------------------------------------------------

local function tensor_at(self, index, which)
  check(C.oct_optim_state(tensor_out, self.handle, index - 1, which))
  if tensor_out[0] ~= nil then return ffi.gc(tensor_out[0], C.oct_tensor_free) end
end

local function steps_of(self, index, set)
  check(C.oct_optim_steps(count_out, self.handle, index - 1, set or -1))
  return tonumber(count_out[0])
end

--- The states that a parameter has: those of its rule, less those that its options make do without.
-- @tparam Optimizer self
-- @tparam number index
-- @treturn {table,...} of octet.optim.rules
function M.kinds_of(self, index)
  local kinds = {}
  for _, kind in ipairs(self.parameters[index].rule.states) do
    check(C.oct_optim_state(tensor_out, self.handle, index - 1, C.OCT_STATE_VALUES + kind.place))
    if tensor_out[0] ~= nil then
      kinds[#kinds + 1] = kind
      C.oct_tensor_free(tensor_out[0])
    end
  end
  return kinds
end

--- The live tensors of a parameter's state, by name without the parameter's.
-- @tparam Optimizer self
-- @tparam number index
-- @treturn table name -> tensor
function M.tensors_of(self, index)
  local tensors = {}
  for _, kind in ipairs(self.parameters[index].rule.states) do
    tensors[kind.name] = tensor_at(self, index, C.OCT_STATE_VALUES + kind.place)
    tensors[kind.name .. ".absmax"] = tensor_at(self, index, C.OCT_STATE_ABSMAX + kind.place)
  end
  for _, extra in ipairs(EXTRAS) do tensors[extra[1]] = tensor_at(self, index, extra[2]) end
  return tensors
end

local function groups_of(self)
  local groups = {}
  for i, group in ipairs(self.groups) do
    local names = {}
    for k, p in ipairs(group.parameters) do names[k] = p.name end
    groups[i] = {parameters = names, options = options_of.changeable(group, self.rule)}
  end
  return groups
end

--- All that an optimizer remembers.
-- @tparam Optimizer self
-- @treturn table tensors, numbers
function M.read(self)
  local tensors, steps, layout, maps = {}, {}, {}, {}
  for index, p in ipairs(self.parameters) do
    for name, t in pairs(M.tensors_of(self, index)) do tensors[p.name .. "." .. name] = t end
    steps[p.name] = steps_of(self, index)
    layout[p.name] = layout_of.of(p, maps)
  end
  return {tensors = tensors, numbers = {rule = self.rule.name, steps = steps, layout = layout,
    maps = maps, groups = groups_of(self)}}
end

-- ---- checks ------------------------------------------------------------------------------------

local function check_names(who, own, other, what)
  for name in pairs(own) do
    if other[name] == nil then
      error(("%s: %s of parameter %s is missing"):format(who, what, name), 0)
    end
  end
  for name in pairs(other) do
    if own[name] == nil then
      error(("%s: %s of parameter %s is left over: this optimizer has none of that name")
        :format(who, what, tostring(name)), 0)
    end
  end
end

local function check_steps(who, steps)
  for name, count in pairs(steps) do
    if not number.is_whole(count, 0) then
      error(("%s: steps of parameter %s is %s, expected a whole number, 0 or more")
        :format(who, name, tostring(count)), 0)
    end
  end
end

local function check_numbers(who, self, own, numbers)
  if type(numbers) ~= "table" then error(who .. ": the state has no numbers", 0) end
  for _, part in ipairs {"steps", "layout", "maps"} do
    if type(numbers[part]) ~= "table" then
      error(("%s: %s of the state's numbers is a %s, expected a table"):format(who, part,
        type(numbers[part])), 0)
    end
  end
  -- Rules of the same state, such as adam and adamw, do not go on from each other by mistake.
  if numbers.rule ~= self.rule.name then
    error(("%s: the state is that of rule %s, expected %s"):format(who, tostring(numbers.rule),
      self.rule.name), 0)
  end
  check_names(who, own.layout, numbers.layout, "layout")
  check_names(who, own.steps, numbers.steps, "steps")
  for name, layout in pairs(numbers.layout) do layout_of.check(who, name, layout, numbers.maps) end
  check_steps(who, numbers.steps)
end

local function same_list(a, b)
  if type(b) ~= "table" or #a ~= #b then return false end
  for i, x in ipairs(a) do
    if x ~= b[i] then return false end
  end
  return true
end

-- The groups' options, checked; nil where they are not wanted, or the state has none.
local function options_in(who, self, numbers, options)
  if options.options == false or numbers.groups == nil then return nil end
  local own, list, hint = groups_of(self), {}, "; with options = false its own options stay"
  if type(numbers.groups) ~= "table" or #numbers.groups ~= #own then
    error(("%s: the state is of %s groups, expected %d%s"):format(who,
      type(numbers.groups) == "table" and #numbers.groups or "no", #own, hint), 0)
  end
  for i, group in ipairs(own) do
    local other = numbers.groups[i]
    if type(other) ~= "table" or not same_list(group.parameters, other.parameters) then
      error(("%s: group %d of the state has other parameters than this optimizer's%s"):format(who,
        i, hint), 0)
    end
    list[i] = other.options
    options_of.check_changeable(("%s: group %d of the state"):format(who, i), other.options,
      self.groups[i], self.rule)
  end
  return list
end

--- Tensors of a layout, by name behind the parameter's: {dtype, shape, and whether they may be
-- negative where they are numbers}.
local function expected_tensors(self, index, layout)
  local p, expected = self.parameters[index], {}
  local shape, size = p.tensor:shape(), p.elements
  for _, kind in ipairs(M.kinds_of(self, index)) do
    if layout.bits == 32 then
      expected[kind.name] = {"f32", shape, kind.kind == "signed"}
    else
      expected[kind.name] = {"u8", layout.bits == 4 and {math.ceil(size / 2)} or shape}
      expected[kind.name .. ".absmax"] = {"f32",
        {math.ceil(size / layout_of.block(layout, size))}, false}
    end
  end
  for name, t in pairs(M.tensors_of(self, index)) do
    if name == "row" or name == "column" then expected[name] = {"f32", t:shape(), false} end
  end
  if layout.correction_bits then
    expected.correction = {"u8", {size * layout.correction_bits / 8}}
  end
  return expected
end

local function check_sound(who, name, t, negative_too)
  check(C.oct_optim_is_sound(sound_out, t, negative_too and 1 or 0))
  if sound_out[0] == 1 then return end
  error(("%s: state %s holds a number that no step leaves (NaN, infinite, too large%s)"):format(who,
    name, negative_too and "" or ", or negative"), 0)
end

local function check_tensor(who, name, t, expected)
  local dtype, shape, negative_too = expected[1], expected[2], expected[3]
  if not tensor.is_tensor(t) then error(("%s: tensor %s is missing"):format(who, name), 0) end
  if t:dtype() ~= dtype or not same_list(shape, t:shape()) then
    error(("%s: tensor %s is %s [%s], expected %s [%s]"):format(who, name, t:dtype(),
      table.concat(t:shape(), " x "), dtype, table.concat(shape, " x ")), 0)
  end
  if dtype == "f32" then check_sound(who, name, t, negative_too) end
end

local function check_tensors(who, self, layouts, tensors)
  if type(tensors) ~= "table" then error(who .. ": the state has no tensors", 0) end
  local known = {}
  for index, p in ipairs(self.parameters) do
    for name, expected in pairs(expected_tensors(self, index, layouts[p.name])) do
      local full = p.name .. "." .. name
      known[full] = true
      check_tensor(who, full, tensors[full], expected)
    end
  end
  for name in pairs(tensors) do
    if not known[name] then
      error(("%s: tensor %s is left over: this optimizer has none of that name"):format(who, name),
        0)
    end
  end
end

-- ---- taking a state ----------------------------------------------------------------------------

-- 32 bits hold what any state means, and to have fewer is what an optimizer of fewer was asked for;
-- from one narrow format to another, or to fewer correction bits, it is to be said.
local function check_change(who, p, mine, other, options)
  local narrow = mine.bits ~= 32 and other.bits ~= 32
  local corrections = mine.correction_bits ~= other.correction_bits
  if (narrow or corrections) and not options.convert then
    error(("%s: the state of parameter %s is of %s, expected %s; with convert = true it is "
      .. "converted"):format(who, p.name, layout_of.text(other), layout_of.text(mine)), 0)
  end
end

-- What a parameter's tensors are to hold: as given, or converted.
local function converted(self, index, mine, other, maps, tensors)
  local p, own, result = self.parameters[index], M.tensors_of(self, index), {}
  local function given(name) return tensors[p.name .. "." .. name] end
  for _, kind in ipairs(M.kinds_of(self, index)) do
    local scale = kind.name .. ".absmax"
    if other.same then
      result[kind.name], result[scale] = given(kind.name), given(scale)
    else
      local t = convert.restore(kind, other, maps, p.tensor:shape(), given(kind.name), given(scale))
      if mine.bits == 32 then
        result[kind.name] = t
      else
        result[kind.name], result[scale] = convert.quantize(p, kind, t)
      end
    end
  end
  result.row, result.column = given "row", given "column"
  if own.correction then
    result.correction = convert.correction(given "correction", other.correction_bits,
      own.correction, mine.correction_bits)
  end
  return result
end

-- Every write that a state asks for; nothing has been written yet.
local function writes_of(who, self, own, state, options)
  local numbers, writes = state.numbers, {}
  for index, p in ipairs(self.parameters) do
    local mine, other = own.layout[p.name], numbers.layout[p.name]
    local same = layout_of.same(mine, other, own.maps, numbers.maps)
    if not same then check_change(who, p, mine, other, options) end
    writes[index] = {same = same, mine = mine, other = other}
  end
  check_tensors(who, self, numbers.layout, state.tensors)
  for index, p in ipairs(self.parameters) do
    local w = writes[index]
    local layout = setmetatable({same = w.same}, {__index = w.other})
    w.from = converted(self, index, w.mine, layout, numbers.maps, state.tensors)
    if not w.same then
      -- Squares of roots may be beyond what a float holds.
      for name, expected in pairs(expected_tensors(self, index, w.mine)) do
        check_tensor(who, p.name .. "." .. name, w.from[name], expected)
      end
    end
  end
  return writes
end

-- A state's tensors are its optimizer's own: behind further steps they are no longer what its
-- numbers say.
local function check_snapshot(who, self, own, state)
  if type(state.tensors) ~= "table" then return end
  for index, p in ipairs(self.parameters) do
    if state.numbers.steps[p.name] ~= own.steps[p.name] then
      for name, t in pairs(M.tensors_of(self, index)) do
        if state.tensors[p.name .. "." .. name] == t then
          error(("%s: the state is this optimizer's own, which has made steps since; save() keeps "
            .. "one, restore() goes on from it"):format(who), 0)
        end
      end
    end
  end
end

-- What is checked and converted lies on the processor, whatever device it comes from.
local function here(tensors)
  if type(tensors) ~= "table" then return tensors end
  local list = {}
  for name, t in pairs(tensors) do list[name] = tensor.is_tensor(t) and t:to "cpu" or t end
  return list
end

local function load(self, state, options)
  local who = ("optim.%s: %s"):format(self.name, options.who or "load")
  if type(state) ~= "table" then error(who .. ": the state is no table", 0) end
  local own = M.read(self).numbers
  check_numbers(who, self, own, state.numbers)
  check_snapshot(who, self, own, state)
  local groups = options_in(who, self, state.numbers, options)
  state = {numbers = state.numbers, tensors = here(state.tensors)}
  local writes = writes_of(who, self, own, state, options)
  -- From here on nothing can fail, unless a device does.
  for index, p in ipairs(self.parameters) do
    for name, mine in pairs(M.tensors_of(self, index)) do mine:copy_(writes[index].from[name]) end
    steps_of(self, index, state.numbers.steps[p.name])
  end
  for i, values in ipairs(groups or {}) do options_of.change(self.groups[i], values) end
end

--- Put a state into an optimizer: all of it, or where anything is wrong with it nothing.
-- @tparam Optimizer self
-- @tparam table state
-- @tparam table options convert, options; `who`: what is being done, for errors
function M.load(self, state, options) scope.scope(load, self, state, options) end

return M
