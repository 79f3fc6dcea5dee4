--- The Penn Treebank as words, as Mikolov prepared it (Mikolov et al., Interspeech 2010), or a
-- user's own texts under the same names.
--
-- Words are what blanks part, and each line ends with the word <eos>. The vocabulary is that of the
-- training text, the commonest word first: 10,000 words of the Penn Treebank. A word that it lacks
-- is <unk>, where there is one.
-- @module octet.data.ptb
local ffi = require "ffi"
local file = require "octet.file"
local places = require "octet.data.places"
local stream = require "octet.data.stream"

local M = {}

M.PARTS = {"train", "valid", "test"}
M.TASK = {name = "ptb", title = "PTB", metrics = {"perplexity"}}
M.END, M.UNKNOWN = "<eos>", "<unk>"

local function file_name(part) return ("ptb.%s.txt"):format(part) end

-- What UTF-8 knows, as patterns: the longest first, so that each takes whole characters.
local CHARACTERS = {
  "\240[\144-\191][\128-\191][\128-\191]", "[\241-\243][\128-\191][\128-\191][\128-\191]",
  "\244[\128-\143][\128-\191][\128-\191]", "\224[\160-\191][\128-\191]",
  "[\225-\236\238\239][\128-\191][\128-\191]", "\237[\128-\159][\128-\191]",
  "[\194-\223][\128-\191]",
}

local function is_utf8(text)
  for _, pattern in ipairs(CHARACTERS) do text = text:gsub(pattern, "?") end
  return not text:find "[\128-\255]"
end

--- Call f(word, line number) for each word of a text.
local function each_word(text, f)
  local from, number = 1, 0
  while from <= #text do
    local stop = text:find("\n", from, true) or #text + 1
    number = number + 1
    for word in text:sub(from, stop - 1):gmatch "%S+" do f(word, number) end
    f(M.END, number)
    from = stop + 1
  end
end

--- A text, which must hold a word.
local function read(path)
  local text = file.read(path):gsub("^\239\187\191", "")
  if not text:find "%S" then error(path .. ": holds no word", 0) end
  if not is_utf8(text) then
    local number = 0
    for line in text:gmatch "([^\n]*)\n?" do
      number = number + 1
      if not is_utf8(line) then error(("%s line %d: not UTF-8"):format(path, number), 0) end
    end
  end
  return text
end

--- The words of a text, the commonest first, equally common ones by their bytes.
local function vocabulary_of(text)
  local times, words = {}, {}
  each_word(text, function(word)
    if not times[word] then words[#words + 1] = word end
    times[word] = (times[word] or 0) + 1
  end)
  table.sort(words, function(a, b)
    if times[a] ~= times[b] then return times[a] > times[b] end
    return a < b
  end)
  return words
end

--- A text as a stream of ids.
local function encode(text, path, id_of)
  local _, count = text:gsub("%S+", "")
  local _, lines = text:gsub("\n", "")
  local ids, used = ffi.new("int32_t[?]", count + lines + 1), 0
  each_word(text, function(word, line)
    local id = id_of[word] or id_of[M.UNKNOWN]
    if not id then
      error(('%s line %d: "%s" is no word of %s, which has no %s either'):format(path, line,
        word:sub(1, 64), file_name "train", M.UNKNOWN), 0)
    end
    ids[used] = id
    used = used + 1
  end)
  return stream.new(ids, used)
end

--- Find, read and encode the three texts.
-- @tparam table options `data`: a folder to look in, itself or its folder ptb
-- @treturn table `task`; `train`, `valid`, `test` (streams); `folder`; `vocabulary` by id, from 1
-- for id 0
function M.load(options)
  local names = {}
  for i, part in ipairs(M.PARTS) do names[i] = file_name(part) end
  -- Whose own texts lack one is not to train on the Penn Treebank instead.
  local folder, looked = places.find(options.data, {"ptb", ""}, names, true)
  if not folder then
    error(("ptb: %s were not found in %s"):format(table.concat(names, ", "), #looked > 0
      and table.concat(looked, ", ") or "any place (--data, OCTET_DATA, the cache)"), 0)
  end
  local texts = {}
  for _, part in ipairs(M.PARTS) do texts[part] = read(folder .. "/" .. file_name(part)) end
  local set = {task = M.TASK, folder = folder, vocabulary = vocabulary_of(texts.train)}
  local id_of = {}
  for i, word in ipairs(set.vocabulary) do id_of[word] = i - 1 end
  for _, part in ipairs(M.PARTS) do
    set[part] = encode(texts[part], folder .. "/" .. file_name(part), id_of)
  end
  return set
end

--- Save a vocabulary: a word a line, that of id 0 first.
-- @tparam string path
-- @tparam {string,...} vocabulary
function M.save_vocabulary(path, vocabulary)
  file.save(path, table.concat(vocabulary, "\n") .. "\n")
end

return M
