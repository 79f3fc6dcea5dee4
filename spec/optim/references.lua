--- Optimizers in double precision, written from their papers: what the kernels are held against.
--
--     local reference = references.new("lamb", {lr = 1e-3}, {3, 5})
--     reference:step(p, g)               -- p, a flat table, moves
--
-- Weight decay that is coupled joins the gradient, decoupled shrinks the parameter by lr times it.
local M = {}

--- By rule: the options' defaults, and a function of (self, p, g, t) that moves p.
M.rules = {}

local function zeros(n)
  local x = {}
  for i = 1, n do x[i] = 0 end
  return x
end

local function norm(x)
  local sum = 0
  for i = 1, #x do sum = sum + x[i] * x[i] end
  return math.sqrt(sum)
end

local function sign(x) return x > 0 and 1 or x < 0 and -1 or 0 end

-- Moving averages m = beta m + (1 - beta) f(x), made where they are first asked for.
local function average(self, name, beta, x, f)
  local m = self[name] or zeros(#x)
  self[name] = m
  for i = 1, #x do m[i] = beta * m[i] + (1 - beta) * (f and f(x[i]) or x[i]) end
  return m
end

local function square(x) return x * x end

-- ---- rules for any tensor ----------------------------------------------------------------------

-- You et al. 2020, algorithm 2, with phi the identity.
M.rules.lamb = {
  {lr = 1e-3, betas = {0.9, 0.999}, eps = 1e-6, weight_decay = 0.01, own_decay = true},
  function(self, p, g, t)
    local o, direction = self.options, {}
    local m, v = average(self, "m", o.betas[1], g), average(self, "v", o.betas[2], g, square)
    for i = 1, #p do
      local m_hat, v_hat = m[i] / (1 - o.betas[1] ^ t), v[i] / (1 - o.betas[2] ^ t)
      direction[i] = m_hat / (math.sqrt(v_hat) + o.eps) + o.weight_decay * p[i]
    end
    local a, b = norm(p), norm(direction)
    local trust = a > 0 and b > 0 and a / b or 1
    for i = 1, #p do p[i] = p[i] - o.lr * trust * direction[i] end
  end,
}

-- You, Gitman and Ginsburg 2017, algorithm 1.
M.rules.lars = {
  {lr = 1, momentum = 0.9, trust = 1e-3, eps = 1e-8, weight_decay = 0, own_decay = true},
  function(self, p, g)
    local o = self.options
    local a, b = norm(p), norm(g)
    local ratio = a > 0 and b > 0 and o.trust * a / (b + o.weight_decay * a + o.eps) or 1
    self.m = self.m or zeros(#p)
    for i = 1, #p do
      self.m[i] = o.momentum * self.m[i] + o.lr * ratio * (g[i] + o.weight_decay * p[i])
      p[i] = p[i] - self.m[i]
    end
  end,
}

-- Chen et al. 2023, program 1.
M.rules.lion = {
  {lr = 1e-4, betas = {0.9, 0.99}, weight_decay = 0, decoupled = true},
  function(self, p, g)
    local o = self.options
    self.m = self.m or zeros(#p)
    for i = 1, #p do
      p[i] = p[i] - o.lr * sign(o.betas[1] * self.m[i] + (1 - o.betas[1]) * g[i])
    end
    average(self, "m", o.betas[2], g)
  end,
}

-- Pagliardini, Ablin and Grangier 2025, algorithm 1 and the schedulers of its section 3.
M.rules.ademamix = {
  {lr = 1e-3, betas = {0.9, 0.999, 0.9999}, alpha = 5, warmup = 0, eps = 1e-8,
    weight_decay = 0.01, decoupled = true},
  function(self, p, g, t)
    local o = self.options
    local beta1, beta2, beta3, alpha = o.betas[1], o.betas[2], o.betas[3], o.alpha
    if o.warmup > 0 then
      local share, a, b = t / o.warmup, math.log(beta1), math.log(beta3)
      alpha = math.min(share * alpha, alpha)
      beta3 = math.min(share < 1 and math.exp(a * b / ((1 - share) * b + share * a)) or 1, beta3)
    end
    local fast, v = average(self, "m", beta1, g), average(self, "v", beta2, g, square)
    local slow = average(self, "slow", beta3, g)
    for i = 1, #p do
      local v_hat = v[i] / (1 - beta2 ^ t)
      p[i] = p[i] - o.lr * (fast[i] / (1 - beta1 ^ t) + alpha * slow[i])
        / (math.sqrt(v_hat) + o.eps)
    end
  end,
}

-- ---- rules for matrices ------------------------------------------------------------------------

-- c[n x m] = a[n x k] b[k x m], flat tables.
local function product(a, b, n, k, m)
  local c = {}
  for i = 0, n - 1 do
    for j = 0, m - 1 do
      local sum = 0
      for l = 0, k - 1 do sum = sum + a[i * k + l + 1] * b[l * m + j + 1] end
      c[i * m + j + 1] = sum
    end
  end
  return c
end

local function transposed(a, n, m)
  local b = {}
  for i = 0, n - 1 do
    for j = 0, m - 1 do b[j * n + i + 1] = a[i * m + j + 1] end
  end
  return b
end

local function sum_of(...)
  local y = {}
  for i = 1, #(select(2, ...)) do
    y[i] = 0
    for k = 1, select("#", ...), 2 do y[i] = y[i] + select(k, ...) * select(k + 1, ...)[i] end
  end
  return y
end

-- Jordan's Newton and Schulz: X = a X + b (X X') X + c (X X')^2 X, of what is not taller than wide.
local function orthogonal(x, n, m, steps)
  if n > m then return transposed(orthogonal(transposed(x, n, m), m, n, steps), m, n) end
  x = sum_of(1 / (norm(x) + 1e-7), x)
  for _ = 1, steps do
    local gram = product(x, transposed(x, n, m), n, m, n)
    local once = product(gram, x, n, n, m)
    x = sum_of(3.4445, x, -4.7750, once, 2.0315, product(gram, once, n, n, m))
  end
  return x
end

-- Rows, and the columns behind them as one.
local function sides(self)
  local rows = self.shape[1]
  return rows, self.size / rows
end

-- Jordan et al. 2024; the length of a step by match_rms: Liu et al. 2025, equation 4.
M.rules.muon = {
  {lr = 1e-3, momentum = 0.95, nesterov = true, ns_steps = 5, match_rms = false,
    weight_decay = 0.1, decoupled = true},
  function(self, p, g)
    local o, n, m = self.options, sides(self)
    local ahead = average(self, "m", o.momentum, g)
    if o.nesterov then ahead = sum_of(o.momentum, ahead, 1 - o.momentum, g) end
    local direction = orthogonal(ahead, n, m, o.ns_steps)
    local length = o.match_rms and 0.2 * math.sqrt(math.max(n, m)) or math.sqrt(math.max(1, n / m))
    for i = 1, #p do p[i] = p[i] - o.lr * length * direction[i] end
  end,
}

-- Shazeer and Stern 2018, algorithms 4 (matrices) and 5 (vectors), with momentum of the updates
-- where beta1 is not 0, and the relative step of section 8 where that is below lr.
M.rules.adafactor = {
  {lr = 1e-2, beta1 = 0, beta2_decay = 0.8, eps1 = 1e-30, eps2 = 1e-3, clip_threshold = 1,
    weight_decay = 0, decoupled = true},
  function(self, p, g, t)
    local o, n, m = self.options, sides(self)
    local rest, v = t ^ -o.beta2_decay, {}
    local squares = {}
    for i = 1, #g do squares[i] = g[i] * g[i] + o.eps1 end
    if n > 1 and m > 1 then
      local rows, columns = zeros(n), zeros(m)
      for i = 0, #g - 1 do
        local r, c = math.floor(i / m) + 1, i % m + 1
        rows[r], columns[c] = rows[r] + squares[i + 1], columns[c] + squares[i + 1]
      end
      local row, column = average(self, "row", 1 - rest, rows), average(self, "column", 1 - rest,
        columns)
      local total = 0
      for r = 1, n do total = total + row[r] end
      for i = 0, #g - 1 do v[i + 1] = row[math.floor(i / m) + 1] * column[i % m + 1] / total end
    else
      v = average(self, "row", 1 - rest, squares)
    end
    local u = {}
    for i = 1, #g do u[i] = g[i] / math.sqrt(v[i]) end
    local clip = math.max(1, norm(u) / math.sqrt(#u) / o.clip_threshold)
    local alpha = math.min(o.lr, 1 / math.sqrt(t))
      * math.max(o.eps2, self.rms_before)
    for i = 1, #u do u[i] = u[i] / clip end
    local direction = o.beta1 > 0 and average(self, "m", o.beta1, u) or u
    for i = 1, #p do p[i] = p[i] - alpha * direction[i] end
  end,
}

-- ---- a run -------------------------------------------------------------------------------------

local Reference = {}
Reference.__index = Reference

--- @tparam string rule
-- @tparam table options as the optimizer's; what is left out is the rule's default
-- @tparam {number,...} shape of the parameter
function M.new(rule, options, shape)
  local self = {options = {}, shape = shape, size = 1, steps = 0, move = M.rules[rule][2]}
  for _, n in ipairs(shape) do self.size = self.size * n end
  for name, value in pairs(M.rules[rule][1]) do self.options[name] = value end
  for name, value in pairs(options) do self.options[name] = value end
  return setmetatable(self, Reference)
end

--- One step.
-- @tparam {number,...} p changed in place
-- @tparam {number,...} gradient
-- @tparam[opt] table how grad_scale, then clip_value
function Reference:step(p, gradient, how)
  local o, g = self.options, {}
  local limit, scale = how and how.clip_value or math.huge, how and how.grad_scale or 1
  self.steps = self.steps + 1
  self.rms_before = norm(p) / math.sqrt(#p)
  for i = 1, #p do
    g[i] = math.max(-limit, math.min(limit, gradient[i] * scale))
    if not o.own_decay and not o.decoupled then g[i] = g[i] + o.weight_decay * p[i] end
    if o.decoupled then p[i] = p[i] * (1 - o.lr * o.weight_decay) end
  end
  self:move(p, g, self.steps)
end

return M
