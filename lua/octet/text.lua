--- Text into token ids: BERT's WordPiece, on the core's tokenizer.
--
--    local tokenizer = text.wordpiece("model/vocab.txt")
--    tokenizer:encode("a first sentence", "and its second")   --> {101, 1037, ...}, {0, 0, ...}
--
-- @module octet.text
local ffi = require "ffi"
local binding = require "octet.binding"
local file = require "octet.file"

local C, check = binding.C, binding.check_input
local M = {}

--- A tokenizer over a vocabulary. Ids are 0-based, as in vocab.txt.
-- @type WordPiece
local WordPiece = {}
WordPiece.__index = WordPiece

local pointer = ffi.typeof "oct_wordpiece *[1]"
local encoding_pointer = ffi.typeof "oct_encoding *[1]"
local size64 = ffi.typeof "int64_t[1]"

--- What a tokenizer_config.json says of how text is prepared; {} where the file is not there.
local function read_config(path)
  return file.is_file(path) and file.read_json(path) or {}
end

local function boolean_option(options, config, name, config_name, default)
  if options[name] ~= nil then return options[name] end
  local value = config[config_name]
  if type(value) == "boolean" then return value end
  return default
end

--- Load a tokenizer.
-- What `options` leaves open is taken from the tokenizer_config.json beside the vocabulary
-- (do_lower_case, strip_accents, tokenize_chinese_chars), and else is as BERT uncased has it.
-- @tparam string path vocab.txt: one token a line
-- @tparam[opt] table options `lower_case`, `strip_accents` (as lower_case where not given),
--   `chinese` (Chinese characters are words of their own), `special` ("[SEP]" in a text is the
--   separator); all true by default
-- @treturn WordPiece
function M.wordpiece(path, options)
  options = options or {}
  local folder = path:match("^(.*)/[^/]*$") or "."
  local config = read_config(folder .. "/tokenizer_config.json")
  local lower = boolean_option(options, config, "lower_case", "do_lower_case", true)
  local strip = boolean_option(options, config, "strip_accents", "strip_accents", lower)
  local flags = (lower and C.OCT_WORDPIECE_LOWER or 0)
    + (strip and C.OCT_WORDPIECE_STRIP_ACCENTS or 0)
    + (boolean_option(options, config, "chinese", "tokenize_chinese_chars", true)
      and C.OCT_WORDPIECE_CHINESE or 0)
    + (options.special ~= false and C.OCT_WORDPIECE_SPECIAL or 0)
  local result = pointer()
  check(C.oct_wordpiece_load(result, path, flags))
  local tokens = size64()
  check(C.oct_wordpiece_size(tokens, result[0]))
  return setmetatable({
    handle = ffi.gc(result[0], C.oct_wordpiece_free),
    path = path, lower_case = lower, strip_accents = strip,
    --- Number of tokens in the vocabulary.
    size = tonumber(tokens[0]),
  }, WordPiece)
end

local function check_text(value, name, method)
  if type(value) ~= "string" then
    error(("%s: %s is a %s, expected a string"):format(method, name, type(value)), 3)
  end
end

local function encode_texts(self, texts, pairs_of, max_length, special)
  local ends = ffi.new("int64_t[?]", math.max(#texts, 1))
  local sum = 0
  for i = 1, #texts do
    sum = sum + #texts[i]
    ends[i - 1] = sum
  end
  local result = encoding_pointer()
  check(C.oct_encode_texts(result, self.handle, table.concat(texts), ends, #texts,
    pairs_of and 1 or 0, max_length or 0, special == false and 0 or 1))
  return ffi.gc(result[0], C.oct_encoding_free)
end

--- The ids of one text or of a pair.
-- @tparam string a
-- @tparam[opt] string b the pair's second text
-- @tparam[opt] number max_length ids at most, [CLS] and [SEP] included; a pair is cut from the
--   longer text first
-- @tparam[opt=true] boolean special false: no [CLS] and [SEP]
-- @treturn table ids
-- @treturn table token types: 0, and 1 from the second text on
function WordPiece:encode(a, b, max_length, special)
  check_text(a, "a", "encode")
  if b ~= nil then check_text(b, "b", "encode") end
  local encoding = encode_texts(self, {a, b}, b ~= nil, max_length, special)
  local ids, offsets, firsts = M.arrays(encoding)
  local list, types = {}, {}
  for i = 0, tonumber(offsets[1]) - 1 do
    list[i + 1] = ids[i]
    types[i + 1] = i < firsts[0] and 0 or 1
  end
  return list, types
end

--- Many texts at once, by all threads, into flat arrays held by the core.
-- @tparam table a strings, or an octet.data.table
-- @tparam[opt] table b as many strings, the pairs' second texts; with a table, `a` and `b` are
--   `{table, column, column}`
-- @tparam[opt] number max_length as for encode
-- @treturn cdata encoding, for `octet.data.dataset`
function WordPiece:encode_all(a, b, max_length)
  local texts = a
  if b then
    if #a ~= #b then
      error(("encode_all: %d first texts and %d second ones"):format(#a, #b), 2)
    end
    texts = {}
    for i = 1, #a do
      texts[2 * i - 1], texts[2 * i] = a[i], b[i]
    end
  end
  for i = 1, #texts do check_text(texts[i], "text " .. i, "encode_all") end
  return encode_texts(self, texts, b ~= nil, max_length)
end

--- Columns of a table at once.
-- @tparam octet.data.table table
-- @tparam string a name of the first text's column
-- @tparam[opt] string b name of the second text's column
-- @tparam[opt] number max_length as for encode
-- @treturn cdata encoding, for `octet.data.dataset`
function WordPiece:encode_table(table, a, b, max_length)
  local result = encoding_pointer()
  check(C.oct_encode_table(result, self.handle, table:open(), table:column(a),
    b and table:column(b) or -1, max_length or 0))
  return ffi.gc(result[0], C.oct_encoding_free)
end

--- The id of a token, nil where the vocabulary lacks it.
function WordPiece:id(token)
  check_text(token, "token", "id")
  local id = ffi.new "int32_t[1]"
  check(C.oct_wordpiece_id(id, self.handle, token, #token))
  return id[0] >= 0 and id[0] or nil
end

--- The token of an id.
function WordPiece:token(id)
  local text, bytes = ffi.new "const char *[1]", size64()
  check(C.oct_wordpiece_token(text, bytes, self.handle, id))
  return ffi.string(text[0], tonumber(bytes[0]))
end

local SPECIAL = {["[CLS]"] = true, ["[SEP]"] = true, ["[PAD]"] = true, ["[MASK]"] = true,
  ["[UNK]"] = true}

--- Ids back into text: pieces joined to words, no blank before . , ? ! and contractions. Case,
-- accents and the text's own blanks are gone.
-- @tparam table ids
-- @tparam[opt=true] boolean skip_special leave [CLS], [SEP] and the like out
-- @treturn string
function WordPiece:decode(ids, skip_special)
  local words = {}
  for _, id in ipairs(ids) do
    local token = self:token(id)
    if skip_special == false or not SPECIAL[token] then
      if token:sub(1, 2) == "##" and #words > 0 then
        words[#words] = words[#words] .. token:sub(3)
      else
        words[#words + 1] = token
      end
    end
  end
  local text = table.concat(words, " "):gsub(" ([%.%?!,])", "%1"):gsub(" ' ", "'")
  return (text:gsub(" n't", "n't"):gsub(" '([ms])", "'%1"):gsub(" '([vr]e)", "'%1"))
end

--- @section end

--- The core's own arrays of an encoding: ids[tokens], offsets[rows + 1], firsts[rows].
-- Valid as long as `encoding` is held.
-- @tparam cdata encoding
-- @treturn cdata ids
-- @treturn cdata offsets
-- @treturn cdata firsts tokens of type 0 in each row
-- @treturn number rows
-- @treturn number tokens
-- @treturn number tokens of the longest row
function M.arrays(encoding)
  local ids = ffi.new "const int32_t *[1]"
  local offsets = ffi.new "const int64_t *[1]"
  local firsts = ffi.new "const int32_t *[1]"
  check(C.oct_encoding_arrays(ids, offsets, firsts, encoding))
  local sizes = ffi.new "int64_t[3]"
  check(C.oct_encoding_size(sizes, sizes + 1, sizes + 2, encoding))
  return ids[0], offsets[0], firsts[0], tonumber(sizes[0]), tonumber(sizes[1]), tonumber(sizes[2])
end

return M
