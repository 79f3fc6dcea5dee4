--- One labelled set in two: to train on, and to measure by.
-- @module octet.data.split
local binding = require "octet.binding"
local ffi = require "ffi"

local C, check = binding.C, binding.check
local M = {}

--- A split that keeps the classes' shares and depends on nothing but the labels.
-- @tparam cdata labels int32_t[rows]; rows with a label below 0 belong to neither side
-- @tparam number rows
-- @tparam {string,...} names of the classes
-- @tparam number part of each class that is held back, rounded, one example at the least
-- @treturn table `train` and `dev`: `selection` (int32_t[rows], ascending) and `rows`
function M.stratified(labels, rows, names, part)
  local permutation = ffi.new("int32_t[?]", math.max(rows, 1))
  check(C.oct_permutation(permutation, rows, 0, 0))
  local wanted, counts = {}, {}
  for class = 0, #names - 1 do counts[class] = 0 end
  for i = 0, rows - 1 do
    if labels[i] >= 0 then counts[labels[i]] = counts[labels[i]] + 1 end
  end
  for class = 0, #names - 1 do
    if counts[class] < 2 then
      error(("class \"%s\" has %d example%s, expected 2 or more: one to train on, one to test on")
        :format(names[class + 1], counts[class], counts[class] == 1 and "" or "s"), 0)
    end
    wanted[class] = math.min(counts[class] - 1, math.max(1, math.floor(counts[class] * part + 0.5)))
  end
  local is_dev = ffi.new("uint8_t[?]", rows)
  for i = 0, rows - 1 do
    local row = permutation[i]
    local class = labels[row]
    if class >= 0 and wanted[class] > 0 then
      wanted[class], is_dev[row] = wanted[class] - 1, 1
    end
  end
  local sides = {}
  for name, side in pairs {train = 0, dev = 1} do
    local selection, count = ffi.new("int32_t[?]", rows), 0
    for i = 0, rows - 1 do
      if labels[i] >= 0 and is_dev[i] == side then
        selection[count] = i
        count = count + 1
      end
    end
    sides[name] = {selection = selection, rows = count}
  end
  return sides
end

return M
