--- Data sets: found by name, encoded once, and cut into batches.
--
--    local set = data.load("sst2", {tokenizer = tokenizer, max_length = 128})
--    print(data.describe(set))
--    for batch in set.train:batches {size = 32, shuffle = true, seed = 1, epoch = 1} do ... end
--
-- @module octet.data
local Dataset = require "octet.data.dataset"
local file = require "octet.file"
local glue = require "octet.data.glue"
local nearest = require "octet.nearest"
local smile = require "octet.data.smile"
local snippets = require "octet.data.snippets"

local M = {}

M.dataset = Dataset.new
M.table = require "octet.data.table"
M.glue = glue
M.words = require "octet.data.words"
M.sms = require "octet.data.sms"
M.imdb = require "octet.data.imdb"
M.own_table = require "octet.data.own_table"
M.snippets = snippets
M.split = require "octet.data.split"
M.stream = require "octet.data.stream"
M.ptb = require "octet.data.ptb"

-- Tasks that are read as words, by name: load(), and READING, how their texts are read.
M.OF_WORDS = {sms = M.sms, imdb = M.imdb, file = M.own_table}

-- Tasks for an encoder that are none of GLUE's.
local OTHERS = {snippets = snippets, smile = smile}

--- Every task of an encoder, in the order of the paper's table; those that are not in it last.
-- @treturn {string,...}
function M.names()
  local names = {}
  for i, name in ipairs(glue.NAMES) do names[i] = name end
  for _, name in ipairs {"snippets", "smile"} do names[#names + 1] = name end
  return names
end

--- What is known of a task: `name`, `title`, `classes` (1: a score is predicted), `metrics` (the
-- first one tells the best), `label_names`, `pairs` (two texts a row).
-- @tparam string name
-- @treturn table
function M.task(name)
  local task = OTHERS[name] and OTHERS[name].TASK or glue.TASKS[name]
  if task then return task end
  error(("no task '%s'; there are: %s"):format(tostring(name),
    table.concat(nearest.sorted(tostring(name), M.names()), ", ")), 0)
end

--- The first n of a fixed order of the rows, to try things on a part.
local function limited(dataset, n, seed)
  if not n or n >= dataset.rows then return dataset end
  return dataset:part(n, seed)
end

local function load_one(task, options)
  return (OTHERS[task.name] or glue).load(task, options)
end

--- Find a task's data, read and encode it.
-- Looked for in `options.data`, the environment's OCTET_DATA, and the cache; where none has it,
-- GLUE's data are downloaded into the cache.
-- @tparam string name a task's, or "default": SST-2 where it can be had, else the snippets
-- @tparam table options `tokenizer` and `max_length`; `data`: a folder; `offline`: no download;
--   `quiet`; `limit`: use so many rows of the training set, the same ones for the same `seed`
-- @treturn table `task`, `train`, `dev` and, for MNLI, `dev_mismatched` (data sets), `folder`, and
--   `instead` where "default" had to take the snippets: why SST-2 could not be had
function M.load(name, options)
  local set
  if name == "default" then
    local ok, why = pcall(load_one, glue.TASKS.sst2, options)
    if ok then
      set = why
    else
      local found
      found, set = pcall(load_one, snippets.TASK, options)
      if not found then error(("%s; and %s"):format(why, set), 0) end
      set.instead = why
    end
  else
    set = load_one(M.task(name), options)
  end
  set.of_train = set.train.rows
  set.train = limited(set.train, options.limit, options.seed or 0)
  return set
end

local function thousands(n)
  local text = tostring(n)
  while true do
    local cut
    text, cut = text:gsub("^(%d+)(%d%d%d)", "%1,%2")
    if cut == 0 then return text end
  end
end

--- One line that says which data are used.
-- @tparam table set from load
-- @treturn string
function M.describe(set)
  local train = thousands(set.train.rows)
  if set.of_train and set.of_train ~= set.train.rows then
    train = ("%s of %s"):format(train, thousands(set.of_train))
  end
  local text = ("%s: %s training and %s development examples, from %s"):format(set.task.title,
    train, thousands(set.dev.rows), set.folder)
  if set.dev_mismatched then
    text = text .. (" (and %s mismatched ones)"):format(thousands(set.dev_mismatched.rows))
  end
  if set.instead then text = text .. ("; used instead of SST-2: %s"):format(set.instead) end
  return text
end

--- The same for result.json.
-- @tparam table set from load
-- @treturn table
function M.facts(set)
  local digests = set.train:digest() .. set.dev:digest()
  if set.dev_mismatched then digests = digests .. set.dev_mismatched:digest() end
  return {
    digest = file.bytes_sha256(digests),
    name = set.task.title, task = set.task.name, folder = set.folder, train = set.train.rows,
    train_available = set.of_train, dev = set.dev.rows,
    dev_mismatched = set.dev_mismatched and set.dev_mismatched.rows, instead_of_sst2 = set.instead,
  }
end

return M
