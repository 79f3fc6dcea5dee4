-- A training step of LSTMs: ms, and what part of the multiply units' limit that is; beside PyTorch.
--
--     PEER_PYTHON=python luajit bench/lstm.lua [CASE ...]
--
-- PEER_PYTHON is a Python with torch; without it Octet is measured alone. Cases: sms (2 x 64, both
-- directions, batch 64 x 20, words by Zipf's law: 38 % of them different, of real batches 31 %),
-- imdb2, imdb4, imdb6 (2, 4, 6 x 64, batch 50 x 500), lm (2 x 650, batch 20 x 35); imdb2-padded,
-- imdb4-padded, imdb6-padded: 50 texts as long as reviews are, that count as padded to 500, and
-- PyTorch walks the padding. A step is embedding, LSTM with dropout, one logit a sequence, loss,
-- backward and Adam; the fastest of some rounds counts, and both sides take turns. Limit: the speed
-- of a product of 2048 x 2048 by oneDNN in f32. Memory: the peak of the process, and what came with
-- the steps, each side in a process of its own.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = ("%s/../?.lua;%s/../lua/?.lua;%s/../lua/?/init.lua;"):format(here, here, here)
  .. package.path
local octet = require "octet"
local lstm = require "models.lstm_classifier"
local tensor = octet.tensor

local CASES = {
  {name = "sms", vocabulary = 1751, inputs = 100, hidden = 64, layers = 2, directions = 2,
    sequences = 64, steps = 20, rounds = 40, dropout = 0.2, zipf = true},
  {name = "imdb2", layers = 2}, {name = "imdb4", layers = 4}, {name = "imdb6", layers = 6},
  {name = "imdb2-padded", layers = 2}, {name = "imdb4-padded", layers = 4},
  {name = "imdb6-padded", layers = 6},
  {name = "lm", vocabulary = 10000, inputs = 650, hidden = 650, layers = 2, directions = 1,
    sequences = 20, steps = 35, rounds = 6, dropout = 0.2},
}
for _, case in ipairs(CASES) do
  if case.name:find "^imdb" then
    case.vocabulary, case.inputs, case.hidden, case.directions = 1001, 64, 64, 1
    case.sequences, case.steps, case.rounds = 50, 500, 6
    case.padded = case.name:find "padded" and 500 or nil
    case.dropout = case.padded and 0 or 0.2
  end
end

-- Words of a review by tenths of the reviews, shortest first, of those that the task imdb trains
-- on: stop words and rare ones are left out, and the rest is cut at 500 (the mean is 67).
local LENGTHS = {1, 26, 35, 41, 47, 53, 61, 73, 93, 128, 500}

--- The length of the text that stands at a part (0 to 1) of all.
local function length_at(part)
  local at = part * (#LENGTHS - 1)
  local low = math.min(math.floor(at), #LENGTHS - 2)
  local from, to = LENGTHS[low + 1], LENGTHS[low + 2]
  return math.floor(from + (at - low) * (to - from) + 0.5)
end

--- A batch of the case: words drawn evenly, or by Zipf's law.
local function batch_of(o)
  local offsets, ids = {0}, {}
  for s = 1, o.sequences do
    offsets[s + 1] = offsets[s] + (o.padded and length_at((s - 0.5) / o.sequences) or o.steps)
  end
  for i = 1, offsets[#offsets] do
    -- The inverse of log(rank) / log(words), which is the share of words up to a rank.
    ids[i] = o.zipf and math.floor(o.vocabulary ^ math.random()) or math.random(o.vocabulary)
    ids[i] = math.min(ids[i], o.vocabulary) - 1
  end
  local batch, yes = {examples = o.sequences}, {}
  for s = 1, o.sequences do yes[s] = math.random(0, 1) end
  for name, values in pairs {ids = ids, offsets = offsets, labels = yes} do
    batch[name] = tensor.from(values, {#values}, "i32"):keep()
  end
  return batch
end

--- The case's step as a function.
local function training(o)
  octet.seed(1)
  math.randomseed(1)
  local model = lstm.Classifier {words = o.vocabulary, embedding = o.inputs, hidden = o.hidden,
    layers = o.layers, bidirectional = o.directions == 2, classes = 2, padded = o.padded,
    dropout = o.dropout}
  local optimizer = octet.optim.adam(model:parameters(), {lr = 1e-3})
  local batch = batch_of(o)
  return function()
    octet.scope(function()
      lstm.loss(model(batch), batch):backward()
      optimizer:step()
      optimizer:zero_grad()
    end)
  end
end

local function best_of(rounds, f)
  local best = math.huge
  for _ = 1, rounds do
    local begun = octet.clock()
    f()
    best = math.min(best, octet.clock() - begun)
  end
  return best
end

--- Multiplications and additions of a step's matrix products, those on padding included.
local function operations(o)
  local tokens, products, inputs = o.sequences * o.steps, 0, o.inputs
  for _ = 1, o.layers do
    products = products + o.directions * 4 * o.hidden * (inputs + o.hidden)
    inputs = o.directions * o.hidden
  end
  return 3 * 2 * (tokens * products + o.sequences * inputs)
end

local function peak_bytes()
  local status = io.open "/proc/self/status"
  local text = status:read "*a"
  status:close()
  return 1024 * tonumber(text:match "VmHWM:%s*(%d+)")
end

-- In a process of its own: the growth of peak memory.
if arg[1] == "--memory" then
  for _, case in ipairs(CASES) do
    if case.name == arg[2] then
      tensor.zeros({64, 64}):matmul(tensor.zeros({64, 64}))
      local before, step = peak_bytes(), training(case)
      for _ = 1, 3 do step() end
      local peak = peak_bytes()
      print(("%d %d %d"):format(peak - before, octet.memory().total.peak, peak))
    end
  end
  os.exit(0)
end

local function words_of(command)
  local pipe = io.popen(command)
  local text = pipe:read "*a"
  pipe:close()
  local words = {}
  for word in text:gmatch "%S+" do words[#words + 1] = tonumber(word) end
  return words
end

local python = os.getenv "PEER_PYTHON"

local function peer(o)
  local command = {("%q %s/peers/lstm.py"):format(python, here), o.name}
  for _, field in ipairs {"vocabulary", "inputs", "hidden", "layers", "directions", "sequences",
    "steps", "rounds", "dropout"} do
    command[#command + 1] = tostring(o[field])
  end
  return unpack(words_of(table.concat(command, " ") .. " 2>/dev/null"))
end

local wanted = {}
for _, name in ipairs(arg) do wanted[name] = true end

local a, b = tensor.new({2048, 2048}):normal_(), tensor.new({2048, 2048}):normal_()
local function product() octet.scope(function() a:matmul(b) end) end
product()
local limit = 2 * 2048 ^ 3 / best_of(10, product)
print(("limit: %.0f GFLOP/s with %d threads (%s)"):format(limit / 1e9, octet.threads(),
  octet.isa()))

for _, case in ipairs(CASES) do
  if not arg[1] or wanted[case.name] then
    local ours, bf16, theirs = math.huge, math.huge, math.huge
    local their_bytes, their_peak
    for _ = 1, 3 do
      ours = math.min(ours, best_of(case.rounds, training(case)))
      if octet.has_bf16() then
        octet.set_precision "bf16"
        bf16 = math.min(bf16, best_of(case.rounds, training(case)))
        octet.set_precision "f32"
      end
      collectgarbage()
      collectgarbage()
      if python then
        local ms, bytes, peak = peer(case)
        theirs, their_bytes = math.min(theirs, ms / 1e3), math.min(their_bytes or bytes, bytes)
        their_peak = math.min(their_peak or peak, peak)
      end
    end
    local line = {("%-6s %7.1f ms, %3.0f %% of the limit"):format(case.name, 1e3 * ours,
      100 * operations(case) / limit / ours)}
    if bf16 < math.huge then line[#line + 1] = ("bf16 %.1f ms"):format(1e3 * bf16) end
    local grown, accounted, peak = unpack(words_of(("luajit %s --memory %s"):format(arg[0],
      case.name)))
    line[#line + 1] = ("memory %.0f MB, %.0f with the steps (accounted %.0f)"):format(
      peak / 1e6, grown / 1e6, accounted / 1e6)
    if python then
      line[#line + 1] = ("PyTorch %.1f ms, %.0f MB, %.0f with the steps: %.2f times as fast, "
        .. "%.2f of its memory, %.2f with the steps"):format(1e3 * theirs, their_peak / 1e6,
        their_bytes / 1e6, theirs / ours, peak / their_peak, grown / their_bytes)
    end
    print(table.concat(line, "; "))
  end
end
