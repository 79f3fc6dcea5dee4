--- What a run comes to: the fields of result.json, and the sentences of its summary.
-- @module octet.train.result
local file = require "octet.file"
local json = require "octet.json"
local machine = require "octet.machine"
local message = require "octet.message"
local progress = require "octet.train.progress"

local M = {}

--- The most memory that the process has held so far, as the system counts it.
-- @treturn ?number bytes; nil where the system does not say
function M.rss_peak()
  local status = io.open "/proc/self/status"
  if not status then return nil end
  local text = status:read "*a"
  status:close()
  local kilobytes = text:match "VmHWM:%s*(%d+)%s*kB"
  return kilobytes and tonumber(kilobytes) * 1024
end

--- Memory by purpose, in bytes. What lives through a whole step is given as it is now; what comes
-- and goes within one, at its peak.
-- @treturn table
function M.memory()
  local accounts = machine.memory()
  return {
    parameters = accounts.parameters.now, gradients = accounts.gradients.now,
    optimizer_state = accounts.optimizer_state.now, activations = accounts.activations.peak,
    workspace = accounts.workspace.peak, data = accounts.data.now,
    total_peak = accounts.total.peak, rss_peak = M.rss_peak(),
    __order = {"parameters", "gradients", "optimizer_state", "activations", "workspace", "data",
      "total_peak", "rss_peak"},
  }
end

local ORDER = {"recipe", "task", "data", "optimizer", "learning_rate", "precision", "device",
  "threads", "seed", "model", "parameters", "metrics", "best", "steps", "epochs", "examples",
  "tokens", "seconds", "evaluation_seconds", "tokens_per_second", "memory", "notes"}

--- The table that becomes result.json.
-- @tparam table what recipe, task, data, optimizer, learning_rate, seed, model, parameters, notes
-- @tparam table outcome what fit() returned
-- @treturn table
function M.table(what, outcome)
  local result = {
    precision = machine.precision(), device = what.device or "cpu", threads = machine.threads(),
    metrics = outcome.metrics, best = outcome.best, steps = outcome.steps, epochs = outcome.epochs,
    examples = outcome.examples, tokens = outcome.tokens, seconds = outcome.seconds,
    evaluation_seconds = outcome.evaluation_seconds,
    tokens_per_second = outcome.seconds > 0 and outcome.tokens / outcome.seconds or 0,
    memory = M.memory(), octet_version = machine.version(), isa = machine.isa(), __order = ORDER,
  }
  for key, value in pairs(what) do result[key] = value end
  if result.notes then json.array(result.notes) end
  return result
end

--- 12345678 -> "12.3 MB".
-- @tparam number bytes
-- @treturn string
function M.bytes_text(bytes)
  if bytes < 1e3 then return ("%d bytes"):format(bytes) end
  local units, unit = {"kB", "MB", "GB", "TB"}, 0
  repeat
    bytes, unit = bytes / 1000, unit + 1
  until bytes < 999.5 or unit == #units
  return ("%.3g %s"):format(bytes, units[unit])
end

--- Metrics on one line: "accuracy 0.8245  loss 0.4012"; the loss last.
-- @tparam table metrics
-- @treturn string
function M.metrics_text(metrics)
  local names, parts = {}, {}
  for name in pairs(metrics) do names[#names + 1] = name end
  table.sort(names, function(a, b)
    if (a:find "^loss" ~= nil) ~= (b:find "^loss" ~= nil) then return b:find "^loss" ~= nil end
    return a < b
  end)
  for i, name in ipairs(names) do
    parts[i] = ("%s %.4f"):format((name:gsub("_", " ")), metrics[name])
  end
  return table.concat(parts, "  ")
end

--- How fast and how much, as a line.
-- @tparam table result
-- @treturn string
function M.speed_text(result)
  return ("%s steps in %s, %s tokens/s; peak memory %s"):format(progress.count_text(result.steps),
    progress.time_text(result.seconds), progress.count_text(result.tokens_per_second),
    M.bytes_text(result.memory.rss_peak or result.memory.total_peak))
end

--- What 8-bit state saved, and which parameters stayed at 32 bits and why.
-- @tparam table report an optimizer's report()
-- @treturn {string,...} lines
function M.state_text(report)
  local first = ("optimizer state: %s, %.2f bytes a parameter"):format(M.bytes_text(report.bytes),
    report.bytes / math.max(1, report.elements))
  local lines = {first}
  if report.elements_8 + report.elements_4 > 0 then
    lines[1] = ("%s; 32-bit state would take %s, so %s are saved"):format(first,
      M.bytes_text(report.bytes_if_32), M.bytes_text(report.bytes_if_32 - report.bytes))
  end
  local groups, order = {}, {}
  for _, p in ipairs(report.kept_32) do
    local group = groups[p.why]
    if not group then
      group = {elements = 0}
      groups[p.why], order[#order + 1] = group, p.why
    end
    group.elements = group.elements + p.elements
    group[#group + 1] = p.name
  end
  for _, why in ipairs(order) do
    local group = groups[why]
    local names = #group <= 3 and table.concat(group, ", ")
      or ("%s, %s, ... %s"):format(group[1], group[2], group[#group])
    lines[#lines + 1] = ("  at 32 bits (%s): %s of %s parameters, in %d tensors: %s"):format(why,
      progress.count_text(group.elements), progress.count_text(report.elements), #group, names)
  end
  return lines
end

local function draw_curve(run, title)
  local plot = require "octet.plot"
  local log, metrics = run:history()
  local steps, losses = log.step or {}, log.loss or {}
  -- Over a twenty-fifth of the run: short enough to follow it, long enough to be smooth.
  local keep = 1 - 1 / math.max(4, math.min(100, #losses / 25))
  local panels = {{x = "step", y = "training loss", series = {
    {name = "each step", x = steps, y = losses, faint = true},
    {name = "smoothed", x = steps, y = plot.smooth(losses, keep)},
  }}}
  local names, scores = {}, {}
  for name in pairs(metrics) do
    if name ~= "step" and name ~= "epoch" and not name:find "loss" then names[#names + 1] = name end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    scores[#scores + 1] = {name = name:gsub("_", " "), x = metrics.step, y = metrics[name],
      points = true}
  end
  if #scores > 0 then
    panels[2] = {x = "step", y = "evaluation", series = scores}
  end
  file.save(run:path "curve.svg", plot.svg {title = title, panels = panels})
end

--- The curve of a finished run: loss by step, scores by evaluation. A log that somebody has damaged
-- keeps no run from its end.
-- @tparam table run its folder
-- @tparam string title
function M.save_curve(run, title)
  local ok, why = pcall(draw_curve, run, title)
  if not ok then
    io.stderr:write("note: curve.svg was not drawn: ", message.without_place(why), "\n")
  end
end

return M
