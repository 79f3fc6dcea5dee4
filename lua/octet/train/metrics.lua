--- Scores of predictions, by the field's names: accuracy, f1, weighted_f1, matthews, pearson,
-- spearman.
--
-- Predictions and labels are Lua arrays of equal length. A score that is undefined because one side
-- is constant is 0, as GLUE's own evaluation has it; `M.collapse` says so in words.
-- @module octet.train.metrics
local M = {}

local function check(predictions, labels, least)
  if #predictions ~= #labels then
    error(("metrics: %d predictions for %d labels"):format(#predictions, #labels), 3)
  end
  if #labels < (least or 1) then
    error(("metrics: %d examples are too few; at least %d are needed")
      :format(#labels, least or 1), 3)
  end
end

--- The part of the predictions that are right.
-- @tparam table predictions
-- @tparam table labels
-- @treturn number 0 to 1
function M.accuracy(predictions, labels)
  check(predictions, labels)
  local right = 0
  for i = 1, #labels do
    if predictions[i] == labels[i] then right = right + 1 end
  end
  return right / #labels
end

--- F1 of the class `positive`: the harmonic mean of precision and recall.
-- @tparam table predictions
-- @tparam table labels
-- @tparam[opt=1] number positive
-- @treturn number 0 to 1; 0 where the class is neither predicted nor there
function M.f1(predictions, labels, positive)
  check(predictions, labels)
  positive = positive or 1
  local both, predicted, actual = 0, 0, 0
  for i = 1, #labels do
    local p, a = predictions[i] == positive, labels[i] == positive
    if p then predicted = predicted + 1 end
    if a then actual = actual + 1 end
    if p and a then both = both + 1 end
  end
  if predicted + actual == 0 then return 0 end
  return 2 * both / (predicted + actual)
end

--- The mean of every class's F1, each with the weight of its share of the labels.
-- @tparam table predictions
-- @tparam table labels
-- @treturn number 0 to 1
function M.weighted_f1(predictions, labels)
  check(predictions, labels)
  local counts, mean = {}, 0
  for _, label in ipairs(labels) do counts[label] = (counts[label] or 0) + 1 end
  for class, count in pairs(counts) do
    mean = mean + count / #labels * M.f1(predictions, labels, class)
  end
  return mean
end

--- Matthews' correlation coefficient, for any number of classes (Gorodkin's R_K).
-- @tparam table predictions
-- @tparam table labels
-- @treturn number -1 to 1; 0 where either side is of a single class
function M.matthews(predictions, labels)
  check(predictions, labels)
  local n, right, predicted, actual = #labels, 0, {}, {}
  for i = 1, n do
    local p, a = predictions[i], labels[i]
    if p == a then right = right + 1 end
    predicted[p] = (predicted[p] or 0) + 1
    actual[a] = (actual[a] or 0) + 1
  end
  local product, squares_p, squares_a = 0, 0, 0
  for class, count in pairs(predicted) do
    product = product + count * (actual[class] or 0)
    squares_p = squares_p + count * count
  end
  for _, count in pairs(actual) do squares_a = squares_a + count * count end
  local spread = (n * n - squares_p) * (n * n - squares_a)
  if spread == 0 then return 0 end
  return (right * n - product) / math.sqrt(spread)
end

--- Pearson's correlation.
-- @tparam table x
-- @tparam table y
-- @treturn number -1 to 1; 0 where either side is constant
function M.pearson(x, y)
  check(x, y, 2)
  local n, mean_x, mean_y = #x, 0, 0
  for i = 1, n do
    mean_x, mean_y = mean_x + x[i] / n, mean_y + y[i] / n
  end
  local xy, xx, yy = 0, 0, 0
  for i = 1, n do
    local dx, dy = x[i] - mean_x, y[i] - mean_y
    xy, xx, yy = xy + dx * dy, xx + dx * dx, yy + dy * dy
  end
  -- Rounding leaves a constant side with a spread that is not quite 0.
  local tiny = 1e-13
  if xx <= n * (tiny * mean_x) ^ 2 or yy <= n * (tiny * mean_y) ^ 2 then return 0 end
  return math.max(-1, math.min(1, xy / math.sqrt(xx) / math.sqrt(yy)))
end

--- Ranks from 1 on; equal values share the mean of their ranks.
-- @tparam table x
-- @treturn table
function M.ranks(x)
  local order = {}
  for i = 1, #x do
    if x[i] ~= x[i] then error(("metrics: value %d is not a number"):format(i), 2) end
    order[i] = i
  end
  table.sort(order, function(a, b) return x[a] < x[b] end)
  local ranks, first = {}, 1
  while first <= #x do
    local last = first
    while last < #x and x[order[last + 1]] == x[order[first]] do last = last + 1 end
    for i = first, last do ranks[order[i]] = (first + last) / 2 end
    first = last + 1
  end
  return ranks
end

--- Spearman's rank correlation.
-- @tparam table x
-- @tparam table y
-- @treturn number -1 to 1; 0 where either side is constant
function M.spearman(x, y)
  check(x, y, 2)
  return M.pearson(M.ranks(x), M.ranks(y))
end

--- Several scores at once.
-- @tparam table names such as {"accuracy", "f1"}
-- @tparam table predictions
-- @tparam table labels
-- @treturn table the scores by name
function M.scores(names, predictions, labels)
  local scores = {}
  for _, name in ipairs(names) do scores[name] = M[name](predictions, labels) end
  return scores
end

--- The middle value; of an even number, the mean of the two in the middle.
-- @tparam table values at least one
-- @treturn number
function M.median(values)
  local sorted = {}
  for i, v in ipairs(values) do sorted[i] = v end
  table.sort(sorted)
  local middle = (#sorted + 1) / 2
  return (sorted[math.floor(middle)] + sorted[math.ceil(middle)]) / 2
end

--- What is wrong with predictions that do not depend on the input.
-- @tparam table predictions
-- @tparam[opt] {string,...} names of the classes, the first that of class 0; none for a regression
-- @treturn ?string a sentence, or nil where they differ
function M.collapse(predictions, names)
  for i = 2, #predictions do
    if predictions[i] ~= predictions[1] then return nil end
  end
  if #predictions < 2 then return nil end
  if not names then
    return ("every one of the %d predictions is %.4g: the model says the same whatever it reads")
      :format(#predictions, predictions[1])
  end
  return ('every one of the %d predictions is "%s": the model has fallen back on a single class')
    :format(#predictions, tostring(names[predictions[1] + 1] or predictions[1]))
end

return M
