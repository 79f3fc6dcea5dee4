--- Recurrent layers: LSTM and GRU over packed sequences.
-- @module octet.nn.recurrent
local ffi = require "ffi"
local binding = require "octet.binding"
local functional = require "octet.nn.functional"
local message = require "octet.message"
local module = require "octet.nn.module"
local nearest = require "octet.nearest"
local number = require "octet.number"
local tensor = require "octet.tensor"
local tensor_text = require "octet.tensor_text"

local fail = message.fail
local C, call, own = binding.C, binding.call, tensor.own
local M = {}

local outs = ffi.new "oct_tensor *[4]"
local weights_in = ffi.new "oct_tensor *[8]"

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

--- Lengths as offsets: they must be those of all the tokens there are.
local function offsets_of_lengths(class, tokens, lengths, count)
  local offsets = offsets_of(lengths, count)
  local all = offsets:data()[count]
  if all ~= tokens then
    fail(("%s: the lengths add up to %d, but there are %d tokens; sequences stand one behind the "
      .. "other, without padding"):format(class, all, tokens))
  end
  return offsets
end

--- What the caller says of the sequences, as offsets. A length is 1 or more, offsets begin with 0:
-- so the first number tells which of the two a tensor holds.
local function to_offsets(class, x, sequences, rows)
  local shape = x:shape()
  if sequences == nil then
    if #shape ~= 3 then
      fail(("%s: x is [%s]; without offsets or lengths expected [sequences x steps x inputs]")
        :format(class, table.concat(shape, " x ")))
    end
    return offsets_of(function() return shape[2] end, shape[1])
  end
  local tokens = rows and rows:size() or x:size() / shape[#shape]
  if type(sequences) == "table" then
    for i, length in ipairs(sequences) do
      if not number.is_whole(length, 0) then
        fail(("%s: length %d is a %s, %s, expected a whole number from 1 on"):format(class, i,
          type(length), tostring(length)))
      end
    end
    return offsets_of_lengths(class, tokens, function(i) return sequences[i + 1] end, #sequences)
  end
  if not tensor.is_tensor(sequences) or sequences:dtype() ~= "i32" then
    fail(("%s: offsets or lengths expected as an i32 tensor, got %s"):format(class,
      tensor.is_tensor(sequences) and tensor_text.title(sequences) or tostring(sequences)))
  end
  local first = sequences:data()
  if first[0] == 0 then return sequences end
  return offsets_of_lengths(class, tokens, function(i) return first[i] end, sequences:size())
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

local OPTIONS = {LSTM = {"layers", "bidirectional", "dropout", "bias", "forget_bias"},
  GRU = {"layers", "bidirectional", "dropout", "bias"}}

local function init(self, gates, inputs, hidden, options)
  module.check_size(self.class_name, "inputs", inputs)
  module.check_size(self.class_name, "hidden", hidden)
  nearest.check_options(self.class_name, options, OPTIONS[self.class_name])
  options = options or {}
  nearest.check_switch(self.class_name, "bidirectional", options.bidirectional)
  nearest.check_switch(self.class_name, "bias", options.bias)
  self.inputs, self.hidden = inputs, hidden
  self.layers = options.layers or 1
  self.directions = options.bidirectional and 2 or 1
  self.dropout = options.dropout or 0
  if not (number.is_whole(self.layers, 1) and number.is_share(self.dropout)) then
    fail(("%s: %s layers with dropout %s; expected 1 or more whole ones, and 0 to below 1")
      :format(self.class_name, tostring(self.layers), tostring(self.dropout)))
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

--- One layer.
-- @tparam Recurrent self
-- @tparam number layer from 1
-- @tparam tensor x [tokens x width], or of `rows`
-- @tparam tensor offsets i32 [sequences + 1]
-- @tparam table initial what of `parts` each sequence starts with
-- @tparam[opt] tensor rows i32 [tokens]: the row of x that each token is
-- @tparam[opt] boolean with_each an LSTM's cells behind every token, too
-- @treturn table y; h and c behind each sequence; with_each: c_of_each, as y
local function run_layer(self, layer, x, offsets, initial, rows, with_each)
  for i, name in ipairs(self.names[layer]) do weights_in[i - 1] = self[name] end
  local p = layer > 1 and self.training and self.dropout or 0
  local lstm, d = #self.parts == 2, self.directions
  if lstm then
    call(C.oct_lstm, outs, outs + 1, outs + 2, with_each and outs + 3 or nil, x, rows, offsets,
      initial.h, initial.c, weights_in, d, p)
  else
    call(C.oct_gru, outs, outs + 1, x, rows, offsets, initial.h, weights_in, d, p)
  end
  return {y = own(outs[0]), h = own(outs[1]), c = lstm and own(outs[2]) or nil,
    c_of_each = lstm and with_each and own(outs[3]) or nil}
end

--- Layer by layer. initial_of(layer) gives what the layer's sequences start with.
local function forward(self, x, sequences, rows, initial_of)
  local offsets = to_offsets(self.class_name, x, sequences, rows)
  local shape = x:shape()
  if #shape == 3 then x = x:reshape(-1, shape[3]) end
  local d, finals, h = self.directions, {}, nil
  for _, part in ipairs(self.parts) do finals[part] = {} end
  for layer = 1, self.layers do
    local out = run_layer(self, layer, x, offsets, initial_of(layer), layer == 1 and rows or nil)
    for part, list in pairs(finals) do list[layer] = out[part] end
    x, h = out.y, out.h
  end
  local last = d == 1 and h:reshape(h:size(2), self.hidden)
    or h:transpose(1, 2):reshape(h:size(2), d * self.hidden)
  local final = {}
  for part, list in pairs(finals) do
    final[part] = self.layers == 1 and list[1] or tensor.cat(list)
  end
  if #shape == 3 then x = x:reshape(shape[1], shape[2], d * self.hidden) end
  return x, last, final
end

local function check_state(self, state)
  if state == nil then return end
  local known = {}
  for _, part in ipairs(self.parts) do known[part] = true end
  for part, t in pairs(type(state) == "table" and state or {state}) do
    if not known[part] or not tensor.is_tensor(t) then
      fail(("%s: the state has %s, expected tensors named %s, as it gives them"):format(
        self.class_name, known[part] and "a " .. type(t) .. " named " .. part
        or "something named " .. tostring(part), table.concat(self.parts, " and ")))
    end
  end
end

local function forward_from(self, x, sequences, state, rows)
  local d = self.directions
  check_state(self, state)
  for _, part in ipairs(self.parts) do
    local given = state and state[part]
    if given and given:size(1) ~= self.layers * d then
      fail(("%s: state.%s is [%s], expected [%d x sequences x %d]"):format(self.class_name, part,
        table.concat(given:shape(), " x "), self.layers * d, self.hidden))
    end
  end
  return forward(self, x, sequences, rows, function(layer)
    local initial = {}
    for _, part in ipairs(self.parts) do
      local given = state and state[part]
      initial[part] = given and given:rows((layer - 1) * d + 1, d)
    end
    return initial
  end)
end

--- The prefix is a sequence of its own, walked a layer ahead; its states at the places where the
-- others leave it are what those start with, and their gradients meet there on the way back.
local function forward_behind(self, prefix, counts, x, sequences, rows)
  if self.directions > 1 then
    fail(("%s: behind: one direction expected; the other has no prefix"):format(self.class_name))
  end
  sequences = to_offsets(self.class_name, x, sequences, rows)
  if counts:size() ~= sequences:size() - 1 then
    fail(("%s: behind: %d counts, but %d sequences"):format(self.class_name, counts:size(),
      sequences:size() - 1))
  end
  local steps = prefix:size(1)
  local offsets, none = offsets_of(function() return steps end, 1), tensor.zeros({1, self.hidden})
  return forward(self, x, sequences, rows, function(layer)
    local out = run_layer(self, layer, prefix, offsets, {}, nil, true)
    prefix = out.y
    local initial, of_each = {}, {h = out.y, c = out.c_of_each}
    for _, part in ipairs(self.parts) do
      -- Row k is the state behind k tokens of the prefix.
      local behind = tensor.cat {none, of_each[part]}
      initial[part] = functional.embedding(behind, counts):reshape(1, -1, self.hidden)
    end
    return initial
  end)
end

-- ---- LSTM --------------------------------------------------------------------------------------

--- Long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000). Weights have
-- PyTorch's names and layout (weight_ih_l0, ..., bias_hh_l1_reverse; gates i, f, g, o), and start
-- uniform in +-1/sqrt(hidden).
--
--     local y, last, state = lstm(x, offsets)
--     state = nn.detach(state)        -- before backward, which releases what it has used
--     y, last, state = lstm(x, offsets, state)                -- truncated back-propagation
-- @function LSTM
-- @tparam number inputs
-- @tparam number hidden
-- @tparam[opt] table options `layers` (1); `bidirectional`; `dropout` of what goes from layer to
-- layer, in training; `bias = false`; `forget_bias`: what the two biases of the forget gate come to
-- at the start (1 in Jozefowicz et al. 2015)
M.LSTM = module.class "LSTM"
M.LSTM.parts = {"h", "c"}   -- of a state

function M.LSTM:init(inputs, hidden, options)
  init(self, 4, inputs, hidden, options)
  local forget_bias = options and options.forget_bias
  if not forget_bias then return end
  for _, names in ipairs(self.names) do
    for i = 3, #names, 4 do
      if not self[names[i]] then fail("LSTM: a forget bias, but no bias") end
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
-- @tparam[opt] tensor rows i32 [tokens]: which row of x each token is, from 0; x may then have any
-- number of rows, and its product with the weights is made once for each. Words of a batch are such
-- rows: `local words, rows = nn.distinct(ids)`, `lstm(embed(words), offsets, nil, rows)`
-- @treturn tensor y [... x directions * hidden], in x's order; the forward direction's part first
-- @treturn tensor [sequences x directions * hidden]: h of the last layer behind each sequence
-- @treturn table the state behind each sequence, as `state`
function M.LSTM:forward(x, sequences, state, rows)
  return forward_from(self, x, sequences, state, rows)
end

--- Sequences that stand behind one prefix, each behind as many of its first tokens as it says, as
-- texts padded on the left do: the prefix is walked once for all of them, and the result is that
-- of each whole sequence. (Dropout between the layers drops the same of the prefix for all.)
--
--     local y, last = lstm:behind(padding, counts, x, offsets)
-- @tparam tensor prefix [steps x inputs]
-- @tparam tensor counts i32 [sequences], 0 to steps each
-- @tparam tensor x [tokens x inputs]: what follows
-- @tparam[opt] tensor|{number,...} sequences of x, as above
-- @tparam[opt] tensor rows of x, as above
-- @return as `forward`: y of x's tokens, the last states, the state
function M.LSTM:behind(prefix, counts, x, sequences, rows)
  return forward_behind(self, prefix, counts, x, sequences, rows)
end

-- ---- GRU ---------------------------------------------------------------------------------------

--- Gated recurrent units (Cho et al. 2014, with PyTorch's and cuDNN's candidate, where r is applied
-- behind the product). Weights have PyTorch's names and layout (gates r, z, n).
-- @function GRU
-- @tparam number inputs
-- @tparam number hidden
-- @tparam[opt] table options as of an LSTM, without `forget_bias`
M.GRU = module.class "GRU"
M.GRU.parts = {"h"}

function M.GRU:init(inputs, hidden, options)
  init(self, 3, inputs, hidden, options)
end

--- As an LSTM's; `state` has h alone.
function M.GRU:forward(x, sequences, state, rows)
  return forward_from(self, x, sequences, state, rows)
end

--- As an LSTM's.
function M.GRU:behind(prefix, counts, x, sequences, rows)
  return forward_behind(self, prefix, counts, x, sequences, rows)
end

--- A state to start the next stretch of the same sequences from: no gradient passes, and it lives
-- until nothing refers to it. To be taken before `backward`, which releases what it has used.
-- @tparam table state as an LSTM or a GRU gives it
-- @treturn table
function M.detach(state)
  local detached = {}
  for part, t in pairs(state) do detached[part] = t:detach():keep() end
  return detached
end

return M
