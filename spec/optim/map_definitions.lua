--- The values of the built-in quantization maps in double precision, from their definitions: by
-- name a function of (levels, sign), which gives a list, ascending, or nil where there is no such
-- map.
local M = {}

--- 0, positive values, and in a signed map their negatives but for the largest.
function M.both_sides(side, sign)
  local values = {0}
  for k, x in ipairs(side) do
    values[#values + 1] = x
    if sign == "signed" and k < #side then values[#values + 1] = -x end
  end
  table.sort(values)
  return values
end

-- The midpoints of n equal bins of [0.1, 1], times 10^power.
local function add_bins(list, n, power)
  for k = 0, n - 1 do
    local low, high = 0.1 + 0.9 * k / n, 0.1 + 0.9 * (k + 1) / n
    list[#list + 1] = (low + high) / 2 * 10 ^ power
  end
end

-- Decades below 1: with 256 levels seven, with 16 three.
local function tree(levels, sign, bins_of)
  local decades, side = levels == 256 and 7 or 3, {1}
  for i = 0, decades - 1 do
    add_bins(side, bins_of(i, decades) * (sign == "signed" and 1 or 2), i - decades + 1)
  end
  table.sort(side)
  return M.both_sides(side, sign)
end

-- Dettmers et al. 2022, dynamic tree quantization, as their code makes it.
function M.dynamic(levels, sign)
  return tree(levels, sign, function(i) return 2 ^ i end)
end

-- The same with most values in the lowest decade.
function M.inverse_dynamic(levels, sign)
  return tree(levels, sign, function(i, decades) return 2 ^ (decades - 1 - i) end)
end

local function positives(levels, sign) return sign == "signed" and levels / 2 or levels - 1 end

function M.linear(levels, sign)
  local side, n = {}, positives(levels, sign)
  for k = 1, n do side[k] = k / n end
  return M.both_sides(side, sign)
end

-- An unsigned map begins a step above 0.
function M.linear_nonzero(levels, sign)
  if sign == "signed" then return M.linear(levels, sign) end
  local values = {}
  for k = 1, levels do values[k] = k / levels end
  return values
end

function M.quadratic(levels, sign)
  local side, n = {}, positives(levels, sign)
  for k = 1, n do side[k] = (k / n) ^ 2 end
  return M.both_sides(side, sign)
end

-- Equal ratios over seven decades, with 16 levels over one; an unsigned map of 16 has no 0.
function M.geometric(levels, sign)
  local few = levels == 16
  local side, n = {}, positives(levels, sign) + (few and sign == "unsigned" and 1 or 0)
  for k = 1, n do side[k] = 10 ^ ((few and 1 or 7) * (k - n) / (n - 1)) end
  return few and sign == "unsigned" and side or M.both_sides(side, sign)
end

-- The standard normal's distribution function by Marsaglia's series, 2004.
local function phi(x)
  local term, sum, k = x, x, 1
  while sum + term ~= sum do
    k = k + 2
    term = term * x * x / k
    sum = sum + term
  end
  return 0.5 + sum * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
end

-- By Newton's method.
local function normal_quantile(p)
  local x = 0
  for _ = 1, 60 do
    x = x - (phi(x) - p) * math.sqrt(2 * math.pi) * math.exp(x * x / 2)
  end
  return x
end

-- n equal shares of the distribution above 0, half a share of it standing for 0 itself: a value is
-- the midpoint of its share's two quantiles (Dettmers et al. 2022, equation 5), the largest is 1.
function M.quantile(levels, sign)
  local side, n = {}, positives(levels, sign)
  local share = 0.5 / (n + 1)
  for k = 1, n do
    side[k] = (normal_quantile(0.5 + (k - 0.5) * share)
      + normal_quantile(0.5 + (k + 0.5) * share)) / 2
  end
  for k = 1, n do side[k] = side[k] / side[n] end
  return M.both_sides(side, sign)
end

-- OCP 8-bit Floating Point Specification (2023): every pattern of the positive side, decoded; the
-- largest finite one is 1, and stands for what is left of the levels.
local function fp8(levels, sign, exponent_bits, largest)
  if levels ~= 256 then return nil end
  local fraction, bias, side = 2 ^ (7 - exponent_bits), 2 ^ (exponent_bits - 1) - 1, {}
  for pattern = 1, 127 do
    local e, f = math.floor(pattern / fraction), pattern % fraction
    local x = e == 0 and f / fraction * 2 ^ (1 - bias) or (1 + f / fraction) * 2 ^ (e - bias)
    if x <= largest then side[#side + 1] = x / largest end
  end
  while #side < positives(levels, sign) do side[#side + 1] = 1 end
  return M.both_sides(side, sign)
end

function M.fp8_e4m3(levels, sign) return fp8(levels, sign, 4, 448) end
function M.fp8_e5m2(levels, sign) return fp8(levels, sign, 5, 57344) end

-- bitsandbytes 0.36.0 to 0.41.0, functional.create_dynamic_map: without a sign, one bit more went
-- into the bins and two bins of each decade were added, 524 values in all. The kernels read 256.
M["bnb-0.36"] = function(levels, sign)
  if levels ~= 256 then return nil end
  if sign == "signed" then return M.dynamic(levels, sign) end
  local list = {0, 1}
  for i = 0, 6 do
    add_bins(list, 2 ^ (i + 2), i - 6)
    add_bins(list, 2, i - 6)
  end
  assert(#list == 524)
  table.sort(list)
  return {unpack(list, 1, 256)}
end

return M
