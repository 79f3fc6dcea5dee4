-- Fine-tune a BERT encoder on a task of GLUE, with 8-bit or 32-bit Adam.
--
--     luajit recipes/glue_finetune.lua --optim adam8
--     luajit recipes/glue_finetune.lua --task mrpc --optim adamw8 --seeds 10
--     luajit recipes/glue_finetune.lua --task all
--     luajit recipes/glue_finetune.lua --task smile
--
-- The tasks, their metrics and the medians over seeds are those of Table 4 of Dettmers et al.,
-- "8-bit Optimizers via Block-wise Quantization" (ICLR 2022). The task smile, emotions of tweets,
-- is that of a report on replicating the paper (ReScience C, 2023), with its settings.
local here = arg and arg[0] and arg[0]:match "^(.*)/[^/]*$" or "."
package.path = table.concat({here .. "/../?.lua", here .. "/../lua/?.lua",
  here .. "/../lua/?/init.lua", package.path}, ";")

local cli = require "octet.cli"
local octet = cli.library()
local train = octet.train

-- "snippets" stands in for SST-2 where that cannot be had.
local TASKS = {"sst2", "cola", "mrpc", "rte", "stsb", "qnli", "qqp", "mnli", "snippets", "smile",
  "all"}

-- What an option is where it is not given. Small sets take more passes.
local DEFAULTS = {lr = 1e-4, batch = 32, warmup = 0.06, max_length = 128, epochs = 1}
local SETTINGS = {
  cola = {epochs = 3}, mrpc = {epochs = 3}, rte = {epochs = 3}, stsb = {epochs = 3},
  smile = {lr = 1e-5, batch = 4, warmup = 0, max_length = 256, epochs = 10},
}

local PROGRAM = {
  name = "glue_finetune", command = "luajit recipes/glue_finetune.lua",
  about = "Fine-tune a BERT encoder on a task of GLUE, with 8-bit or 32-bit optimizers.",
  options = {
    cli.choice("task", TASKS, {help = "the task; sst2 where its data can be had, else snippets"}),
    cli.common.optim{default = "adam8"},
    cli.common.lr{help = "learning rate at its highest; 1e-5 for smile, else 1e-4"},
    cli.common.format(),
    cli.number("weight-decay", {least = 0, most = 1, help = "decay of weights, not of biases and "
      .. "norms; the optimizer's own default where it is not given, 0.01 for adamw"}),
    cli.number("warmup", {least = 0, most = 1,
      help = "part of the steps in which the learning rate rises; 0 for smile, else 0.06"}),
    cli.number("clip", {default = 1, least = 0, help = "largest norm of the gradient; 0: any"}),
    cli.common.batch{help = "examples in a batch; 4 for smile, else 32"},
    cli.common.accumulate(),
    cli.common.epochs{help = "passes over the data; 3 for cola, mrpc, rte and stsb, 10 for smile, "
      .. "else 1"},
    cli.common.steps(),
    cli.integer("limit", {least = 1, most = 2^31 - 1,
      help = "train on so many examples, drawn by the seed"}),
    cli.integer("max-length", {least = 8, most = 512,
      help = "tokens of an example at most; 256 for smile, else 128"}),
    cli.choice("pooling", {"mean", "cls"}, {default = "mean",
      help = "what stands for a sentence: the mean of its tokens, or BERT's pooler on the first"}),
    cli.choice("precision", {"f32", "bf16"}, {default = "f32", help = "of matrix products"}),
    cli.common.seed(),
    cli.common.seeds(),
    cli.common.threads(),
    cli.common.device(),
    cli.common.model(),
    cli.common.data(),
    cli.integer("evaluate-every", {least = 1, most = 2^31 - 1,
      help = "evaluate after so many steps as well as after each epoch"}),
    cli.integer("checkpoint-every", {default = 500, least = 1, most = 2^31 - 1,
      help = "steps between checkpoints"}),
    cli.common.out(),
    cli.common.resume(),
  },
  epilog = "A run leaves its folder in runs/: the model in Hugging Face's layout, log, metrics, "
    .. "TensorBoard events, curve, checkpoints, result.json. Ctrl-C keeps a checkpoint.",
}

-- Options that a resumed run may be given anew: they change no number.
local FREE_ON_RESUME = {resume = true, threads = true, device = true, data = true, model = true}

local function say(line) train.progress.write(line .. "\n") end

-- One run -----------------------------------------------------------------------------------------

--- AdamW's usual groups: matrices decay, biases and norms do not.
local function parameter_groups(model, weight_decay)
  local decayed, others = {}, {}
  for _, p in ipairs(model:parameters()) do
    table.insert(p.tensor:ndim() > 1 and decayed or others, p)
  end
  return {
    {params = decayed, weight_decay = weight_decay}, {params = others, weight_decay = 0},
  }
end

local function label_names(task) return task.classes > 1 and task.label_names or nil end

--- Scores on a development set; nil where stop() became true.
local function score(model, set, task, stop)
  local size = 64
  local said = train.evaluate.run(model, set:batches{size = size},
    {stop = stop, show = true, total = set:steps(size)})
  set:finish()
  if not said then return nil end
  local scores = train.metrics.scores(task.metrics, said.predictions, said.labels)
  scores.loss = said.loss
  return scores, train.metrics.collapse(said.predictions, label_names(task))
end

--- Fine-tune in a run's folder; from its checkpoint where it has one.
-- @treturn ?table the result; nil where a signal came
-- @treturn ?number the signal
-- @treturn table the run's folder
local function finetune(options, run)
  local o = cli.settled(options, SETTINGS[options.task] or {}, DEFAULTS)
  octet.seed(o.seed)
  octet.set_precision(o.precision)
  if o.threads then octet.set_threads(o.threads) end
  octet.reset_peak_memory()

  local source = octet.hub.model(o.model or octet.hub.DEFAULT)
  local data = octet.data.load(o.task or "default", {
    tokenizer = octet.text.wordpiece(source .. "/vocab.txt"), max_length = o.max_length,
    data = o.data, limit = o.limit, seed = o.seed,
  })
  local task, facts = data.task, octet.data.facts(data)
  say(octet.data.describe(data))

  local model = require "models.bert".load(source,
    {classes = task.classes, pooling = o.pooling})
  local facts_of_model = {digest = require("octet.file").sha256(source .. "/config.json")}
  local positions = model.config.max_position_embeddings
  if math.max(data.train.longest, data.dev.longest) > positions then
    error(("--max-length: %d, but this model reads %d tokens at most"):format(o.max_length,
      positions), 0)
  end
  local optimizer = octet.optim[o.optim](parameter_groups(model, o.weight_decay),
    {lr = o.lr, format = o.format})

  local steps_per_epoch = math.ceil(data.train:steps(o.batch) / o.accumulate)
  local total_steps = math.min(o.steps or math.huge, o.epochs * steps_per_epoch)
  local factor = octet.optim.schedule.linear {steps = total_steps,
    warmup_steps = math.floor(o.warmup * total_steps)}
  local metrics = {unpack(task.metrics)}
  metrics[#metrics + 1] = "loss"
  if data.dev_mismatched then metrics[#metrics + 1] = "accuracy_mismatched" end

  run = run or train.run_folder.create(o.out,
    ("glue_finetune-%s-%s-%d"):format(task.name, o.optim, o.seed))
  run:check_same("data", facts, {"task", "train", "dev", "digest"})
  run:check_same("model", facts_of_model, {"digest"})
  train.model_folder.begin(run.folder, source, train.model_folder.config(model.config,
    label_names(task), {
      recipe = "glue_finetune", task = task.name, pair = task.pairs, pooling = o.pooling,
      max_length = o.max_length, data = facts, model = facts_of_model, options = options,
    }))

  local outcome = train.fit {
    model = model, optimizer = optimizer, run = run, show = true, say = say,
    batches = function(epoch, start)
      return data.train:batches{size = o.batch, shuffle = true, seed = o.seed,
        epoch = epoch, start = start}
    end,
    loss = function(batch) return train.evaluate.loss(model(batch), batch) end,
    lr = function(step) return o.lr * factor(step - 1) end, clip = o.clip,
    evaluate = function(stop)
      local scores, collapse = score(model, data.dev, task, stop)
      if scores and data.dev_mismatched then
        local other = score(model, data.dev_mismatched, task, stop)
        if not other then return nil end
        scores.accuracy_mismatched = other.accuracy
      end
      return scores, collapse
    end,
    on_evaluation = function(scores, epoch, tell)
      tell(("epoch %.3g: %s"):format(epoch, train.result.metrics_text(scores)))
    end,
    metrics = metrics, accumulate = o.accumulate,
    steps_per_epoch = steps_per_epoch, epochs = o.epochs, steps = o.steps,
    evaluate_every = o.evaluate_every, checkpoint_every = o.checkpoint_every,
  }
  data.train:finish()
  if outcome.interrupted then return nil, outcome.interrupted, run end

  local result = train.result.table({
    recipe = "glue_finetune", task = task.name, data = facts,
    optimizer = o.optim, learning_rate = o.lr, seed = o.seed,
    model = o.model or octet.hub.DEFAULT, parameters = model:parameter_count(),
    notes = {outcome.note},
  }, outcome)
  say(train.result.speed_text(result))
  for _, line in ipairs(train.result.state_text(optimizer:report())) do say(line) end
  if outcome.note then say("note: " .. outcome.note) end
  train.model_folder.save_weights(run.folder, model)
  train.result.save_curve(run, ("%s, %s, seed %d"):format(task.title, o.optim, o.seed))
  run:save_json("result.json", result)
  say(("the run is in %s; try it: luajit recipes/predict.lua --model %s --text \"...\""):format(
    run.folder, run.folder))
  return result, nil, run
end

-- Several runs ------------------------------------------------------------------------------------

--- One row of a table like the paper's Table 4: the median over seeds of each task's first metric.
local function print_table(medians, optim, seeds)
  local head, row, sum, count = {"optimizer"}, {optim}, 0, 0
  for _, name in ipairs(octet.data.names()) do
    local task = octet.data.task(name)
    local found = medians[name]
    if found then
      local value = 100 * found.metrics[task.metrics[1]]
      head[#head + 1], row[#row + 1] = task.title, ("%.2f"):format(value)
      sum, count = sum + value, count + 1
    end
  end
  head[#head + 1], row[#row + 1] = "Mean", ("%.2f"):format(sum / count)
  for _, line in ipairs(train.group.table_text {head, row}) do say(line) end
  say(("accuracy (MNLI: matched), Matthews (CoLA), Pearson (STS-B), times 100; %s"):format(
    seeds == 1 and "one seed" or ("median of %d seeds"):format(seeds)))
end

--- The tasks of the table whose data can be had; the others are named.
local function tasks_to_be_had(options)
  local tasks = {}
  for _, name in ipairs(octet.data.glue.NAMES) do
    local task, why = octet.data.task(name), nil
    if not octet.data.glue.find(task, options.data) then
      local ok, reason = pcall(octet.data.glue.fetch, task)
      why = not ok and reason
    end
    if why then
      say(("%s is left out: its data cannot be had: %s"):format(task.title, cli.one_line(why)))
    else
      tasks[#tasks + 1] = name
    end
  end
  if #tasks == 0 then error("--task all: none of GLUE's data can be had", 0) end
  return tasks
end

--- All tasks, or all seeds of one, each in a folder of its own.
local function finetune_many(options, folder)
  local tasks = options.task == "all" and tasks_to_be_had(options) or {options.task or "default"}
  folder = folder or train.run_folder.create(options.out, ("glue_finetune-%s-%s-%d"):format(
    options.task or "default", options.optim, options.seed))
  folder:save_json("config.json", {octet = {recipe = "glue_finetune", options = options}})
  local members = {}
  for _, task in ipairs(tasks) do
    for seed = options.seed, options.seed + options.seeds - 1 do
      members[#members + 1] = {name = ("%s-%s-%d"):format(task, options.optim, seed), task = task,
        seed = seed}
    end
  end
  local results, ended = train.group.run(folder, members, function(member, run)
    return finetune(cli.settled({task = member.task, seed = member.seed, seeds = 1}, options), run)
  end, say)
  if not results then return nil, ended, folder end
  local medians = train.group.medians(results)
  folder:save_json("result.json", {recipe = "glue_finetune", task = options.task,
    optimizer = options.optim, seed = options.seed, seeds = options.seeds, median = medians,
    runs = results, diverged = #ended > 0 and ended or nil})
  print_table(medians, options.optim, options.seeds)
  return results
end

-- The command -------------------------------------------------------------------------------------

train.command.main(PROGRAM, FREE_ON_RESUME, function(options, folder)
  local several = options.task == "all" or options.seeds > 1
  return (several and finetune_many or finetune)(options, folder)
end)
