--- An optimizer's state in a safetensors file: by itself (opt:save, opt:restore), and within a
-- run's checkpoint.
--
-- Tensors are named as in octet.optim.state, in a checkpoint with "optimizer." before. Metadata:
-- `octet`, the format's name; `optimizer`, the state's numbers as JSON; `random`, where random
-- numbers stand. docs/optimizer_state.md has it all.
-- @module octet.optim.state_file
local json = require "octet.json"
local machine = require "octet.machine"
local message = require "octet.message"
local nearest = require "octet.nearest"
local safetensors = require "octet.safetensors"
local scope = require "octet.scope"

local M = {}

--- The format of an optimizer by itself.
M.FORMAT = "octet-optimizer-1"

--- The format of a run's checkpoint.
M.CHECKPOINT = "octet-checkpoint-2"

local PREFIXES = {[M.FORMAT] = "", [M.CHECKPOINT] = "optimizer."}

--- Put an optimizer's state among the tensors and metadata of a file.
-- @tparam Optimizer optimizer
-- @tparam string prefix before the tensors' names
-- @tparam table tensors receives them
-- @tparam table metadata receives `optimizer`
function M.add(optimizer, prefix, tensors, metadata)
  local state = optimizer:state()
  for name, t in pairs(state.tensors) do tensors[prefix .. name] = t end
  metadata.optimizer = json.encode(state.numbers)
end

--- A table out of a file's metadata.
-- @tparam File file
-- @tparam string key
-- @treturn table
function M.numbers(file, key)
  local text = file:metadata()[key]
  if not text then error(("%s: metadata %s is missing"):format(file.path, key), 0) end
  local value = json.decode(text, file.path .. ": " .. key)
  if type(value) ~= "table" then
    error(("%s: metadata %s is a %s, expected an object"):format(file.path, key, type(value)), 0)
  end
  return value
end

local function load(optimizer, file, prefix, options)
  local tensors = {}
  for _, name in ipairs(file:names()) do
    if name:sub(1, #prefix) == prefix then
      tensors[name:sub(#prefix + 1)] = file:read(name, {purpose = "workspace"})
    end
  end
  local state = {tensors = tensors, numbers = M.numbers(file, "optimizer")}
  local ok, why = pcall(optimizer.load, optimizer, state, options)
  if not ok then error(("%s: %s"):format(file.path, message.without_place(why)), 0) end
end

--- Let an optimizer go on from the state in a file.
-- @tparam Optimizer optimizer
-- @tparam File file
-- @tparam string prefix
-- @tparam[opt] table options of opt:load
function M.load(optimizer, file, prefix, options)
  scope.scope(load, optimizer, file, prefix, options)
end

--- Save an optimizer by itself.
-- @tparam Optimizer optimizer
-- @tparam string path
function M.save(optimizer, path)
  local random = machine.random_state()
  local tensors, metadata = {}, {octet = M.FORMAT,
    random = json.encode {seed = random.seed, optimizer = random.optimizer}}
  M.add(optimizer, "", tensors, metadata)
  safetensors.save(path, tensors, metadata)
end

--- Let an optimizer go on from a file.
-- @tparam Optimizer optimizer
-- @tparam string path
-- @tparam table options convert, options, random
function M.restore(optimizer, path, options)
  nearest.check_options("restore", options, {"convert", "options", "random"})
  local file = safetensors.open(path)
  local format = file:metadata().octet
  local prefix = PREFIXES[format]
  if not prefix then
    error(('%s is no optimizer state of this version of Octet: its format is %s, expected "%s" or '
      .. '"%s"'):format(path, format and '"' .. format .. '"' or "not given", M.FORMAT,
      M.CHECKPOINT), 0)
  end
  local random, now = M.numbers(file, "random"), machine.random_state()
  -- The other streams are not the optimizer's, and another seed would send them back to 0.
  random = {seed = random.seed, optimizer = random.optimizer, init = now.init,
    dropout = now.dropout}
  if options.random ~= false then machine.check_random_state(random) end
  M.load(optimizer, file, prefix, {convert = options.convert, options = options.options})
  if options.random ~= false then machine.set_random_state(random) end
  file:close()
end

return M
