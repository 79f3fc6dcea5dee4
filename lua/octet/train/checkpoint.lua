--- Checkpoints: all that a run needs to go on as if it had never stopped, in one safetensors file
-- that is written whole or not at all: the model's weights ("model.*"), the optimizer's state
-- ("optimizer.*") and that of the run's other parts ("average.*"), and in the metadata where the
-- run and its random numbers stand.
-- @module octet.train.checkpoint
local json = require "octet.json"
local machine = require "octet.machine"
local safetensors = require "octet.safetensors"
local state_file = require "octet.optim.state_file"

local M = {}

local FORMAT, numbers = state_file.CHECKPOINT, state_file.numbers

--- Save a checkpoint.
-- @tparam string path
-- @tparam table model a module
-- @tparam table optimizer
-- @tparam table position numbers, texts and tables of them
-- @tparam[opt] table parts what else the run remembers, by name: objects with state() and load(),
-- whose state is {tensors =, numbers =} or plain numbers
function M.save(path, model, optimizer, position, parts)
  local tensors = {}
  for name, tensor in pairs(model:state()) do tensors["model." .. name] = tensor end
  local metadata = {
    octet = FORMAT, position = json.encode(position), random = json.encode(machine.random_state()),
  }
  state_file.add(optimizer, "optimizer.", tensors, metadata)
  for name, part in pairs(parts or {}) do
    local own = part:state()
    for key, tensor in pairs(own.tensors or {}) do tensors[name .. "." .. key] = tensor end
    metadata["part." .. name] = json.encode(own.tensors and own.numbers or own)
  end
  safetensors.save(path, tensors, metadata)
end

--- Read what is stored under a prefix into the tensors of that name, which must be the same ones.
local function restore(file, prefix, tensors)
  for _, name in ipairs(file:names()) do
    if name:sub(1, #prefix) == prefix and not tensors[name:sub(#prefix + 1)] then
      error(("%s: tensor %s is left over: this run has none of that name"):format(file.path, name),
        0)
    end
  end
  for name, tensor in pairs(tensors) do
    if not file:info(prefix .. name) then
      error(("%s: tensor %s%s is missing"):format(file.path, prefix, name), 0)
    end
    file:read(prefix .. name, tensor)
  end
end

local function open(path)
  local file = safetensors.open(path)
  local format = file:metadata().octet
  if format ~= FORMAT then
    error(("%s is no checkpoint of this version of Octet: its format is %s, expected %s"):format(
      path, format and '"' .. format .. '"' or "not given", FORMAT), 3)
  end
  return file
end

--- Go on with the parts, which must be those that the checkpoint was written with.
local function restore_parts(file, parts)
  for key in pairs(file:metadata()) do
    local name = key:match "^part%.(.+)$"
    if name and not parts[name] then
      error(("%s: it holds the %s of a run, and this run has none"):format(file.path, name), 0)
    end
  end
  for name, part in pairs(parts) do
    local values, tensors = numbers(file, "part." .. name), part:state().tensors
    if tensors then restore(file, name .. ".", tensors) end
    part:load(tensors and {numbers = values} or values)
  end
end

--- Put model, optimizer and random numbers where the checkpoint has them.
-- @tparam string path
-- @tparam table model
-- @tparam table optimizer made with the same options, or with state of 32 bits where it was fewer,
-- or fewer where it was 32: that is converted
-- @tparam[opt] table parts as save() was given them, made with the same options
-- @treturn table the position
function M.load(path, model, optimizer, parts)
  local file = open(path)
  local position, random = numbers(file, "position"), numbers(file, "random")
  machine.check_random_state(random)
  restore(file, "model.", model:state())
  state_file.load(optimizer, file, "optimizer.")
  restore_parts(file, parts or {})
  machine.set_random_state(random)
  file:close()
  return position
end

--- Where the run that wrote a checkpoint stood.
-- @tparam string path
-- @treturn table the position
function M.position(path)
  local file = open(path)
  local position = numbers(file, "position")
  file:close()
  return position
end

return M
