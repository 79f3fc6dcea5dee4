-- Train a language model of words, an LSTM that tells the next one.
--
--     luajit recipes/lstm_language_model.lua --task ptb --optim adam8
--     luajit recipes/lstm_language_model.lua --optim sgd --momentum 0 --lr 20
--     luajit recipes/lstm_language_model.lua --data FOLDER         # with texts of your own
--
-- Model and data are those of the small model of Zaremba, Sutskever and Vinyals, "Recurrent Neural
-- Network Regularization" (2014), and the second line is their training, which came to a perplexity
-- of 120.7 on the validation text and 114.5 on the test text. Their loss is the sum over the 20
-- words of a stretch, where it is the mean here: their learning rate of 1 and norm of 5 are 20 and
-- 0.25.
local here = arg and arg[0] and arg[0]:match "^(.*)/[^/]*$" or "."
package.path = table.concat({here .. "/../?.lua", here .. "/../lua/?.lua",
  here .. "/../lua/?/init.lua", package.path}, ";")

local cli = require "octet.cli"
local octet = cli.library()
local train = octet.train

-- What an option is where it is not given: for SGD, and for all that scale their steps themselves.
local SGD = {lr = 2, decay = 0.5, decay_after = 4, dropout = 0}
local OTHERS = {lr = 2e-3, decay = 0.5, decay_after = 4, dropout = 0.2}

local PROGRAM = {
  name = "lstm_language_model", command = "luajit recipes/lstm_language_model.lua",
  about = "Train a language model of words, an LSTM, with 8-bit or 32-bit optimizers.",
  options = {
    cli.choice("task", {"ptb"}, {default = "ptb", help = "the task"}),
    cli.common.data{help = "folder of ptb.train.txt, ptb.valid.txt and ptb.test.txt: the Penn "
      .. "Treebank, or texts of your own"},
    cli.common.optim{default = "adam8"},
    cli.common.lr{most = 1000, help = "learning rate of the first epochs; 2 for sgd, else 2e-3"},
    cli.number("decay", {above = 0, most = 1,
      help = "factor on the learning rate after each epoch; 0.5"}),
    cli.integer("decay-after", {least = 0, most = 10000,
      help = "epochs before the first decay; 4"}),
    cli.number("momentum", {least = 0, most = 0.9999, help = "of sgd; 0.9, 0 is the paper's"}),
    cli.common.format(),
    cli.integer("layers", {default = 2, least = 1, most = 64, help = "of the LSTM"}),
    cli.integer("hidden", {default = 200, least = 1, most = 4096, help = "units of a layer"}),
    cli.integer("embedding", {default = 200, least = 1, most = 4096,
      help = "numbers that stand for a word"}),
    cli.number("dropout", {least = 0, most = 0.95,
      help = "of what goes up from layer to layer; 0 for sgd, else 0.2"}),
    cli.number("init", {default = 0.1, above = 0, most = 10,
      help = "weights start uniform between minus this and this"}),
    cli.number("clip", {default = 0.25, least = 0, help = "largest norm of the gradient, 0: any"}),
    cli.integer("length", {default = 20, least = 1, most = 65536,
      help = "words of a stretch, through which gradients pass"}),
    cli.common.batch{default = 20, help = "columns that the text is cut into, read side by side"},
    cli.common.epochs{default = 13},
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
    .. "TensorBoard events, curve, checkpoints, result.json. Ctrl-C keeps a checkpoint.",
}

-- Options that a resumed run may be given anew: they change no number.
local FREE_ON_RESUME = {resume = true, threads = true, device = true, data = true}

local function say(line) train.progress.write(line .. "\n") end

--- How well a model tells the words of a text, each from all before it; nil where stop() became
-- true.
local function score(model, text, stop)
  local language_model = require "models.lstm_language_model"
  local memory = language_model.memory(model, 1)
  local length = 256
  local loss = train.evaluate.mean_loss(model, text:batches{columns = 1, length = length},
    function(batch) return octet.nn.cross_entropy(model(batch.ids, memory), batch.labels) end,
    {stop = stop, show = true, total = text:steps(1, length)})
  if loss and (loss ~= loss or loss > 700) then
    error(("the loss of the evaluation is %s: training has diverged. A smaller --lr often helps")
      :format(tostring(loss)), 0)
  end
  return loss and {perplexity = math.exp(loss), loss = loss}
end

--- Train in a run's folder; from its checkpoint where it has one.
-- @treturn ?table the result; nil where a signal came
-- @treturn ?number the signal
-- @treturn table the run's folder
local function train_model(options, run)
  local o = cli.settled(options, options.optim:find "^sgd%d*$" and SGD or OTHERS)
  octet.seed(o.seed)
  octet.set_precision(o.precision)
  if o.threads then octet.set_threads(o.threads) end
  octet.reset_peak_memory()

  local data = octet.data.ptb.load {data = o.data}
  local facts = {name = data.task.title, task = data.task.name, folder = data.folder,
    train = data.train.tokens, valid = data.valid.tokens, test = data.test.tokens,
    words = #data.vocabulary, digest = data.train:digest()}
  local count = train.progress.count_text
  say(("%s: %s words to train on, %s to validate, %s to test, %d different ones, from %s"):format(
    facts.name, count(facts.train), count(facts.valid), count(facts.test), facts.words,
    facts.folder))
  local steps_per_epoch = data.train:steps(o.batch, o.length)

  local language_model = require "models.lstm_language_model"
  local model = language_model.Model {
    words = facts.words, embedding = o.embedding, hidden = o.hidden, layers = o.layers,
    dropout = o.dropout, scale = o.init,
  }
  local optimizer = octet.optim[o.optim](model:parameters(),
    {lr = o.lr, format = o.format, momentum = o.momentum})
  local memory = language_model.memory(model, o.batch)

  run = run or train.run_folder.create(o.out,
    ("%s-%s-%s-%d"):format(PROGRAM.name, o.task, o.optim, o.seed))
  run:check_same("data", facts, {"task", "train", "valid", "test", "words", "digest"})
  run:save_json("config.json", {octet = {recipe = PROGRAM.name, task = o.task, data = facts,
    options = options}})
  octet.data.ptb.save_vocabulary(run:path "vocab.txt", data.vocabulary)

  local outcome = train.fit {
    model = model, optimizer = optimizer, run = run, show = true, say = say,
    parts = {memory = memory},
    batches = function(_, start)
      if start == 0 then memory:clear() end
      return data.train:batches{columns = o.batch, length = o.length, start = start}
    end,
    loss = function(batch)
      return octet.nn.cross_entropy(model(batch.ids, memory), batch.labels)
    end,
    lr = function(step)
      local epoch = math.ceil(step / steps_per_epoch)
      return o.lr * o.decay ^ math.max(0, epoch - o.decay_after)
    end,
    clip = o.clip,
    evaluate = function(stop) return score(model, data.valid, stop) end,
    on_evaluation = function(scores, epoch, tell)
      tell(("epoch %.3g: %s"):format(epoch, train.result.metrics_text(scores)))
    end,
    metrics = {"perplexity", "loss"}, better = function(a, b) return a < b end,
    steps_per_epoch = steps_per_epoch, epochs = o.epochs, steps = o.steps,
    evaluate_every = o.evaluate_every, checkpoint_every = o.checkpoint_every,
  }
  if outcome.interrupted then return nil, outcome.interrupted, run end
  local tested = score(model, data.test, train.signals.seen)
  if not tested then return nil, train.signals.seen(), run end
  say(("test: %s"):format(train.result.metrics_text(tested)))
  outcome.metrics.perplexity_test, outcome.metrics.loss_test = tested.perplexity, tested.loss

  local result = train.result.table({
    recipe = PROGRAM.name, task = o.task, data = facts, optimizer = o.optim, learning_rate = o.lr,
    seed = o.seed, parameters = model:parameter_count(),
  }, outcome)
  say(train.result.speed_text(result))
  for _, line in ipairs(train.result.state_text(optimizer:report())) do say(line) end
  octet.safetensors.save(run:path "model.safetensors", model:state())
  train.result.save_curve(run, ("%s, %s, seed %d"):format(facts.name, o.optim, o.seed))
  run:save_json("result.json", result)
  say("the run is in " .. run.folder)
  return result, nil, run
end

train.command.main(PROGRAM, FREE_ON_RESUME, function(options, folder)
  if options.seeds == 1 then return train_model(options, folder) end
  return train.group.seeds(PROGRAM, options.task, options, folder, train_model, say)
end)
