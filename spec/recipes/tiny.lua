--- A BERT of 2 layers, 32 wide, with random weights, and small data sets in GLUE's layouts: what
-- the recipes' specs run on.
local file = require "octet.file"
local message = require "octet.message"
local octet = require "octet"

local M = {}

local GOOD = {"good", "fine", "funny", "warm", "bright"}
local BAD = {"bad", "dull", "slow", "cold", "flat"}
local REST = {"the", "film", "story", "is", "and", "a", "very", "rather", "so", "plot"}

--- A model's folder.
-- @tparam string folder
-- @tparam[opt] table options dropout; `poison`: a word whose embedding is not a number
function M.model(folder, options)
  options = options or {}
  file.make_folder(folder)
  local tokens = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
  for _, words in ipairs {GOOD, BAD, REST, {"poison"}} do
    for _, word in ipairs(words) do tokens[#tokens + 1] = word end
  end
  file.save(folder .. "/vocab.txt", table.concat(tokens, "\n") .. "\n")
  local config = {
    model_type = "bert", vocab_size = #tokens, hidden_size = 32, num_hidden_layers = 2,
    num_attention_heads = 4, intermediate_size = 128, max_position_embeddings = 64,
    hidden_dropout_prob = options.dropout or 0.1,
    attention_probs_dropout_prob = options.dropout or 0.1,
  }
  file.save_json(folder .. "/config.json", config)
  octet.seed(11)
  local bert = require "models.bert"
  local model = bert.Classifier(bert.config(config, "config.json"), {classes = 2, pooling = "cls"})
  local tensors = {}
  for _, entry in ipairs(model:hugging_face_state()) do
    if entry.name:find "^bert%." then tensors[entry.name] = entry.tensor end
  end
  if options.poison then
    local words = tensors["bert.embeddings.word_embeddings.weight"]
    words:data()[(#tokens - 1) * 32] = 0 / 0
  end
  octet.safetensors.save(folder .. "/model.safetensors", tensors)
  return folder
end

--- A sentence, the same one for the same number, and 1 where it is a good one.
function M.sentence(number)
  local label = number % 2
  local words = {REST[number % #REST + 1], "film", "is",
    (label == 1 and GOOD or BAD)[math.floor(number / 2) % 5 + 1]}
  for i = 1, number % 7 do words[#words + 1] = REST[(number * i) % #REST + 1] end
  return table.concat(words, " "), label
end

local function write(folder, name, lines)
  file.make_folder(folder)
  file.save(folder .. "/" .. name, table.concat(lines, "\n") .. "\n")
end

-- One line of each task's files, with two sentences and a label of 0 or 1.
local LAYOUTS = {
  ["SST-2"] = {"sentence\tlabel", function(a, _, y) return ("%s\t%d"):format(a, y) end},
  CoLA = {nil, function(a, _, y) return ("gj04\t%d\t\t%s"):format(y, a) end},
  MRPC = {"Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    function(a, b, y) return ("%d\t1\t2\t%s\t%s"):format(y, a, b) end},
  RTE = {"index\tsentence1\tsentence2\tlabel",
    function(a, b, y) return ("0\t%s\t%s\t%s"):format(a, b, y == 1 and "entailment"
      or "not_entailment") end},
  QNLI = {"index\tquestion\tsentence\tlabel",
    function(a, b, y) return ("0\t%s\t%s\t%s"):format(a, b, y == 1 and "entailment"
      or "not_entailment") end},
  QQP = {"id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
    function(a, b, y) return ("0\t1\t2\t%s\t%s\t%d"):format(a, b, y) end},
  ["STS-B"] = {"index\tsentence1\tsentence2\tscore",
    function(a, b, y) return ("0\t%s\t%s\t%.1f"):format(a, b, 4 * y + #a % 3 / 4) end},
  MNLI = {"index\tsentence1\tsentence2\tgold_label",
    function(a, b, y) return ("0\t%s\t%s\t%s"):format(a, b, y == 1 and "entailment"
      or "contradiction") end},
}

--- The files of one task.
-- @tparam string folder of all tasks
-- @tparam string task its folder's name in GLUE
-- @tparam[opt] number train rows
-- @tparam[opt] number dev rows
function M.data(folder, task, train, dev)
  local header, line = LAYOUTS[task][1], LAYOUTS[task][2]
  local function rows(first, count)
    local lines = {header}
    for n = first, first + count - 1 do
      local a, y = M.sentence(n)
      lines[#lines + 1] = line(a, (M.sentence(n + 1)), y)
    end
    return lines
  end
  write(folder .. "/" .. task, "train.tsv", rows(0, train or 64))
  local names = task == "MNLI" and {"dev_matched.tsv", "dev_mismatched.tsv"} or {"dev.tsv"}
  for _, name in ipairs(names) do write(folder .. "/" .. task, name, rows(1000, dev or 16)) end
end

--- All eight tasks.
function M.all_data(folder, train, dev)
  for task in pairs(LAYOUTS) do M.data(folder, task, train, dev) end
end

--- A user's own table: 120 sentences, each with its label.
-- @tparam string path of a CSV
-- @tparam[opt] function label_of label_of(number, label): "good" or "bad" where it is not given
-- @treturn {string,...} the sentences
-- @treturn {string,...} their labels
function M.own_table(path, label_of)
  local lines, texts, labels = {"text,label"}, {}, {}
  for n = 1, 120 do
    local text, y = M.sentence(n)
    local label = y == 1 and "good" or "bad"
    texts[n], labels[n] = text, label_of and label_of(n, label) or label
    lines[n + 1] = ("%s,%s"):format(text, labels[n])
  end
  file.save(path, table.concat(lines, "\n") .. "\n")
  return texts, labels
end


--- Run a recipe.
-- @tparam string name
-- @tparam {string,...} arguments
-- @tparam[opt] table o `before`: shell commands; `input`: standard input; `output`: its file
-- @treturn number exit status
-- @treturn string standard output
-- @treturn string standard error
function M.run(name, arguments, o)
  o = o or {}
  local words = {}
  for i, argument in ipairs(arguments) do words[i] = message.word(argument) end
  local errors, input = os.tmpname(), os.tmpname()
  file.save(input, o.input or "")
  -- One thread: what is so small gains nothing by two, and other work is not held up.
  local command = ("luajit recipes/%s.lua %s < %s 2> %s %s"):format(name,
    table.concat(words, " "), input, errors, o.output and "> " .. o.output or "")
  local pipe = io.popen(("export OMP_NUM_THREADS=1; %s %s; s=$?; echo; echo $s"):format(
    o.before or "", command))
  local out = pipe:read "*a"
  pipe:close()
  local text = file.read(errors)
  os.remove(errors)
  os.remove(input)
  local said, status = out:match "^(.*)\n(%d+)\n$"
  return tonumber(status), said, text
end

return M
