--- A user's own texts with labels: two columns of a CSV or TSV file with a header.
-- @module octet.data.own_table
local ffi = require "ffi"
local file = require "octet.file"
local tables = require "octet.data.table"
local words = require "octet.data.words"

local M = {}

M.READING = {words_of = words.words_and_marks}

--- Read and encode them. The classes are the labels that the file holds, sorted.
-- @tparam table options `data`: the file; `text_column` and `label_column`: names in its header
-- @treturn table as of octet.data.words.load
function M.load(options)
  local path = options.data
  if not file.is_file(path) then error(("--data: there is no file %s"):format(path), 0) end
  local rows = tables.read(path, {format = path:lower():find "%.tsv$" and "tsv" or "csv",
    header = true, columns = {options.text_column, options.label_column}})
  local class_of, names = {}, {}
  for row = 1, rows.rows do
    local label, line = rows:cell(row, options.label_column)
    if label == "" then error(("%s line %d: the label is empty"):format(path, line), 0) end
    if not class_of[label] then class_of[label], names[#names + 1] = 0, label end
  end
  if #names < 2 or #names > 1000 then
    error(("%s: column %s holds %d different label%s, expected 2 to 1000"):format(path,
      options.label_column, #names, #names == 1 and "" or "s"), 0)
  end
  table.sort(names)
  for i, name in ipairs(names) do class_of[name] = i - 1 end
  local labels = ffi.new("int32_t[?]", rows.rows)
  for row = 1, rows.rows do labels[row - 1] = class_of[rows:cell(row, options.label_column)] end
  return words.load {
    task = {name = "file", title = path:match "[^/]*$", classes = #names,
      metrics = {"accuracy", #names == 2 and "f1" or nil}, label_names = names},
    folder = path, rows = rows.rows,
    text_of = function(row) return (rows:cell(row, options.text_column)) end,
    reading = M.READING, labels = labels, names = names, dev = 0.25, least = 2,
  }
end

return M
