--- Time of one optimizer step: ns and bytes a parameter, and the share of what memory moves.
--
--     luajit bench/optimizer.lua [--sizes 16,64] [--tensors 8] [--rounds 15] [--threads 2]
--
-- Sizes are in millions of parameters. The best of the rounds counts, the kinds take turns. With
-- PEER_PYTHON, the path of a Python that has PyTorch, its fused Adam is timed in turns with ours.
package.path = (arg[0]:match("^(.*)/") or ".") .. "/../lua/?.lua;"
  .. (arg[0]:match("^(.*)/") or ".") .. "/../lua/?/init.lua;" .. package.path
local machine = require "octet.machine"
local optim = require "octet.optim"
local scope = require "octet.scope"
local tensor = require "octet.tensor"

local HERE = arg[0]:match("^(.*)/") or "."
local PEER_TURNS = 3

local function options()
  local o = {sizes = "16,64", tensors = "8", rounds = "15", threads = "2"}
  local i = 1
  while arg[i] do
    local name = arg[i]:match "^%-%-(%w+)$"
    if not name or not o[name] or not arg[i + 1] then
      io.stderr:write("usage: luajit bench/optimizer.lua [--sizes 16,64] [--tensors 8] "
        .. "[--rounds 15] [--threads 2]\n")
      os.exit(1)
    end
    o[name] = arg[i + 1]
    i = i + 2
  end
  return o
end

-- What a step reads and writes, in bytes a parameter: parameter twice, gradient, state twice.
local KINDS = {
  {name = "adam", make = optim.adam, bytes = 8 + 4 + 16},
  {name = "adam8", make = optim.adam8, bytes = 8 + 4 + 4 + 16 / 256},
  {name = "adam8 paper", make = optim.adam8, options = {format = "paper"},
    bytes = 8 + 4 + 4 + 16 / 2048},
}

local function parameters(size, count)
  local list = {}
  for i = 1, count do
    local w = tensor.new({math.floor(size / count)}):normal_(0, 0.02):parameter_()
    scope.scope(function()
      local g = tensor.new(w:shape()):normal_(0, 1e-3)
      local loss = (w * g):sum()
      loss:backward()
    end)
    list[i] = w
  end
  return list
end

local function time(f)
  local begun = machine.clock()
  f()
  return machine.clock() - begun
end

local function peer(size, o)
  local python = os.getenv "PEER_PYTHON"
  if not python then return {} end
  local command = ("%s %s/peers/optim_step.py %d %s %s %s"):format(python, HERE, size, o.tensors,
    o.rounds, o.threads)
  local pipe = assert(io.popen(command))
  local seen = {}
  for line in pipe:lines() do
    local name, ns = line:match "^(%S+) (%S+)$"
    if name then seen[name] = tonumber(ns) end
  end
  pipe:close()
  return seen
end

local function keep_best(best, name, value)
  best[name] = math.min(best[name] or math.huge, value)
end

local function measure(size, o)
  local list = parameters(size, tonumber(o.tensors))
  local best, peers = {}, {}
  for _ = 1, PEER_TURNS do
    -- One optimizer at a time, so that the memory of all of them is not needed at once.
    for _, kind in ipairs(KINDS) do
      local opt = kind.make(list, kind.options)
      opt:step()
      for _ = 1, o.rounds do
        keep_best(best, kind.name, time(function() opt:step() end) / size * 1e9)
      end
      opt:release()
    end
    scope.scope(function()
      local source = tensor.zeros {size}           -- too large for any cache
      for _ = 1, o.rounds do
        scope.scope(function()
          keep_best(best, "copy", time(function() return source * 1 end) / size * 1e9)
        end)
      end
    end)
    for name, ns in pairs(peer(size, o)) do keep_best(peers, name, ns) end
  end
  return best, peers
end

local function report(size, best, peers, o)
  -- A processor reads the line that it is about to write: 12 bytes move for 8 that are copied.
  local copy = 12 / best.copy
  print(("%d million parameters in %s tensors, %s threads, %s; memory moves %.1f GB/s"):format(
    size / 1e6, o.tensors, o.threads, machine.isa(), copy))
  local names = {}
  for name in pairs(peers) do names[#names + 1] = name end
  table.sort(names)
  for _, kind in ipairs(KINDS) do
    local ns = best[kind.name]
    local line = ("  %-12s %6.3f ns and %5.2f bytes a parameter, %3.0f %% of that"):format(
      kind.name, ns, kind.bytes, 100 * kind.bytes / ns / copy)
    for _, name in ipairs(names) do
      line = line .. (", %.2f of %s"):format(ns / peers[name], name)
    end
    print(line)
  end
  for _, name in ipairs(names) do print(("  %s %.3f ns a parameter"):format(name, peers[name])) end
end

local o = options()
machine.set_threads(tonumber(o.threads))
for millions in o.sizes:gmatch "[%d.]+" do
  local size = math.floor(tonumber(millions) * 1e6)
  local best, peers = measure(size, o)
  report(size, best, peers, o)
  collectgarbage()
  collectgarbage()
  machine.trim_memory()
end
