-- How long Adam's steps are by the format of its state, in the SMS experiment of the replication
-- study: the root of the mean square of a step's change of the parameters, in units of lr.
--
--     luajit bench/update_length.lua [--data DIR] [STEPS]
--
-- Every arm begins from the same weights and sees the same batches. The numbers are of the
-- parameters with 8-bit state (the embedding and the LSTM's matrices).
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = table.concat({here .. "/../?.lua", here .. "/../lua/?.lua",
  here .. "/../lua/?/init.lua", package.path}, ";")
local octet = require "octet"
local lstm = require "models.lstm_classifier"

local ARMS = {{"adam"}, {"adam8", "octet"}, {"adam8", "paper"}, {"adam8", "bnb"},
  {"adam8", "bnb-0.36"}}
local SEED, LR, BATCH = 1, 1e-4, 64

local data_folder, steps = nil, 1000
do
  local i = 1
  while arg[i] do
    if arg[i] == "--data" then
      data_folder, i = arg[i + 1], i + 1
    else
      steps = tonumber(arg[i]) or error("steps: expected a number, got " .. arg[i], 0)
    end
    i = i + 1
  end
end

local data = octet.data.sms.load {data = data_folder}

--- Batches without end, epoch by epoch.
local function endless()
  local epoch, batches = 0, nil
  return function()
    local batch = batches and batches()
    if not batch then
      epoch = epoch + 1
      batches = data.train:batches {size = BATCH, shuffle = true, seed = SEED, epoch = epoch,
        by_length = true}
      batch = batches()
    end
    return batch
  end
end

--- The lengths of an arm's steps, and their loss.
local function run(arm)
  octet.seed(SEED)
  local model = lstm.Classifier {words = octet.data.words.FIRST + #data.vocabulary,
    embedding = 100, hidden = 64, layers = 2, bidirectional = true, dropout = 0.2, classes = 2}
  local optimizer = octet.optim[arm[1]](model:parameters(), {lr = LR, format = arm[2]})
  local watched, count = {}, 0
  for _, p in ipairs(model:parameters()) do
    if p.tensor:size() >= 4096 then
      watched[#watched + 1] = {now = p.tensor, before = octet.tensor.new(p.tensor:shape()):keep()}
      count = count + p.tensor:size()
    end
  end
  local lengths, next_batch = {}, endless()
  for step = 1, steps do
    local batch = next_batch()
    octet.scope(function()
      for _, w in ipairs(watched) do w.before:copy_(w.now) end
      lstm.loss(model(batch), batch):backward()
      optimizer:step()
      optimizer:zero_grad()
      local squares = 0
      octet.no_grad(function()
        for _, w in ipairs(watched) do
          local change = w.now - w.before
          squares = squares + (change * change):sum():item()
        end
      end)
      lengths[step] = math.sqrt(squares / count) / LR
    end)
  end
  data.train:finish()
  return lengths
end

local shown = {}
for _, step in ipairs {1, 10, 30, 100, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000} do
  if step <= steps then shown[#shown + 1] = step end
end

--- The mean over the tenth of the run that ends at a step.
local function recent(lengths, step)
  local first, sum = math.floor(step * 0.9) + 1, 0
  for i = first, step do sum = sum + lengths[i] end
  return sum / (step - first + 1)
end

io.write(("%-20s"):format "step")
for _, step in ipairs(shown) do io.write(("%9d"):format(step)) end
print()
local reference
for _, arm in ipairs(ARMS) do
  local lengths = run(arm)
  reference = reference or lengths
  io.write(("%-20s"):format(table.concat(arm, " ")))
  for _, step in ipairs(shown) do io.write(("%9.4f"):format(recent(lengths, step))) end
  io.write(("\n%-20s"):format "  of 32 bits'")
  for _, step in ipairs(shown) do
    io.write(("%9.2f"):format(recent(lengths, step) / recent(reference, step)))
  end
  print()
end
