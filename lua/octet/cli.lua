--- The command line of a recipe: options that are checked before anything is loaded, and errors
-- that are one line on standard error with exit status 1.
--
--     local cli = require "octet.cli"
--     cli.main("glue_finetune", function()
--       local options = cli.parse(arg, {
--         name = "glue_finetune", about = "Fine-tune a BERT on a GLUE task.",
--         options = {cli.choice("task", {"sst2", "cola"}, {default = "sst2"}), cli.common.lr()},
--       })
--       ...
--     end)
-- @module octet.cli
local nearest = require "octet.nearest"

local M = {}

-- Values ------------------------------------------------------------------------------------------

local function range_text(o)
  if o.least and o.most then return ("from %s to %s"):format(o.least, o.most) end
  if o.above and o.most then return ("above %s, at most %s"):format(o.above, o.most) end
  if o.least then return ("%s or more"):format(o.least) end
  if o.above then return ("above %s"):format(o.above) end
  if o.most then return ("%s or less"):format(o.most) end
end

local function number_error(o, text, kind)
  local range = range_text(o)
  return nil, ('--%s: "%s" is no %s%s'):format(o.name, text:sub(1, 64), kind,
    range and (" " .. range) or "")
end

local function in_range(o, n)
  return (not o.least or n >= o.least) and (not o.above or n > o.above)
    and (not o.most or n <= o.most)
end

-- Each takes the option and the text, and gives the value, or nil and what is wrong.
local CONVERT = {}

function CONVERT.number(o, text)
  local mantissa = text:match("^[+-]?(%d*%.?%d*)$") or text:match("^[+-]?(%d*%.?%d*)[eE][+-]?%d+$")
  local n = mantissa and mantissa:find("%d") and tonumber(text)
  if not n or n ~= n or math.abs(n) == math.huge or not in_range(o, n) then
    return number_error(o, text, "number")
  end
  return n
end

function CONVERT.integer(o, text)
  local n = text:find("^[+-]?%d+$") and #text <= 16 and tonumber(text)
  if not n or not in_range(o, n) then return number_error(o, text, "whole number") end
  return n
end

function CONVERT.choice(o, text)
  for _, choice in ipairs(o.choices) do
    if choice == text then return text end
  end
  return nil, ("--%s: %s"):format(o.name, nearest.message(o.what or o.name, text, o.choices))
end

function CONVERT.text(o, text)
  if text == "" then
    return nil, ("--%s: expected %s, got nothing"):format(o.name, o.what or "text")
  end
  if text:find("%z") then return nil, ("--%s: holds a 0 byte"):format(o.name) end
  return text
end

-- Options -----------------------------------------------------------------------------------------

local function option(kind, name, o, extra)
  local made = {kind = kind, name = name}
  for _, from in ipairs {extra or {}, o or {}} do
    for k, v in pairs(from) do made[k] = v end
  end
  return made
end

--- An option whose value is a number. `o`: default, help, least, above, most.
function M.number(name, o) return option("number", name, o) end
--- An option whose value is a whole number. `o`: default, help, least, most.
function M.integer(name, o) return option("integer", name, o) end
--- An option whose value is one of some names. `o`: default, help, what (the kind of thing named).
function M.choice(name, choices, o) return option("choice", name, o, {choices = choices}) end
--- An option whose value is text, such as a folder. `o`: default, help, what.
function M.text(name, o) return option("text", name, o) end
--- An option without a value: true where it is given.
function M.flag(name, o) return option("flag", name, o) end

--- The options that every recipe names alike; each takes a table that overrides its fields:
-- `cli.common.lr{default = 1e-4}`. An option without a default is nil where it is not given.
M.common = {}
local function common(maker, name, fixed)
  M.common[name] = function(o)
    local all = {}
    for _, from in ipairs {fixed, o or {}} do
      for k, v in pairs(from) do all[k] = v end
    end
    return maker(name, all)
  end
end
-- A name that says the quantized state's width keeps the 32-bit optimizer's own: adam -> adam8. The
-- library knows which there are, and is not loaded before a recipe asks.
M.common.optim = function(o)
  return option("choice", "optim", o, {choices = require("octet.optim").NAMES, what = "optimizer",
    help = "the optimizer; an 8 stands for 8-bit state, a 4 for 4-bit state"})
end
M.common.format = function(o)
  return option("choice", "format", o, {choices = require("octet.optim.format").NAMES,
    default = "octet", help = "of 8-bit or 4-bit state: Octet's, the paper's (v itself, nearest "
      .. "values, blocks of 2048), bitsandbytes' today (blocks of 256) and in 0.36, torchao's"})
end
common(M.number, "lr", {above = 0, most = 1, help = "learning rate at its highest"})
common(M.integer, "seed", {default = 1, least = 0, most = 2^31 - 1,
  help = "seed of all that is random"})
common(M.integer, "seeds", {default = 1, least = 1, most = 1000,
  help = "runs, with seeds one after the other; the median is reported"})
M.common.device = function(o)
  return option("choice", "device", o, {choices = {"cpu"}, default = "cpu",
    help = "where to compute"})
end
common(M.integer, "threads", {least = 1, most = 1024, help = "threads; all cores where not given"})
common(M.text, "data", {what = "a folder", metavar = "DIR", help = "folder of the data"})
common(M.text, "model", {what = "a folder or a hub name", metavar = "DIR|NAME",
  help = "the model to begin with: a folder, or a name on the hub"})
common(M.integer, "epochs", {least = 1, most = 10000, help = "passes over the data"})
common(M.integer, "steps", {least = 1, most = 2^31 - 1,
  help = "stop after so many steps, whatever the epochs say"})
common(M.integer, "batch", {least = 1, most = 65536, help = "examples in a batch"})
common(M.integer, "accumulate", {default = 1, least = 1, most = 65536,
  help = "batches whose gradients make one step: as one batch of all, in the memory of one"})
common(M.text, "resume", {what = "a folder", metavar = "DIR",
  help = "go on with the run in this folder"})
common(M.text, "out", {what = "a folder", metavar = "DIR",
  help = "folder of the run; must not exist"})

--- The library, for a program that cannot do without it: where it is not there, one line says so
-- and the program ends with status 1.
-- @treturn table octet
function M.library()
  local loaded, why = pcall(require, "octet.binding")
  if loaded then return require "octet" end
  io.stderr:write(M.one_line(why), "\n")
  os.exit(1)
end

-- Parsing -----------------------------------------------------------------------------------------

local METAVAR = {number = "X", integer = "N", text = "TEXT"}

local function help_text(o)
  local notes = {}
  if o.kind == "choice" then notes[1] = "one of " .. table.concat(o.choices, ", ") end
  if o.kind == "number" or o.kind == "integer" then notes[#notes + 1] = range_text(o) end
  if o.default ~= nil then notes[#notes + 1] = "default " .. tostring(o.default) end
  return (o.help or "") .. (notes[1] and (" (" .. table.concat(notes, "; ") .. ")") or "")
end

local function build(program)
  local there, argparse = pcall(require, "argparse")
  if not there then error("the Lua library argparse is missing; ./setup installs it", 0) end
  local parser = argparse(program.command or program.name, program.about)
    :help_max_width(96):usage_max_width(96):usage_margin(2)
  if program.epilog then parser:epilog(program.epilog) end
  local by_name, names = {}, {}
  for _, o in ipairs(program.options) do
    by_name[o.name], names[#names + 1] = o, "--" .. o.name
    -- argparse makes a field of "max-length" max_length; the target is set so that this is ours.
    if o.kind == "flag" then
      parser:flag("--" .. o.name):description(help_text(o)):target(o.name)
    else
      local argument = o.metavar or METAVAR[o.kind] or o.what or o.name
      parser:option("--" .. o.name):description(help_text(o)):target(o.name)
        :overwrite(false):argname("<" .. argument:upper() .. ">")
        :convert(function(text) return CONVERT[o.kind](o, text) end)
    end
  end
  names[#names + 1] = "--help"
  return parser, by_name, names
end

--- `--lr -1` is a value that is out of range, not an option named -1.
local function join_negative(arguments, by_name)
  local joined, i = {}, 1
  while arguments[i] do
    local o = by_name[arguments[i]:match("^%-%-(.+)$") or ""]
    if o and o.kind ~= "flag" and arguments[i + 1] and arguments[i + 1]:find("^%-[%d.]") then
      joined[#joined + 1] = arguments[i] .. "=" .. arguments[i + 1]
      i = i + 2
    else
      joined[#joined + 1] = arguments[i]
      i = i + 1
    end
  end
  return joined
end

local function in_our_words(message, names, arguments)
  local unknown = message:match("^unknown option '(.-)'")
  if unknown then
    local near = nearest.sorted(unknown, names)
    return ("unknown option %s; did you mean %s? All of them, nearest first: %s"):format(
      unknown:sub(1, 64), near[1], table.concat(near, " "))
  end
  if message == "too many arguments" then
    for i, argument in ipairs(arguments) do
      local before = arguments[i - 1] or ""
      if argument:sub(1, 1) ~= "-" and (before:sub(1, 2) ~= "--" or before:find("=", 1, true)) then
        return ('"%s" stands alone; options are written --name value'):format(argument:sub(1, 64))
      end
    end
    return "an argument stands alone; options are written --name value"
  end
  local twice = message:match("^option '(.-)' must be used at most 1 time")
  if twice then return twice .. " was given more than once" end
  local bare = message:match("^option '(.-)' requires an argument")
  if bare then return bare .. " needs a value" end
  return message
end

--- Read a recipe's options. An error names the option, what would do, and what was got; `--help`
-- prints the help and ends the process with status 0.
-- @tparam table arguments the texts given, as in `arg`
-- @tparam table program name, about, epilog, and options: a list made by cli.choice and the like
-- @treturn table the values by name ("max-length" under max_length), defaults filled in
-- @treturn table the names that were given, each true
function M.parse(arguments, program)
  local parser, by_name, names = build(program)
  local joined = join_negative(arguments, by_name)
  local ok, result = parser:pparse(joined)
  if not ok then error(in_our_words(tostring(result), names, joined), 0) end
  local values, given = {}, {}
  for name, o in pairs(by_name) do
    local field = name:gsub("-", "_")
    if o.required and result[name] == nil then
      error(("--%s is missing: %s"):format(name, o.help), 0)
    end
    values[field] = result[name]
    if result[name] ~= nil then given[field] = true end
    if values[field] == nil then values[field] = o.default end
  end
  return values, given
end

--- Options with a task's own settings in place of what was not given.
-- @tparam table options as parse() gave them
-- @tparam table ... settings by name; the first one that has a value counts
-- @treturn table a copy
function M.settled(options, ...)
  local settled = {}
  for name, value in pairs(options) do settled[name] = value end
  for _, settings in ipairs {...} do
    for name, value in pairs(settings) do
      if settled[name] == nil then settled[name] = value end
    end
  end
  return settled
end

--- Check values that were stored, such as the options of a run, by the same rules.
-- @tparam table values by name ("max_length"), as parse() gave them
-- @tparam table program as for parse()
-- @tparam string where named in errors
-- @treturn table the values, defaults filled in
function M.check(values, program, where)
  if type(values) ~= "table" then
    error(("%s: the options are a %s, expected an object"):format(where, type(values)), 0)
  end
  local checked, known = {}, {}
  for _, o in ipairs(program.options) do
    local field = o.name:gsub("-", "_")
    local value = values[field]
    known[field] = true
    if value == nil then
      checked[field] = o.default
    elseif o.kind == "flag" then
      checked[field] = value == true
    else
      local converted, reason = CONVERT[o.kind](o,
        type(value) == "number" and ("%.17g"):format(value) or tostring(value))
      if converted == nil then error(where .. ": " .. reason, 0) end
      checked[field] = converted
    end
  end
  for name in pairs(values) do
    if not known[name] then error(("%s: unknown option %s"):format(where, tostring(name)), 0) end
  end
  return checked
end

-- A recipe's frame --------------------------------------------------------------------------------

-- What LuaJIT says of faults in the program itself; the place is then the most useful part.
local FAULTS = {"attempt to ", "bad argument #", "stack overflow", "not enough memory",
  "error in error handling", "module '", "cannot convert ", "has no member named"}

--- An error as one line for the person at the terminal: no place in the source, unless it is a
-- fault of the program itself.
-- @param err what was raised
-- @treturn string
function M.one_line(err)
  local text = tostring(err)
  local bare = text
  repeat
    local shorter = bare:gsub("^[^\n:]-%.lua:%d+: ", ""):gsub('^%[string ".-"%]:%d+: ', "")
      :gsub("^%(command line%):%d+: ", "")
    local changed = shorter ~= bare
    bare = shorter
  until not changed
  for _, fault in ipairs(FAULTS) do
    if bare:sub(1, #fault) == fault then
      bare = text .. " (a fault in the program; OCTET_TRACEBACK=1 shows the way to it)"
      break
    end
  end
  return (bare:gsub("%s*\n%s*", "; "))
end

--- Run a recipe: an error becomes `NAME: message` on standard error and exit status 1. What was
-- printed is flushed and checked, so that a full disk behind a pipe is no silence, and output that
-- grows past `ulimit -f` is such an error too.
-- @tparam string name
-- @tparam function fn may return an exit status
function M.main(name, fn)
  -- A recipe's time is spent in C: 50 steps on SST-2 took 12.0 s of processor time compiled, and
  -- 12.0 interpreted. LuaJIT 2.1.0-beta3's compiler has crashed on calls through the FFI, and an
  -- hour of training is not worth that risk.
  jit.off()
  local trace = (os.getenv "OCTET_TRACEBACK" or "") ~= ""
  local ok, result = xpcall(function()
    require("octet.file").hold_size_signal(true)
    return fn()
  end, function(err)
    return trace and debug.traceback(tostring(err), 2) or err
  end)
  local flushed, reason = io.stdout:flush()
  if ok and not flushed then ok, result = false, "standard output: " .. tostring(reason) end
  if not ok then
    io.stderr:write(name, ": ", trace and tostring(result) or M.one_line(result), "\n")
    os.exit(1)
  end
  if type(result) == "number" and result ~= 0 then os.exit(result) end
end

return M
