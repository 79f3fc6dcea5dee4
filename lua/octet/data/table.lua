--- Chosen columns of a TSV or CSV file.
-- @module octet.data.table
local ffi = require "ffi"
local binding = require "octet.binding"

local C, check = binding.C, binding.check_input
local M = {}

local Table = {}
Table.__index = Table

local FORMATS = {tsv = C.OCT_TABLE_TSV, csv = C.OCT_TABLE_CSV}
local ENCODINGS = {utf8 = C.OCT_ENCODING_UTF8, ["windows-1252"] = C.OCT_ENCODING_WINDOWS_1252}

--- Read a table.
-- @tparam string path
-- @tparam table options
--   `columns`: a list of the header's names, or, for a file without a header, of
--   `{name = place}` pairs, as in `{sentence = 4, label = 2}`;
--   `header`: whether the first line names the columns;
--   `format`: "tsv" (quotes are plain characters; the default) or "csv";
--   `encoding`: "utf8" (the default) or "windows-1252" (for lines that are not UTF-8)
-- @treturn Table
function M.read(path, options)
  local format = FORMATS[options.format or "tsv"]
  local encoding = ENCODINGS[options.encoding or "utf8"]
  if not format then error("table: unknown format: " .. tostring(options.format), 2) end
  if not encoding then error("table: unknown encoding: " .. tostring(options.encoding), 2) end
  local asked, places = {}, {}
  if options.header then
    for i, name in ipairs(options.columns) do
      asked[i], places[name] = name, i - 1
    end
  else
    for name, place in pairs(options.columns) do
      asked[#asked + 1] = tostring(place)
      places[name] = #asked - 1
    end
  end
  local result, rows = ffi.new "oct_table *[1]", ffi.new "int64_t[1]"
  check(C.oct_table_read(result, path, format, options.header and 1 or 0, encoding,
    table.concat(asked, "\t")))
  check(C.oct_table_rows(rows, result[0]))
  return setmetatable({
    handle = ffi.gc(result[0], C.oct_table_free), path = path, places = places,
    --- Number of rows.
    rows = tonumber(rows[0]),
  }, Table)
end

--- The core's table, for those who hand it to the core.
function Table:open()
  return self.handle or error(self.path .. ": the table is closed", 2)
end

--- The core's number of a column, from 0.
function Table:column(name)
  return self.places[name]
    or error(("%s: column %s was not read"):format(self.path, tostring(name)), 2)
end

local text, bytes, line = ffi.new "const char *[1]", ffi.new "int64_t[1]", ffi.new "int64_t[1]"

--- One cell.
-- @tparam number row from 1
-- @tparam string name the column's
-- @treturn string
-- @treturn number the file's line on which the row begins
function Table:cell(row, name)
  check(C.oct_table_cell(text, bytes, line, self:open(), row - 1, self:column(name)))
  return ffi.string(text[0], tonumber(bytes[0])), tonumber(line[0])
end

--- A column of class labels as 0-based numbers.
-- @tparam string name the column's
-- @tparam table names the labels as the file writes them; the first is 0
-- @treturn cdata int32_t[rows]
function Table:labels(name, names)
  local labels = ffi.new("int32_t[?]", self.rows)
  check(C.oct_table_labels(labels, self:open(), self:column(name), table.concat(names, "\t")))
  return labels
end

--- A column of numbers.
-- @tparam string name the column's
-- @tparam number low
-- @tparam number high the bounds, both allowed
-- @treturn cdata float[rows]
function Table:numbers(name, low, high)
  local values = ffi.new("float[?]", self.rows)
  check(C.oct_table_numbers(values, self:open(), self:column(name), low, high))
  return values
end

--- Free the file's text now instead of when it is collected.
function Table:close()
  if self.handle then C.oct_table_free(ffi.gc(self.handle, nil)) end
  self.handle = nil
end

return M
