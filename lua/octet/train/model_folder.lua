--- A classifier's folder in Hugging Face's layout: config.json with the names of the classes,
-- model.safetensors, vocab.txt, tokenizer_config.json. What Octet needs beyond that (how the
-- sentence is pooled, how long it may be, the options of the run) is in config.json under "octet".
-- @module octet.train.model_folder
local file = require "octet.file"
local json = require "octet.json"
local number = require "octet.number"
local safetensors = require "octet.safetensors"

local M = {}

--- The text of config.json.
-- @tparam table config of the encoder, as it was read
-- @tparam ?{string,...} labels names of the classes, the first that of class 0; none for a
-- regression
-- @tparam table own what is kept under "octet"
-- @treturn table
function M.config(config, labels, own)
  local all = {}
  for key, value in pairs(config) do all[key] = value end
  all.model_type = "bert"
  all.architectures = json.array {"BertForSequenceClassification"}
  all.id2label, all.label2id = {}, {}
  if labels then
    for i, label in ipairs(labels) do
      all.id2label[tostring(i - 1)], all.label2id[label] = label, i - 1
    end
    all.problem_type = "single_label_classification"
  else
    all.id2label["0"], all.label2id.LABEL_0 = "LABEL_0", 0
    all.problem_type = "regression"
  end
  all.octet = own
  return all
end

--- Save the weights, under Hugging Face's names.
-- @tparam string folder
-- @tparam table model with hugging_face_state()
function M.save_weights(folder, model)
  local tensors = {}
  for _, entry in ipairs(model:hugging_face_state()) do tensors[entry.name] = entry.tensor end
  safetensors.save(folder .. "/model.safetensors", tensors)
end

--- Save all but the weights: the configuration, the vocabulary, and the tokenizer's settings, made
-- up where the model has none.
-- @tparam string folder
-- @tparam string from the folder of the model that was begun with
-- @tparam table config as config() makes it
function M.begin(folder, from, config)
  file.save_json(folder .. "/config.json", config)
  file.save(folder .. "/vocab.txt", file.read(from .. "/vocab.txt"))
  local settings = {tokenizer_class = "BertTokenizer", do_lower_case = true}
  if file.is_file(from .. "/tokenizer_config.json") then
    settings = file.read_json(from .. "/tokenizer_config.json")
  end
  file.save_json(folder .. "/tokenizer_config.json", settings)
end

--- The recipe whose run a folder is; nil where its config.json does not say.
-- @tparam string folder
-- @treturn ?string
function M.recipe(folder)
  local own = file.read_json(folder .. "/config.json").octet
  return type(own) == "table" and own.recipe or nil
end

--- What config.json says of a classifier. Files from elsewhere are checked, and their own ways
-- (no "octet", classes without names) are understood.
-- @tparam string folder
-- @treturn table labels (the first that of class 0; nil for a regression), classes, pooling,
-- max_length, pair (does it read two texts?), task (nil where the file does not say)
function M.describe(folder)
  local path = folder .. "/config.json"
  local config = file.read_json(path)
  local own = type(config.octet) == "table" and config.octet or {}
  local names = config.id2label
  if type(names) ~= "table" then
    error(("%s names no classes (id2label): it is no classifier; one is made by "
      .. "recipes/glue_finetune.lua"):format(path), 0)
  end
  local classes, labels = 0, {}
  while names[tostring(classes)] ~= nil do
    local name = names[tostring(classes)]
    if type(name) ~= "string" then
      error(("%s: the name of class %d is a %s, expected a string"):format(path, classes,
        type(name)), 0)
    end
    if name:find "%c" then
      error(("%s: the name of class %d holds a control character"):format(path, classes), 0)
    end
    classes = classes + 1
    labels[classes] = name
  end
  local count = 0
  for _ in pairs(names) do count = count + 1 end
  if classes == 0 or count ~= classes then
    error(("%s: id2label has %d names, expected one for each class from 0 on")
      :format(path, count), 0)
  end
  local pair
  if type(own.pair) == "boolean" then pair = own.pair end
  local regression = classes == 1 or config.problem_type == "regression"
  return {
    classes = classes, labels = not regression and labels or nil,
    pooling = (own.pooling == "mean" or own.pooling == "cls") and own.pooling or "cls",
    max_length = number.is_whole(own.max_length, 3, 2^20) and own.max_length or nil,
    task = type(own.task) == "string" and own.task or nil,
    pair = pair,
  }
end

return M
