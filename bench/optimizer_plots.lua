--- The three plots of docs/optimizers.md: the map, the error over magnitude, and the length of
-- updates over steps.
--
--     luajit bench/optimizer_plots.lua docs/plots
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = ("%s/../lua/?.lua;%s/../lua/?/init.lua;"):format(here, here) .. package.path
local cli = require "octet.cli"

local ELEMENTS, DECADES = 4096, 3           -- of the run, and over which its gradients spread
local WARM = 100                            -- steps before the first point
local EVERY = 20                            -- steps between points

local octet, map                            -- loaded once the options are right

-- ---- the map -----------------------------------------------------------------------------------

local MAPS = {{"dynamic", "dynamic"}, {"linear", "linear"}, {"quantile", "quantile of normal"},
  {"fp8_e4m3", "fp8 e4m3"}}

local function values_of(name, sign, title)
  local x, y = {}, map.named(name, 8, sign):values()
  for code = 0, 255 do x[code + 1] = code end
  return {name = title, x = x, y = y}
end

local function plot_map()
  local signed, unsigned = {}, {}
  for i, entry in ipairs(MAPS) do
    signed[i] = values_of(entry[1], "signed", entry[2])
    unsigned[i] = values_of(entry[1], "unsigned", entry[2])
  end
  unsigned[#unsigned + 1] = values_of("bnb-0.36", "unsigned", "bitsandbytes 0.36")
  return octet.plot.svg {title = "What each of the 256 codes stands for", panels = {
    {x = "code", y = "signed map: m", series = signed},
    {x = "code", y = "unsigned map: v, sqrt(v)", y_log = true, series = unsigned},
  }}
end

-- ---- the error over magnitude ------------------------------------------------------------------

-- Bins as wide as a sixth of a decade: the zigzag between neighbouring codes is averaged out.
local BINS, IN_BIN, LOWEST = 42, 1024, -7

-- Magnitudes from 10^LOWEST to 1, evenly in the logarithm, in blocks that begin with a 1.
local function magnitudes()
  local list, n = {}, BINS * IN_BIN
  for i = 0, n - 1 do
    if i % 255 == 0 then list[#list + 1] = 1 end
    list[#list + 1] = 10 ^ (LOWEST * (1 - (i + 0.5) / n))
  end
  return list
end

-- name "usual": the map of Octet's own format.
local function map_of(name, bits, sign)
  local format = require "octet.optim.format"
  if name == "usual" then return format.map_of(format.resolve({}, bits), bits, sign) end
  return map.named(name, bits, sign)
end

local function read_back(list, name, bits, sign)
  local own = map_of(name, bits, sign)
  local codes, absmax = own:quantize(octet.tensor.from(list, {#list}), 256)
  return own:dequantize(codes, absmax, {#list}, 256):totable()
end

--- The mean error in each bin, over the larger of what was meant and what is kept: 1 is the most,
-- be it that all is lost or that too much is kept. squared: the square of the magnitude is kept.
local function error_curve(name, bits, sign, squared)
  local list, given = magnitudes(), {}
  for i, x in ipairs(list) do given[i] = squared and x * x or x end
  local kept, x, y, count = read_back(given, name, bits, sign), {}, {}, {}
  for bin = 1, BINS do
    x[bin], y[bin], count[bin] = 10 ^ (LOWEST * (1 - (bin - 0.5) / BINS)), 0, 0
  end
  for i, meant in ipairs(list) do
    local is = squared and math.sqrt(kept[i]) or kept[i]
    local bin = math.floor((1 - math.log10(meant) / LOWEST) * BINS) + 1
    if bin <= BINS then
      y[bin] = y[bin] + math.abs(is - meant) / math.max(is, meant)
      count[bin] = count[bin] + 1
    end
  end
  for bin = 1, BINS do y[bin] = y[bin] / count[bin] end
  return x, y
end

local function error_series(list)
  local series = {}
  for i, entry in ipairs(list) do
    local x, y = error_curve(entry[2], entry[3] or 8, entry[4], entry[5])
    series[i] = {name = entry[1], x = x, y = y}
  end
  return series
end

local function plot_error()
  local m = error_series {
    {"dynamic", "dynamic", 8, "signed"}, {"linear", "linear", 8, "signed"},
    {"fp8 e4m3", "fp8_e4m3", 8, "signed"}, {"Octet, 4 bits", "usual", 4, "signed"},
  }
  local v = error_series {
    {"sqrt(v) kept (Octet)", "dynamic", 8, "unsigned"},
    {"v kept (the paper)", "dynamic", 8, "unsigned", true},
    {"v kept, linear", "linear", 8, "unsigned", true},
    {"sqrt(v) kept, 4 bits", "usual", 4, "unsigned"},
  }
  return octet.plot.svg {title = "Mean error by magnitude, to the nearest", x_log = true,
    panels = {
      {x = "|m| over the largest of its block", y = "error of m", y_log = true, series = m},
      {x = "sqrt(v) over the largest of its block", y = "error of sqrt(v)", y_log = true,
        series = v},
    }}
end

-- ---- the length of updates ---------------------------------------------------------------------

local KINDS = {
  {name = "Octet", options = {}},
  {name = "the paper's", options = {format = "paper"}},
  {name = "bitsandbytes", options = {format = "bnb"}},
  {name = "bitsandbytes 0.36", options = {format = "bnb-0.36"}},
  {name = "Octet, 4 bits", options = {}, bits = 4},
}

local function parameter() return octet.tensor.zeros({ELEMENTS}):parameter_() end

local function set_gradient(w, g)
  w:zero_grad()
  local loss = (w * g):sum()
  loss:backward()
end

--- Mean and largest magnitude of a parameter's update since `old`.
local function update(w, old)
  local step = (w - old):abs()
  return step:mean():item(), step:max():item()
end

--- Optimizers that run freely side by side on the same gradients: normal, with a mean of a tenth of
-- their deviation, which differs by up to so many decades within a block.
local function free_run(steps, lr)
  octet.seed(1)
  local scales = octet.tensor.new({ELEMENTS}):uniform_(-DECADES, 0):keep()
  for i = 0, ELEMENTS - 1 do scales:data()[i] = 10 ^ scales:data()[i] end
  local runs = {{w = parameter(), name = "32 bits"}}
  runs[1].opt = octet.optim.adam({runs[1].w}, {lr = lr})
  for i, kind in ipairs(KINDS) do
    local run = {w = parameter(), name = kind.name, x = {}, mean = {}, most = {}}
    run.opt = octet.optim["adam" .. (kind.bits or 8)]({run.w}, kind.options)
    run.opt:set_lr(lr)
    runs[i + 1] = run
  end
  for _, run in ipairs(runs) do run.old = octet.tensor.zeros({ELEMENTS}):keep() end
  for t = 1, steps do
    octet.scope(function()
      local g, usual = octet.tensor.new({ELEMENTS}):normal_(0.1, 1) * scales, nil
      for _, run in ipairs(runs) do
        local watched = t > WARM and t % EVERY == 0
        set_gradient(run.w, g)
        if watched then run.old:copy_(run.w) end
        run.opt:step()
        if watched then
          local mean, most = update(run.w, run.old)
          usual = usual or mean
          if run.x then
            run.x[#run.x + 1], run.mean[#run.mean + 1] = t, mean / usual
            run.most[#run.most + 1] = most / lr
          end
        end
      end
    end)
  end
  return runs
end

local function plot_updates(steps)
  local runs = free_run(steps, 1e-3)
  local mean, most = {}, {}
  for i = 2, #runs do
    local run = runs[i]
    mean[#mean + 1] = {name = run.name, x = run.x, y = run.mean}
    most[#most + 1] = {name = run.name, x = run.x, y = run.most}
  end
  return octet.plot.svg {
    title = ("Adam's updates, gradients within a block over %d decades"):format(DECADES), panels = {
      {x = "step", y = "mean, over that of 32 bits", y_log = true, series = mean},
      {x = "step", y = "largest, over lr", y_log = true, series = most},
    }}
end

-- ---- the command -------------------------------------------------------------------------------

cli.main("optimizer_plots", function()
  local folder = arg[1] and arg[1]:sub(1, 1) ~= "-" and table.remove(arg, 1)
  local o = cli.parse(arg, {
    name = "optimizer_plots", command = "luajit bench/optimizer_plots.lua FOLDER",
    about = "The plots of docs/optimizers.md.",
    options = {
      cli.integer("steps", {default = 3000, least = 200, most = 1e6, help = "of the third plot"}),
    },
  })
  if not folder then error("which folder? luajit bench/optimizer_plots.lua docs/plots", 0) end
  octet, map = require "octet", require "octet.optim.map"
  local file = require "octet.file"
  file.make_folder(folder)
  file.save(folder .. "/map.svg", plot_map())
  file.save(folder .. "/error.svg", plot_error())
  file.save(folder .. "/update_length.svg", plot_updates(o.steps))
end)
