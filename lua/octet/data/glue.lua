--- The eight GLUE tasks of the 8-bit optimizers' paper (its Table 4), in GLUE's own TSV layouts
-- (Wang et al., "GLUE", ICLR 2019).
-- @module octet.data.glue
local file = require "octet.file"
local Dataset = require "octet.data.dataset"
local places = require "octet.data.places"
local tables = require "octet.data.table"

local M = {}

-- ---- the tasks ---------------------------------------------------------------------------

local HOME = "https://dl.fbaipublicfiles.com/glue/data/"
local MRPC_HOME = "https://dl.fbaipublicfiles.com/senteval/senteval_data/"

--- The tasks' names, in the order of the paper's table.
M.NAMES = {"mnli", "qnli", "qqp", "rte", "sst2", "mrpc", "cola", "stsb"}

-- `columns`: the header's names, or places where there is no header; `labels`: as the files write
-- them, the first is class 0; `range`: of a score; `metrics`: the first one tells the best;
-- `archive`: at GLUE's home, with the folder inside it. Sizes and SHA-256 of the archives are those
-- that Hugging Face's datasets 2.x (datasets/glue/dataset_infos.json) and TensorFlow Datasets
-- (url_checksums/glue.txt) record; the two agree where both have an archive.
M.TASKS = {
  mnli = {
    title = "MNLI", folder = "MNLI", header = true,
    columns = {a = "sentence1", b = "sentence2", label = "gold_label"},
    labels = {"entailment", "neutral", "contradiction"}, metrics = {"accuracy"},
    files = {train = "train.tsv", dev = "dev_matched.tsv", dev_mismatched = "dev_mismatched.tsv"},
    archive = {
      name = "MNLI.zip", inside = "MNLI", size = 312783507,
      sha256 = "e7c1d896d26ed6caf700110645df426cc2d8ebf02a5ab743d5a5c68ac1c83633",
    },
  },
  qnli = {
    title = "QNLI", folder = "QNLI", header = true,
    columns = {a = "question", b = "sentence", label = "label"},
    labels = {"entailment", "not_entailment"}, metrics = {"accuracy"},
    archive = {
      name = "QNLIv2.zip", inside = "QNLI", size = 10627589,
      sha256 = "e634e78627a29adaecd4f955359b22bf5e70f2cbd93b493f2d624138a0c0e5f5",
    },
  },
  qqp = {
    title = "QQP", folder = "QQP", header = true,
    columns = {a = "question1", b = "question2", label = "is_duplicate"},
    labels = {"0", "1"}, label_names = {"not_duplicate", "duplicate"},
    metrics = {"accuracy", "f1"},
    archive = {
      name = "QQP-clean.zip", inside = "QQP", size = 41696084,
      sha256 = "40e7c862c04eb26ee04b67fd900e76c45c6ba8e6d8fab4f8f1f8072a1a3fbae0",
    },
  },
  rte = {
    title = "RTE", folder = "RTE", header = true,
    columns = {a = "sentence1", b = "sentence2", label = "label"},
    labels = {"entailment", "not_entailment"}, metrics = {"accuracy"},
    archive = {
      name = "RTE.zip", inside = "RTE", size = 697150,
      sha256 = "6bf86de103ecd335f3441bd43574d23fef87ecc695977a63b82d5efb206556ee",
    },
  },
  sst2 = {
    title = "SST-2", folder = "SST-2", header = true,
    columns = {a = "sentence", label = "label"},
    labels = {"0", "1"}, label_names = {"negative", "positive"}, metrics = {"accuracy"},
    archive = {
      name = "SST-2.zip", inside = "SST-2", size = 7439277,
      sha256 = "d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa",
    },
  },
  mrpc = {
    title = "MRPC", folder = "MRPC", header = true,
    columns = {a = "#1 String", b = "#2 String", label = "Quality"},
    labels = {"0", "1"}, label_names = {"not_equivalent", "equivalent"},
    metrics = {"accuracy", "f1"},
    -- Not an archive: the corpus as SentEval keeps it, and which of its training pairs GLUE's
    -- development set is made of.
    pieces = {
      {
        url = MRPC_HOME .. "msr_paraphrase_train.txt", name = "msr_paraphrase_train.txt",
        size = 1047044,
        sha256 = "60a9b09084528f0673eedee2b69cb941920f0b8cd0eeccefc464a98768457f89",
      },
      {
        url = HOME .. "mrpc_dev_ids.tsv", name = "mrpc_dev_ids.tsv", size = 6222,
        sha256 = "971d7767d81b997fd9060ade0ec23c4fc31cbb226a55d1bd4a1bac474eb81dc7",
      },
    },
  },
  cola = {
    title = "CoLA", folder = "CoLA", header = false,
    columns = {a = 4, label = 2},
    labels = {"0", "1"}, label_names = {"unacceptable", "acceptable"},
    metrics = {"matthews", "accuracy"},
    archive = {
      name = "CoLA.zip", inside = "CoLA", size = 376971,
      sha256 = "f212fcd832b8f7b435fb991f101abf89f96b933ab400603bf198960dfc32cbff",
    },
  },
  stsb = {
    title = "STS-B", folder = "STS-B", header = true,
    columns = {a = "sentence1", b = "sentence2", label = "score"},
    range = {0, 5}, metrics = {"pearson", "spearman"},
    archive = {
      name = "STS-B.zip", inside = "STS-B", size = 802872,
      sha256 = "e60a6393de5a8b5b9bac5020a1554b54e3691f9d600b775bd131e613ac179c85",
    },
  },
}

for name, task in pairs(M.TASKS) do
  task.name = name
  task.pairs = task.columns.b ~= nil
  task.classes = task.range and 1 or #task.labels
  task.label_names = task.label_names or task.labels
  task.files = task.files or {train = "train.tsv", dev = "dev.tsv"}
end

local function file_names(task)
  local names = {}
  for _, name in pairs(task.files) do names[#names + 1] = name end
  table.sort(names)
  return names
end

-- ---- found or fetched ---------------------------------------------------------------------------

--- Where a task's files are.
-- @tparam table task
-- @tparam ?string given what --data says: a folder that holds glue/SST-2 or SST-2, or is SST-2
-- @treturn ?string the folder
-- @treturn {string,...} the places that were looked in
function M.find(task, given)
  local names = {"glue/" .. task.folder, task.folder}
  if given and given:match "([^/]*)/*$" == task.folder then names[3] = "" end
  return places.find(given, names, file_names(task))
end

--- GLUE's train.tsv and dev.tsv of MRPC out of the corpus.
-- @tparam string corpus the text of msr_paraphrase_train.txt
-- @tparam string dev_ids the text of mrpc_dev_ids.tsv: two ids a line
-- @treturn string train.tsv
-- @treturn string dev.tsv
function M.split_mrpc(corpus, dev_ids)
  local is_dev, left = {}, 0
  for line in (dev_ids:gsub("\r", "") .. "\n"):gmatch "([^\n]+)\n" do
    is_dev[line] = true
    left = left + 1
  end
  local sides, header = {train = {}, dev = {}}, nil
  for line in (corpus:gsub("\r", "") .. "\n"):gmatch "([^\n]+)\n" do
    if not header then
      header = line:gsub("^\239\187\191", "")
    else
      local ids = line:match "^[^\t]*\t([^\t]*\t[^\t]*)\t"
      local side = is_dev[ids or ""] and "dev" or "train"
      table.insert(sides[side], line)
      if side == "dev" then left = left - 1 end
    end
  end
  if not header or left ~= 0 then
    error(("mrpc: %d of the development set's pairs are not in the corpus"):format(left), 0)
  end
  local function tsv(lines) return header .. "\n" .. table.concat(lines, "\n") .. "\n" end
  return tsv(sides.train), tsv(sides.dev)
end

local function fetch_mrpc(task, folder, options)
  local hub, texts = require "octet.hub", {}
  for i, piece in ipairs(task.pieces) do
    local path = folder .. "/" .. piece.name
    hub.download(piece.url, {sha256 = piece.sha256, size = piece.size, path = path,
      quiet = options.quiet})
    texts[i] = file.read(path)
  end
  local train, dev = M.split_mrpc(texts[1], texts[2])
  file.save(folder .. "/train.tsv", train)
  file.save(folder .. "/dev.tsv", dev)
  for _, piece in ipairs(task.pieces) do file.remove(folder .. "/" .. piece.name) end
end

--- Download a task from GLUE's home into the cache.
-- @tparam table task
-- @tparam[opt] table options `quiet`, `connect_seconds`
-- @treturn string the folder
function M.fetch(task, options)
  options = options or {}
  local cache = places.cache()
  if not cache then error(task.name .. ": no cache: neither HOME nor XDG_CACHE_HOME is set", 0) end
  local folder = cache .. "/glue/" .. task.folder
  file.make_folder(folder)
  if task.pieces then
    fetch_mrpc(task, folder, options)
    return folder
  end
  local archive = task.archive
  local path = folder .. "/" .. archive.name
  require("octet.hub").download(HOME .. archive.name, {sha256 = archive.sha256,
    size = archive.size, path = path, quiet = options.quiet,
    connect_seconds = options.connect_seconds})
  local wanted = {}
  for _, name in ipairs(file_names(task)) do
    wanted[archive.inside .. "/" .. name] = folder .. "/" .. name
  end
  require("octet.archive").extract(path, wanted, 2 ^ 30)
  file.remove(path)
  return folder
end

-- ---- read ---------------------------------------------------------------------------

--- Read and encode one file of a task.
-- @tparam table task
-- @tparam string path
-- @tparam table options tokenizer, max_length
-- @treturn Dataset
function M.read(task, path, options)
  local columns = task.columns
  if task.header then
    columns = {task.columns.a, task.columns.label, task.columns.b}
  end
  local rows = tables.read(path, {header = task.header, columns = columns})
  local function name(part)
    return task.columns[part] and (task.header and task.columns[part] or part)
  end
  local labels
  if task.range then
    labels = rows:numbers(name "label", task.range[1], task.range[2])
  else
    labels = rows:labels(name "label", task.labels)
  end
  local encoding = options.tokenizer:encode_table(rows, name "a", name "b", options.max_length)
  rows:close()
  return Dataset.new {encoding = encoding, labels = labels, classes = task.classes}
end

--- Find or fetch a task, read and encode it.
-- @tparam table task
-- @tparam table options as for octet.data.load
-- @treturn table task, train, dev, and dev_mismatched for MNLI, folder
function M.load(task, options)
  local folder, looked = M.find(task, options.data)
  if not folder then
    local where = ("%s: %s not found in %s"):format(task.name,
      table.concat(file_names(task), ", "),
      #looked > 0 and table.concat(looked, ", ") or "any place (--data, OCTET_DATA, the cache)")
    if options.offline then error(where, 0) end
    local ok, result = pcall(M.fetch, task, options)
    if not ok then error(("%s; download failed: %s"):format(where, tostring(result)), 0) end
    folder = result
  end
  local set = {task = task, folder = folder}
  for split, name in pairs(task.files) do
    set[split] = M.read(task, folder .. "/" .. name, options)
  end
  return set
end

return M
