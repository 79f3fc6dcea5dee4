--- Are the ids those of Hugging Face's tokenizers, on whole files?
--
--    PEER_PYTHON=python3 luajit bench/tokenizer_ids.lua VOCAB FILE...
--
-- Every line of the files is a text, and, where a line has TABs, each of its columns is one too.
-- PEER_PYTHON is a Python that has `tokenizers`. Status 1 where any text's ids differ.
package.path = "./lua/?.lua;./lua/?/init.lua;" .. package.path
local ffi = require "ffi"
local message = require "octet.message"
local text = require "octet.text"

local python = os.getenv "PEER_PYTHON"
if not python or not arg[2] then
  io.stderr:write "usage: PEER_PYTHON=python3 luajit bench/tokenizer_ids.lua VOCAB FILE...\n"
  os.exit(1)
end

local function texts_of(path)
  local f = assert(io.open(path, "rb"))
  local content = f:read "*a"
  f:close()
  if content:sub(-1) ~= "\n" then content = content .. "\n" end
  local texts = {}
  for line in content:gmatch "([^\n]*)\n" do
    texts[#texts + 1] = line
    if line:find("\t", 1, true) then
      for column in (line .. "\t"):gmatch "([^\t]*)\t" do texts[#texts + 1] = column end
    end
  end
  return texts
end

local function quoted(list)
  local words = {}
  for i, word in ipairs(list) do words[i] = message.word(word) end
  return table.concat(words, " ")
end

local tokenizer = text.wordpiece(arg[1])
local files = {unpack(arg, 2)}
local path = os.tmpname()
local out = assert(io.open(path, "wb"))
for _, file in ipairs(files) do
  local encoding = tokenizer:encode_all(texts_of(file))
  local ids, offsets, _, rows, tokens = text.arrays(encoding)
  assert(out:write(ffi.string(ffi.new("int64_t[2]", rows, tokens), 16),
    ffi.string(offsets, 8 * (rows + 1)), ffi.string(ids, 4 * tokens)))
end
assert(out:close())
local status = os.execute(quoted {python, "bench/peers/tokenizer_ids.py", arg[1], path} .. " "
  .. quoted(files))
os.remove(path)
os.exit(status == 0 and 0 or 1)
