--- The folder that a run leaves behind: config.json, log.jsonl (one line a step), metrics.csv (one
-- an evaluation), TensorBoard events, checkpoint/, curve.svg, result.json.
--
-- A folder that exists is never written into, unless a run in it is resumed. The log of a resumed
-- run is cut to what the checkpoint knew, so that in the end it is that of a run never stopped.
-- @module octet.train.run_folder
local checkpoint = require "octet.train.checkpoint"
local cli = require "octet.cli"
local file = require "octet.file"
local json = require "octet.json"
local machine = require "octet.machine"
local message = require "octet.message"
local tensorboard = require "octet.train.tensorboard"

local M = {}

local Run = {}
Run.__index = Run

-- Lines reach the file at least this often, so that others can watch it grow.
local FLUSH_SECONDS = 1

local function new(path) return setmetatable({folder = path, flushed = 0}, Run) end

--- A folder that this process alone may write into, until it leaves it or ends.
local function taken(path)
  local run = new(path)
  local ok, why = pcall(file.writer, path .. "/.lock")
  if not ok then
    why = message.without_place(why)
    if why:find("another process", 1, true) then
      why = ("another process is at work in %s"):format(path)
    end
    error(why, 0)
  end
  run.lock = why
  return run
end

--- Make the folder of a new run.
-- @tparam ?string out where the user wants it; an error where it exists
-- @tparam string name below runs/ otherwise; with -2, -3, ... behind it where it exists
-- @treturn table
function M.create(out, name)
  if out then
    if not file.claim_folder(out) then
      error(("--out: %s exists already; name a new folder, or go on with --resume %s"):format(out,
        message.word(out)), 0)
    end
    return taken(out)
  end
  local path, number = "runs/" .. name, 1
  while not file.claim_folder(path) do
    number = number + 1
    path = ("runs/%s-%d"):format(name, number)
  end
  return taken(path)
end

--- The folder of a run that is there, to be read.
-- @tparam string path
-- @treturn table
function M.open(path)
  path = #path > 1 and path:gsub("/+$", "") or path
  if not file.is_folder(path) then
    error(("--resume: there is no folder %s"):format(path), 0)
  end
  if not file.is_file(path .. "/config.json") then
    error(("--resume: %s is no run: it has no config.json"):format(path), 0)
  end
  return new(path)
end

--- The run that --resume names, with its own options; only those that change no number may be given
-- anew.
-- @tparam table program the recipe's, as for cli.parse
-- @tparam table options as given now
-- @tparam table given which of them were given
-- @tparam table free the names of those that change no number, each true
-- @treturn table the options
-- @treturn table the run
function M.resumed(program, options, given, free)
  local run = M.open(options.resume)
  local config = run:read_json "config.json".octet
  if type(config) ~= "table" or config.recipe ~= program.name then
    error(("--resume: %s is no run of %s"):format(run.folder, program.name), 0)
  end
  if run:finished() then
    error(("--resume: the run in %s is finished; its scores are in result.json"):format(run.folder),
      0)
  end
  local own = cli.check(config.options, program, run:path "config.json")
  for name in pairs(given) do
    if not free[name] then
      error(("--%s cannot be given with --resume: the run keeps its own (%s)"):format(
        name:gsub("_", "-"), tostring(own[name])), 0)
    end
    if name == "threads" and own.threads ~= options.threads then
      io.stderr:write("note: another number of threads may round some products otherwise than the ",
        "run would have without a stop\n")
    end
    own[name] = options[name]
  end
  return own, taken(run.folder)
end

--- The folder of a run, made where there is none.
-- @tparam string path
-- @treturn table
-- @treturn boolean was it there?
function M.open_or_create(path)
  local made = file.claim_folder(path)
  return taken(path), not made
end

--- Is there nothing left to do for the run in a folder: has it finished, or diverged?
-- @tparam string path
-- @treturn boolean
function M.is_over(path)
  return file.is_file(path .. "/result.json") or file.is_file(path .. "/diverged.json")
end

--- @tparam string name of a file in the folder
-- @treturn string
function Run:path(name) return self.folder .. "/" .. name end

--- Has the run come to its end?
function Run:finished() return file.is_file(self:path "result.json") end

--- Did it end because training diverged?
-- @treturn ?table the step and the epoch where it did, what was not finite, and its value
function Run:diverged()
  return file.is_file(self:path "diverged.json") and self:read_json "diverged.json" or nil
end

function Run:save_json(name, value) file.save_json(self:path(name), value) end
function Run:read_json(name) return file.read_json(self:path(name)) end

--- Make sure that a resumed run finds what it began with.
-- @tparam string what named in the error, and the field of config.json's "octet"
-- @tparam table facts as they are now
-- @tparam {string,...} fields that must be as they were
function Run:check_same(what, facts, fields)
  if not self:has_checkpoint() then return end
  local before = self:read_json("config.json").octet[what]
  for _, field in ipairs(fields) do
    local was = type(before) == "table" and before[field]
    -- Runs of earlier versions have no digest.
    if was ~= facts[field] and not (field == "digest" and was == nil) then
      error(("--resume: the %s of %s are not those it began with: %s is %s, expected %s"):format(
        what, self.folder, field, tostring(facts[field]), tostring(was)), 0)
    end
  end
end

--- Where checkpoint `name` is.
-- @tparam[opt="last"] string name
function Run:checkpoint_path(name)
  return ("%s/checkpoint/%s.safetensors"):format(self.folder, name or "last")
end

--- The checkpoint to go on from: the last one, or the best one where somebody has taken that away.
-- @treturn ?string its path
function Run:checkpoint_to_resume()
  for _, name in ipairs {"last", "best"} do
    local path = self:checkpoint_path(name)
    if file.is_file(path) then return path end
  end
end

function Run:has_checkpoint() return self:checkpoint_to_resume() ~= nil end

local function count_events(names)
  local highest = 0
  for _, name in ipairs(names) do
    local number = name:match "^events%.out%.tfevents%.%d+%.octet%.(%d+)$"
    highest = math.max(highest, tonumber(number) or 0)
  end
  return highest
end

--- Open the logs, at the lengths that a checkpoint's position recorded.
-- @tparam table columns of metrics.csv
-- @tparam table position
function Run:open_logs(columns, position)
  self.columns = columns
  self.log_file = file.log(self:path "log.jsonl", position.log_bytes or 0)
  self.metrics_file = file.log(self:path "metrics.csv", position.metrics_bytes or 0)
  if self.metrics_file:size() == 0 then
    self.metrics_file:write(table.concat(columns, ",") .. "\n")
  end
  local now = os.time()
  local number = count_events(file.list(self.folder)) + 1
  self.events_file = file.log(self:path(tensorboard.file_name(now, number)))
  self.events_file:write(tensorboard.header(now))
  -- Tells TensorBoard to forget what a stopped run drew beyond its checkpoint.
  if number > 1 then self.events_file:write(tensorboard.restart(now, position.step + 1)) end
end

function Run:each_log(f)
  for _, log in ipairs {self.log_file, self.metrics_file, self.events_file} do f(log) end
end

local LOG_ORDER = {"step", "epoch", "loss", "lr", "grad_norm", "tokens"}

--- One line of log.jsonl.
-- @tparam table entry
function Run:log(entry)
  entry.__order = LOG_ORDER
  self.log_file:write(json.encode(entry) .. "\n")
  local now = machine.clock()
  if now - self.flushed >= FLUSH_SECONDS then
    self.flushed = now
    self:each_log(function(log) log:flush() end)
  end
end

--- One line of metrics.csv.
-- @tparam table row values by column
function Run:metrics(row)
  local cells = {}
  for i, column in ipairs(self.columns) do
    cells[i] = row[column] ~= nil and json.encode(row[column]) or ""
  end
  self.metrics_file:write(table.concat(cells, ",") .. "\n")
end

--- Scalars for TensorBoard.
function Run:scalars(step, scalars)
  self.events_file:write(tensorboard.scalars(os.time(), step, scalars))
end

--- What checkpoints are made of.
-- @tparam table model
-- @tparam table optimizer
-- @tparam[opt] table parts what else a run remembers, by name; see checkpoint.save
function Run:attach(model, optimizer, parts)
  self.model, self.optimizer, self.parts = model, optimizer, parts
end

--- Write a checkpoint. The logs reach the disk first: what a checkpoint knows of is there.
-- @tparam table position receives the lengths of the logs
-- @tparam table clock seconds and evaluation_seconds so far. Not in the checkpoint, whose bytes
-- depend on nothing but the run; in a file of its own, which a run can do without.
-- @tparam[opt] boolean is_best it is the best so far as well
function Run:checkpoint(position, clock, is_best)
  self:each_log(function(log) log:flush(true) end)
  position.log_bytes, position.metrics_bytes = self.log_file:size(), self.metrics_file:size()
  file.make_folder(self:path "checkpoint")
  local last = self:checkpoint_path()
  if is_best then
    -- The best first: a run that is killed between the two evaluates again and writes both again.
    -- Two names share one file, where the file system knows such a thing.
    local best = self:checkpoint_path "best"
    checkpoint.save(best, self.model, self.optimizer, position, self.parts)
    if not pcall(file.link, best, last) then
      checkpoint.save(last, self.model, self.optimizer, position, self.parts)
    end
  else
    checkpoint.save(last, self.model, self.optimizer, position, self.parts)
  end
  self:save_json("checkpoint/clock.json", clock)
end

--- Go where the last checkpoint is; a run that never came to one begins at its beginning. That it
-- diverged, if it did, is to be seen again.
-- @treturn ?table position
-- @treturn table seconds and evaluation_seconds spent on the way there
function Run:restore()
  if file.is_file(self:path "diverged.json") then file.remove(self:path "diverged.json") end
  local path = self:checkpoint_to_resume()
  if not path then return nil end
  local position = checkpoint.load(path, self.model, self.optimizer, self.parts)
  local ok, clock = pcall(self.read_json, self, "checkpoint/clock.json")
  local function number(name) return ok and tonumber(clock[name]) or 0 end
  return position, {seconds = number "seconds", evaluation_seconds = number "evaluation_seconds"}
end

--- Write out and close the logs.
function Run:close_logs()
  if not self.log_file then return end
  self:each_log(function(log) log:close() end)
  self.log_file, self.metrics_file, self.events_file = nil, nil, nil
end

--- Let go of the model, the optimizer and the folder: the run is over.
function Run:leave()
  self.model, self.optimizer, self.parts = nil, nil, nil
  if self.lock then self.lock:abandon() end
end

--- Remove the checkpoints, which a finished run needs no longer.
function Run:drop_checkpoints()
  local path = self:path "checkpoint"
  if file.is_folder(path) then file.remove_folder(path) end
end

--- The columns of log.jsonl as arrays, and those of metrics.csv.
-- @treturn table loss, step, ... of the log
-- @treturn table step, epoch, ... of the metrics
function Run:history()
  local log, metrics, columns = {}, {}, nil
  for line in file.read(self:path "log.jsonl"):gmatch "[^\n]+" do
    for name, value in pairs(json.decode(line, self:path "log.jsonl")) do
      log[name] = log[name] or {}
      table.insert(log[name], value)
    end
  end
  for line in file.read(self:path "metrics.csv"):gmatch "[^\n]+" do
    local cells = {}
    for cell in (line .. ","):gmatch "([^,]*)," do cells[#cells + 1] = cell end
    if not columns then
      columns = cells
      for _, name in ipairs(columns) do metrics[name] = {} end
    else
      for i, name in ipairs(columns) do table.insert(metrics[name], tonumber(cells[i]) or 0 / 0) end
    end
  end
  return log, metrics
end

return M
