--- IMDB's 50,000 labelled reviews (Maas et al., ACL 2011), positive or negative.
--
-- Looked for as imdb/train.tsv and imdb/test.tsv without a header: label (1: positive), id, rating,
-- text. All are one set, of which a quarter is held back, half of it positive. Lower case; stop
-- words and signs that are no letters are dropped; of the rest the 1,000 words that are commonest
-- in training are kept, and of a review the first 500 of them.
-- @module octet.data.imdb
local ffi = require "ffi"
local places = require "octet.data.places"
local tables = require "octet.data.table"
local words = require "octet.data.words"

local M = {}

M.FILES = {"train.tsv", "test.tsv"}
M.LENGTH = 500
M.TASK = {name = "imdb", title = "IMDB reviews", classes = 2, metrics = {"accuracy"},
  label_names = {"negative", "positive"}}

-- Those of NLTK's English list that hold no apostrophe.
local STOP_WORDS = {}
for word in ([[
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her
hers herself it its itself they them their theirs themselves what which who whom this that these
those am is are was were be been being have has had having do does did doing a an the and but if or
because as until while of at by for with about against between into through during before after
above below to from up down in out on off over under again further then once here there when where
why how all any both each few more most other some such no nor not only own same so than too very s
t can will just don should now d ll m o re ve y ain aren couldn didn doesn hadn hasn haven isn ma
mightn mustn needn shan shouldn wasn weren won wouldn]]):gmatch "%S+" do
  STOP_WORDS[word] = true
end

-- By the word as it is written, blanks to blanks: what is kept of it, false for nothing.
local kept = setmetatable({}, {__index = function(cache, raw)
  local word = raw:lower():gsub("[^%l\128-\255]", "")
  word = word ~= "" and not STOP_WORDS[word] and word
  rawset(cache, raw, word)
  return word
end})

--- The words of a review that count.
-- @tparam string text
-- @treturn function an iterator
function M.words_of(text)
  local next_word = text:gsub("<br */?>", " "):gmatch "%S+"
  return function()
    local word
    repeat
      local raw = next_word()
      word = raw and kept[raw]
    until not raw or word
    return word or nil
  end
end

M.READING = {words_of = M.words_of, unknown = false, length = M.LENGTH}

--- Find, read and encode the reviews.
-- @tparam table options `data`: a folder to look in first
-- @treturn table as of octet.data.words.load
function M.load(options)
  local folder, looked = places.find(options.data, {"imdb", ""}, M.FILES)
  if not folder then
    error(("imdb: train.tsv and test.tsv were not found in %s; the reviews are at "
      .. "https://ai.stanford.edu/~amaas/data/sentiment"):format(#looked > 0
      and table.concat(looked, ", ") or "any place (--data, OCTET_DATA, the cache)"), 0)
  end
  local parts, all = {}, 0
  for i, name in ipairs(M.FILES) do
    parts[i] = tables.read(folder .. "/" .. name, {header = false, columns = {label = 1, text = 4}})
    all = all + parts[i].rows
  end
  local labels = ffi.new("int32_t[?]", all)
  local first = parts[1].rows
  ffi.copy(labels, parts[1]:labels("label", {"0", "1"}), 4 * first)
  ffi.copy(labels + first, parts[2]:labels("label", {"0", "1"}), 4 * parts[2].rows)
  return words.load {
    task = M.TASK, folder = folder, rows = all,
    text_of = function(row)
      if row <= first then return (parts[1]:cell(row, "text")) end
      return (parts[2]:cell(row - first, "text"))
    end,
    reading = M.READING, labels = labels, names = M.TASK.label_names, dev = 0.25, most = 1000,
  }
end

return M
