-- Run again the three experiments of a report that could not replicate the 8-bit optimizers' paper
-- (ReScience C, 2023), with Adam of five kinds: 32-bit state, and four formats of 8-bit state; one
-- of them is the map of bitsandbytes 0.36, which the report ran.
--
--     luajit recipes/replication_study.lua --quick
--     luajit recipes/replication_study.lua --seeds 5
--
-- Runs stand side by side in processes of one thread each. What is finished stays: the same command
-- goes on after any interruption, and with more seeds it adds to what is there.
local here = arg and arg[0] and arg[0]:match "^(.*)/[^/]*$" or "."
package.path = table.concat({here .. "/../?.lua", here .. "/../lua/?.lua",
  here .. "/../lua/?/init.lua", package.path}, ";")

local cli = require "octet.cli"
local octet = cli.library()
local file = require "octet.file"
local train = octet.train

-- The arms. The report's 8 bits were bitsandbytes 0.36.0.post2's, the last of these.
local ARMS = {
  {name = "adam", title = "Adam, 32 bits", report = "report, 32 bits"},
  {name = "adam8", title = "8 bits, Octet's format"},
  {name = "paper", title = "8 bits, the paper's format"},
  {name = "bnb", title = "8 bits, bitsandbytes' blocks of 256"},
  {name = "bnb-0.36", title = "8 bits, bitsandbytes 0.36's map", report = "report, 8 bits"},
}
for _, arm in ipairs(ARMS) do
  local format = arm.name == "adam8" and "octet" or arm.name
  arm.arguments = arm.name == "adam" and {"--optim", "adam"}
    or {"--optim", "adam8", "--format", format}
end

-- The experiments. `figures`: what is compared, at the end of an epoch; `report`: the report's, for
-- 32 and for 8 bits, where it has any.
local EXPERIMENTS = {
  {
    name = "sms", title = "SMS spam, bidirectional LSTM of 2 layers", recipe = "lstm_classify",
    arguments = {"--task", "sms"}, epochs = 100,
    figures = {{"loss", 50}, {"loss", 100}, {"accuracy", 100}},
    report = {{".085", ".148"}, {".102", ".232"}},
  },
  {
    name = "imdb2", title = "IMDB, LSTM of 2 layers", recipe = "lstm_classify",
    arguments = {"--task", "imdb", "--layers", "2"}, epochs = 5,
    figures = {{"loss", 5}, {"accuracy", 5}}, report = {{".337"}, {".588"}},
  },
  {
    name = "imdb4", title = "IMDB, LSTM of 4 layers", recipe = "lstm_classify",
    arguments = {"--task", "imdb", "--layers", "4"}, epochs = 5,
    figures = {{"loss", 5}, {"accuracy", 5}}, report = {{".351"}, {".693"}},
  },
  {
    name = "imdb6", title = "IMDB, LSTM of 6 layers", recipe = "lstm_classify",
    arguments = {"--task", "imdb", "--layers", "6"}, epochs = 5,
    figures = {{"loss", 5}, {"accuracy", 5}}, report = {{".693"}, {".693"}},
  },
  {
    -- Not the report's: whether the padding matters to six layers.
    name = "imdb6-packed", title = "IMDB, LSTM of 6 layers, no padding", recipe = "lstm_classify",
    arguments = {"--task", "imdb", "--layers", "6", "--packed"}, epochs = 5,
    figures = {{"loss", 5}, {"accuracy", 5}},
  },
  {
    name = "smile", title = "SMILE emotions, BERT", recipe = "glue_finetune",
    arguments = {"--task", "smile"}, epochs = 10, model = true,
    figures = {{"weighted_f1", 10}, {"accuracy", 10}, {"loss", 10}}, report = {{".876"}, {".666"}},
  },
}

local NAMES = {"all"}
for _, experiment in ipairs(EXPERIMENTS) do NAMES[#NAMES + 1] = experiment.name end

local PROGRAM = {
  name = "replication_study", command = "luajit recipes/replication_study.lua",
  about = "Hold 8-bit Adam against 32-bit Adam in the three experiments of a replication report.",
  options = {
    cli.choice("experiment", NAMES, {help = "which one; all where it is not given, sms with "
      .. "--quick"}),
    cli.flag("quick", {help = "sms alone, 2 seeds and 50 epochs: some minutes"}),
    cli.common.seed(),
    cli.integer("seeds", {least = 1, most = 1000,
      help = "runs of each arm, with seeds one after the other; 5, with --quick 2"}),
    cli.integer("epochs", {least = 1, most = 10000,
      help = "passes over the data, in place of each experiment's own"}),
    cli.flag("report", {help = "run nothing; print and write what there is so far"}),
    cli.integer("jobs", {least = 1, most = 1024,
      help = "runs side by side, each on one thread; as many as there are cores"}),
    cli.common.data(),
    cli.common.model(),
    cli.text("out", {what = "a folder", metavar = "DIR", help = "folder of the study; one that is "
      .. "there is gone on with; runs/replication_study, with --quick -quick behind it"}),
  },
  epilog = "The folder receives each run, table.md, curves.svg and results.json. Ctrl-C keeps a "
    .. "checkpoint of every run; the same command goes on.",
}

local function say(line) train.progress.write(line .. "\n") end

-- The runs ----------------------------------------------------------------------------------------

--- What the report found at the end of an epoch, with 32 bits and with 8; empty where it does not
-- say.
local function reported(experiment, name, epoch)
  for i, figure in ipairs(experiment.report and experiment.figures or {}) do
    if figure[1] == name and figure[2] == epoch then
      return {experiment.report[1][i], experiment.report[2][i]}
    end
  end
  return {}
end

--- The experiments that are asked for, each with the epochs that it runs for.
local function chosen(o)
  local list = {}
  for _, experiment in ipairs(EXPERIMENTS) do
    if o.experiment == "all" or o.experiment == experiment.name then
      local own = cli.settled({epochs = o.epochs}, experiment)
      own.figures = {}
      for _, figure in ipairs(experiment.figures) do
        -- With other epochs, what was to be seen at the end is seen at the end.
        local at_end = figure[2] == experiment.epochs
        if at_end or figure[2] < own.epochs then
          local epoch = at_end and own.epochs or figure[2]
          local report = reported(experiment, figure[1], epoch)
          table.insert(own.figures, {name = figure[1], epoch = epoch, report = report})
          own.in_report = own.in_report or report[1] ~= nil
        end
      end
      list[#list + 1] = own
    end
  end
  return list
end

--- Each experiment's runs: seed by seed, so that what there is at any time is whole.
local function members_of(experiments, o)
  local members = {}
  for _, experiment in ipairs(experiments) do
    for seed = o.seed, o.seed + o.seeds - 1 do
      for _, arm in ipairs(ARMS) do
        local arguments = {"--epochs", tostring(experiment.epochs), "--seed", tostring(seed),
          "--threads", "1"}
        local function add(list)
          for _, word in ipairs(list) do arguments[#arguments + 1] = word end
        end
        add(experiment.arguments)
        add(arm.arguments)
        if o.data then add {"--data", o.data} end
        if o.model and experiment.model then add {"--model", o.model} end
        members[#members + 1] = {
          name = ("%s-%s-%d"):format(experiment.name, arm.name, seed), experiment = experiment,
          arm = arm, seed = seed, epochs = experiment.epochs, arguments = arguments,
          recipe = ("%s/%s.lua"):format(here, experiment.recipe),
        }
      end
    end
  end
  return members
end

-- What came out -----------------------------------------------------------------------------------

--- Mean and standard error of some numbers.
-- @treturn table mean (nil of none), error (nil of one number), count
local function summary(values)
  local n, sum, squares = #values, 0, 0
  for _, value in ipairs(values) do sum = sum + value end
  for _, value in ipairs(values) do squares = squares + (value - sum / n) ^ 2 end
  return {mean = n > 0 and sum / n or nil, count = n,
    error = n > 1 and math.sqrt(squares / (n - 1) / n) or nil}
end

local function summary_text(s, sign)
  if s.count == 0 then return "" end
  local text = (sign and "%+.4f" or "%.4f"):format(s.mean)
  return s.error and ("%s ± %.4f"):format(text, s.error) or text
end

--- The score of a run at the end of an epoch.
local function at_epoch(run, name, epoch)
  for i, at in ipairs(run.metrics.epoch) do
    if at == epoch then return run.metrics[name][i] end
  end
end

--- The runs that are over, by experiment and arm: those that finished, each with its result and its
-- metrics by epoch, and how many diverged.
local function runs_by_arm(folder, members)
  local runs = {}
  for _, member in ipairs(members) do
    local path = folder:path(member.name)
    if train.run_folder.is_over(path) then
      local run = train.run_folder.open(path)
      local arms = runs[member.experiment.name] or {}
      runs[member.experiment.name] = arms
      local arm = arms[member.arm.name] or {diverged = 0}
      arms[member.arm.name] = arm
      if run:diverged() then
        arm.diverged = arm.diverged + 1
      else
        local _, metrics = run:history()
        table.insert(arm, {seed = member.seed, metrics = metrics,
          result = run:read_json "result.json"})
      end
    end
  end
  return runs
end

--- Differences from 32 bits, seed by seed: both began from the same weights and saw the same data
-- in the same order.
local function differences(runs, reference, figure)
  local values, by_seed = {}, {}
  for _, run in ipairs(reference) do by_seed[run.seed] = run end
  for _, run in ipairs(runs) do
    local other = by_seed[run.seed]
    if other then
      values[#values + 1] = at_epoch(run, figure.name, figure.epoch)
        - at_epoch(other, figure.name, figure.epoch)
    end
  end
  return summary(values)
end

--- What one arm of an experiment came to.
local function arm_results(experiment, arm, runs, reference)
  local results = {arm = arm.name, seeds = #runs, diverged = runs.diverged, figures = {}}
  for i, figure in ipairs(experiment.figures) do
    local values = {}
    for j, run in ipairs(runs) do values[j] = at_epoch(run, figure.name, figure.epoch) end
    results.figures[i] = {name = figure.name, epoch = figure.epoch, values = values,
      summary = summary(values), difference = differences(runs, reference, figure)}
  end
  local function of(get)
    local values = {}
    for j, run in ipairs(runs) do values[j] = get(run.result) end
    return summary(values)
  end
  -- The memory of the process as Octet accounts for it, and as the system does.
  results.seconds = of(function(r) return r.seconds end)
  results.state_bytes = of(function(r) return r.memory.optimizer_state end)
  results.parameters = of(function(r) return r.parameters end)
  results.peak_bytes = of(function(r) return r.memory.total_peak end)
  results.resident_bytes = of(function(r) return r.memory.rss_peak or 0 end)
  return results
end

--- An experiment's tables, an arm a row: the scores, with the report's below them, and what they
-- took.
local function tables_of(experiment, results)
  local scores, costs = {{experiment.title, "seeds"}}, {{"", "seconds", "state, bytes",
    "a parameter", "peak, MB", "resident, MB"}}
  for _, figure in ipairs(experiment.figures) do
    table.insert(scores[1], ("%s, epoch %d"):format((figure.name:gsub("_", " ")),
      figure.epoch))
    table.insert(scores[1], "from 32 bits")
  end
  for _, arm in ipairs(ARMS) do
    local r = results[arm.name]
    if r then
      local row = {arm.title, r.diverged == 0 and tostring(r.seeds)
        or ("%d, %d diverged"):format(r.seeds, r.diverged)}
      for _, figure in ipairs(r.figures) do
        row[#row + 1] = summary_text(figure.summary)
        row[#row + 1] = arm.name == "adam" and "" or summary_text(figure.difference, true)
      end
      scores[#scores + 1] = row
    end
    if r and r.seeds > 0 then
      costs[#costs + 1] = {arm.title, ("%.0f"):format(r.seconds.mean),
        train.progress.count_text(r.state_bytes.mean),
        ("%.3f"):format(r.state_bytes.mean / r.parameters.mean),
        ("%.1f"):format(r.peak_bytes.mean / 1e6), ("%.1f"):format(r.resident_bytes.mean / 1e6)}
    end
  end
  for i, arm in ipairs(experiment.in_report and {ARMS[1], ARMS[#ARMS]} or {}) do
    local row = {arm.report, ""}
    for _, figure in ipairs(experiment.figures) do
      row[#row + 1], row[#row + 2] = figure.report[i] or "", ""
    end
    scores[#scores + 1] = row
  end
  return scores, costs
end

local function markdown(rows)
  local lines = {}
  for i, row in ipairs(rows) do
    local cells = {}
    for column = 1, #rows[1] do cells[column] = row[column] or "" end
    lines[#lines + 1] = "| " .. table.concat(cells, " | ") .. " |"
    if i == 1 then lines[2] = "|" .. ("---|"):rep(#cells) end
  end
  return table.concat(lines, "\n") .. "\n"
end

--- An experiment's panel: the loss by epoch, each seed faint, the mean of them bold.
local function panel_of(experiment, arms)
  local panel = {x = "epoch", y = "validation loss, " .. experiment.name, series = {}}
  for i, arm in ipairs(ARMS) do
    local runs, mean = arms[arm.name] or {}, {}
    for _, run in ipairs(runs) do
      panel.series[#panel.series + 1] = {x = run.metrics.epoch, y = run.metrics.loss, faint = true,
        colour = octet.plot.COLOURS[i]}
      for j, loss in ipairs(run.metrics.loss) do mean[j] = (mean[j] or 0) + loss / #runs end
    end
    if #runs > 0 then
      panel.series[#panel.series + 1] = {name = arm.name, x = runs[1].metrics.epoch, y = mean,
        colour = octet.plot.COLOURS[i]}
    end
  end
  return panel
end

--- Print and write what there is.
local function report(folder, experiments, members)
  local all, tables, panels, runs = {}, {}, {}, runs_by_arm(folder, members)
  for _, experiment in ipairs(experiments) do
    local arms = runs[experiment.name]
    if arms then
      local results = {}
      for _, arm in ipairs(ARMS) do
        if arms[arm.name] then
          results[arm.name] = arm_results(experiment, arm, arms[arm.name], arms.adam or {})
        end
      end
      for _, rows in ipairs {tables_of(experiment, results)} do
        say ""
        for _, line in ipairs(train.group.table_text(rows)) do say(line) end
        tables[#tables + 1] = markdown(rows)
      end
      panels[#panels + 1] = panel_of(experiment, arms)
      all[experiment.name] = results
    end
  end
  if #panels == 0 then return end
  folder:save_json("results.json", all)
  file.save(folder:path "table.md", table.concat(tables, "\n"))
  file.save(folder:path "curves.svg", octet.plot.svg {x_apart = true, panels = panels,
    title = "Validation loss by epoch: each seed, and their mean"})
  say(("\nmean ± standard error; table.md, curves.svg and results.json are in %s"):format(
    folder.folder))
end

-- The command -------------------------------------------------------------------------------------

--- The study's folder; one that is there must have been begun with the same settings.
local function open_folder(o)
  if o.report and not file.is_folder(o.out) then
    error(("--report: there is no study in %s"):format(o.out), 0)
  end
  local folder, found = train.run_folder.open_or_create(o.out)
  local settings = {recipe = PROGRAM.name, epochs = o.epochs, model = o.model}
  if found then
    local ok, config = pcall(folder.read_json, folder, "config.json")
    local before = ok and config.octet or {}
    if before.recipe ~= PROGRAM.name then
      error(("--out: %s exists and is no study"):format(o.out), 0)
    end
    for _, name in ipairs {"epochs", "model"} do
      if before[name] ~= settings[name] then
        error(("--%s: %s, but the study in %s has %s"):format(name, tostring(settings[name]),
          o.out, tostring(before[name])), 0)
      end
    end
  end
  folder:save_json("config.json", {octet = settings})
  return folder
end

--- The program that runs this file: what stands first on its command line.
local function interpreter()
  local place = -1
  while arg[place - 1] do place = place - 1 end
  return arg[place]
end

local function study(o)
  local folder = open_folder(o)
  local experiments = chosen(o)
  local members = members_of(experiments, o)
  if o.report then
    report(folder, experiments, members)
    return nil, folder
  end
  local signal, failed = train.parallel.run(folder, members, {
    jobs = o.jobs or octet.threads(), luajit = interpreter(), say = say,
    tell = function(member, result)
      return ("%s: %s, %s"):format(member.name, train.result.metrics_text(result.metrics),
        train.progress.time_text(result.seconds))
    end,
  })
  if signal then return signal, folder end
  report(folder, experiments, members)
  for _, member in ipairs(failed) do
    say(("missing in the table: %s failed: %s"):format(member.name, member.failure))
  end
  return #failed > 0 and -1 or nil, folder
end

cli.main(PROGRAM.name, function()
  local options = cli.parse(arg, PROGRAM)
  local o = cli.settled(options,
    options.quick and {experiment = "sms", seeds = 2, epochs = 50,
      out = "runs/replication_study-quick"} or {},
    {experiment = "all", seeds = 5, out = "runs/replication_study"})
  local signal, folder = train.signals.caught(study, o)
  if signal == -1 then return 1 end
  if signal then
    say(("stopped by %s; the same command goes on with %s"):format(train.signals.name(signal),
      folder.folder))
    return 128 + signal
  end
end)
