local ffi = require "ffi"
local scratch = require "spec.scratch"
local sweep = require "spec.sweep"
local tables = require "octet.data.table"

local function read(text, options)
  return tables.read(scratch.file(text, "data.tsv"), options)
end

local function column(rows, name)
  local cells = {}
  for i = 1, rows.rows do cells[i] = rows:cell(i, name) end
  return cells
end

local function refused(pattern, f, ...)
  local ok, why = pcall(f, ...)
  assert.is_false(ok)
  assert.is_nil(tostring(why):find "\n")
  assert.matches(pattern, why)
end

local HEADER = {header = true, columns = {"text", "label"}}
local BARE = {header = false, columns = {text = 2, label = 1}}

describe("a table", function()
  after_each(scratch.clean)

  describe("of TAB-separated values", function()
    it("finds its columns by the header's names, in any order", function()
      local rows = read("id\tlabel\ttext\n7\t1\tone\n8\t0\ttwo\n", HEADER)
      assert.same({"one", "two"}, column(rows, "text"))
      assert.same({"1", "0"}, column(rows, "label"))
    end)

    it("finds its columns by place where there is no header", function()
      local rows = read("1\tone\n0\ttwo\n", BARE)
      assert.same({"one", "two"}, column(rows, "text"))
      assert.same({"1", "0"}, column(rows, "label"))
    end)

    it("takes quotes as plain characters", function()
      local rows = read('1\t"one\n0\ttw"o "" \'\n', BARE)
      assert.same({'"one', 'tw"o "" \''}, column(rows, "text"))
    end)

    it("takes CR LF, a byte order mark, empty lines and a missing last newline", function()
      local rows = read("\239\187\191label\ttext\r\n\r\n1\tone\r\n\n0\ttwo", HEADER)
      assert.same({"one", "two"}, column(rows, "text"))
      local _, line = rows:cell(2, "text")
      assert.equal(5, line)
    end)

    it("keeps a CR within a line, empty cells and columns beyond those asked for", function()
      local rows = read("1\ta\rb\tx\ty\n\t\tx\n", BARE)
      assert.same({"a\rb", ""}, column(rows, "text"))
      assert.same({"1", ""}, column(rows, "label"))
    end)

    it("gives the lines of its rows", function()
      local rows = read("label\ttext\n1\tone\n0\ttwo\n", HEADER)
      assert.same({"two", 3}, {rows:cell(2, "text")})
    end)
  end)

  describe("of comma-separated values", function()
    local CSV = {format = "csv", header = true, columns = {"type", "text"}}

    it("undoes quotes, with commas, newlines and doubled quotes inside", function()
      local rows = read('"type","text"\r\n"ham","one, ""two""\nthree"\nspam,four\n', CSV)
      assert.same({'one, "two"\nthree', "four"}, column(rows, "text"))
      assert.same({"ham", "spam"}, column(rows, "type"))
      local _, line = rows:cell(2, "text")
      assert.equal(4, line)
    end)

    it("takes a quote within a plain cell as it is", function()
      assert.same({'tw"o'}, column(read('type,text\nham,tw"o\n', CSV), "text"))
    end)

    it("refuses a quote that is never closed, and names the line that opens it", function()
      refused("data.tsv line 3: a quote is opened and never closed", read,
        'type,text\nham,one\nspam,"two\nham,three\n', CSV)
    end)

    it("refuses text behind a closing quote", function()
      refused("data.tsv line 2: text behind a closing quote", read, 'type,text\nham,"one"x\n', CSV)
    end)
  end)

  describe("in Windows-1252", function()
    local WINDOWS = {header = false, columns = {text = 2, label = 1}, encoding = "windows-1252"}

    it("decodes the lines that are not UTF-8 and leaves the others", function()
      local rows = read("1\tcaf\233 \147x\148 \128\n0\tcafé\n", WINDOWS)
      assert.same({"café “x” €", "café"}, column(rows, "text"))
    end)

    it("refuses a byte that is no character in either", function()
      refused("data.tsv line 2: neither UTF%-8 nor Windows%-1252 %(byte 0x81%)", read,
        "1\ta\n0\tb\129\n", WINDOWS)
    end)
  end)

  describe("of labels", function()
    it("numbers them by their place among the names", function()
      local rows = read("yes\ta\nno\tb\n", BARE)
      local labels = rows:labels("label", {"no", "yes"})
      assert.same({1, 0}, {labels[0], labels[1]})
    end)

    it("refuses one out of range: value, file, line and range", function()
      refused('data.tsv line 3: label "2", expected 0 to 1$', function()
        read("label\ttext\n1\ta\n2\tb\n", HEADER):labels("label", {"0", "1"})
      end)
      refused('data.tsv line 1: label "%-1", expected 0 to 2$', function()
        read("-1\ta\n", BARE):labels("label", {"0", "1", "2"})
      end)
    end)

    it("refuses one that is none of the names", function()
      refused('line 1: label "maybe", expected entailment, neutral, contradiction$', function()
        read("maybe\ta\n", BARE):labels("label", {"entailment", "neutral", "contradiction"})
      end)
    end)

    it("cuts a long one short in the message", function()
      refused('line 1: label "' .. ("x"):rep(40) .. '%.%.%.", expected', function()
        read(("x"):rep(5000) .. "\ta\n", BARE):labels("label", {"0", "1"})
      end)
    end)

    it("reads scores, whatever the locale, and refuses what is none", function()
      ffi.cdef "char *setlocale(int, const char *);"
      finally(function() ffi.C.setlocale(6, "C") end)
      ffi.C.setlocale(6, "de_DE.UTF-8")
      local scores = read("2.75\ta\n5\tb\n1e-1\tc\n", BARE):numbers("label", 0, 5)
      assert.same({2.75, 5}, {scores[0], scores[1]})
      assert.is_true(math.abs(scores[2] - 0.1) < 1e-7)
      for _, bad in ipairs {"5.1", "-0.1", "x", "", "nan", "inf", "0x1", "1,5", "1 ", "1e",
        ("1"):rep(100)} do
        refused('data.tsv line 1: label ".*", expected a number from 0 to 5$', function()
          read(bad .. "\ta\n", BARE):numbers("label", 0, 5)
        end)
      end
    end)
  end)

  describe("is refused, in one line,", function()
    it("where a line has too few columns", function()
      refused("data.tsv line 3: 1 column, expected at least 2", read,
        "label\ttext\n1\ta\n2\n", HEADER)
      refused("data.tsv line 1: 2 columns, expected at least 4", read, "a\tb\n",
        {header = false, columns = {text = 4}})
    end)
    it("where bytes are not UTF-8", function()
      refused("data.tsv line 2: not UTF%-8 %(byte 0xe9%)", read, "1\ta\n0\tcaf\233\n", BARE)
    end)
    it("where the header lacks a column", function()
      refused('data.tsv line 1: no column "label"; the header has: index, text', read,
        "index\ttext\n1\ta\n", HEADER)
    end)
    it("where the header names a column twice", function()
      refused('data.tsv line 1: two columns are named "text"', read,
        "text\tlabel\ttext\n1\ta\n", HEADER)
    end)
    it("where it is empty", function()
      refused("data.tsv: empty, expected a header", read, "", HEADER)
      refused("data.tsv: empty, expected rows", read, "\n\r\n", BARE)
    end)
    it("where there is nothing but a header", function()
      refused("data.tsv: no rows", read, "label\ttext\n", HEADER)
    end)
    it("where it is not there, or is a folder", function()
      refused("/no/such.tsv.*No such file", tables.read, "/no/such.tsv", BARE)
      refused("is a folder", tables.read, scratch.folder(), BARE)
    end)
    it("where it is closed", function()
      local rows = read("1\ta\n", BARE)
      rows:close()
      rows:close()
      refused("the table is closed", rows.cell, rows, 1, "text")
      refused("the table is closed", rows.labels, rows, "label", {"0", "1"})
    end)
    it("where a row or a column is beyond its bounds", function()
      local rows = read("1\ta\n", BARE)
      refused("row 1, expected 0 to 0", rows.cell, rows, 2, "text")
      refused("row %-1, expected 0 to 0", rows.cell, rows, 0, "text")
    end)
    it("where a column was not asked for", function()
      refused("column other was not read", function() read("1\ta\n", BARE):column "other" end)
    end)
  end)

  it("cut short anywhere gives rows or one clear error", function()
    local whole = 'type,text\nham,"one, ""two"""\r\nspam,caf\195\169\n'
    for n = 0, #whole do
      local ok, why = pcall(read, whole:sub(1, n),
        {format = "csv", header = true, columns = {"type", "text"}})
      if not ok then assert.matches("^[^\n]*data.tsv[^\n]*$", why) end
    end
  end)

  it("survives any allocation that fails", function()
    local path = scratch.file("1\tcaf\233\n0\tb\n")
    sweep.allocations(function()
      tables.read(path, {header = false, columns = {a = 1}, encoding = "windows-1252"}):close()
    end)
  end)
end)
