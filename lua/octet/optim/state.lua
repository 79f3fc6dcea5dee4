--- An optimizer's state as tensors and numbers: what a checkpoint keeps, and how state of one format
-- becomes state of another.
--
-- `tensors`, the live ones, by name: "PARAMETER.m" and the like for each state of the rule, f32 or
-- codes; ".m.absmax", the scales of codes; ".correction", a bf16 parameter's further bits; ".row",
-- ".column", adafactor's factors. `numbers`: `rule`; by parameter `steps` and `layout`, which is
-- {bits, format's options}; `maps`, the values of every map in use.
-- @module octet.optim.state
local ffi = require "ffi"
local binding = require "octet.binding"
local format_of = require "octet.optim.format"
local map = require "octet.optim.map"
local rules = require "octet.optim.rules"
local tensor = require "octet.tensor"

local C, check = binding.C, binding.check

local M = {}

local tensor_out = ffi.new "oct_tensor *[1]"
local count_out = ffi.new "int64_t[1]"

local EXTRAS = {
  {"correction", C.OCT_STATE_CORRECTION}, {"row", C.OCT_STATE_ROW},
  {"column", C.OCT_STATE_COLUMN},
}

local function tensor_at(self, index, which)
  check(C.oct_optim_state(tensor_out, self.handle, index - 1, which), 3)
  if tensor_out[0] ~= nil then return ffi.gc(tensor_out[0], C.oct_tensor_free) end
end

local function steps_of(self, index, set)
  check(C.oct_optim_steps(count_out, self.handle, index - 1, set or -1), 3)
  return tonumber(count_out[0])
end

--- The states that a parameter has: those of its rule, less those that its options make do without.
-- @tparam Optimizer self
-- @tparam number index
-- @treturn {table,...} of octet.optim.rules
function M.kinds_of(self, index)
  local kinds = {}
  for _, kind in ipairs(self.parameters[index].rule.states) do
    if tensor_at(self, index, C.OCT_STATE_VALUES + kind.place) then kinds[#kinds + 1] = kind end
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

-- ---- maps in a state ---------------------------------------------------------------------------

local function same_values(a, b)
  for code = 1, math.max(#a, #b) do
    if a[code] ~= b[code] then return false end
  end
  return true
end

-- Put a map's values among those of a state; the name that they have there. Several maps of the
-- user's own may go by one name.
local function add_map(maps, own, bits, sign)
  local values, name, count = own:values(), ("%s.%d.%s"):format(own.name, bits, sign), 1
  local key = name
  while maps[key] and not same_values(maps[key], values) do
    count = count + 1
    key = ("%s.%d"):format(name, count)
  end
  maps[key] = values
  return key
end

local function layout_of(p, maps)
  if p.bits == 32 then return {bits = 32, correction_bits = p.correction_bits} end
  local layout = {
    bits = p.bits, block_size = p.format.block_size, sqrt_v = p.format.sqrt_v,
    scale = p.format.scale, correction_bits = p.correction_bits,
  }
  for _, sign in ipairs {"signed", "unsigned"} do
    layout[sign] = add_map(maps, format_of.map_of(p.format, p.bits, sign), p.bits, sign)
  end
  return layout
end

--- All that an optimizer remembers.
-- @tparam Optimizer self
-- @treturn table tensors, numbers
function M.read(self)
  local tensors, steps, layout, maps = {}, {}, {}, {}
  for index, p in ipairs(self.parameters) do
    for name, t in pairs(M.tensors_of(self, index)) do tensors[p.name .. "." .. name] = t end
    steps[p.name] = steps_of(self, index)
    layout[p.name] = layout_of(p, maps)
  end
  return {tensors = tensors,
    numbers = {rule = self.rule.name, steps = steps, layout = layout, maps = maps}}
end

-- ---- checks ------------------------------------------------------------------------------------

local function is_whole(x, low, high)
  return type(x) == "number" and x == math.floor(x) and x >= low and x <= high
end

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

local function check_layout(who, name, layout, maps)
  local function fail(what, value, expected)
    error(("%s: %s of the layout of parameter %s is %s, expected %s"):format(who, what, name,
      tostring(value), expected), 0)
  end
  if type(layout) ~= "table" then
    error(("%s: the layout of parameter %s is a %s, expected a table"):format(who, name,
      type(layout)), 0)
  end
  local bits = layout.bits
  if bits ~= 32 and bits ~= 8 and bits ~= 4 then fail("bits", bits, "4, 8 or 32") end
  if bits == 32 then return end
  if not is_whole(layout.block_size, 32, 4096) or math.frexp(layout.block_size) ~= 0.5 then
    fail("block_size", layout.block_size, "a power of two from 32 to 4096")
  end
  if type(layout.sqrt_v) ~= "boolean" then fail("sqrt_v", layout.sqrt_v, "true or false") end
  if layout.scale ~= "block" and layout.scale ~= "tensor" then
    fail("scale", layout.scale, '"block" or "tensor"')
  end
  for _, sign in ipairs {"signed", "unsigned"} do
    local values = type(layout[sign]) == "string" and maps[layout[sign]]
    if type(values) ~= "table" or #values ~= (bits == 4 and 16 or 256) then
      fail(sign, layout[sign], "the name of one of the state's maps")
    end
  end
end

local function check_numbers(who, own, numbers)
  if type(numbers) ~= "table" or type(numbers.steps) ~= "table"
    or type(numbers.layout) ~= "table" or type(numbers.maps or {}) ~= "table" then
    error(who .. ": the state has no numbers, or lacks steps and layout", 0)
  end
  local rule = rules.all[numbers.rule]
  local expected = rules.all[own.rule]
  -- Rules of the same state, such as adam and adamw, do not go on from each other by mistake.
  if not rule or rule ~= expected then
    error(("%s: the state is that of rule %s, expected %s"):format(who, tostring(numbers.rule),
      own.rule), 0)
  end
  check_names(who, own.layout, numbers.layout, "layout")
  check_names(who, own.steps, numbers.steps, "steps")
  for name, layout in pairs(numbers.layout) do check_layout(who, name, layout, numbers.maps or {}) end
  for name, count in pairs(numbers.steps) do
    if not is_whole(count, 0, 2 ^ 53) then
      error(("%s: steps of parameter %s is %s, expected a whole number, 0 or more")
        :format(who, name, tostring(count)), 0)
    end
  end
end

local function shape_text(t) return ("%s [%s]"):format(t:dtype(), table.concat(t:shape(), " x ")) end

local function same_maps(a, b, maps_a, maps_b)
  return same_values(maps_a[a.signed], maps_b[b.signed])
    and same_values(maps_a[a.unsigned], maps_b[b.unsigned])
end

local function same_storage(a, b, maps_a, maps_b)
  if a.bits ~= b.bits or (a.correction_bits or 0) ~= (b.correction_bits or 0) then return false end
  if a.bits == 32 then return true end
  return a.block_size == b.block_size and a.sqrt_v == b.sqrt_v and a.scale == b.scale
    and same_maps(a, b, maps_a, maps_b)
end

--- A layout in words.
-- @tparam table layout
-- @treturn string "8 bits, dynamic, sqrt_v, blocks of 256"
function M.layout_text(layout)
  if layout.bits == 32 then return "32 bits" end
  local signed, unsigned = layout.signed:match "^[^.]*", layout.unsigned:match "^[^.]*"
  return ("%d bits, %s%s, %s"):format(layout.bits,
    signed == unsigned and signed or signed .. " and " .. unsigned,
    layout.sqrt_v and ", sqrt_v" or "",
    layout.scale == "tensor" and "one scale" or "blocks of " .. layout.block_size)
end

-- ---- from one format to another ----------------------------------------------------------------

local function largest_block(size)
  local block = 32
  while block < size do block = 2 * block end
  return block
end

-- A state in f32, as numbers of its own kind: squares, not their roots.
local function restored(p, kind, layout, maps, values, absmax)
  if layout.bits == 32 then return values end
  local sign = kind.kind == "signed" and "signed" or "unsigned"
  local block = layout.scale == "tensor" and largest_block(p.elements) or layout.block_size
  local t = map.new(maps[layout[sign]], sign):dequantize(values, absmax, p.tensor:shape(), block)
  if kind.kind == "square" and layout.sqrt_v then t = t * t end
  return t
end

local function quantized(p, kind, own, t)
  if kind.kind == "square" and p.format.sqrt_v then t = t:sqrt() end
  local sign = kind.kind == "signed" and "signed" or "unsigned"
  local block = p.format.scale == "tensor" and largest_block(p.elements) or p.format.block_size
  local codes, absmax = format_of.map_of(p.format, p.bits, sign):quantize(t, block)
  own[kind.name]:copy_(codes)
  own[kind.name .. ".absmax"]:copy_(absmax)
end

local function convert_parameter(self, index, layout, maps, tensors)
  local p, own = self.parameters[index], M.tensors_of(self, index)
  for _, kind in ipairs(M.kinds_of(self, index)) do
    local name = p.name .. "." .. kind.name
    local t = restored(p, kind, layout, maps, tensors[name], tensors[name .. ".absmax"])
    if p.bits == 32 then own[kind.name]:copy_(t) else quantized(p, kind, own, t) end
  end
  for _, extra in ipairs {"row", "column"} do
    if own[extra] then own[extra]:copy_(tensors[p.name .. "." .. extra]) end
  end
  local correction = tensors[p.name .. ".correction"]
  if own.correction and correction and correction:size() == own.correction:size() then
    own.correction:copy_(correction)
  end
end

--- What a layout's tensors are: name behind the parameter's -> {dtype, shape}.
local function expected_tensors(self, index, layout)
  local p, expected = self.parameters[index], {}
  local shape, size = p.tensor:shape(), p.elements
  for _, kind in ipairs(M.kinds_of(self, index)) do
    if layout.bits == 32 then
      expected[kind.name] = {"f32", shape}
    else
      expected[kind.name] = {"u8", layout.bits == 4 and {math.ceil(size / 2)} or shape}
      expected[kind.name .. ".absmax"] = {"f32",
        {layout.scale == "tensor" and 1 or math.ceil(size / layout.block_size)}}
    end
  end
  for name, t in pairs(M.tensors_of(self, index)) do
    if name == "row" or name == "column" then expected[name] = {"f32", t:shape()} end
  end
  local bits = layout.correction_bits or 0
  if bits > 0 then expected.correction = {"u8", {size * bits / 8}} end
  return expected
end

local function check_tensors(who, self, layouts, tensors)
  local known = {}
  for index, p in ipairs(self.parameters) do
    for name, e in pairs(expected_tensors(self, index, layouts[p.name])) do
      local full = p.name .. "." .. name
      local t, wanted = tensors[full], ("%s [%s]"):format(e[1], table.concat(e[2], " x "))
      known[full] = true
      if not tensor.is_tensor(t) then error(("%s: tensor %s is missing"):format(who, full), 0) end
      if shape_text(t) ~= wanted then
        error(("%s: tensor %s is %s, expected %s"):format(who, full, shape_text(t), wanted), 0)
      end
    end
  end
  for name in pairs(tensors) do
    if not known[name] then
      error(("%s: tensor %s is left over: this optimizer has none of that name"):format(who, name),
        0)
    end
  end
end

-- Which parameters' state is to be converted; an error where that was not asked for.
local function find_changes(who, self, own, numbers, convert)
  local changes = {}
  for _, p in ipairs(self.parameters) do
    local mine, other = own.layout[p.name], numbers.layout[p.name]
    if not same_storage(mine, other, own.maps, numbers.maps or {}) then
      if mine.bits ~= 32 and other.bits ~= 32 and not convert then
        error(("%s: the state of parameter %s is of %s, expected %s; with convert = true it is "
          .. "converted"):format(who, p.name, M.layout_text(other), M.layout_text(mine)), 0)
      end
      changes[p.name] = true
    end
  end
  return changes
end

--- Put a state into an optimizer.
-- @tparam Optimizer self
-- @tparam table state
-- @tparam table options convert
function M.load(self, state, options)
  local who = ("optim.%s: load"):format(self.name)
  local own = M.read(self)
  check_numbers(who, own.numbers, state.numbers)
  local changes = find_changes(who, self, own.numbers, state.numbers, options.convert)
  if state.tensors then
    check_tensors(who, self, state.numbers.layout, state.tensors)
    for index, p in ipairs(self.parameters) do
      if changes[p.name] then
        convert_parameter(self, index, state.numbers.layout[p.name], state.numbers.maps or {},
          state.tensors)
      else
        for name, mine in pairs(M.tensors_of(self, index)) do
          mine:copy_(state.tensors[p.name .. "." .. name])
        end
      end
    end
  elseif next(changes) then
    error(("%s: the state of parameter %s is of another format, and its tensors are not given")
      :format(who, next(changes)), 0)
  end
  check(C.oct_optim_check(self.handle), 3)
  for index, p in ipairs(self.parameters) do steps_of(self, index, state.numbers.steps[p.name]) end
end

return M
