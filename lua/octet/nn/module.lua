--- Modules: a tree of parameters with a forward function.
--
--     local Classifier = nn.module "Classifier"
--     function Classifier:init(o)
--       self.out = nn.Linear(o.dim, o.classes)     -- registers itself as "out"
--     end
--     function Classifier:forward(x) return self.out(x) end
--     local model = Classifier{dim = 100, classes = 2}
--     local logits = model(x)
--
-- What is assigned to `self` and is a module or a parameter tensor belongs to the tree, under the
-- name that it was assigned to, in the order of assignment.
-- @module octet.nn.module
local message = require "octet.message"
local number = require "octet.number"
local tensor = require "octet.tensor"

local fail = message.fail
local Module = {}

local function is_module(value)
  return type(value) == "table" and rawget(value, "_order") ~= nil
end

local function is_listed(self, key)
  for _, known in ipairs(self._order) do
    if known == key then return true end
  end
  return false
end

--- A new class of modules.
-- @tparam string name what tostring() and errors call it
-- @treturn table a class: define init and forward on it, call it to make an instance
local function class(name)
  local methods = setmetatable({class_name = name}, {__index = Module})
  local instance = {
    __index = methods,
    __newindex = function(self, key, value)
      if (is_module(value) or tensor.is_tensor(value)) and not is_listed(self, key) then
        self._order[#self._order + 1] = key
      end
      rawset(self, key, value)
    end,
    __call = function(self, ...) return self:forward(...) end,
    __tostring = function(self) return self:describe() end,
  }
  getmetatable(methods).__call = function(_, ...)
    local self = setmetatable({_order = {}, training = true}, instance)
    if methods.init then self:init(...) end
    return self
  end
  return methods
end

function Module:forward()
  fail(self.class_name .. ": no forward function")
end

--- Call f with every parameter in the tree, in the order of registration.
local function walk(self, prefix, bits, f)
  bits = self.state_bits or bits
  for _, key in ipairs(self._order) do
    local value = rawget(self, key)
    local name = prefix .. key
    if is_module(value) then
      walk(value, name .. ".", bits, f)
    elseif tensor.is_tensor(value) and value:is_parameter() then
      f(name, value, bits, self.is_lookup)
    end
  end
end

--- Call f(module) for this module and all below it.
function Module:apply(f)
  f(self)
  for _, key in ipairs(self._order) do
    local value = rawget(self, key)
    if is_module(value) then value:apply(f) end
  end
  return self
end

--- The parameters with their names, e.g. "encoder.1.out.weight"; `bits` is 32 where the module that
-- holds one asks for 32-bit optimizer state (its field state_bits), `lookup` is true where its rows
-- are looked up by ids (its field is_lookup). One that has several names, as weights that are tied
-- have, comes once, by the first.
-- @treturn {{name=string, tensor=tensor, bits=number|nil, lookup=boolean|nil},...}
function Module:named_parameters()
  local list, seen = {}, {}
  walk(self, "", nil, function(name, value, bits, lookup)
    local known = seen[value]
    if known then
      known.bits, known.lookup = known.bits or bits, known.lookup or lookup
      return
    end
    seen[value] = {name = name, tensor = value, bits = bits, lookup = lookup}
    list[#list + 1] = seen[value]
  end)
  return list
end

--- What an optimizer takes: named_parameters(), without those that are frozen.
-- @treturn {{name=string, tensor=tensor, bits=number|nil},...}
function Module:parameters()
  local list = {}
  for _, p in ipairs(self:named_parameters()) do
    if p.tensor:requires_grad() then list[#list + 1] = p end
  end
  return list
end

--- The tree as text: classes, the shapes of their parameters, and how many elements there are.
-- @treturn string
function Module:describe()
  local lines = {}
  local function add(module, name, depth)
    local shapes = {}
    for _, key in ipairs(module._order) do
      local value = rawget(module, key)
      if tensor.is_tensor(value) then
        shapes[#shapes + 1] = ("%s [%s]"):format(key, table.concat(value:shape(), " x "))
      end
    end
    lines[#lines + 1] = ("%s%s%s%s"):format(("  "):rep(depth), name and name .. ": " or "",
      module.class_name, #shapes > 0 and " " .. table.concat(shapes, ", ") or "")
    for _, key in ipairs(module._order) do
      local value = rawget(module, key)
      if is_module(value) then add(value, key, depth + 1) end
    end
  end
  add(self, nil, 0)
  lines[#lines + 1] = ("%d parameters"):format(self:parameter_count())
  return table.concat(lines, "\n")
end

--- Elements in all parameters.
function Module:parameter_count()
  local count = 0
  for _, p in ipairs(self:named_parameters()) do count = count + p.tensor:size() end
  return count
end

--- Training mode: dropout is on. `eval` is its opposite.
function Module:train()
  return self:apply(function(m) rawset(m, "training", true) end)
end

function Module:eval()
  return self:apply(function(m) rawset(m, "training", false) end)
end

--- Move all parameters to a device, their gradients too; before an optimizer is made of them. They
-- can be stepped there; the ops of forward take the processor's tensors alone so far.
-- @tparam string device "cpu", "cuda"
-- @treturn Module itself
function Module:to(device)
  tensor.check_device(device, "to")
  local list, before = self:named_parameters(), {}
  for i, p in ipairs(list) do
    before[i] = p.tensor:device()
    local ok, why = pcall(p.tensor.to_, p.tensor, device)
    if not ok then
      for k = 1, i - 1 do list[k].tensor:to_(before[k]) end
      error(why, 0)
    end
  end
  return self
end

--- Parameters by name, by each of its names where one has several.
-- @treturn table name -> tensor (the live ones, not copies)
function Module:state()
  local state = {}
  walk(self, "", nil, function(name, value) state[name] = value end)
  return state
end

local function shape_text(t) return "[" .. table.concat(t:shape(), " x ") .. "]" end

--- What is wrong with a tensor for a parameter; nil where nothing is.
local function misfit(source, own)
  if not source then return ("is missing, expected %s"):format(shape_text(own)) end
  if shape_text(source) ~= shape_text(own) then
    return ("is %s, expected %s"):format(shape_text(source), shape_text(own))
  end
  local dtype, wanted = source:dtype(), own:dtype()
  if dtype ~= wanted and not (tensor.FLOATS[dtype] and tensor.FLOATS[wanted]) then
    return ("is %s, expected %s"):format(dtype, wanted)
  end
end

--- Copy values into the parameters. Every parameter must be there with its shape, and nothing else;
-- f32, f16 and bf16 become the parameter's type.
-- @tparam table state name -> tensor
function Module:load(state)
  if type(state) ~= "table" then
    fail(("load: a %s; expected a table of tensors by name, as octet.safetensors.load gives it")
      :format(type(state)))
  end
  local own = self:state()
  for name, source in pairs(state) do
    if not tensor.is_tensor(source) then
      fail(("load: '%s' is a %s; expected a table of tensors by name, as octet.safetensors.load "
        .. "gives it"):format(tostring(name), type(source)))
    elseif not own[name] then
      fail(("load: tensor '%s' %s is left over: the model has no parameter of that name")
        :format(name, shape_text(source)))
    end
  end
  local wrong
  walk(self, "", nil, function(name, value)
    local what = not wrong and misfit(state[name], value)
    wrong = wrong or what and ("load: tensor '%s' %s"):format(name, what)
  end)
  if wrong then fail(wrong) end
  for name, source in pairs(state) do
    local dtype = own[name]:dtype()
    if source:dtype() ~= dtype then source = source:to "cpu":detach():to(dtype) end
    own[name]:copy_(source)
  end
  return self
end

--- Refuse a size of a layer that is no whole number above 0.
-- @tparam string layer name of the layer's class
-- @tparam string name of the size
-- @param value
local function check_size(layer, name, value)
  if not number.is_whole(value, 1) then
    fail(("%s: %s is %s, expected a whole number from 1 on"):format(layer, name,
      tostring(value)))
  end
end

return {class = class, is_module = is_module, check_size = check_size}
