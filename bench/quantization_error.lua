--- What quantization does to Adam's state: Table 6 of Dettmers et al. (2022), on a run's real one.
--
--     luajit recipes/glue_finetune.lua --task sst2 --limit 6400 --optim adam --out RUN
--     luajit bench/quantization_error.lua RUN [--eps 1e-8] [--embeddings] [--json FILE]
--
-- RUN is a run's folder, or a checkpoint, of optim.adam or adamw: m and v in 32 bits. Each tensor's
-- m and v go through the optimizer's own kernels (a step with both betas 0 stores what it is given)
-- and are read back. With u = m / (sqrt(v) + eps), Adam's update without its learning rate, and u'
-- the same of what was read back:
--
--     relative error   the mean of |u' - u| / |u| over the elements
--     of the whole     the sum of |u' - u| over the sum of |u|
--     of the middle    the median of |u' - u| / |u|
--     first state      the mean of |m' - m|
--     v lost           the share of elements whose v is kept as 0 though it is not
--
-- The two lines at the top say how far below their tensor's largest the values lie.
-- Elements whose u is 0 are left out: they have no relative error. So are tensors of fewer than
-- 4,096 elements, whose state stays at 32 bits, and embeddings, whose state the paper keeps at 32
-- bits, too; --embeddings takes nothing but those.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = ("%s/../lua/?.lua;%s/../lua/?/init.lua;"):format(here, here) .. package.path
local ffi = require "ffi"
local cli = require "octet.cli"

local LEAST = 4096
-- What a name says of a table that is looked up.
local EMBEDDINGS = {"embed", "%f[%w]word%.", "%f[%w]position%.", "%f[%w]type%."}
local SAMPLE = 2 ^ 16                       -- of a tensor, whose quantiles stand for its own
-- Bins of the logarithm of the relative error, from 1e-8 to 1e8, by which the median is found.
local BINS, DECADES = 32000, 16
local LEVELS = 8                            -- decades below a tensor's largest that are told apart

local function whole(map)
  return {map = map, scale = "tensor", rounding = "nearest", sqrt_v = false}
end

-- The paper's own figures are those of its Table 6, relative error in per cent.
local FORMATS = {
  {"one scale a tensor"},
  {"linear", whole "linear", paper = 201},
  {"quantile, the tensor's own", whole "quantiles", paper = 11.9},
  {"inverse dynamic", whole "inverse_dynamic", paper = 6.5},
  {"dynamic", whole "dynamic", paper = 4.8},
  {"by blocks, v to the nearest"},
  {"dynamic, 2048 (the paper's)", {format = "paper"}},
  {"dynamic, 256 (bitsandbytes)", {format = "bnb"}},
  {"bitsandbytes 0.36 to 0.41", {format = "bnb-0.36"}},
  {"by blocks, sqrt(v)"},
  {"dynamic, 256, nearest", {rounding = "nearest"}},
  {"dynamic, 256, by chance (Octet)", {}},
  {"fp8 e4m3, 256, nearest", {map = "fp8_e4m3", rounding = "nearest"}},
  {"fp8 e5m2, 256, nearest", {map = "fp8_e5m2", rounding = "nearest"}},
  {"4 bits, sqrt(v)"},
  {"Octet's maps, 128, nearest", {rounding = "nearest"}, bits = 4},
  {"Octet's maps, 128, by chance", {}, bits = 4},
}

local octet, map                            -- loaded once the options are right

-- ---- reading a run -----------------------------------------------------------------------------

local function checkpoint_of(path)
  local file = require "octet.file"
  if file.is_folder(path) then path = path .. "/checkpoint/last.safetensors" end
  if not file.is_file(path) then
    error(("%s: no checkpoint; expected the folder of a run, or a file"):format(path), 0)
  end
  return octet.safetensors.open(path)
end

local function is_embedding(name)
  for _, pattern in ipairs(EMBEDDINGS) do
    if name:find(pattern) then return true end
  end
  return false
end

--- Names of the parameters that have an m and a v in 32 bits, large enough to be quantized.
local function names_of(file, embeddings)
  local names = {}
  for _, name in ipairs(file:names()) do
    local parameter = name:match "^optimizer%.(.+)%.m$"
    local v = parameter and file:info(("optimizer.%s.v"):format(parameter))
    if v and file:info(name).type == "F32" then
      local size = 1
      for _, n in ipairs(v.shape) do size = size * n end
      if size >= LEAST and is_embedding(parameter) == embeddings then
        names[#names + 1] = parameter
      end
    end
  end
  if #names == 0 then
    error(file.path .. ": no m and v in 32 bits; was the run made with --optim adam?", 0)
  end
  return names
end

-- ---- through the optimizer and back ------------------------------------------------------------

--- Codes of what a step with this gradient stores: m is the gradient, v its square.
local function stored(g, make, options)
  octet.seed(1)
  local w = octet.tensor.zeros(g:shape()):parameter_()
  local loss = (w * g):sum()
  loss:backward()
  local opt = make({{name = "w", tensor = w}}, options)
  opt:step()
  return opt
end

local function read_back(opt, name, shape)
  local tensors, p = opt:state().tensors, opt.parameters[1]
  local size, block = 1, p.format.block_size
  for _, n in ipairs(shape) do size = size * n end
  while p.format.scale == "tensor" and block < size do block = 2 * block end
  local own = require("octet.optim.format").map_of(p.format, p.bits,
    name == "m" and "signed" or "unsigned")
  local values = own:dequantize(tensors["w." .. name], tensors["w." .. name .. ".absmax"], shape,
    block)
  return name == "v" and p.format.sqrt_v and values:square() or values
end

--- A map of a tensor's quantiles, from a part of it with its largest magnitude.
local function quantiles(t, sign)
  local x, n = t:data(), t:size()
  local stride = math.ceil(n / (SAMPLE - 1))
  local list, most = {}, 0
  for i = 0, n - 1 do
    if math.abs(x[i]) > math.abs(most) then most = x[i] end
    if i % stride == 0 then list[#list + 1] = x[i] end
  end
  list[#list + 1] = most
  return map.quantiles_of(octet.tensor.from(list, {#list}), sign)
end

local function options_for(format, m, v)
  local options = {betas = {0, 0}, min_8bit_size = 0}
  for name, value in pairs(format[2]) do options[name] = value end
  if options.map == "quantiles" then
    options.map = {signed = quantiles(m, "signed"), unsigned = quantiles(v, "unsigned")}
  end
  return options
end

--- What is left of m and v.
local function kept(format, m, v)
  local make = format.bits == 4 and octet.optim.adam4 or octet.optim.adam8
  local options = options_for(format, m, v)
  return read_back(stored(m, make, options), "m", m:shape()),
    read_back(stored(v:sqrt(), make, options), "v", v:shape())
end

-- ---- errors ------------------------------------------------------------------------------------

local function add_errors(sums, m, v, kept_m, kept_v, eps)
  local n = m:size()
  local a, b, c, d, bins = m:data(), v:data(), kept_m:data(), kept_v:data(), sums.bins
  local count, relative, wrong, right, first, lost = 0, 0, 0, 0, 0, 0
  local floor, log, sqrt, abs = math.floor, math.log10, math.sqrt, math.abs
  for i = 0, n - 1 do
    local u = a[i] / (sqrt(b[i]) + eps)
    if u ~= 0 then
      local off = abs(c[i] / (sqrt(d[i]) + eps) - u)
      local share = off / abs(u)
      count, relative = count + 1, relative + share
      wrong, right, first = wrong + off, right + abs(u), first + abs(c[i] - a[i])
      if b[i] ~= 0 and d[i] == 0 then lost = lost + 1 end
      local bin = floor((log(share + 1e-30) + DECADES / 2) * BINS / DECADES)
      bin = bin < 0 and 0 or bin >= BINS and BINS - 1 or bin
      bins[bin] = bins[bin] + 1
    end
  end
  sums.count, sums.relative = sums.count + count, sums.relative + relative
  sums.wrong, sums.right = sums.wrong + wrong, sums.right + right
  sums.first, sums.lost = sums.first + first, sums.lost + lost
end

local function median(sums)
  local seen = 0
  for bin = 0, BINS - 1 do
    seen = seen + sums.bins[bin]
    if seen >= sums.count / 2 then return 10 ^ ((bin + 0.5) * DECADES / BINS - DECADES / 2) end
  end
end

--- The errors of a format over all tensors.
local function errors_of(format, states, eps)
  local sums = {count = 0, relative = 0, wrong = 0, right = 0, first = 0, lost = 0,
    bins = ffi.new("double[?]", BINS)}
  for _, state in ipairs(states) do
    octet.scope(function()
      local kept_m, kept_v = kept(format, state.m, state.v)
      add_errors(sums, state.m, state.v, kept_m, kept_v, eps)
    end)
    collectgarbage()
  end
  return {elements = sums.count, relative = sums.relative / sums.count,
    of_the_whole = sums.wrong / sums.right, of_the_middle = median(sums),
    first_state = sums.first / sums.count, v_lost = sums.lost / sums.count}
end

--- Shares of elements by decade below the largest magnitude of their tensor.
local function spread(states, name)
  local shares, count = {}, 0
  for level = 1, LEVELS do shares[level] = 0 end
  for _, state in ipairs(states) do
    local x, v, n, most = state[name]:data(), state.v:data(), state.v:size(), 0
    for i = 0, n - 1 do most = math.max(most, math.abs(x[i])) end
    for i = 0, n - 1 do
      if v[i] ~= 0 then
        local level = 1 + math.floor(math.log10(most / math.abs(x[i])))
        level = level < LEVELS and level or LEVELS
        shares[level], count = shares[level] + 1, count + 1
      end
    end
  end
  for level = 1, LEVELS do shares[level] = shares[level] / count end
  return shares
end

-- ---- the table ---------------------------------------------------------------------------------

local function percent(x)
  local y = 100 * x
  if y < 1e4 then return ("%.2f %%"):format(y) end
  return ("%.1e %%"):format(y)
end

local function run(o)
  octet, map = require "octet", require "octet.optim.map"
  octet.set_threads(o.threads)
  local file, states, elements = checkpoint_of(o.run), {}, 0
  for i, name in ipairs(names_of(file, o.embeddings or false)) do
    states[i] = {m = file:read(("optimizer.%s.m"):format(name)):keep(),
      v = file:read(("optimizer.%s.v"):format(name)):keep()}
    elements = elements + states[i].m:size()
  end
  print(("%d tensors, %d elements; eps %g"):format(#states, elements, o.eps))
  for _, name in ipairs {"m", "v"} do
    local texts = {}
    for level, share in ipairs(spread(states, name)) do
      texts[level] = ("%.1f"):format(100 * share)
    end
    print(("%s, %% of the elements in each decade below the tensor's largest: %s"):format(name,
      table.concat(texts, " ")))
  end
  local line = "%-33s %12s %12s %12s %12s %8s %8s"
  print(line:format("", "relative", "of the whole", "the middle", "first state", "v lost", "paper"))
  local records = {}
  for _, format in ipairs(FORMATS) do
    if not format[2] then
      print(format[1])
    else
      local e = errors_of(format, states, o.eps)
      print(line:format("  " .. format[1], percent(e.relative), percent(e.of_the_whole),
        percent(e.of_the_middle), ("%.2e"):format(e.first_state), percent(e.v_lost),
        format.paper and format.paper .. " %" or ""):match "^(.-)%s*$")
      io.flush()
      e.format, e.bits = format[1], format.bits or 8
      records[#records + 1] = e
    end
  end
  if o.json then require("octet.file").save_json(o.json, {run = o.run, records = records}) end
end

cli.main("quantization_error", function()
  local path = arg[1] and arg[1]:sub(1, 1) ~= "-" and table.remove(arg, 1)
  local options = cli.parse(arg, {
    name = "quantization_error", command = "luajit bench/quantization_error.lua RUN",
    about = "What quantization does to the Adam state of a run.",
    options = {
      cli.flag("embeddings", {help = "the embeddings alone, instead of all but those"}),
      cli.number("eps", {default = 1e-8, above = 0, most = 1, help = "Adam's"}),
      cli.common.threads{default = 2},
      cli.text("json", {what = "a file", metavar = "FILE", help = "where to write every figure"}),
    },
  })
  options.run = path or error("which run? luajit bench/quantization_error.lua RUN", 0)
  jit.on()                                  -- the errors are added up in Lua
  run(options)
end)
