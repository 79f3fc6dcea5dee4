--- State of PyTorch's and bitsandbytes' optimizers, out of a safetensors file that
-- docs/optimizer_state.md says how to write: tensors "PARAMETER.KEY" with the keys of their
-- state_dict, and in the metadata `optimizer`, the class's name; `parameters`, the names of all in
-- their order; `steps`, by parameter.
--
-- PyTorch keeps f32 (or the parameter's type) by names of its own. bitsandbytes keeps `state1` and
-- `state2`, f32 or codes; the latter with `absmax1`, one scale for a block whose size follows from
-- their number, and `qmap1`, the 256 values of its map.
-- @module octet.optim.import
local convert = require "octet.optim.convert"
local json = require "octet.json"
local layout_of = require "octet.optim.layout"
local map = require "octet.optim.map"
local nearest = require "octet.nearest"
local safetensors = require "octet.safetensors"
local scope = require "octet.scope"
local state = require "octet.optim.state"
local tensor = require "octet.tensor"

local M = {}

-- By rule, which key has which of our states.
local PYTORCH = {
  adam = {m = "exp_avg", v = "exp_avg_sq"}, adamw = {m = "exp_avg", v = "exp_avg_sq"},
  sgd = {m = "momentum_buffer"}, adagrad = {v = "sum"},
  rmsprop = {v = "square_avg", m = "momentum_buffer", a = "grad_avg"},
  adamax = {m = "exp_avg", u = "exp_inf"}, nadam = {m = "exp_avg", v = "exp_avg_sq"},
  muon = {m = "momentum_buffer"},
}

-- The same for bitsandbytes, which stacks ademamix's two means in state1.
local BITSANDBYTES = {
  adam = {m = {1}, v = {2}}, adamw = {m = {1}, v = {2}}, lamb = {m = {1}, v = {2}},
  sgd = {m = {1}}, lion = {m = {1}}, rmsprop = {v = {1}}, adagrad = {v = {1}},
  ademamix = {m = {1, 1}, slow = {1, 2}, v = {2}},
}

-- What means that the state is that of a rule we do not have.
local REFUSED = {max_exp_avg_sq = "AMSGrad"}
-- What is there besides and is no state; mu_product follows from the steps.
local IGNORED = {step = true, unorm_vec = true, mu_product = true}

-- ---- what the file holds -----------------------------------------------------------------------

local function list_in(file, key)
  local text = file:metadata()[key]
  if not text then
    error(("%s: metadata %s is missing; docs/optimizer_state.md says how to save a state"):format(
      file.path, key), 0)
  end
  local value = json.decode(text, file.path .. ": " .. key)
  if type(value) ~= "table" then
    error(("%s: metadata %s is a %s, expected a list"):format(file.path, key, type(value)), 0)
  end
  return value
end

-- The parameters in their order, each with its tensors' full names by key.
local function parameters_in(file)
  local list, by_name = {}, {}
  for i, name in ipairs(list_in(file, "parameters")) do
    if type(name) ~= "string" or by_name[name] then
      error(("%s: parameter %d is %s, expected a name that is not there before"):format(file.path,
        i, tostring(name)), 0)
    end
    list[i] = {name = name, keys = {}, path = file.path}
    by_name[name] = list[i]
  end
  for _, full in ipairs(file:names()) do
    local name, key = full:match "^(.*)%.([^.]+)$"
    if not by_name[name] then
      error(("%s: tensor %s is of no parameter"):format(file.path, full), 0)
    end
    if REFUSED[key] then
      error(("%s: %s: state of %s cannot be imported"):format(file.path, full, REFUSED[key]), 0)
    end
    if not IGNORED[key] then by_name[name].keys[key] = full end
  end
  local steps = list_in(file, "steps")
  for _, p in ipairs(list) do
    local count = steps[p.name]
    -- A parameter that never had a gradient has no state in most of PyTorch's optimizers.
    p.steps = count
    if next(p.keys) == nil then p.steps = 0 end
    if type(p.steps) ~= "number" then
      error(("%s: steps of parameter %s is %s, expected a number"):format(file.path, p.name,
        tostring(count)), 0)
    end
  end
  return list, by_name
end

-- The rule of a class: "AdamW8bit", "PagedLion32bit", "RMSprop".
local function check_class(file, self, keys)
  local class = file:metadata().optimizer
  if not class then
    error(("%s: metadata optimizer is missing; docs/optimizer_state.md says how to save a state")
      :format(file.path), 0)
  end
  if class:find "^{" then
    error(("%s: a state that save() has written, or a run's checkpoint; restore() reads it"):format(
      file.path), 0)
  end
  local rule = class:gsub("^Paged", ""):gsub("%d+bit$", ""):lower()
  if rule ~= self.rule.name then
    error(("%s: the state is that of %s, expected that of rule %s"):format(file.path, class,
      self.rule.name), 0)
  end
  if not keys[rule] then
    error(("%s: state of %s cannot be imported: it is kept in another form"):format(file.path,
      class), 0)
  end
  return keys[rule]
end

-- ---- whose state is whose ----------------------------------------------------------------------

local function theirs_of(p, i, list, options)
  if options.order then return {list[i].name} end
  local names = options.names
  local name = p.name
  if type(names) == "function" then name = names(p.name) elseif names then name = names[p.name] end
  if name == nil then name = p.name end
  return type(name) == "table" and name or {name}
end

-- For each of our parameters the list of theirs that it is made of.
local function match(file, self, options)
  local list, by_name = parameters_in(file)
  if options.order and #list ~= #self.parameters then
    error(("%s: %d parameters, expected %d"):format(file.path, #list, #self.parameters), 0)
  end
  local parts, taken, known = {}, {}, {}
  for i, p in ipairs(list) do known[i] = p.name end
  for i, p in ipairs(self.parameters) do
    parts[i] = {}
    for k, name in ipairs(theirs_of(p, i, list, options)) do
      local part = by_name[name]
      if not part then
        error(("%s: parameter %s: %s; options names or order say what it is called there"):format(
          file.path, p.name, nearest.message("name", tostring(name), known)), 0)
      end
      if taken[part] then
        error(("%s: the state of %s is wanted twice"):format(file.path, part.name), 0)
      end
      taken[part], parts[i][k] = true, part
    end
  end
  for _, part in ipairs(list) do
    if not taken[part] then
      error(("%s: parameter %s is left over: this optimizer has none for it"):format(file.path,
        part.name), 0)
    end
  end
  return parts
end

-- ---- one state of one parameter ----------------------------------------------------------------

local function read(file, part, key, dtype)
  local full = part.keys[key]
  if not full then
    error(("%s: tensor %s.%s is missing"):format(file.path, part.name, key), 0)
  end
  return file:read(full, {dtype = dtype, purpose = "workspace"})
end

-- One of several that are on top of each other.
local function pick(t, place)
  if not place then return t end
  local shape = t:shape()
  if shape[1] ~= 2 or #shape < 2 then
    error(("a state of [%s] where two were expected on top of each other"):format(
      table.concat(shape, " x ")), 0)
  end
  local rest = {unpack(shape, 2)}
  return t:rows(place):reshape(rest)
end

-- The block size that a number of scales means; of a single block, which may be any, the
-- optimizer's.
local function block_of(file, part, size, scales, own)
  if math.ceil(size / own) == scales then return own end
  for bits = 5, 12 do
    if math.ceil(size / 2 ^ bits) == scales then return 2 ^ bits end
  end
  error(("%s: parameter %s has %d scales for %d elements, expected one for each block of 32 to "
    .. "4096"):format(file.path, part.name, scales, size), 0)
end

-- A state of one of theirs: `values`; where those are codes also absmax, block, levels (the map's
-- values) and sign.
local function source(file, part, key, own_block)
  if type(key) == "string" then return {values = read(file, part, key, "f32")} end
  local number, place = key[1], key[2]
  local info = file:info(part.keys["state" .. number] or "")
  if not info or info.type ~= "U8" then
    return {values = pick(read(file, part, "state" .. number, "f32"), place)}
  end
  local s = {values = pick(read(file, part, "state" .. number), place),
    absmax = pick(read(file, part, "absmax" .. number, "f32"), place):reshape(-1),
    levels = read(file, part, "qmap" .. number, "f32"):totable()}
  s.block = block_of(file, part, s.values:size(), s.absmax:size(), own_block)
  s.sign = s.levels[1] and s.levels[1] < 0 and "signed" or "unsigned"
  return s
end

-- The values of the dynamic map, where these are its; other programs round them otherwise, in the
-- last bit.
local function dynamic_of(levels, sign)
  local own = map.named("dynamic", 8, sign):values()
  for code, value in ipairs(own) do
    local other = levels[code] or math.huge
    local is_near = math.abs(other - value) <= 1e-6 * math.abs(value)
    if not is_near then return nil end
  end
  return own
end

-- What must not be negative and came out so by rounding; NaN stays, and is found later.
local function without_negatives(t)
  local x, at = t:data(), t:reader()
  for i = 0, t:size() - 1 do
    if at(i) < 0 then x[i] = 0 end
  end
  return t
end

local function numbers_of(file, kind, s)
  local t = s.values
  if s.levels then
    local ok, from = pcall(map.new, s.levels, s.sign)
    if not ok then error(("%s: a qmap: %s"):format(file.path, from), 0) end
    t = from:dequantize(t, s.absmax, t:shape(), s.block)
  end
  if kind.kind == "signed" or s.sign ~= "signed" then return t end
  return without_negatives(t)
end

-- ---- all of it ---------------------------------------------------------------------------------

-- Where their codes mean what codes may mean here, they stay codes: the optimizer's own format may
-- be the same.
local function add_codes(name, kinds, sources, result)
  local layout = {bits = 8, scale = "block", sqrt_v = false}
  for _, kind in ipairs(kinds) do
    local s, sign = sources[kind.name], convert.sign(kind)
    if s.sign ~= sign or (layout.block_size or s.block) ~= s.block then return false end
    layout.block_size = s.block
    local dynamic = dynamic_of(s.levels, sign)
    layout[sign] = layout_of.add_map(result.maps,
      (dynamic and "dynamic.8." or "imported.8.") .. sign, dynamic or s.levels)
  end
  if not layout.block_size then return false end
  for _, kind in ipairs(kinds) do
    result.tensors[name .. "." .. kind.name] = sources[kind.name].values
    result.tensors[name .. "." .. kind.name .. ".absmax"] = sources[kind.name].absmax
  end
  -- A layout names both maps, of a rule whose states have one sign as well.
  for _, sign in ipairs {"signed", "unsigned"} do
    layout[sign] = layout[sign] or layout_of.add_map(result.maps, "dynamic.8." .. sign,
      map.named("dynamic", 8, sign):values())
  end
  result.layout[name] = layout
  return true
end

-- RMSprop, centered, keeps the mean of squares there, and here what is left of it without the
-- square of the mean.
local function center(states)
  local v = states.v.values:data()
  local v_at, a_at = states.v.values:reader(), states.a.values:reader()
  for i = 0, states.v.values:size() - 1 do v[i] = v_at(i) - a_at(i) * a_at(i) end
  without_negatives(states.v.values)
end

-- The sources of a parameter, by part and state.
local function sources_of(file, p, kinds, parts, keys)
  local sources = {}
  for k, part in ipairs(parts) do
    sources[k] = {}
    if part.steps ~= parts[1].steps then
      error(("%s: %s and %s have made %s and %s steps, and are one parameter here"):format(
        file.path, parts[1].name, part.name, parts[1].steps, part.steps), 0)
    end
    for _, kind in ipairs(kinds) do
      if not keys[kind.name] then
        error(("%s: parameter %s has a state %s here, and none there"):format(file.path, p.name,
          kind.name), 0)
      end
      sources[k][kind.name] = source(file, part, keys[kind.name], p.format.block_size)
    end
    if p.rule.name == "rmsprop" and sources[k].a then center(sources[k]) end
  end
  return sources
end

local function add_parameter(file, self, i, parts, keys, result)
  local p, kinds = self.parameters[i], state.kinds_of(self, i)
  result.steps[p.name] = parts[1].steps
  local sources = next(parts[1].keys) and sources_of(file, p, kinds, parts, keys)
  if sources and #parts == 1 and add_codes(p.name, kinds, sources[1], result) then return end
  result.layout[p.name] = {bits = 32}
  for _, kind in ipairs(kinds) do
    local rows = {}
    for k in ipairs(sources or {}) do
      rows[k] = numbers_of(file, kind, sources[k][kind.name])
    end
    if not sources then rows = {tensor.zeros(p.tensor:shape())} end
    result.tensors[p.name .. "." .. kind.name] = #rows == 1 and rows[1] or tensor.cat(rows)
  end
end

local function load(self, path, options)
  local file = safetensors.open(path)
  local is_theirs = false
  for _, name in ipairs(file:names()) do is_theirs = is_theirs or name:find "%.state1$" ~= nil end
  local keys = check_class(file, self, is_theirs and BITSANDBYTES or PYTORCH)
  local result = {tensors = {}, layout = {}, steps = {}, maps = {}}
  for i, parts in ipairs(match(file, self, options)) do
    add_parameter(file, self, i, parts, keys, result)
  end
  state.load(self, {tensors = result.tensors, numbers = {rule = self.rule.name,
    steps = result.steps, layout = result.layout, maps = result.maps}},
    {convert = true, who = "import " .. path})
  file:close()
end

--- Let an optimizer go on from PyTorch's or bitsandbytes' state.
-- @tparam Optimizer self
-- @tparam string path
-- @tparam table options names, order
function M.load(self, path, options)
  nearest.check_options("import", options, {"names", "order"})
  scope.scope(load, self, path, options)
end

return M
