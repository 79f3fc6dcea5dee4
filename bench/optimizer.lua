--- Time of an optimizer's step: ns and bytes a parameter, the share of what memory moves, and the
-- ratios to 32-bit state, to PyTorch and to bitsandbytes.
--
--     luajit bench/optimizer.lua [--rules adam,lion] [--widths 32,8,4] [--sizes 16,64]
--     luajit bench/optimizer.lua --small      200 small tensors against one of the same total
--     luajit bench/optimizer.lua --table5     Table 5 of Dettmers et al. (2022), for this machine
--     luajit bench/optimizer.lua --device cuda        any of these on a GPU
--
-- With PEER_PYTHON, the path of a Python that has PyTorch and bitsandbytes, their optimizers are
-- timed in turns with ours. Of each the best round counts. --json FILE keeps every figure.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = ("%s/../lua/?.lua;%s/../lua/?/init.lua;"):format(here, here) .. package.path
local cli = require "octet.cli"

local TURNS = 3
local COPIES = 20                           -- on a GPU, for each time that they are waited for
local COLUMNS = 1024                        -- parameters are matrices, since Muon wants such
local SMALL_TENSORS, SMALL_SIZES = 200, {5000, 50000}
local SMALL_BAR = 1.3
local TABLE_5 = {{"adam", "Adam"}, {"sgd", "Momentum"}, {"lamb", "LAMB"}, {"lars", "LARS"}}
-- Rules that read more than once: parameter and gradient for norms, or all for the direction's.
local FIRST_PASS = {lars = "norms", lamb = "direction"}

local function list_of(text)
  local list = {}
  for word in text:gmatch "[^,%s]+" do list[#list + 1] = word end
  return list
end

-- ---- peers -------------------------------------------------------------------------------------

local Peers = {}
Peers.__index = Peers

--- A Python that waits for commands (bench/peers/optim_step.py); nil without PEER_PYTHON.
local function start_peers()
  local python = os.getenv "PEER_PYTHON"
  if not python or python == "" then return nil end
  local fifo = os.tmpname()
  os.remove(fifo)
  assert(os.execute(("mkfifo '%s'"):format(fifo)) == 0, "mkfifo failed")
  local commands = assert(io.popen(("'%s' -W ignore '%s/peers/optim_step.py' > '%s'"):format(python,
    here, fifo), "w"))
  local replies = assert(io.open(fifo))
  os.remove(fifo)
  return setmetatable({commands = commands, replies = replies}, Peers)
end

function Peers:ask(...)
  self.commands:write(table.concat({...}, " "), "\n")
  self.commands:flush()
  return self.replies:read "*l" or error("the peers' side ended", 0)
end

--- Which of them have the rule and run here.
function Peers:begin(rule, size, o)
  local names = {}
  for name in self:ask("begin", rule, size, o.tensors, o.threads, o.device):gmatch "[^\t]+" do
    names[#names + 1] = name
  end
  return names
end

function Peers:run(name, o) return tonumber(self:ask("run", name, o.rounds, o.seconds)) end

-- ---- our side ----------------------------------------------------------------------------------

local octet, rules                          -- loaded once the options are right

local function parameters(shape, count, o)
  local list = {}
  for i = 1, count do
    local w = octet.tensor.new(shape):normal_(0, 0.02):parameter_()
    octet.scope(function()
      local loss = (w * octet.tensor.new(shape):normal_(0, 1e-3)):sum()
      loss:backward()
    end)
    list[i] = w:to_(o.device)
  end
  return list
end

--- Seconds of the fastest of some calls.
local function fastest(f, rounds, seconds)
  f()
  local best, ends = math.huge, octet.clock() + seconds
  for _ = 1, rounds do
    local begun = octet.clock()
    f()
    local done = octet.clock()
    best = math.min(best, done - begun)
    if done > ends then break end
  end
  return best
end

--- What a step has to read and write, in bytes a parameter; nil where products do most of the work.
local function bytes_moved(rule, state_bytes)
  if rule.matrix then return nil end
  local bytes = 12 + 2 * state_bytes        -- parameter twice, gradient, state twice
  local first = FIRST_PASS[rule.name]
  if first then bytes = bytes + 8 + (first == "direction" and state_bytes or 0) end
  return bytes
end

local function optimizer_name(rule, bits) return rule.name .. (bits == 32 and "" or bits) end

local function kinds_of(rule, list, elements, o)
  local kinds = {}
  for _, width in ipairs(list_of(o.widths)) do
    local bits = tonumber(width)
    local name = optimizer_name(rule, bits)
    local make = octet.optim[name] or error(("--widths: there is no optimizer %s"):format(name), 0)
    local opt = make(list)
    local state_bytes = opt:report().bytes / elements
    kinds[#kinds + 1] = {name = name, rule = rule.name, bits = bits, opt = opt,
      state_bytes = state_bytes, bytes = bytes_moved(rule, state_bytes), ns = math.huge}
  end
  return kinds
end

--- Bytes that memory moves in a second: a copy of as many elements as there are parameters. A
-- processor reads the line that it is about to write, so 12 bytes move for 8 that are copied; a GPU
-- does not.
local function copy_bandwidth(elements, o)
  local seconds
  octet.scope(function()
    local source = octet.tensor.zeros({elements}):to_(o.device)
    local target = o.device ~= "cpu" and octet.tensor.zeros({elements}):to_(o.device)
    local function multiply() octet.scope(function() local _ = source * 1 end) end
    local function copy()
      for _ = 1, COPIES do target:copy_(source) end
      octet.scope(function() target:rows(1, 1):to "cpu" end)           -- waits for all of them
    end
    seconds = o.device == "cpu" and fastest(multiply, o.rounds, o.seconds)
      or fastest(copy, o.rounds, o.seconds) / COPIES
  end)
  return (o.device == "cpu" and 12 or 8) * elements / seconds
end

--- One rule at one size: ours, a copy, and the peers, in turns.
local function measure(rule, millions, peers, o)
  local rows = math.floor(millions * 1e6 / o.tensors / COLUMNS)
  local elements = rows * COLUMNS * o.tensors
  local list = parameters({rows, COLUMNS}, o.tensors, o)
  local kinds, copy, theirs = kinds_of(rule, list, elements, o), 0, {}
  for _, name in ipairs(peers and peers:begin(rule.name, elements, o) or {}) do
    theirs[#theirs + 1] = {name = name, ns = math.huge}
  end
  for _ = 1, TURNS do
    for _, kind in ipairs(kinds) do
      local seconds = fastest(function() kind.opt:step() end, o.rounds, o.seconds)
      kind.ns = math.min(kind.ns, seconds / elements * 1e9)
    end
    copy = math.max(copy, copy_bandwidth(elements, o))
    for _, peer in ipairs(theirs) do peer.ns = math.min(peer.ns, peers:run(peer.name, o)) end
  end
  for _, kind in ipairs(kinds) do kind.opt:release() end
  octet.trim_memory()
  return {elements = elements, kinds = kinds, copy = copy, peers = theirs}
end

-- ---- what is printed ---------------------------------------------------------------------------

local function find(list, field, value)
  for _, entry in ipairs(list) do
    if entry[field] == value then return entry end
  end
end

--- The peers that a width is held against: PyTorch's, and bitsandbytes' of the same width; 4 bits,
-- of which that has none, against its 8.
local function rivals(seen, bits)
  local list = {}
  for _, peer in ipairs(seen.peers) do
    local width = peer.name:match "^bnb%..-(%d+)bit$"
    if not width or tonumber(width) == math.max(bits, 8) then list[#list + 1] = peer end
  end
  return list
end

-- A GPU's are picoseconds.
local function time_text(ns)
  return ns < 0.1 and ("%7.2f ps"):format(1000 * ns) or ("%7.3f ns"):format(ns)
end

local function print_kind(seen, kind)
  local line = ("  %-11s %s"):format(kind.name, time_text(kind.ns))
  if kind.bytes then
    line = line .. ("  %6.2f bytes  %3.0f %% of the copy's"):format(kind.bytes,
      100 * kind.bytes / kind.ns / seen.copy * 1e9)
  else
    line = line .. ("  %27s"):format ""
  end
  local twin = kind.bits ~= 32 and find(seen.kinds, "bits", 32)
  line = line .. (twin and ("  %5.2f of %-9s"):format(kind.ns / twin.ns, twin.name)
    or ("%19s"):format "")
  for _, peer in ipairs(rivals(seen, kind.bits)) do
    line = line .. ("  %.2f of %s"):format(kind.ns / peer.ns, peer.name)
  end
  print((line:gsub("%s+$", "")))
end

local function print_seen(seen)
  for _, kind in ipairs(seen.kinds) do print_kind(seen, kind) end
  for _, peer in ipairs(seen.peers) do
    print(("  %-24s %s"):format(peer.name, time_text(peer.ns)))
  end
  io.flush()
end

local function record(seen, rule, millions)
  local entry = {rule = rule.name, millions = millions, elements = seen.elements,
    copy_bytes_per_second = seen.copy, optimizers = {}, peers = {}}
  for i, kind in ipairs(seen.kinds) do
    entry.optimizers[i] = {name = kind.name, bits = kind.bits, ns = kind.ns, bytes = kind.bytes,
      state_bytes = kind.state_bytes}
  end
  for i, peer in ipairs(seen.peers) do entry.peers[i] = {name = peer.name, ns = peer.ns} end
  return entry
end

local function head(o)
  local where = o.device == "cpu" and ("%s, %d threads"):format(octet.isa(), o.threads)
    or octet.open_device(o.device)
  print(("%s, %d tensors; ns and bytes moved are by parameter"):format(where, o.tensors))
end

-- ---- the three tables --------------------------------------------------------------------------

local function all_rules(o, peers, records)
  head(o)
  for _, millions in ipairs(list_of(o.sizes)) do
    for _, name in ipairs(list_of(o.rules)) do
      local seen = measure(rules[name], tonumber(millions), peers, o)
      print(("%s, %s million parameters; memory moves %.1f GB/s"):format(rules[name].title,
        millions, seen.copy / 1e9))
      print_seen(seen)
      records[#records + 1] = record(seen, rules[name], tonumber(millions))
    end
  end
end

local function table_5(o, peers, records)
  local sizes = list_of(o.sizes)
  local millions = tonumber(sizes[#sizes])
  o.widths = "32,8"
  head(o)
  print(("milliseconds a step for 1,000 million parameters, from %s million"):format(millions))
  print(("  %-10s %12s %12s %8s   %s"):format("", "32 bits", "8 bits", "ratio", "others"))
  for _, row in ipairs(TABLE_5) do
    local rule = rules[row[1]]
    local seen = measure(rule, millions, peers, o)
    local wide, narrow, others = seen.kinds[1].ns, seen.kinds[2].ns, {}
    for i, peer in ipairs(seen.peers) do
      others[i] = ("%s %.0f"):format(peer.name, 1000 * peer.ns)
    end
    print(("  %-10s %12.0f %12.0f %8.2f   %s"):format(row[2], 1000 * wide, 1000 * narrow,
      narrow / wide, table.concat(others, ", ")))
    io.flush()
    records[#records + 1] = record(seen, rule, millions)
  end
end

--- Many small tensors against one of as many elements: all that is done for each tensor shows.
local function small(o, records)
  head(o)
  for _, size in ipairs(SMALL_SIZES) do
    local total = SMALL_TENSORS * size
    local many, one = parameters({size}, SMALL_TENSORS, o), parameters({total}, 1, o)
    print(("%d tensors of %d against one of %d"):format(SMALL_TENSORS, size, total))
    for _, name in ipairs(list_of(o.rules)) do
      local rule = rules[name]
      for _, width in ipairs(list_of(o.widths)) do
        local kind = optimizer_name(rule, tonumber(width))
        if rule.matrix then break end
        local a, b = octet.optim[kind](many), octet.optim[kind](one)
        local seconds = {math.huge, math.huge}
        for _ = 1, 2 * TURNS do
          for i, opt in ipairs {a, b} do
            seconds[i] = math.min(seconds[i], fastest(function() opt:step() end, 10 * o.rounds,
              o.seconds / 4))
          end
        end
        local ratio = seconds[1] / seconds[2]
        print(("  %-11s %8.1f us, one tensor %8.1f us: %.2f times%s"):format(kind, seconds[1] * 1e6,
          seconds[2] * 1e6, ratio, ratio > SMALL_BAR and ", above " .. SMALL_BAR or ""))
        io.flush()
        records[#records + 1] = {case = "small", optimizer = kind, tensors = SMALL_TENSORS,
          size = size, seconds = seconds[1], seconds_one = seconds[2]}
        a:release()
        b:release()
      end
    end
  end
end

-- ---- the command -------------------------------------------------------------------------------

local function check_rules(o)
  local names = {}
  for i, rule in ipairs(rules) do names[i] = rule.name end
  o.rules = o.rules or table.concat(names, ",")
  for _, name in ipairs(list_of(o.rules)) do
    if not rules[name] then
      error("--rules: " .. require("octet.nearest").message("rule", name, names), 0)
    end
  end
end

cli.main("optimizer", function()
  local o = cli.parse(arg, {
    name = "optimizer", command = "luajit bench/optimizer.lua",
    about = "Time of an optimizer's step, against the memory's speed and against others.",
    options = {
      cli.text("rules", {help = "names of rules, with commas between; all where not given"}),
      cli.text("widths", {default = "32,8,4", help = "bits of the state"}),
      cli.text("sizes", {default = "16,64", help = "millions of parameters"}),
      cli.integer("tensors", {default = 8, least = 1, most = 1000, help = "tensors they are in"}),
      cli.integer("rounds", {default = 15, least = 1, most = 1000, help = "steps in a turn"}),
      cli.number("seconds", {default = 1, above = 0, most = 1000,
        help = "a turn ends after so many, even where not all its steps are made"}),
      cli.common.device{choices = {"cpu", "cuda"}},
      cli.common.threads{default = 2},
      cli.flag("small", {help = "many small tensors against one"}),
      cli.flag("table5", {help = "Adam, Momentum, LAMB and LARS as in the paper's Table 5"}),
      cli.text("json", {what = "a file", metavar = "FILE", help = "where to write every figure"}),
    },
  })
  octet, rules = require "octet", require("octet.optim.rules").all
  octet.set_threads(o.threads)
  check_rules(o)
  local records = {}
  if o.small then
    small(o, records)
  else
    (o.table5 and table_5 or all_rules)(o, start_peers(), records)
  end
  if o.json then
    require("octet.file").save_json(o.json, {isa = octet.isa(), threads = o.threads,
      records = records})
  end
end)
