--- Tensors as text: what `print` shows of one.
-- @module octet.tensor_text
local M = {}

-- Of a tensor of more elements than this, the first and the last EDGE places of each dimension.
local WHOLE, EDGE = 1000, 3

--- Type and shape in one line: "tensor f32 [2 x 3]", " on cuda" where it lies there.
-- @tparam tensor t
-- @treturn string
function M.title(t)
  if t:is_released() then return "tensor (released)" end
  local device = t:device()
  return ("tensor %s [%s]%s"):format(t:dtype(), table.concat(t:shape(), " x "),
    device == "cpu" and "" or " on " .. device)
end

--- The places of a dimension that are shown, 0-based, and false where some are left out.
local function places_of(size, all)
  local places = {}
  for i = 0, size - 1 do
    if all or size <= 2 * EDGE or i < EDGE or i >= size - EDGE then
      places[#places + 1] = i
    elseif i == EDGE then
      places[#places + 1] = false
    end
  end
  return places
end

--- How the values are written: whole numbers as such, others with four digits behind the point, and
-- with an exponent where the largest would be too long, or lost.
local function format_of(values, dtype)
  if dtype == "i32" or dtype == "u8" then return "%d" end
  local whole, largest = true, 0
  for _, x in ipairs(values) do
    local size = math.abs(x)
    if size < math.huge then
      whole = whole and x == math.floor(x)
      largest = math.max(largest, size)
    end
  end
  if whole and largest < 1e7 then return "%d" end
  return (largest >= 1e5 or largest < 0.01) and "%.4e" or "%.4f"
end

--- A tensor with its values, a row of the last dimension on a line. Large ones are shown by their
-- edges.
-- @tparam tensor t
-- @treturn string
function M.show(t)
  local title = M.title(t)
  if t:is_released() then return title end
  local shape, size = t:shape(), t:size()
  local at, all = t:reader(), size <= WHOLE
  local width_of_row = shape[#shape] or 1
  local columns = places_of(width_of_row, all)
  local rows, values = {}, {}
  -- Collect the rows below a place of the first dimensions.
  local function walk(dim, first)
    if dim >= #shape then
      local row = {}
      for i, place in ipairs(columns) do
        row[i] = place and at(first * width_of_row + place)
        if place then values[#values + 1] = row[i] end
      end
      rows[#rows + 1] = row
      return
    end
    for i, place in ipairs(places_of(shape[dim], all)) do
      if dim < #shape - 1 and i > 1 then rows[#rows + 1] = {} end
      if place then
        walk(dim + 1, first * shape[dim] + place)
      else
        rows[#rows + 1] = {false}
      end
    end
  end
  walk(1, 0)
  local form, width = format_of(values, t:dtype()), 0
  local function written(x)
    if x == false then return "..." end
    if x ~= x or math.abs(x) == math.huge then return tostring(x) end
    return form:format(x)
  end
  for _, row in ipairs(rows) do
    for i = 1, #row do
      row[i] = written(row[i])
      width = math.max(width, #row[i])
    end
  end
  if #shape == 0 then return title .. " " .. rows[1][1] end
  local lines = {title}
  for _, row in ipairs(rows) do
    for i = 1, #row do row[i] = (" "):rep(width - #row[i]) .. row[i] end
    lines[#lines + 1] = (#row > 0 and "  " or "") .. table.concat(row, "  ")
  end
  return table.concat(lines, "\n")
end

return M
