local octet = require "octet"
local cases = require "spec.text.wordpiece_cases"
local scratch = require "spec.scratch"
local data = octet.data
local snippets = data.snippets

describe("the movie-review snippets", function()
  local tokenizer, places
  setup(function()
    places = scratch.hide_places()
    tokenizer = octet.text.wordpiece(scratch.file(table.concat(cases.vocabulary, "\n")))
  end)
  teardown(function()
    scratch.show_places(places)
    scratch.clean()
  end)

  --- 200 rows; row i has the rating (i - 100) / 50.
  local function folder(change)
    local lines = {}
    for i = 1, 200 do
      lines[i] = ("%d\t%.2f\tthe hello %d"):format(i, (i - 100) / 50, i)
    end
    local text = table.concat(lines, "\r\n")
    return scratch.folder {["snippets/" .. snippets.FILE] = change and change(text) or text}
  end

  local function load(where, name, limit)
    return data.load(name or "snippets", {data = where, tokenizer = tokenizer, offline = true,
      limit = limit, seed = 1})
  end

  it("are split by their texts alone, about one in ten for the development set", function()
    assert.is_true(snippets.is_dev "hello")
    assert.is_false(snippets.is_dev "world")
    local dev = 0
    for i = 1, 2000 do if snippets.is_dev("text " .. i) then dev = dev + 1 end end
    assert.equal(191, dev)
    local set = load(folder())
    assert.equal(200, set.train.rows + set.dev.rows)
    assert.is_true(set.dev.rows > 5 and set.dev.rows < 45)
  end)

  it("are positive above a rating of 0", function()
    local set, positive = load(folder()), 0
    for _, side in ipairs {set.train, set.dev} do
      for i = 1, side.rows do positive = positive + side:label(i) end
    end
    assert.equal(100, positive)
  end)

  it("may hold Windows-1252", function()
    local set = load(folder(function(text) return (text:gsub("hello 7\r", "caf\233\r")) end))
    assert.equal(200, set.train.rows + set.dev.rows)
  end)

  it("stand in for SST-2 where it can be had from nowhere, and say so", function()
    local where = folder()
    local set = load(where, "default")
    assert.equal("snippets", set.task.name)
    assert.matches("^movie%-review snippets: .*; used instead of SST%-2: sst2: .* not found in",
      data.describe(set))
    assert.matches("not found in", data.facts(set).instead_of_sst2)
  end)

  it("are described with their folder and sizes", function()
    local where = folder()
    local set = load(where, nil, 50)
    assert.equal(("movie-review snippets: 50 of %d training and %d development examples, "
      .. "from %s/snippets"):format(set.of_train, set.dev.rows, where), data.describe(set))
  end)

  it("are refused with a rating out of range: file, line, value", function()
    local where = folder(function(text) return (text:gsub("\t0%.40\t", "\t4.40\t")) end)
    local ok, why = pcall(load, where)
    assert.is_false(ok)
    assert.matches('GroundTruth.txt line 120: label "4.40", expected a number from %-4 to 4$', why)
  end)

  it("are asked of ./setup where they are nowhere", function()
    local ok, why = pcall(load, scratch.folder())
    assert.is_false(ok)
    assert.matches("^snippets: .* was not found in .*; ./setup fetches it$", why)
  end)
end)
