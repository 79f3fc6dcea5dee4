-- Read sentences, write what a fine-tuned classifier says of them.
--
--     luajit recipes/predict.lua --model runs/glue_finetune-sst2-adam8-1 < sentences.txt
--     luajit recipes/predict.lua --model RUN --text "a gripping, funny film"
--
-- RUN is the folder of a run of glue_finetune or lstm_classify, or of a classifier from elsewhere.
-- One line for each line read: label, probability, text, parted by TABs; a model that predicts a
-- score writes score and text. A model of pairs reads two texts parted by a TAB.
local here = arg and arg[0] and arg[0]:match "^(.*)/[^/]*$" or "."
package.path = table.concat({here .. "/../?.lua", here .. "/../lua/?.lua",
  here .. "/../lua/?/init.lua", package.path}, ";")

local cli = require "octet.cli"
local octet = cli.library()
local lines = require "octet.lines"

local PROGRAM = {
  name = "predict", command = "luajit recipes/predict.lua",
  about = "Read sentences, write what a fine-tuned classifier says of them: label, probability "
    .. "and text, parted by TABs, one a line.",
  options = {
    cli.common.model{required = true, help = "folder of a run, or of a classifier in Hugging "
      .. "Face's layout"},
    cli.text("text", {what = "a text", help = "the text, or two parted by a TAB; standard input "
      .. "where it is not given"}),
    cli.common.batch{default = 64, help = "texts at once"},
    cli.choice("precision", {"f32", "bf16"}, {default = "f32", help = "of matrix products"}),
    cli.common.threads(),
  },
}

-- What a folder holds is a reader: `classes`; `labels`, nil where a score is predicted;
-- encode(texts, first), the texts from line `first` on as a data set; logits(batch).

--- An LSTM of words.
local function lstm_of(options)
  local lstm = require "models.lstm_classifier"
  local model, vocabulary, about = lstm.load(options.model)
  local task = octet.data.OF_WORDS[about.task] or error(("%s/config.json: no task %s"):format(
    options.model, tostring(about.task)), 0)
  return {
    classes = #about.labels, labels = about.labels,
    encode = function(texts) return octet.data.words.dataset(texts, vocabulary, task.READING) end,
    logits = function(batch) return lstm.of_each_class(model(batch)) end,
  }
end

--- The two texts of each line read, where the model reads pairs.
local function split(texts, about, first)
  if about.pair == false or (about.pair == nil and not texts[1]:find "\t") then return texts end
  local left, right = {}, {}
  for i, line in ipairs(texts) do
    left[i], right[i] = line:match "^([^\t]*)\t([^\t]*)$"
    if not left[i] then
      error(("line %d: expected two texts parted by a TAB, got %d"):format(first + i - 1,
        select(2, line:gsub("\t", "")) + 1), 0)
    end
  end
  return left, right
end

--- An encoder with its tokenizer.
local function encoder_of(options)
  local about = octet.train.model_folder.describe(options.model)
  local tokenizer = octet.text.wordpiece(options.model .. "/vocab.txt")
  local model, fresh = require "models.bert".load(options.model,
    {classes = about.classes, pooling = about.pooling})
  if fresh[1] then
    error(("%s has no weights for the %s: it has not been fine-tuned"):format(options.model,
      table.concat(fresh, " and the ")), 0)
  end
  model:eval()
  local longest = math.min(about.max_length or math.huge, model.config.max_position_embeddings)
  return {
    classes = about.classes, labels = about.labels,
    encode = function(texts, first)
      local a, b = split(texts, about, first)
      return octet.data.dataset {encoding = tokenizer:encode_all(a, b, longest),
        classes = about.classes}
    end,
    logits = model,
  }
end

--- What the model says of some texts, as lines.
local function predict(reader, options, texts, first)
  local out = {}
  for batch in reader.encode(texts, first):batches {size = options.batch} do
    local logits = octet.no_grad(reader.logits, batch)
    local said = {}
    octet.train.evaluate.decide(logits, said)
    local probabilities = reader.labels and logits:softmax()
    local probability = probabilities and probabilities:reader()
    for i, value in ipairs(said) do
      local line = texts[#out + 1]
      out[#out + 1] = reader.labels
        and ("%s\t%.4f\t%s"):format(reader.labels[value + 1],
          probability((i - 1) * reader.classes + value), line)
        or ("%.4f\t%s"):format(value, line)
    end
  end
  return out
end

cli.main("predict", function()
  local options = cli.parse(arg, PROGRAM)
  if options.threads then octet.set_threads(options.threads) end
  octet.set_precision(options.precision)
  local is_lstm = octet.train.model_folder.recipe(options.model) == "lstm_classify"
  local reader = (is_lstm and lstm_of or encoder_of)(options)
  local done = 0
  --- Those before one that cannot be read are answered first, and it is named by its line.
  local function answer(texts)
    local ok, said = pcall(predict, reader, options, texts, done + 1)
    if not ok then
      local kind, place, why = tostring(said):match "^(%a+) (%d+)(.*)$"
      local is_row = kind == "text" or kind == "pair" or kind == "line"
      if options.text or not is_row then error(said, 0) end
      local before = {}
      for i = 1, place - 1 - (kind == "line" and done or 0) do before[i] = texts[i] end
      if #before > 0 then answer(before) end
      error(("line %d%s"):format(done + 1, why), 0)
    end
    lines.write(table.concat(said, "\n") .. "\n")
    lines.flush()
    done = done + #texts
  end
  if options.text then
    answer {(options.text:gsub("[\r\n]+", " "))}
  else
    -- As many lines as there are by now: at once at a keyboard, in batches from a file.
    for texts in lines.arriving() do answer(texts) end
  end
end)
