-- The encoder against PyTorch: logits, and the gradient of every parameter, on 200 sentences.
--
--     PEER_PYTHON=python luajit bench/encoder.lua MODEL_FOLDER SST2_TRAIN_TSV
--
-- PEER_PYTHON is a Python with torch, transformers and safetensors. A sentence is 1 to 8 rows of
-- the table joined, so that lengths are mixed. Prints the largest difference of a logit and the
-- largest relative difference (norm of the difference over norm) of a gradient. Of dropout, how far
-- it spreads the logits, the mean of their standard deviations over draws; and how like each other
-- gradients are that are summed over half of the draws: the cosine of Octet's two halves, of
-- PyTorch's, and of one of Octet's with one of PyTorch's, which is as large if both draw alike.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = ("%s/../?.lua;%s/../lua/?.lua;%s/../lua/?/init.lua;"):format(here, here, here)
  .. package.path
local bert = require "models.bert"
local octet = require "octet"
local nn, safetensors = octet.nn, octet.safetensors

local python = os.getenv "PEER_PYTHON"
local folder, table_path = arg[1], arg[2]
if not (python and folder and table_path) then
  io.stderr:write("usage: PEER_PYTHON=... luajit bench/encoder.lua MODEL_FOLDER SST2_TRAIN_TSV\n")
  os.exit(1)
end

local SENTENCES, EVERY = 200, 41     -- one row in 41 spreads them over the file
local DRAWN, DRAWS = 40, 40          -- sentences and draws of dropout

local shell_quote = require("octet.message").word

local work = os.tmpname()
os.remove(work)
os.execute("mkdir " .. shell_quote(work))
local sentences = assert(io.open(work .. "/sentences.tsv", "w"))
local row, written, joined = -1, 0, {}
for line in io.lines(table_path) do
  row = row + 1
  local text, label = line:match "^([^\t]*)\t([01])"
  if row > 0 and row % EVERY == 0 and text and written < SENTENCES then
    joined[#joined + 1] = text
    if #joined > written % 8 then
      sentences:write(label, "\t", table.concat(joined, " "), "\n")
      written, joined = written + 1, {}
    end
  end
end
sentences:close()
os.execute(table.concat({"HF_HUB_OFFLINE=1", shell_quote(python), here .. "/peers/encoder.py",
  shell_quote(folder), shell_quote(work .. "/sentences.tsv"), shell_quote(work),
  DRAWN, DRAWS, "2>/dev/null"}, " "))

local expected = safetensors.open(work .. "/expected.safetensors")
local batch = {}
for _, name in ipairs {"ids", "types", "positions", "offsets", "labels"} do
  batch[name] = expected:read(name)
end

--- Largest difference, and the norm of the difference over the norm of what was expected.
local function differences(got, wanted)
  local a, b = got:data(), wanted:data()
  local largest, sum, square = 0, 0, 0
  for i = 0, wanted:size() - 1 do
    local d = math.abs(a[i] - b[i])
    largest = math.max(largest, d)
    sum, square = sum + d * d, square + b[i] * b[i]
  end
  return largest, math.sqrt(sum / square)
end

local function gradients_of(model)
  local gradients = {}
  for _, g in ipairs(model:hugging_face_state(function(p) return p:grad() end)) do
    gradients[g.name] = g.tensor
  end
  return gradients
end

--- Cosine of two sets of tensors, each a function of a name.
local function cosine(names, one, other)
  local product, squares, other_squares = 0, 0, 0
  for name in pairs(names) do
    local a, b = one(name), other(name)
    local x, y = a:data(), b:data()
    for i = 0, a:size() - 1 do
      product, squares, other_squares = product + x[i] * y[i], squares + x[i] * x[i],
        other_squares + y[i] * y[i]
    end
  end
  return product / math.sqrt(squares * other_squares)
end

local peers_cosine -- of their two halves: the same for every instruction set

--- What dropout does: the mean over logits of their standard deviation over draws, and the cosines
-- of gradients.
local function dropout(model)
  local tokens = batch.offsets:data()[DRAWN]
  local part = {offsets = batch.offsets:rows(1, DRAWN + 1), labels = batch.labels:rows(1, DRAWN)}
  for _, name in ipairs {"ids", "types", "positions"} do
    part[name] = batch[name]:rows(1, tokens)
  end
  local sums, squares, halves = {}, {}, {}
  model:train()
  for half = 1, 2 do
    for _, p in ipairs(model:parameters()) do p.tensor:zero_grad() end
    for _ = 1, DRAWS / 2 do
      octet.scope(function()
        local logits = model(part)
        for i, z in ipairs(logits:totable()) do
          sums[i], squares[i] = (sums[i] or 0) + z, (squares[i] or 0) + z * z
        end
        nn.cross_entropy(logits, part.labels):backward()
      end)
    end
    halves[half] = {}
    for name, gradient in pairs(gradients_of(model)) do halves[half][name] = gradient * 1 end
  end
  local total = 0
  for i, sum in ipairs(sums) do
    total = total + math.sqrt(math.max(0, squares[i] - sum * sum / DRAWS) / (DRAWS - 1))
  end
  local function ours(half) return function(name) return halves[half][name] end end
  local function theirs(half)
    return function(name) return expected:read(half .. "." .. name) end
  end
  local names = halves[1]
  peers_cosine = peers_cosine or cosine(names, theirs "first", theirs "second")
  return total / #sums, cosine(names, ours(1), ours(2)), cosine(names, ours(1), theirs "first")
end

for _, isa in ipairs {"avx2", "avx512"} do
  if pcall(octet.set_isa, isa) then
    local model = bert.load(work, {classes = 2, pooling = "cls"}):eval()
    local logits = model(batch):keep()
    local loss = nn.cross_entropy(logits, batch.labels)
    loss:backward()
    local worst, worst_name = 0, nil
    for name, gradient in pairs(gradients_of(model)) do
      -- A key's bias shifts every score of a row alike: its gradient is zero but for rounding.
      if not name:find("key.bias", 1, true) then
        local _, relative = differences(gradient, expected:read("gradient." .. name))
        if relative > worst then worst, worst_name = relative, name end
      end
    end
    local spread, own, both = dropout(model)
    print(("%s: %d sentences, %d tokens; loss %.7f, PyTorch's %.7f; logits differ by %.1e at most; "
      .. "gradients by %.1e at most (%s); dropout spreads logits by %.5f, PyTorch's by %.5f; "
      .. "cosine of its gradients %.4f, PyTorch's %.4f, one with the other %.4f")
      :format(isa, SENTENCES, batch.ids:size(), loss:item(), expected:read("loss"):item(),
      differences(logits, expected:read("logits")), worst, worst_name, spread,
      expected:read("spread"):item(), own, peers_cosine, both))
  end
end
os.execute("rm -r " .. shell_quote(work))
