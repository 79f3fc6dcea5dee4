--- Encoded rows with their labels, and batches of them: packed, without padding.
-- @module octet.data.dataset
local ffi = require "ffi"
local binding = require "octet.binding"
local file = require "octet.file"
local nearest = require "octet.nearest"
local number = require "octet.number"
local scope = require "octet.scope"
local tensor = require "octet.tensor"
local text = require "octet.text"

local C, check = binding.C, binding.check

local BATCHES_OPTIONS = {"size", "shuffle", "seed", "epoch", "start", "by_length"}

local Dataset = {}
Dataset.__index = Dataset

local M = {}

--- A data set.
-- @tparam table options
--   `encoding`: from a tokenizer's encode_all or encode_table; or else `ids` (int32_t[]),
--   `offsets` (int64_t[all_rows + 1]) and `all_rows`;
--   `labels`: int32_t[rows] (classes, from 0) or float[rows] (scores), or nil;
--   `classes`: how many classes there are, 1 for scores;
--   `rows` and `selection` (int32_t[rows]): which rows of the encoding, all where not given
-- @treturn Dataset with `rows`, `tokens` (all together) and `longest` (tokens of the longest row)
function M.new(options)
  local offsets, rows = options.offsets, options.all_rows
  if options.encoding then
    local _
    _, offsets, _, rows = text.arrays(options.encoding)
  end
  local self = setmetatable({
    encoding = options.encoding, ids = options.ids, offsets = offsets, labels = options.labels,
    classes = options.classes, selection = options.selection,
    rows = options.selection and options.rows or rows, all_rows = rows,
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

--- What tells this data set from others: a SHA-256 of its ids, labels and selection.
-- @treturn string 64 hexadecimal digits
function Dataset:digest()
  local ids = self.encoding and text.arrays(self.encoding) or self.ids
  local parts = {file.bytes_sha256(ids, 4 * tonumber(self.offsets[self.all_rows])),
    file.bytes_sha256(self.offsets, 8 * (self.all_rows + 1))}
  if self.labels then parts[3] = file.bytes_sha256(self.labels, 4 * self.all_rows) end
  if self.selection then
    parts[#parts + 1] = file.bytes_sha256(self.selection, 4 * self.rows)
  end
  return file.bytes_sha256(table.concat(parts))
end

--- n of the rows, in an order that depends on the seed alone; they share the encoding.
-- @tparam number n at most `rows`
-- @tparam number seed
-- @treturn Dataset
function Dataset:part(n, seed)
  local order = self:order(seed, 0)
  local selection = ffi.new("int32_t[?]", math.max(n, 1))
  ffi.copy(selection, order, 4 * n)
  return M.new {encoding = self.encoding, ids = self.ids, offsets = self.offsets,
    all_rows = self.all_rows, labels = self.labels, classes = self.classes, selection = selection,
    rows = n}
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

--- The same rows sorted by length, those of one length as they stood, and then, where there is a
-- seed, the batches shuffled; one that is not full stays the last.
function Dataset:by_length(order, size, seed, epoch)
  -- One number says both, length first: a comparison of numbers is quick.
  local keys = {}
  for i = 0, self.rows - 1 do
    local length = tonumber(self.offsets[order[i] + 1] - self.offsets[order[i]])
    keys[i + 1] = length * self.rows + i
  end
  table.sort(keys)
  local full = math.floor(self.rows / size)
  local batches = ffi.new("int32_t[?]", math.max(full, 1))
  for i = 0, full - 1 do batches[i] = i end
  if seed then check(C.oct_permutation(batches, full, seed, epoch)) end
  local sorted = ffi.new("int32_t[?]", math.max(self.rows, 1))
  for i = 0, self.rows - 1 do
    local batch = math.floor(i / size)
    local from = batch < full and batches[batch] * size + i % size or i
    sorted[i] = order[keys[from + 1] % self.rows]
  end
  return sorted
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

--- Rows of `ids`, packed one behind the other.
local function pack_ids(self, rows, n)
  local offsets = tensor.new({n + 1}, "i32", "data")
  local at = offsets:data()
  at[0] = 0
  for i = 0, n - 1 do
    at[i + 1] = at[i] + tonumber(self.offsets[rows[i] + 1] - self.offsets[rows[i]])
  end
  local ids = tensor.new({at[n]}, "i32", "data")
  local into = ids:data()
  for i = 0, n - 1 do
    ffi.copy(into + at[i], self.ids + self.offsets[rows[i]], 4 * (at[i + 1] - at[i]))
  end
  return {ids = ids, offsets = offsets, tokens = at[n], examples = n,
    labels = self.labels and label_tensor(self, rows, n)}
end

--- Rows of the encoding, packed one behind the other.
local function pack(self, rows, n)
  if self.ids then return pack_ids(self, rows, n) end
  check(C.oct_encoding_count(count, self.encoding, rows, n))
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
  if not number.is_whole(value, least) then
    error(("batches: %s is %s, expected a whole number from %d on"):format(name, tostring(value),
      least), 3)
  end
end

--- Iterate over an epoch. A batch has, as tensors, `ids`, `types`, `positions` (i32 [tokens], the
-- sequences one behind the other), `offsets` (i32 [examples + 1]) and `labels` (i32 [examples], f32
-- where scores are predicted), and as numbers `tokens` and `examples`.
--
-- A data set of `ids` has no types and no positions.
--
-- What a step makes and does not keep is released when the next batch is asked for, and when the
-- loop ends. A loop that is left early ends when the data set is next iterated, or by finish().
-- @tparam table options `size` (examples in a batch), `shuffle`, `seed` and `epoch` (the order
--   depends on them alone), `start`: batches of the epoch to pass over, at no cost; `by_length`:
--   rows of like length share a batch, and the batches are shuffled
-- @return iterator
function Dataset:batches(options)
  nearest.check_options("batches", options, BATCHES_OPTIONS)
  options = options or {}
  local size, start = options.size, options.start or 0
  check_count(size, "size", 1)
  check_count(start, "start", 0)
  local seed = options.shuffle and (options.seed or 0) or nil
  local order = self:order(seed, options.epoch or 1)
  if options.by_length then order = self:by_length(order, size, seed, options.epoch or 1) end
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
