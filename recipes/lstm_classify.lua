-- Classify texts by an LSTM, with 8-bit or 32-bit Adam.
--
--     luajit recipes/lstm_classify.lua --task sms --optim adam8
--     luajit recipes/lstm_classify.lua --task imdb --layers 4 --optim adam
--     luajit recipes/lstm_classify.lua --data mail.csv --text-column body --label-column folder
--
-- The tasks sms and imdb are those of a report on replicating the paper (ReScience C, 2023), with
-- its settings; sms ran 50 and 100 epochs there.
local here = arg and arg[0] and arg[0]:match "^(.*)/[^/]*$" or "."
package.path = table.concat({here .. "/../?.lua", here .. "/../lua/?.lua",
  here .. "/../lua/?/init.lua", package.path}, ";")

local cli = require "octet.cli"
local octet = cli.library()
local file = require "octet.file"
local train = octet.train

-- What an option is where it is not given.
local SETTINGS = {
  sms = {lr = 1e-4, batch = 64, epochs = 100, embedding = 100, dropout = 0.2, dropout_last = 0,
    clip = 0, bidirectional = true, by_length = true},
  imdb = {lr = 1e-3, batch = 50, epochs = 5, embedding = 64, dropout = 0, dropout_last = 0.3,
    clip = 5},
  file = {lr = 1e-3, batch = 32, epochs = 20, embedding = 100, dropout = 0.2, dropout_last = 0,
    clip = 5, bidirectional = true, by_length = true},
}

local PROGRAM = {
  name = "lstm_classify", command = "luajit recipes/lstm_classify.lua",
  about = "Classify texts by an LSTM, with 8-bit or 32-bit Adam.",
  options = {
    cli.choice("task", {"sms", "imdb", "file"}, {help = "the task; file where columns are named, "
      .. "else sms"}),
    cli.common.data{what = "a folder or a file", metavar = "DIR|FILE",
      help = "folder of the data; for the task file, a CSV or TSV with a header"},
    cli.text("text-column", {help = "the column of the file that holds the texts"}),
    cli.text("label-column", {help = "the column of the file that holds the labels"}),
    cli.common.optim{default = "adam8"},
    cli.common.lr{help = "learning rate; 1e-4 for sms, else 1e-3"},
    cli.common.format(),
    cli.integer("layers", {default = 2, least = 1, most = 64, help = "of the LSTM"}),
    cli.integer("hidden", {default = 64, least = 1, most = 4096, help = "units of a layer"}),
    cli.integer("embedding", {least = 1, most = 4096,
      help = "numbers that stand for a word; 64 for imdb, else 100"}),
    cli.number("dropout", {least = 0, most = 0.95,
      help = "of what goes from layer to layer; 0 for imdb, else 0.2"}),
    cli.number("dropout-last", {least = 0, most = 0.95,
      help = "of the last state; 0.3 for imdb, else 0"}),
    cli.number("forget-bias", {least = -100, most = 100,
      help = "of the forget gates at the start; drawn where it is not given"}),
    cli.number("clip", {least = 0,
      help = "largest norm of the gradient, 0: any; 0 for sms, else 5"}),
    cli.flag("packed", {help = "imdb: leave out the padding to 500 words"}),
    cli.common.batch{help = "examples in a step; 64 for sms, 50 for imdb, else 32"},
    cli.common.epochs{help = "passes over the data; 100 for sms, 5 for imdb, else 20"},
    cli.common.steps(),
    cli.choice("precision", {"f32", "bf16"}, {default = "f32", help = "of matrix products"}),
    cli.common.seed(),
    cli.common.seeds(),
    cli.common.threads(),
    cli.common.device(),
    cli.integer("evaluate-every", {least = 1, most = 2^31 - 1,
      help = "evaluate after so many steps as well as after each epoch"}),
    cli.integer("checkpoint-every", {default = 500, least = 1, most = 2^31 - 1,
      help = "steps between checkpoints"}),
    cli.common.out(),
    cli.common.resume(),
  },
  epilog = "A run leaves its folder in runs/: model.safetensors and vocab.txt, log, metrics, "
    .. "TensorBoard events, curve, checkpoints, result.json; predict.lua reads it. Ctrl-C keeps a "
    .. "checkpoint.",
}

-- Options that a resumed run may be given anew: they change no number.
local FREE_ON_RESUME = {resume = true, threads = true, device = true, data = true}

local function say(line) train.progress.write(line .. "\n") end

-- One run -----------------------------------------------------------------------------------------

--- The task's own settings for what was not given.
local function settle(options)
  local columns = options.text_column or options.label_column
  local own = cli.settled(options, {task = columns and "file" or "sms"})
  if own.task == "file" and not (own.data and own.text_column and own.label_column) then
    error("--task file needs --data FILE, --text-column NAME and --label-column NAME", 0)
  elseif own.task ~= "file" and columns then
    error(("--task %s has its own columns; --text-column and --label-column go with --task file")
      :format(own.task), 0)
  elseif own.task ~= "file" and own.data and file.is_file(own.data) then
    error("--data is a file: texts of your own need --text-column NAME and --label-column NAME", 0)
  end
  return cli.settled(own, SETTINGS[own.task])
end

--- Train in a run's folder; from its checkpoint where it has one.
-- @treturn ?table the result; nil where a signal came
-- @treturn ?number the signal
-- @treturn table the run's folder
local function classify(options, run)
  local o = settle(options)
  octet.seed(o.seed)
  octet.set_precision(o.precision)
  if o.threads then octet.set_threads(o.threads) end
  octet.reset_peak_memory()

  local data = octet.data.OF_WORDS[o.task].load(o)
  local task, facts = data.task, octet.data.facts(data)
  facts.words = #data.vocabulary
  say(("%s; %d words"):format(octet.data.describe(data), facts.words))

  local lstm = require "models.lstm_classifier"
  local built = {
    words = octet.data.words.FIRST + facts.words, embedding = o.embedding, hidden = o.hidden,
    layers = o.layers, bidirectional = o.bidirectional, dropout = o.dropout,
    dropout_last = o.dropout_last, forget_bias = o.forget_bias, classes = task.classes,
    padded = o.task == "imdb" and not o.packed and octet.data.imdb.LENGTH or nil,
  }
  local model = lstm.Classifier(built)
  local optimizer = octet.optim[o.optim](model:parameters(), {lr = o.lr, format = o.format})

  run = run or train.run_folder.create(o.out,
    ("lstm_classify-%s-%s-%d"):format(o.task, o.optim, o.seed))
  run:check_same("data", facts, {"task", "train", "dev", "words", "digest"})
  run:save_json("config.json", {octet = {recipe = PROGRAM.name, task = task.name,
    labels = task.label_names, model = built, data = facts, options = options}})
  octet.data.words.save(run:path "vocab.txt", data.vocabulary)

  local metrics = {unpack(task.metrics)}
  metrics[#metrics + 1] = "loss"
  local outcome = train.fit {
    model = model, optimizer = optimizer, run = run, show = true, say = say,
    batches = function(epoch, start)
      return data.train:batches{size = o.batch, shuffle = true, seed = o.seed, epoch = epoch,
        start = start, by_length = o.by_length}
    end,
    loss = function(batch) return lstm.loss(model(batch), batch) end,
    lr = function() return o.lr end, clip = o.clip,
    evaluate = function(stop)
      local size = 128
      local said = train.evaluate.run(model, data.dev:batches{size = size, by_length = true},
        {stop = stop, show = true, total = data.dev:steps(size), loss = lstm.loss,
          decide = lstm.decide})
      data.dev:finish()
      if not said then return nil end
      local scores = train.metrics.scores(task.metrics, said.predictions, said.labels)
      scores.loss = said.loss
      return scores, train.metrics.collapse(said.predictions, task.label_names)
    end,
    on_evaluation = function(scores, epoch, tell)
      tell(("epoch %.3g: %s"):format(epoch, train.result.metrics_text(scores)))
    end,
    metrics = metrics, steps_per_epoch = data.train:steps(o.batch), epochs = o.epochs,
    steps = o.steps, evaluate_every = o.evaluate_every, checkpoint_every = o.checkpoint_every,
  }
  data.train:finish()
  if outcome.interrupted then return nil, outcome.interrupted, run end

  local result = train.result.table({
    recipe = PROGRAM.name, task = task.name, data = facts, optimizer = o.optim,
    learning_rate = o.lr, seed = o.seed, parameters = model:parameter_count(),
    notes = {outcome.note},
  }, outcome)
  say(train.result.speed_text(result))
  for _, line in ipairs(train.result.state_text(optimizer:report())) do say(line) end
  if outcome.note then say("note: " .. outcome.note) end
  octet.safetensors.save(run:path "model.safetensors", model:state())
  train.result.save_curve(run, ("%s, %s, seed %d"):format(task.title, o.optim, o.seed))
  run:save_json("result.json", result)
  say(("the run is in %s; try it: luajit recipes/predict.lua --model %s --text \"...\""):format(
    run.folder, run.folder))
  return result, nil, run
end

-- The command -------------------------------------------------------------------------------------

train.command.main(PROGRAM, FREE_ON_RESUME, function(options, folder)
  if options.seeds == 1 then return classify(options, folder) end
  return train.group.seeds(PROGRAM, settle(options).task, options, folder, classify, say)
end)
