--- Layers: linear, embedding, layer norm, dropout, and lists of modules.
-- @module octet.nn.layers
local binding = require "octet.binding"
local functional = require "octet.nn.functional"
local module = require "octet.nn.module"
local message = require "octet.message"
local nearest = require "octet.nearest"
local number = require "octet.number"
local tensor = require "octet.tensor"

local fail = message.fail
local C, check_size = binding.C, module.check_size
local M = {}

local function uniform_parameter(shape, bound)
  return tensor.new(shape):uniform_(-bound, bound):parameter_()
end

--- y = f(x W' + b). W is [outputs x inputs]; both start uniform in +-1/sqrt(inputs).
-- @function Linear
-- @tparam number inputs
-- @tparam number outputs
-- @tparam[opt] table options `bias = false`; `activation`: "gelu", "relu", "tanh", "sigmoid" or
-- "silu", fused into the product
M.Linear = module.class "Linear"

function M.Linear:init(inputs, outputs, options)
  check_size("Linear", "inputs", inputs)
  check_size("Linear", "outputs", outputs)
  nearest.check_options("Linear", options, {"bias", "activation"})
  options = options or {}
  nearest.check_switch("Linear", "bias", options.bias)
  local bound = 1 / math.sqrt(inputs)
  self.weight = uniform_parameter({outputs, inputs}, bound)
  if options.bias ~= false then self.bias = uniform_parameter({outputs}, bound) end
  self.activation = functional.activation_code(options.activation)
end

function M.Linear:forward(x)
  tensor.call(C.oct_linear, tensor.out, x, self.weight, self.bias, self.activation)
  return tensor.take()
end

--- Rows of a table [rows x width], which starts standard normal.
-- @function Embedding
M.Embedding = module.class "Embedding"

function M.Embedding:init(rows, width)
  check_size("Embedding", "rows", rows)
  check_size("Embedding", "width", width)
  self.weight = tensor.new({rows, width}):normal_(0, 1):parameter_()
  self.is_lookup = true
end

--- @tparam tensor ids i32 of any shape, 0-based
-- @treturn tensor [... x width]
function M.Embedding:forward(ids)
  return functional.embedding(self.weight, ids)
end

--- Layer norm over the last dimension (Ba et al. 2016).
-- @function LayerNorm
M.LayerNorm = module.class "LayerNorm"

function M.LayerNorm:init(width, epsilon)
  check_size("LayerNorm", "width", width)
  self.weight = tensor.ones({width}):parameter_()
  self.bias = tensor.zeros({width}):parameter_()
  self.epsilon = epsilon or 1e-5
end

function M.LayerNorm:forward(x)
  tensor.call(C.oct_layer_norm, tensor.out, x, self.weight, self.bias, self.epsilon)
  return tensor.take()
end

--- The embedding of the 8-bit optimizers' paper (section 2.3): Xavier uniform start, layer norm
-- behind it, and 32-bit optimizer state. Each of the three parts can be left out.
-- @function StableEmbedding
-- @tparam number rows
-- @tparam number width
-- @tparam[opt] table options `layer_norm = false`: no layer norm; `xavier = false`: standard normal
-- start, as Embedding's; `bits32 = false`: the optimizer's own state bits
M.StableEmbedding = module.class "StableEmbedding"

local STABLE_PARTS = {"layer_norm", "xavier", "bits32"}

--- Which of the stable embedding's parts are wanted; all that is not said otherwise.
local function stable_parts(options)
  nearest.check_options("nn.StableEmbedding", options, STABLE_PARTS)
  local parts = {}
  for _, name in ipairs(STABLE_PARTS) do parts[name] = true end
  for name, value in pairs(options or {}) do
    nearest.check_switch("nn.StableEmbedding", name, value)
    parts[name] = value
  end
  return parts
end

function M.StableEmbedding:init(rows, width, options)
  check_size("StableEmbedding", "rows", rows)
  check_size("StableEmbedding", "width", width)
  local parts = stable_parts(options)
  self.weight = parts.xavier and uniform_parameter({rows, width}, math.sqrt(6 / (rows + width)))
    or tensor.new({rows, width}):normal_(0, 1):parameter_()
  if parts.layer_norm then self.norm = M.LayerNorm(width) end
  if parts.bits32 then self.state_bits = 32 end
  self.is_lookup = true
end

--- @tparam tensor ids i32 of any shape, 0-based
-- @treturn tensor [... x width]
function M.StableEmbedding:forward(ids)
  local y = functional.embedding(self.weight, ids)
  return self.norm and self.norm(y) or y
end

--- Dropout: in training each element is 0 with probability p, else scaled by 1 / (1 - p).
-- @function Dropout
M.Dropout = module.class "Dropout"

function M.Dropout:init(p)
  if not number.is_share(p) then
    fail(("Dropout: p is %s, expected 0 to below 1"):format(tostring(p)))
  end
  self.p = p
end

function M.Dropout:forward(x)
  if not self.training or self.p == 0 then return x end
  return functional.dropout(x, self.p)
end

--- Modules one behind the other; each takes what the one before gives. A function of a tensor may
-- stand among them.
-- @function Sequential
M.Sequential = module.class "Sequential"

function M.Sequential:init(...)
  for i = 1, select("#", ...) do
    local m = select(i, ...)
    if not module.is_module(m) and type(m) ~= "function" then
      fail(("%s: number %d is %s, expected a module or a function"):format(self.class_name, i,
        tostring(m)))
    end
    self[i] = m
  end
end

function M.Sequential:add(m)
  self[#self + 1] = m
  return self
end

function M.Sequential:forward(x)
  for i = 1, #self do x = self[i](x) end
  return x
end

--- A numbered list of modules without a forward function of its own.
-- @function List
M.List = module.class "List"

M.List.init = M.Sequential.init
M.List.add = M.Sequential.add

return M
