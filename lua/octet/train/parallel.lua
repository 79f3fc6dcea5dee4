--- Several runs of recipes side by side, each in a process and a folder of its own: those that are
-- finished or diverged stay as they are, those that were stopped go on.
-- @module octet.train.parallel
local file = require "octet.file"
local process = require "octet.process"
local progress = require "octet.train.progress"
local run_folder = require "octet.train.run_folder"
local signals = require "octet.train.signals"

local M = {}

local POLL_SECONDS = 0.1

--- Remove the folder of a run that was killed before it knew what it was to do. What is not ours
-- stays.
local function clear(path)
  for _, name in ipairs(file.list(path)) do
    if not name:find "%.partial$" then
      error(("%s is in the way: it is no run, and holds %s"):format(path, name), 0)
    end
  end
  file.remove_folder(path)
end

--- Start a member, from its checkpoint where it has one.
local function start(member, path, command)
  local words = {}
  for _, word in ipairs(command) do words[#words + 1] = word end
  if file.is_file(path .. "/config.json") then
    words[#words + 1], words[#words + 2] = "--resume", path
  else
    if file.is_folder(path) then clear(path) end
    for _, word in ipairs(member.arguments) do words[#words + 1] = word end
    words[#words + 1], words[#words + 2] = "--out", path
  end
  return process.start(words, path .. ".log")
end

--- Evaluations that a run has behind it, from its metrics.csv.
local function evaluations(path)
  local ok, text = pcall(file.read, path .. "/metrics.csv")
  if not ok then return 0 end
  return math.max(0, select(2, text:gsub("\n", "")) - 1)
end

local function last_line(path)
  local ok, text = pcall(file.read, path)
  return ok and text:match "([^\r\n]+)%s*$" or "it printed nothing"
end

--- Run what is not finished, `jobs` at a time.
-- @tparam table folder the run folder that holds them all
-- @tparam {table,...} members each with `name` (its folder's), `recipe` ("recipes/NAME.lua"),
-- `arguments`, `epochs`
-- @tparam table o `jobs`; `luajit`: the program that runs recipes; `say(line)`; `tell(member,
-- result)`: a finished run's line
-- @treturn ?number the signal that ended it; the runs have kept their checkpoints
-- @treturn {table,...} members that failed, each with `failure`. One that fails before it has a
-- folder shows that none of its kind can run, and is an error.
function M.run(folder, members, o)
  local waiting, total, done = {}, 0, 0
  for _, member in ipairs(members) do
    total = total + member.epochs
    if run_folder.is_over(folder:path(member.name)) then
      done = done + member.epochs
    else
      waiting[#waiting + 1] = member
    end
  end
  local bar = #waiting > 0 and progress.new {label = folder.folder, total = total, done = done}
  local running, failed, told, fault = {}, {}, nil, nil

  local function stop(number)
    for _, run in ipairs(running) do run.process:signal(number) end
    told = number
  end

  local function ended(run, status)
    local member, path = run.member, folder:path(run.member.name)
    if status == 0 then
      local result = folder:read_json(member.name .. "/result.json")
      -- A finished run goes nowhere any more, and its checkpoints are three times its model.
      if file.is_folder(path .. "/checkpoint") then file.remove_folder(path .. "/checkpoint") end
      done = done + member.epochs
      bar:say(o.tell(member, result))
    elseif not told then
      member.failure = last_line(path .. ".log")
      if not file.is_file(path .. "/config.json") then
        fault = fault or member
        stop(15)
        return
      end
      done = done + member.epochs
      if run_folder.is_over(path) then
        bar:say(("%s: %s"):format(member.name, member.failure))
      else
        failed[#failed + 1] = member
        bar:say(("%s failed with status %d: %s"):format(member.name, status, member.failure))
      end
    end
  end

  while #running > 0 or (#waiting > 0 and not told) do
    if not told and signals.seen() then stop(signals.seen()) end
    while not told and #running < o.jobs and #waiting > 0 do
      local member = table.remove(waiting, 1)
      running[#running + 1] = {member = member, process = start(member, folder:path(member.name),
        {o.luajit, member.recipe})}
    end
    process.sleep(POLL_SECONDS)
    local part = 0
    for i = #running, 1, -1 do
      local run = running[i]
      local status = run.process:ended()
      if status then
        table.remove(running, i)
        ended(run, status)
      else
        part = part + math.min(run.member.epochs, evaluations(folder:path(run.member.name)))
      end
    end
    bar:update(done + part)
  end
  if bar then bar:finish() end
  if fault then error(("%s: %s"):format(fault.name, fault.failure), 0) end
  return #running == 0 and told or nil, failed
end

return M
