-- Fine-tuning side by side with PyTorch: real tokens a second, peak resident memory, accuracy.
--
--     PEER_PYTHON=python luajit bench/finetune.lua MODEL_FOLDER SST2_FOLDER [EXAMPLES] [ROUNDS]
--
-- PEER_PYTHON is a Python with torch and transformers. Each round runs the recipe, then PyTorch
-- (bench/peers/finetune.py), on EXAMPLES (3,200) sentences of SST-2, with two threads, in f32 and
-- in bf16; the best round of each counts. SST2_FOLDER holds train.tsv and dev.tsv.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = ("%s/../lua/?.lua;%s/../lua/?/init.lua;"):format(here, here) .. package.path
local json = require "cjson"

local python, model, data = os.getenv "PEER_PYTHON", arg[1], arg[2]
local examples, rounds = tonumber(arg[3] or 3200), tonumber(arg[4] or 2)
if not (python and model and data and examples and rounds) then
  io.stderr:write("usage: PEER_PYTHON=... luajit bench/finetune.lua MODEL_FOLDER SST2_FOLDER "
    .. "[EXAMPLES] [ROUNDS]\n")
  os.exit(1)
end

local quote = require("octet.message").word

local function output_of(words)
  local pipe = assert(io.popen(table.concat(words, " ")))
  local text = pipe:read "*a"
  pipe:close()
  return text
end

local function octet(precision)
  local out = os.tmpname()
  os.remove(out)
  output_of {"luajit", here .. "/../recipes/glue_finetune.lua", "--task sst2 --optim adamw8",
    "--lr 5e-5 --pooling cls --threads 2 --precision", precision, "--limit", examples,
    "--model", quote(model), "--data", quote(data .. "/.."), "--out", quote(out), "2>&1"}
  local file = assert(io.open(out .. "/result.json"), "the recipe left no result.json")
  local result = json.decode(file:read "*a")
  file:close()
  os.execute("rm -r " .. quote(out))
  return {speed = result.tokens_per_second, peak = result.memory.rss_peak,
    accuracy = result.metrics.accuracy}
end

local function pytorch(precision)
  local speed, peak, accuracy = output_of({"HF_HUB_OFFLINE=1", quote(python),
    here .. "/peers/finetune.py", quote(model), quote(data), examples, precision, "2 1 5e-5",
    "2>/dev/null"}):match "(%d+) (%d+) ([%d.]+)\n$"
  assert(speed, "PyTorch's side failed")
  return {speed = tonumber(speed), peak = tonumber(peak), accuracy = tonumber(accuracy)}
end

local function better(a, b) return (not a or b.speed > a.speed) and b or a end

for _, precision in ipairs {"f32", "bf16"} do
  local ours, theirs
  for _ = 1, rounds do
    ours, theirs = better(ours, octet(precision)), better(theirs, pytorch(precision))
  end
  print(("%s: Octet %.0f tokens/s, PyTorch %.0f: %.2f times; peak memory %.0f MB, %.0f MB: %.2f; "
    .. "accuracy %.4f, %.4f"):format(precision, ours.speed, theirs.speed,
    ours.speed / theirs.speed, ours.peak / 1e6, theirs.peak / 1e6, ours.peak / theirs.peak,
    ours.accuracy, theirs.accuracy))
end
