-- Fine-tune a BERT encoder on a task of GLUE, with 8-bit or 32-bit Adam.
--
--     luajit recipes/glue_finetune.lua --optim adam8
--     luajit recipes/glue_finetune.lua --task mrpc --optim adamw8 --seeds 10
--     luajit recipes/glue_finetune.lua --task all
--
-- The tasks, their metrics and the medians over seeds are those of Table 4 of Dettmers et al.,
-- "8-bit Optimizers via Block-wise Quantization" (ICLR 2022).
local here = arg and arg[0] and arg[0]:match "^(.*)/[^/]*$" or "."
package.path = table.concat({here .. "/../?.lua", here .. "/../lua/?.lua",
  here .. "/../lua/?/init.lua", package.path}, ";")

local cli = require "octet.cli"
local octet = require "octet"
local train = octet.train

-- In the order of the paper's table; "snippets" stands in for SST-2 where that cannot be had.
local TABLE_4 = {"mnli", "qnli", "qqp", "rte", "sst2", "mrpc", "cola", "stsb"}
local TASKS = {"sst2", "cola", "mrpc", "rte", "stsb", "qnli", "qqp", "mnli", "snippets", "all"}
-- Small sets take more passes.
local EPOCHS = {cola = 3, mrpc = 3, rte = 3, stsb = 3}

local PROGRAM = {
  name = "glue_finetune", command = "luajit recipes/glue_finetune.lua",
  about = "Fine-tune a BERT encoder on a task of GLUE, with 8-bit or 32-bit Adam.",
  options = {
    cli.choice("task", TASKS, {help = "the task; sst2 where its data can be had, else snippets"}),
    cli.common.optim{default = "adam8"},
    cli.common.lr{default = 1e-4},
    cli.number("weight-decay", {least = 0, most = 1, help = "decay of weights, not of biases and "
      .. "norms; 0.01 for adamw and adamw8, else 0"}),
    cli.number("warmup", {default = 0.06, least = 0, most = 1,
      help = "part of the steps in which the learning rate rises"}),
    cli.number("clip", {default = 1, least = 0, help = "largest norm of the gradient; 0: any"}),
    cli.common.batch{default = 32},
    cli.common.epochs{help = "passes over the data; 3 for cola, mrpc, rte and stsb, else 1"},
    cli.common.steps(),
    cli.integer("limit", {least = 1, most = 2^31 - 1,
      help = "train on so many examples, drawn by the seed"}),
    cli.integer("max-length", {default = 128, least = 8, most = 512,
      help = "tokens of an example at most"}),
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

local say = train.progress.say

