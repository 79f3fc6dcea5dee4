--- Several runs as one: the seeds of a task, the tasks of a table. Each run has its own folder
-- inside the group's; the group's result.json holds them all and the medians.
--
-- A group that was stopped goes on where it was: runs that are finished are taken over, the one
-- that was cut off is resumed, the others follow.
-- @module octet.train.group
local binding = require "octet.binding"
local cli = require "octet.cli"
local message = require "octet.message"
local metrics = require "octet.train.metrics"
local run_folder = require "octet.train.run_folder"
local signals = require "octet.train.signals"
local metrics_text = require "octet.train.result".metrics_text

local M = {}

--- Train one member, unless it is over.
-- @treturn ?table its result; nil where it diverged, or a signal came
-- @treturn ?number the signal
local function run_member(member, own, resumed, run, say)
  if own:finished() then
    say "  finished before"
    return own:read_json "result.json"
  elseif resumed and own:diverged() then
    say "  diverged before"
    return nil
  end
  local ok, result, signal = pcall(run, member, own, resumed)
  if not ok then
    if not own:diverged() then error(result, 0) end
    say("  " .. message.without_place(result))
    return nil
  end
  -- A finished run goes nowhere any more; with ten seeds its checkpoints would be gigabytes.
  if result then own:drop_checkpoints() end
  return result, signal
end

--- Run all members, in their order. One that diverges does not keep the others from their end.
-- @tparam table folder the group's run folder
-- @tparam {table,...} members each with `name`, its folder's
-- @tparam function run run(member, folder, resumed): trains in `folder` and returns its result; or
-- nil and the signal that ended it. Called for what is not finished.
-- @tparam function say prints a line
-- @treturn ?{table,...} the results, in the order of the members; nil where a signal came
-- @treturn number|{string,...} the signal; or the names of those that diverged
function M.run(folder, members, run, say)
  local results, diverged = {}, {}
  for i, member in ipairs(members) do
    say(("[%d/%d] %s"):format(i, #members, member.name))
    local own, resumed = run_folder.open_or_create(folder:path(member.name))
    local result, signal = run_member(member, own, resumed, run, say)
    own:leave()
    if signal then return nil, signal end
    if result then results[#results + 1] = result else diverged[#diverged + 1] = member.name end
    -- The model's memory hangs on handles that are too small for the collector to hurry.
    binding.collect()
    -- One that came while the run was being saved: the run is whole, the group stops here.
    signal = i < #members and signals.seen()
    if signal then return nil, signal end
  end
  if #results == 0 then error("every run diverged: " .. table.concat(diverged, ", "), 0) end
  if #diverged > 0 then say("diverged: " .. table.concat(diverged, ", ")) end
  return results, diverged
end

--- The medians of the results of each task.
-- @tparam {table,...} results each with `task` and `metrics`
-- @treturn table by task: `metrics`, the median of each; `runs`, how many there are
function M.medians(results)
  local values, medians = {}, {}
  for _, result in ipairs(results) do
    local task = values[result.task] or {runs = 0, metrics = {}}
    values[result.task] = task
    task.runs = task.runs + 1
    for name, value in pairs(result.metrics) do
      task.metrics[name] = task.metrics[name] or {}
      table.insert(task.metrics[name], value)
    end
  end
  for task, found in pairs(values) do
    local scores = {}
    for name, list in pairs(found.metrics) do scores[name] = metrics.median(list) end
    medians[task] = {metrics = scores, runs = found.runs}
  end
  return medians
end

--- All seeds of a task as one run, and their medians.
-- @tparam table program the recipe's, as for cli.parse
-- @tparam string task
-- @tparam table options `seed`, the first one; `seeds`: how many; `optim`, `out`; and all others
-- @tparam ?table folder of the group, where it is gone on with
-- @tparam function run run(options, folder): trains with one seed
-- @tparam function say prints a line
-- @treturn ?{table,...} the results; nil where a signal came
-- @treturn ?number the signal
-- @treturn ?table the group's folder, where a signal came
function M.seeds(program, task, options, folder, run, say)
  local name = ("%s-%s-%d"):format(task, options.optim, options.seed)
  folder = folder or run_folder.create(options.out, program.name .. "-" .. name)
  folder:save_json("config.json", {octet = {recipe = program.name, options = options}})
  local members = {}
  for seed = options.seed, options.seed + options.seeds - 1 do
    members[#members + 1] = {name = ("%s-%s-%d"):format(task, options.optim, seed), seed = seed}
  end
  local results, ended = M.run(folder, members, function(member, own_folder)
    return run(cli.settled({seed = member.seed, seeds = 1}, options), own_folder)
  end, say)
  if not results then return nil, ended, folder end
  local medians = M.medians(results)
  folder:save_json("result.json", {recipe = program.name, task = task, optimizer = options.optim,
    seed = options.seed, seeds = options.seeds, median = medians, runs = results,
    diverged = #ended > 0 and ended or nil})
  for _, found in pairs(medians) do
    say(("median of %d seeds: %s"):format(found.runs, metrics_text(found.metrics)))
  end
  return results
end

--- Columns that a text takes: one for each character, whose first byte is none of 128 to 191.
local function width(text) return select(2, text:gsub("[^\128-\191]", "")) end

--- A table as lines of text: the first column to the left, the others to the right.
-- @tparam {{string,...},...} rows the first is the head
-- @treturn {string,...}
function M.table_text(rows)
  local widths, lines = {}, {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, width(cell)) end
  end
  for _, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do
      local blank = (" "):rep(widths[i] - width(cell))
      cells[i] = i == 1 and cell .. blank or blank .. cell
    end
    lines[#lines + 1] = (table.concat(cells, "  "):gsub("%s+$", ""))
  end
  return lines
end

return M
