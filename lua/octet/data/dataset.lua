--- Encoded rows with their labels, and batches of them: packed, without padding.
-- @module octet.data.dataset
local ffi = require "ffi"
local binding = require "octet.binding"
local scope = require "octet.scope"
local tensor = require "octet.tensor"
local text = require "octet.text"

local C, check = binding.C, binding.check

local Dataset = {}
Dataset.__index = Dataset

local M = {}

--- A data set.
-- @tparam table options
--   `encoding`: from a tokenizer's encode_all or encode_table;
--   `labels`: int32_t[rows] (classes, from 0) or float[rows] (scores), or nil;
--   `classes`: how many classes there are, 1 for scores;
--   `rows` and `selection` (int32_t[rows]): which rows of the encoding, all where not given
-- @treturn Dataset with `rows`, `tokens` (all together) and `longest` (tokens of the longest row)
function M.new(options)
  local _, offsets, _, rows = text.arrays(options.encoding)
  local self = setmetatable({
    encoding = options.encoding, labels = options.labels, classes = options.classes,
    selection = options.selection, rows = options.selection and options.rows or rows,
  }, Dataset)
  self.tokens, self.longest = 0, 0
  for i = 0, self.rows - 1 do
    local row = self.selection and self.selection[i] or i
    if row < 0 or row >= rows then
      error(("dataset: row %d, expected 0 to %d"):format(row, rows - 1), 2)
    end
    local length = tonumber(offsets[row + 1] - offsets[row])
    self.tokens = self.tokens + length
    if length > self.longest then self.longest = length end
  end
  return self
end

--- n of the rows, in an order that depends on the seed alone; they share the encoding.
-- @tparam number n at most `rows`
-- @tparam number seed
-- @treturn Dataset
function Dataset:part(n, seed)
  local order = self:order(seed, 0)
  local selection = ffi.new("int32_t[?]", math.max(n, 1))
  ffi.copy(selection, order, 4 * n)
  return M.new {encoding = self.encoding, labels = self.labels, classes = self.classes,
    selection = selection, rows = n}
end

--- Rows of the encoding in the order of an epoch; a pure function of seed and epoch.
-- @tparam[opt] number seed nil: as they stand
-- @tparam[opt] number epoch
-- @treturn cdata int32_t[rows]
function Dataset:order(seed, epoch)
  local order = ffi.new("int32_t[?]", math.max(self.rows, 1))
  if seed then
    check(C.oct_permutation(order, self.rows, seed, epoch))
  else
    for i = 0, self.rows - 1 do order[i] = i end
  end
  if self.selection then
    for i = 0, self.rows - 1 do order[i] = self.selection[order[i]] end
  end
  return order
end

--- The label of a row (from 1), in the data set's own order.
function Dataset:label(i)
  if i < 1 or i > self.rows then
    error(("label: row %d, expected 1 to %d"):format(i, self.rows), 2)
  end
  return self.labels[self.selection and self.selection[i - 1] or i - 1]
end

--- How many batches of a size there are in an epoch; the last one may be smaller.
function Dataset:steps(size)
  return math.ceil(self.rows / size)
end

-- ---- batches ----------------------------------------------------------------------------------

-- Scopes that iterations hold open, outermost first. A loop that is left by break or return leaves
-- its scope open: it ends with the next scope around it that ends, or when its data set is
-- iterated again.
local open = {}

local function close_scope(iteration)
  local place
  for i = #open, 1, -1 do
    if open[i] == iteration then place = i end
  end
  for i = #open, place or #open + 1, -1 do
    open[i] = nil
    scope.end_scope()
  end
end

local function open_scope(iteration)
  scope.begin_scope()
  open[#open + 1] = iteration
end

local count = ffi.new "int64_t[1]"

--- The labels of rows as a tensor: i32 for classes, f32 for scores.
local function label_tensor(self, rows, n)
  local is_score = self.classes == 1
  local labels = tensor.new({n}, is_score and "f32" or "i32", "data")
  local into = labels:data()
  for i = 0, n - 1 do into[i] = self.labels[rows[i]] end
  return labels
end

--- Rows of the encoding, packed one behind the other.
local function pack(self, rows, n)
  check(C.oct_encoding_count(count, self.encoding, rows, n), 3)
  local tokens = tonumber(count[0])
  local batch = {tokens = tokens, examples = n}
  for _, name in ipairs {"ids", "types", "positions"} do
    batch[name] = tensor.new({tokens}, "i32", "data")
  end
  batch.offsets = tensor.new({n + 1}, "i32", "data")
  check(C.oct_encoding_pack(batch.ids:data(), batch.offsets:data(), batch.types:data(),
    batch.positions:data(), self.encoding, rows, n), 3)
  if self.labels then batch.labels = label_tensor(self, rows, n) end
  return batch
end

local function check_count(value, name, least)
  if type(value) ~= "number" or value < least or value ~= math.floor(value) then
    error(("batches: %s is %s, expected a whole number from %d on"):format(name, tostring(value),
      least), 3)
  end
end

--- Iterate over an epoch. A batch has, as tensors, `ids`, `types`, `positions` (i32 [tokens], the
-- sequences one behind the other), `offsets` (i32 [examples + 1]) and `labels` (i32 [examples], f32
-- where scores are predicted), and as numbers `tokens` and `examples`.
--
-- What a step makes and does not keep is released when the next batch is asked for, and when the
-- loop ends. A loop that is left early ends when the data set is next iterated, or by finish().
-- @tparam table options `size` (examples in a batch), `shuffle`, `seed` and `epoch` (the order
--   depends on them alone), `start`: batches of the epoch to pass over, at no cost
-- @return iterator
function Dataset:batches(options)
  local size, start = options.size, options.start or 0
  check_count(size, "size", 1)
  check_count(start, "start", 0)
  local order = self:order(options.shuffle and (options.seed or 0) or nil, options.epoch or 1)
  self:finish()
  local at, iteration = start * size, {}
  return function()
    if self.iteration == iteration then self:finish() end
    if at >= self.rows then return nil end
    open_scope(iteration)
    self.iteration = iteration
    local n = math.min(size, self.rows - at)
    local batch = pack(self, order + at, n)
    at = at + n
    return batch
  end
end

--- End an iteration that was left early: what its last step made is released.
function Dataset:finish()
  if self.iteration then close_scope(self.iteration) end
  self.iteration = nil
end

return M
