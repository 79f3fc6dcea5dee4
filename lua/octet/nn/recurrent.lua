--- Recurrent layers: LSTM and GRU over packed sequences.
-- @module octet.nn.recurrent
local ffi = require "ffi"
local binding = require "octet.binding"
local module = require "octet.nn.module"
local tensor = require "octet.tensor"

local C, call = binding.C, binding.call
local M = {}

local outs = ffi.new "oct_tensor *[3]"
local weights_in = ffi.new "oct_tensor *[8]"

local function own(t) return ffi.gc(t, C.oct_tensor_free) end

local KINDS = {"weight_ih", "weight_hh", "bias_ih", "bias_hh"}
local SUFFIXES = {"", "_reverse"}

-- ---- packed sequences --------------------------------------------------------------------------

--- Offsets of `count` sequences; lengths(i): of sequence i, counted from 0.
local function offsets_of(lengths, count)
  local offsets = tensor.new({count + 1}, "i32", "data")
  local at = offsets:data()
  at[0] = 0
  for i = 0, count - 1 do at[i + 1] = at[i] + lengths(i) end
  return offsets
end

--- What the caller says of the sequences, as offsets. A length is 1 or more, offsets begin with 0:
-- so the first number tells which of the two a tensor holds.
local function to_offsets(class, x, sequences)
  local shape = x:shape()
  if sequences == nil then
    if #shape ~= 3 then
      error(("%s: x is [%s]; without offsets or lengths expected [sequences x steps x inputs]")
        :format(class, table.concat(shape, " x ")), 4)
    end
    return offsets_of(function() return shape[2] end, shape[1])
  end
  if type(sequences) == "table" then
    return offsets_of(function(i) return sequences[i + 1] end, #sequences)
  end
  if not tensor.is_tensor(sequences) or sequences:dtype() ~= "i32" then
    error(("%s: offsets or lengths expected as an i32 tensor, got %s"):format(class,
      tostring(sequences)), 4)
  end
  local first = sequences:data()
  if first[0] == 0 then return sequences end
  return offsets_of(function(i) return first[i] end, sequences:size())
end

-- ---- what both have in common ------------------------------------------------------------------

--- Names of a layer's weights as PyTorch has them, for each direction four.
local function weight_names(layer, directions)
  local names = {}
  for d = 1, directions do
    for _, kind in ipairs(KINDS) do
      names[#names + 1] = ("%s_l%d%s"):format(kind, layer - 1, SUFFIXES[d])
    end
  end
  return names
end

local function init(self, gates, inputs, hidden, options)
  options = options or {}
  self.inputs, self.hidden = inputs, hidden
  self.layers = options.layers or 1
  self.directions = options.bidirectional and 2 or 1
  self.dropout = options.dropout or 0
  if self.layers < 1 or self.layers % 1 ~= 0 or not (self.dropout >= 0 and self.dropout < 1) then
    error(("%s: %s layers with dropout %s; expected 1 or more whole ones, and 0 to below 1")
      :format(self.class_name, tostring(self.layers), tostring(self.dropout)), 4)
  end
  self.names = {}
  local bound = 1 / math.sqrt(hidden)
  for layer = 1, self.layers do
    local width = layer == 1 and inputs or self.directions * hidden
    self.names[layer] = weight_names(layer, self.directions)
    for i, name in ipairs(self.names[layer]) do
      local kind = (i - 1) % 4 + 1
      if kind <= 2 or options.bias ~= false then
        local shape = kind > 2 and {gates * hidden}
          or {gates * hidden, kind == 1 and width or hidden}
        self[name] = tensor.new(shape):uniform_(-bound, bound):parameter_()
      end
    end
  end
end

--- Layer by layer. run(x, offsets, layer, p) gives y and the layer's states, h first.
local function forward(self, x, sequences, state, parts)
  local offsets = to_offsets(self.class_name, x, sequences)
  local shape = x:shape()
  if #shape == 3 then x = x:reshape(-1, shape[3]) end
  local d, finals, h = self.directions, {}, nil
  for i = 1, #parts do finals[i] = {} end
  for layer = 1, self.layers do
    for i, name in ipairs(self.names[layer]) do weights_in[i - 1] = self[name] end
    local p = layer > 1 and self.training and self.dropout or 0
    local initial = {}
    for i, part in ipairs(parts) do
      local given = state and state[part]
      if given and given:size(1) ~= self.layers * d then
        error(("%s: state.%s is [%s], expected [%d x sequences x %d]"):format(self.class_name, part,
          table.concat(given:shape(), " x "), self.layers * d, self.hidden), 3)
      end
      initial[i] = given and given:rows((layer - 1) * d + 1, d)
    end
    if #parts == 2 then
      call(C.oct_lstm, outs, outs + 1, outs + 2, x, offsets, initial[1], initial[2], weights_in, d,
        p)
    else
      call(C.oct_gru, outs, outs + 1, x, offsets, initial[1], weights_in, d, p)
    end
    x = own(outs[0])
    for i = 1, #parts do finals[i][layer] = own(outs[i]) end
    h = finals[1][layer]
  end
  local last = d == 1 and h:reshape(h:size(2), self.hidden)
    or h:transpose(1, 2):reshape(h:size(2), d * self.hidden)
  local final = {}
  for i, part in ipairs(parts) do
    final[part] = self.layers == 1 and finals[i][1] or tensor.cat(finals[i])
  end
  if #shape == 3 then x = x:reshape(shape[1], shape[2], d * self.hidden) end
  return x, last, final
end

-- ---- LSTM --------------------------------------------------------------------------------------

--- Long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000). Weights have
-- PyTorch's names and layout (weight_ih_l0, ..., bias_hh_l1_reverse; gates i, f, g, o), and start
-- uniform in +-1/sqrt(hidden).
--
--     local y, last, state = lstm(x, offsets)
--     y, last, state = lstm(x, offsets, nn.detach(state))     -- truncated back-propagation
-- @function LSTM
-- @tparam number inputs
-- @tparam number hidden
-- @tparam[opt] table options `layers` (1); `bidirectional`; `dropout` of what goes from layer to
-- layer, in training; `bias = false`; `forget_bias`: what the two biases of the forget gate come to
-- at the start (1 in Jozefowicz et al. 2015)
M.LSTM = module.class "LSTM"

function M.LSTM:init(inputs, hidden, options)
  init(self, 4, inputs, hidden, options)
  local forget_bias = options and options.forget_bias
  if not forget_bias then return end
  for _, names in ipairs(self.names) do
    for i = 3, #names, 4 do
      if not self[names[i]] then error("LSTM: a forget bias, but no bias", 3) end
      local ih, hh = self[names[i]]:data(), self[names[i + 1]]:data()
      for unit = hidden, 2 * hidden - 1 do ih[unit], hh[unit] = forget_bias, 0 end
    end
  end
end

--- @tparam tensor x [tokens x inputs], packed; or [sequences x steps x inputs] where all sequences
-- have the same length and nothing else is said
-- @tparam[opt] tensor|{number,...} sequences offsets (i32 [sequences + 1]) or lengths (i32
-- [sequences], or a table)
-- @tparam[opt] table state what each sequence starts with: h and c, each [layers * directions x
-- sequences x hidden], zeros where one is left out
-- @treturn tensor y [... x directions * hidden], in x's order; the forward direction's part first
-- @treturn tensor [sequences x directions * hidden]: h of the last layer behind each sequence
-- @treturn table the state behind each sequence, as `state`
function M.LSTM:forward(x, sequences, state)
  return forward(self, x, sequences, state, {"h", "c"})
end

-- ---- GRU ---------------------------------------------------------------------------------------

--- Gated recurrent units (Cho et al. 2014, with PyTorch's and cuDNN's candidate, where r is applied
-- behind the product). Weights have PyTorch's names and layout (gates r, z, n).
-- @function GRU
-- @tparam number inputs
-- @tparam number hidden
-- @tparam[opt] table options as of an LSTM, without `forget_bias`
M.GRU = module.class "GRU"

function M.GRU:init(inputs, hidden, options)
  init(self, 3, inputs, hidden, options)
end

--- As an LSTM's; `state` has h alone.
function M.GRU:forward(x, sequences, state)
  return forward(self, x, sequences, state, {"h"})
end

--- A state to start the next stretch of the same sequences from: no gradient passes, and it lives
-- until nothing refers to it.
-- @tparam table state as an LSTM or a GRU gives it
-- @treturn table
function M.detach(state)
  local detached = {}
  for part, t in pairs(state) do detached[part] = t:detach():keep() end
  return detached
end

return M
