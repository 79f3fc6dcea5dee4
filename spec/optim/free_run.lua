--- Optimizers side by side, each on its own from the same start with the same gradients: how long
-- their steps are, and where they arrive.
local ffi = require "ffi"
local gradients = require "spec.optim.gradients"
local machine = require "octet.machine"
local optim = require "octet.optim"
local tensor = require "octet.tensor"

local M = {}

-- One optimizer over `count` parameters of n elements, and what has been seen of it.
local function entrant(rule, options, start, count, n)
  local of = {old = ffi.new("float[?]", count * n), length = {}, most = {}, late = {}}
  local parameters, side = {}, math.floor(math.sqrt(n))
  of.p, of.g, of.tensors, of.grads = {}, {}, parameters, {}
  for k = 1, count do
    parameters[k] = tensor.new {side, n / side}
    ffi.copy(parameters[k]:data(), start + (k - 1) * n, 4 * n)
    parameters[k]:parameter_()
    gradients.set(parameters[k], tensor.zeros {side, n / side})
    of.grads[k] = parameters[k]:grad():keep()
    of.p[k], of.g[k] = parameters[k]:data(), of.grads[k]:data()
    of.length[k], of.most[k], of.late[k] = 0, 0, 0
  end
  local all = {min_8bit_size = 0}
  for name, value in pairs(options) do all[name] = value end
  of.opt = optim[rule](parameters, all)
  return of
end

-- The step just made: mean and largest |change|, in units of each coordinate.
local function measure(p, old, unit, n)
  local sum, most = 0, 0
  for i = 0, n - 1 do
    local d = math.abs(p[i] - old[i]) * unit[i]
    sum = sum + d
    if d > most then most = d end
  end
  return sum / n, most
end

local function cosine(a, b, start, unit, n)
  local dot, aa, bb = 0, 0, 0
  for i = 0, n - 1 do
    local x, y = (a[i] - start[i]) * unit[i], (b[i] - start[i]) * unit[i]
    dot, aa, bb = dot + x * y, aa + x * x, bb + y * y
  end
  return dot / math.sqrt(aa * bb)
end

local function fill_scaled(g, noise, scale, n)
  for i = 0, n - 1 do g[i] = noise[i] * scale[i] end
end

--- Gradients are normal numbers, with a mean of a tenth of their deviation, times a scale of each
-- coordinate; the scales are spread evenly, by their logarithm, over so many decades.
-- @tparam table o `entrants`: {{rule, options}, ...}, the first of which the others are held
-- against; `decades`: a list, each a parameter of 4,096 elements; `steps`; `by_scale`: changes are
-- measured in units of the coordinate's scale, as those of a rule are that does not divide by it
-- @treturn {table,...} of each entrant but the first, by place in `decades`: `length`, the mean
-- change a step over the first one's; `most`, the largest change over the first one's; `late`, the
-- same in the second half; `cosine`, between the two displacements
function M.run(o)
  local n, count = o.n or 4096, #o.decades
  machine.seed(1)
  local draw = gradients.draws(2)
  local scale, unit = ffi.new("float[?]", count * n), ffi.new("float[?]", count * n)
  for k, decades in ipairs(o.decades) do
    for i = (k - 1) * n, k * n - 1 do
      scale[i] = 10 ^ (-decades * (draw() + 0.5))
      unit[i] = o.by_scale and 1 / scale[i] or 1
    end
  end
  local first = tensor.new({count * n}):normal_(0, o.start or 0.1):keep()
  local start = first:data()
  local entrants = {}
  for i, e in ipairs(o.entrants) do entrants[i] = entrant(e[1], e[2], start, count, n) end
  local noise_tensor = tensor.new({count * n}):keep()
  local noise = noise_tensor:data()
  for t = 1, o.steps do
    noise_tensor:normal_(0.1, 1)
    for _, e in ipairs(entrants) do
      for k = 1, count do
        fill_scaled(e.g[k], noise + (k - 1) * n, scale + (k - 1) * n, n)
        ffi.copy(e.old + (k - 1) * n, e.p[k], 4 * n)
      end
      e.opt:step()
      for k = 1, count do
        local at = (k - 1) * n
        local mean, most = measure(e.p[k], e.old + at, unit + at, n)
        e.length[k] = e.length[k] + mean
        if most > e.most[k] then e.most[k] = most end
        if 2 * t > o.steps and most > e.late[k] then e.late[k] = most end
      end
    end
  end
  local whole, results = entrants[1], {}
  for i = 2, #entrants do
    local e = entrants[i]
    results[i - 1] = {}
    for k = 1, count do
      local at = (k - 1) * n
      results[i - 1][k] = {
        length = e.length[k] / whole.length[k], most = e.most[k] / whole.most[k],
        late = e.late[k] / whole.late[k],
        cosine = cosine(e.p[k], whole.p[k], start + at, unit + at, n),
      }
    end
  end
  for _, e in ipairs(entrants) do e.opt:release() end
  return results, entrants
end

return M
