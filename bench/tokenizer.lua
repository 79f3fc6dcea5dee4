--- WordPiece in MB/s on one thread and on all, beside Hugging Face's Rust library on one thread.
--
--    luajit bench/tokenizer.lua [VOCAB FILE...]
--
-- PEER_PYTHON names a Python that has `tokenizers`; without it the peer's columns stay empty.
-- Without arguments: the vocabulary and texts of OCTET_DATA (else ../shared/data). Times are the
-- least of several runs, reading the file not counted; the sums of ids show that both did the same.
package.path = "./lua/?.lua;./lua/?/init.lua;" .. package.path
local ffi = require "ffi"
local binding = require "octet.binding"
local machine = require "octet.machine"
local message = require "octet.message"
local text = require "octet.text"

local RUNS = 5

local function lines_of(path)
  local f = assert(io.open(path, "rb"))
  local content = f:read "*a"
  f:close()
  if content:sub(-1) ~= "\n" then content = content .. "\n" end
  local ends, joined, sum = {}, {}, 0
  for line in content:gmatch "([^\n]*)\n" do
    sum = sum + #line
    joined[#joined + 1], ends[#ends + 1] = line, sum
  end
  return table.concat(joined), ffi.new("int64_t[?]", #ends, ends), #ends, sum
end

--- Least seconds of an encode of all lines, and the sum of the ids.
local function measure(tokenizer, joined, ends, count, threads)
  local C = binding.C
  machine.set_threads(threads)
  local least, sum, out = math.huge, 0, ffi.new "oct_encoding *[1]"
  for _ = 1, RUNS do
    local start = machine.clock()
    binding.check(C.oct_encode_texts(out, tokenizer.handle, joined, ends, count, 0, 0, 1))
    least = math.min(least, machine.clock() - start)
    local ids, _, _, _, tokens = text.arrays(out[0])
    sum = 0
    for i = 0, tokens - 1 do sum = sum + ids[i] end
    C.oct_encoding_free(out[0])
  end
  return least, sum
end

local function quoted(list)
  local words = {}
  for i, word in ipairs(list) do words[i] = message.word(word) end
  return table.concat(words, " ")
end

local function ask_peer(vocabulary, files)
  local python = os.getenv "PEER_PYTHON"
  if not python then return {} end
  local pipe = assert(io.popen(quoted {python, "bench/peers/tokenizer.py", vocabulary} .. " "
    .. quoted(files)))
  local answers = {}
  for line in pipe:lines() do
    local batch, loop, sum = line:match "^(%S+) (%S+) (%S+)$"
    answers[#answers + 1] = {batch = tonumber(batch), loop = tonumber(loop), sum = tonumber(sum)}
  end
  pipe:close()
  return answers
end

local vocabulary, files = arg[1], {unpack(arg, 2)}
if not vocabulary then
  local data = os.getenv "OCTET_DATA" or "../shared/data"
  vocabulary = data .. "/bert-vocab/vocab.txt"
  files = {data .. "/glue/SST-2/train.tsv", data .. "/glue/MRPC/train.tsv",
    data .. "/imdb/train.tsv", data .. "/multi30k/train.de"}
end

local tokenizer = text.wordpiece(vocabulary)
local threads = machine.threads()
local peers = ask_peer(vocabulary, files)
print(("%-24s %8s %10s %10s %12s %12s %7s"):format("file", "MB", "1 thread", threads .. " threads",
  "peer, batch", "peer, loop", "ratio"))
for i, path in ipairs(files) do
  local joined, ends, count, bytes = lines_of(path)
  local one, sum = measure(tokenizer, joined, ends, count, 1)
  local all = measure(tokenizer, joined, ends, count, threads)
  local mb, peer = bytes / 1e6, peers[i]
  local best = peer and math.min(peer.batch, peer.loop)
  print(("%-24s %8.1f %10.1f %10.1f %12s %12s %7s%s"):format(path:match "[^/]*/[^/]*$" or path, mb,
    mb / one, mb / all, peer and ("%.1f"):format(mb / peer.batch) or "-",
    peer and ("%.1f"):format(mb / peer.loop) or "-", peer and ("%.0f x"):format(best / one) or "-",
    peer and peer.sum ~= sum and "  IDS DIFFER" or ""))
end
print "(MB/s; ratio: one thread against the faster of the peer's two ways)"
