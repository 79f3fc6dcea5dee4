local octet = require "octet"
local cases = require "spec.text.wordpiece_cases"
local scratch = require "spec.scratch"
local smile = require "octet.data.smile"

describe("the SMILE annotations", function()
  local tokenizer, places
  setup(function()
    places = scratch.hide_places()
    tokenizer = octet.text.wordpiece(scratch.file(table.concat(cases.vocabulary, "\n")))
  end)
  teardown(function()
    scratch.show_places(places)
    scratch.clean()
  end)

  --- Ten tweets of each emotion, and twenty that are left out; `more` lines behind them.
  local function folder(more)
    local lines = {}
    for i = 1, 10 do
      for _, label in ipairs(smile.TASK.label_names) do
        lines[#lines + 1] = ('%d,"hello, ""world"" %d",%s'):format(i, i, label)
      end
      lines[#lines + 1] = ('%d,"the\nhello",nocode'):format(i)
      lines[#lines + 1] = ('%d,hello,happy|sad'):format(i)
    end
    for _, line in ipairs(more or {}) do lines[#lines + 1] = line end
    return scratch.folder {["smile/" .. smile.FILE] = table.concat(lines, "\n") .. "\n"}
  end

  local function load(where)
    return octet.data.load("smile", {data = where, tokenizer = tokenizer, max_length = 16})
  end

  it("are tweets of one emotion, 15 % of each held back", function()
    local set = load(folder())
    assert.equal(48, set.train.rows)
    assert.equal(12, set.dev.rows)
    local counts = {}
    for i = 1, set.dev.rows do
      local label = tonumber(set.dev:label(i))
      counts[label] = (counts[label] or 0) + 1
    end
    for class = 0, 5 do assert.equal(2, counts[class]) end
    assert.same({"weighted_f1", "accuracy"}, set.task.metrics)
  end)

  it("names the line of a label that is none, and the places where it looked", function()
    assert.error_matches(function() load(folder {"1,hello,glad"}) end,
      'smile%-annotations%-final.csv line 91: label "glad", expected one of happy, not%-relevant')
    assert.error_matches(function() load(folder {"1,hello,happy|glad"}) end, 'label "happy|glad"')
    assert.error_matches(function() load(folder {'1,"hello,happy'}) end, "line 91: .*quote")
    assert.error_matches(function() load(scratch.folder {}) end,
      "smile%-annotations%-final.csv was not found in /")
  end)
end)
