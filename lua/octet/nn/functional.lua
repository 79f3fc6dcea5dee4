--- Functions without parameters of their own: losses, attention, dropout, pooling.
-- @module octet.nn.functional
local ffi = require "ffi"
local binding = require "octet.binding"
local message = require "octet.message"
local nearest = require "octet.nearest"
local tensor = require "octet.tensor"

local C, call, out, take, own = binding.C, tensor.call, tensor.out, tensor.take, tensor.own
local pair = ffi.new "oct_tensor *[2]"
local M = {}

local ATTENTION_OPTIONS, LOSS_OPTIONS = {"dropout", "causal"}, {"ignore"}
local ACTIVATIONS = {
  gelu = C.OCT_OP_GELU, relu = C.OCT_OP_RELU, tanh = C.OCT_OP_TANH,
  sigmoid = C.OCT_OP_SIGMOID, silu = C.OCT_OP_SILU,
}

local function check_tensors(op, ...)
  for i = 1, select("#", ...) do
    local x = select(i, ...)
    if not tensor.is_tensor(x) then
      message.fail(("%s: argument %d is %s, expected a tensor"):format(op, i, message.shown(x)))
    end
  end
end

--- The core's number of an activation; -1 for none.
-- @tparam[opt] string name
function M.activation_code(name)
  if not name then return -1 end
  return ACTIVATIONS[name] or message.fail(("activation %s; expected gelu, relu, tanh, sigmoid or "
    .. "silu"):format(message.shown(name)))
end

--- Rows of a table [rows x width] at ids (i32, any shape, 0-based).
function M.embedding(table, ids)
  call(C.oct_embedding, out, table, ids)
  return take()
end

--- The different ids (i32 [count], as they first appear), and for each of `ids` the place of its
-- own among them, from 0: what is to be known of every word of a batch is computed once a word.
-- @tparam tensor ids i32
-- @treturn tensor i32 [count]
-- @treturn tensor i32, of the shape of `ids`
function M.distinct(ids)
  call(C.oct_distinct, pair, pair + 1, ids)
  return own(pair[0]), own(pair[1])
end

--- Each element is 0 with probability p, else scaled by 1 / (1 - p).
function M.dropout(x, p)
  call(C.oct_dropout, out, x, p)
  return take()
end

--- Attention over packed sequences (Vaswani et al. 2017).
-- @tparam tensor qkv [tokens x 3 width]: query, key, value side by side
-- @tparam tensor offsets i32 [sequences + 1]: where each sequence begins, and the end
-- @tparam number heads
-- @tparam[opt] table options `dropout` of the probabilities; `causal`: see no later token
-- @treturn tensor [tokens x width]
function M.attention(qkv, offsets, heads, options)
  nearest.check_options("attention", options, ATTENTION_OPTIONS)
  options = options or {}
  call(C.oct_attention, out, qkv, offsets, heads, options.dropout or 0, options.causal and 1 or 0)
  return take()
end

--- Mean over the rows of each packed sequence.
-- @tparam tensor x [tokens x width]
-- @tparam tensor offsets i32 [sequences + 1]
-- @treturn tensor [sequences x width]
function M.segment_mean(x, offsets)
  call(C.oct_segment_mean, out, x, offsets)
  return take()
end

--- First row of each packed sequence.
-- @treturn tensor [sequences x width]
function M.segment_first(x, offsets)
  check_tensors("segment_first", x, offsets)
  if offsets:data()[offsets:size() - 1] ~= x:size(1) then
    message.fail(("segment_first: the offsets end with %d, and x has %d rows"):format(
      offsets:data()[offsets:size() - 1], x:size(1)))
  end
  return M.embedding(x, offsets:rows(1, offsets:size() - 1))
end

--- Mean cross-entropy of logits [rows x classes] with labels (i32 [rows], 0-based).
-- @tparam tensor logits
-- @tparam tensor labels
-- @tparam[opt] table options `ignore`: a label whose rows do not count (-100)
-- @treturn tensor a scalar
function M.cross_entropy(logits, labels, options)
  nearest.check_options("cross_entropy", options, LOSS_OPTIONS)
  call(C.oct_cross_entropy, out, logits, labels, options and options.ignore or -100)
  return take()
end

--- Mean cross-entropy of yes or no: logits, whose sigmoids are the probabilities of yes.
-- @tparam tensor logits of any shape
-- @tparam tensor targets as many, each from 0 to 1 (f32), or labels 0 and 1 (i32)
-- @treturn tensor a scalar
function M.binary_cross_entropy_with_logits(logits, targets)
  check_tensors("binary_cross_entropy_with_logits", logits, targets)
  if targets:dtype() == "i32" then targets = targets:to("f32") end
  call(C.oct_binary_cross_entropy, out, logits, targets)
  return take()
end

local function without_ones(t)
  local sizes = {}
  for _, n in ipairs(t:shape()) do sizes[#sizes + 1] = n ~= 1 and n or nil end
  return table.concat(sizes, " x ")
end

--- Mean squared error of two tensors of the same shape, in which dimensions of 1 count for nothing.
-- @treturn tensor a scalar
function M.mse_loss(prediction, target)
  check_tensors("mse_loss", prediction, target)
  local ours, theirs = without_ones(prediction), without_ones(target)
  if ours ~= theirs then
    message.fail(("mse_loss: the prediction is [%s], the target [%s], expected the same"):format(
      ours, theirs))
  end
  return (prediction:reshape(-1) - target:reshape(-1)):square():mean()
end

return M
