--- One long text as ids, cut into columns that are read side by side: what a language model with a
-- memory learns from.
--
-- With 2 columns and stretches of 3, the ids 0 1 2 3 4 5 6 7 8 9 become the batches
--
--     ids 0 1 2    labels 1 2 3         ids 3    labels 4
--         4 5 6           5 6 7             7           8
--
-- so that each batch goes on where the one before it ended. What does not fill a column is left
-- over at the end: here the 9, as a label.
-- @module octet.data.stream
local file = require "octet.file"
local tensor = require "octet.tensor"

local M = {}
local Stream = {}
Stream.__index = Stream

--- A stream.
-- @tparam cdata ids int32_t[tokens]
-- @tparam number tokens
-- @treturn Stream with `ids`, `tokens`
function M.new(ids, tokens)
  return setmetatable({ids = ids, tokens = tokens}, Stream)
end

--- What tells this text from others: a SHA-256 of its ids.
-- @treturn string 64 hexadecimal digits
function Stream:digest() return file.bytes_sha256(self.ids, 4 * self.tokens) end

--- Ids in a column, each of which has a label.
-- @tparam number columns
-- @treturn number
function Stream:height(columns)
  local height = math.floor((self.tokens - 1) / columns)
  if height < 1 then
    error(("a text of %d words cannot be read in %d columns, expected %d words or more"):format(
      self.tokens, columns, columns + 1), 0)
  end
  return height
end

--- How many batches there are; the last one may be shorter.
-- @tparam number columns
-- @tparam number length of a stretch
-- @treturn number
function Stream:steps(columns, length)
  return math.ceil(self:height(columns) / length)
end

--- An iterator over the batches in their order. All share memory: a batch holds until the next one.
-- @tparam table o `columns`; `length` of a stretch; `start`: batches that are left out at the start
-- @treturn function each batch has `ids` (i32 [columns x length]), `labels` (i32 [columns *
-- length], the ids that follow them), and `tokens` and `examples`: how many there are
function Stream:batches(o)
  local columns, height = o.columns, self:height(o.columns)
  local at = (o.start or 0) * o.length
  local batch
  return function()
    local length = math.min(o.length, height - at)
    if length <= 0 then return nil end
    local count = columns * length
    if not batch or batch.tokens ~= count then
      batch = {ids = tensor.new({columns, length}, "i32", "data"):keep(),
        labels = tensor.new({count}, "i32", "data"):keep(), tokens = count, examples = count}
    end
    local ids, labels = batch.ids:data(), batch.labels:data()
    for column = 0, columns - 1 do
      local from, into = self.ids + column * height + at, column * length
      for i = 0, length - 1 do
        ids[into + i], labels[into + i] = from[i], from[i + 1]
      end
    end
    at = at + length
    return batch
  end
end

return M
