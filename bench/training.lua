-- The recipe's training against PyTorch's, step by step: same start, order and data, no dropout.
--
--     PEER_PYTHON=python luajit bench/training.lua MODEL_FOLDER GLUE_FOLDER [TASK] [STEPS]
--
-- PEER_PYTHON is a Python with torch and transformers. PyTorch's side (bench/peers/training.py)
-- reads the task's own file, tokenizes, and trains as transformers' users do: AdamW, decay .01 of
-- matrices, 6 % warm-up and linear decay, clipping at 1, batches of 16, lr 5e-5. The recipe starts
-- from the classifier that it saved. Prints the largest relative differences of learning rate, loss
-- and gradient norm over the STEPS (20), and the accuracy of both on the development set.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = ("%s/../?.lua;%s/../lua/?.lua;%s/../lua/?/init.lua;"):format(here, here, here)
  .. package.path
local json = require "cjson"
local octet = require "octet"

local python = os.getenv "PEER_PYTHON"
local folder, glue, task_name = arg[1], arg[2], arg[3] or "mrpc"
local steps = tonumber(arg[4] or 20)
if not (python and folder and glue and steps) then
  io.stderr:write("usage: PEER_PYTHON=... luajit bench/training.lua MODEL_FOLDER GLUE_FOLDER "
    .. "[TASK] [STEPS]\n")
  os.exit(1)
end
local BATCH, SEED = 16, 1

local quote = require("octet.message").word

local work = os.tmpname()
os.remove(work)
os.execute("mkdir " .. quote(work))

--- The rows of the file that the recipe will train on, in its order.
local function write_order()
  local data = octet.data.load(task_name, {
    tokenizer = octet.text.wordpiece(folder .. "/vocab.txt"), max_length = 128, data = glue,
    limit = steps * BATCH, seed = SEED,
  })
  local order, file = data.train:order(SEED, 1), assert(io.open(work .. "/rows", "w"))
  for i = 0, data.train.rows - 1 do file:write(order[i], "\n") end
  file:close()
  return data
end

local function pytorch(data)
  os.execute(table.concat({"HF_HUB_OFFLINE=1", quote(python), here .. "/peers/training.py",
    quote(folder), quote(data.folder), task_name, BATCH, quote(work), "2>/dev/null"}, " "))
  local file = assert(io.open(work .. "/steps.json"), "PyTorch's side failed")
  local said = json.decode(file:read "*a")
  file:close()
  return said
end

local function recipe()
  os.execute(table.concat({"luajit", here .. "/../recipes/glue_finetune.lua --optim adamw",
    "--lr 5e-5 --pooling cls --epochs 1 --threads 2 --task", task_name, "--seed", SEED, "--batch",
    BATCH, "--limit", steps * BATCH, "--model", quote(work .. "/model"), "--data", quote(glue),
    "--out", quote(work .. "/run"), ">", quote(work .. "/output"), "2>&1"}, " "))
  local said = {steps = {}}
  for line in io.lines(work .. "/run/log.jsonl") do table.insert(said.steps, json.decode(line)) end
  local file = assert(io.open(work .. "/run/result.json"))
  said.accuracy = json.decode(file:read "*a").metrics.accuracy
  file:close()
  return said
end

local theirs = pytorch(write_order())
local ours = recipe()
assert(#ours.steps == #theirs.steps and #ours.steps == steps, "not as many steps")
local worst = {}
for i, step in ipairs(ours.steps) do
  for _, name in ipairs {"lr", "loss", "grad_norm"} do
    local expected = theirs.steps[i][name]
    local off = expected == 0 and math.abs(step[name]) or math.abs(step[name] / expected - 1)
    if off > (worst[name] or -1) then worst[name] = off end
  end
end
print(("%s, %d steps: loss %.6f to %.6f, PyTorch's %.6f to %.6f; largest relative difference: "
  .. "learning rate %.1e, loss %.1e, gradient norm %.1e; accuracy %.4f, %.4f"):format(task_name,
  steps, ours.steps[1].loss, ours.steps[steps].loss, theirs.steps[1].loss,
  theirs.steps[steps].loss, worst.lr, worst.loss, worst.grad_norm, ours.accuracy,
  theirs.accuracy))
os.execute("rm -r " .. quote(work))
