--- Texts as words: a vocabulary of what training texts hold, and ids by it.
--
-- Id 0 pads, id 1 stands for a word that the vocabulary lacks; the commonest word is 2. A text
-- without any word is one unknown word, since a sequence has a token at the least.
-- @module octet.data.words
local ffi = require "ffi"
local Dataset = require "octet.data.dataset"
local file = require "octet.file"
local split = require "octet.data.split"

local M = {PAD = 0, UNKNOWN = 1, FIRST = 2}

--- Words, numbers and marks: runs of letters, digits and apostrophes, and every other sign by
-- itself. Bytes of other alphabets are letters.
-- @tparam string text
-- @treturn function an iterator over words
function M.words_and_marks(text)
  local at = 1
  return function()
    at = text:find("%S", at)
    if not at then return nil end
    local first, last = text:find("^[%w\128-\255][%w'\128-\255]*", at)
    if not first then first, last = at, at end
    at = last + 1
    return text:sub(first, last)
  end
end

--- Texts taken apart: every word as a number in the order of first appearance.
-- @tparam number rows
-- @tparam function text_of text_of(row), from 1
-- @tparam function words_of words_of(text): an iterator over words
-- @treturn table rows, `words` by number, `numbers` (int32_t[tokens]), `offsets`
-- (int64_t[rows + 1])
function M.corpus(rows, text_of, words_of)
  local number_of, words, room = {}, {}, 4096
  local numbers, used = ffi.new("int32_t[?]", room), 0
  local offsets = ffi.new("int64_t[?]", rows + 1)
  for row = 1, rows do
    for word in words_of(text_of(row)) do
      local number = number_of[word]
      if not number then
        number = #words + 1
        words[number], number_of[word] = word, number
      end
      if used == room then
        local grown = ffi.new("int32_t[?]", 2 * room)
        ffi.copy(grown, numbers, 4 * room)
        numbers, room = grown, 2 * room
      end
      numbers[used] = number
      used = used + 1
    end
    offsets[row] = used
  end
  return {rows = rows, words = words, numbers = numbers, offsets = offsets}
end

--- The words of some rows, the commonest first, equally common ones by their bytes.
-- @tparam table corpus
-- @tparam cdata selection int32_t[count]: rows, from 0
-- @tparam number count
-- @tparam table o `least`: times that a word must appear; `most`: words at most
-- @treturn {string,...}
function M.vocabulary(corpus, selection, count, o)
  local times, list = {}, {}
  for i = 0, count - 1 do
    local row = selection[i]
    for at = tonumber(corpus.offsets[row]), tonumber(corpus.offsets[row + 1]) - 1 do
      local number = corpus.numbers[at]
      times[number] = (times[number] or 0) + 1
    end
  end
  for number, n in pairs(times) do
    if n >= (o.least or 1) then list[#list + 1] = number end
  end
  table.sort(list, function(a, b)
    if times[a] ~= times[b] then return times[a] > times[b] end
    return corpus.words[a] < corpus.words[b]
  end)
  local vocabulary = {}
  for i = 1, math.min(#list, o.most or #list) do vocabulary[i] = corpus.words[list[i]] end
  return vocabulary
end

--- Ids of all rows.
-- @tparam table corpus
-- @tparam {string,...} vocabulary
-- @tparam table o `unknown = false`: words that the vocabulary lacks are left out; `length`: of a
-- row at most
-- @treturn table `ids` (int32_t[tokens]) and `offsets` (int64_t[rows + 1]), for a data set
function M.encode(corpus, vocabulary, o)
  local id_of, by_number = {}, ffi.new("int32_t[?]", #corpus.words + 1)
  for i, word in ipairs(vocabulary) do id_of[word] = M.FIRST + i - 1 end
  for number, word in ipairs(corpus.words) do by_number[number] = id_of[word] or M.UNKNOWN end
  local length, rows = o.length or math.huge, corpus.rows
  local ids = ffi.new("int32_t[?]", tonumber(corpus.offsets[rows]) + rows)
  local offsets, used = ffi.new("int64_t[?]", rows + 1), 0
  for row = 0, rows - 1 do
    local first = used
    for at = tonumber(corpus.offsets[row]), tonumber(corpus.offsets[row + 1]) - 1 do
      local id = by_number[corpus.numbers[at]]
      if used - first < length and (o.unknown ~= false or id ~= M.UNKNOWN) then
        ids[used] = id
        used = used + 1
      end
    end
    if used == first then
      ids[used] = M.UNKNOWN
      used = used + 1
    end
    offsets[row + 1] = used
  end
  return {ids = ids, offsets = offsets}
end

--- Save a vocabulary: a word a line, that of id 0 first.
-- @tparam string path
-- @tparam {string,...} vocabulary
function M.save(path, vocabulary)
  file.save(path, ("<pad>\n<unknown>\n%s\n"):format(table.concat(vocabulary, "\n")))
end

--- The vocabulary that save() wrote.
-- @tparam string path
-- @treturn {string,...}
function M.read(path)
  local vocabulary = {}
  local text = file.read(path):match "^<pad>\n<unknown>\n(.*)$"
  if not text then
    error(path .. ": expected a word a line, the first two <pad> and <unknown>", 0)
  end
  for word in text:gmatch "([^\n]+)\n" do vocabulary[#vocabulary + 1] = word end
  return vocabulary
end

--- Texts that have no labels, as a data set.
-- @tparam {string,...} texts
-- @tparam {string,...} vocabulary
-- @tparam table reading how a task reads its texts: `words_of(text)`; `unknown`, `length` as of
-- encode
function M.dataset(texts, vocabulary, reading)
  local corpus = M.corpus(#texts, function(row) return texts[row] end, reading.words_of)
  local encoded = M.encode(corpus, vocabulary, reading)
  return Dataset.new {ids = encoded.ids, offsets = encoded.offsets,
    all_rows = #texts}
end

--- A classification task's data sets from texts and labels: split, vocabulary, ids.
-- @tparam table o `rows`, `text_of(row)`; `reading`: as of dataset; `labels` (int32_t[rows]) and
-- `names` of the classes; `dev`: the part held back; `least`, `most`: of the vocabulary; `task`,
-- `folder`
-- @treturn table task, train, dev, folder, vocabulary
function M.load(o)
  local sides = split.stratified(o.labels, o.rows, o.names, o.dev)
  local corpus = M.corpus(o.rows, o.text_of, o.reading.words_of)
  local vocabulary = M.vocabulary(corpus, sides.train.selection, sides.train.rows, o)
  local encoded = M.encode(corpus, vocabulary, o.reading)
  local set = {task = o.task, folder = o.folder, vocabulary = vocabulary}
  for name, side in pairs(sides) do
    set[name] = Dataset.new {ids = encoded.ids, offsets = encoded.offsets, all_rows = o.rows,
      labels = o.labels, classes = #o.names, selection = side.selection, rows = side.rows}
  end
  set.of_train = set.train.rows
  return set
end

return M
