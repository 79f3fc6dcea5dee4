local ffi = require "ffi"
local octet = require "octet"
local cases = require "spec.text.wordpiece_cases"
local scratch = require "spec.scratch"
local data = octet.data

-- Row i (from 0) is [CLS], i % 4 + 1 times "a", [SEP]; its label is i.
local function make(rows, classes)
  local path = scratch.file(table.concat(cases.vocabulary, "\n"))
  local texts = {}
  for i = 1, rows do texts[i] = ("a "):rep((i - 1) % 4 + 1) end
  local labels = ffi.new(classes == 1 and "float[?]" or "int32_t[?]", rows)
  for i = 0, rows - 1 do labels[i] = classes == 1 and i / 2 or i end
  return data.dataset {encoding = octet.text.wordpiece(path):encode_all(texts), labels = labels,
    classes = classes or rows}
end

local function labels_of(dataset, options)
  local all = {}
  for batch in dataset:batches(options) do
    for _, label in ipairs(batch.labels:totable()) do all[#all + 1] = label end
  end
  return all
end

describe("a data set", function()
  teardown(scratch.clean)

  it("knows its rows, tokens and longest row", function()
    local set = make(10)
    assert.equal(10, set.rows)
    assert.equal(2 * 10 + 2 * 10 + 1 + 2, set.tokens)
    assert.equal(6, set.longest)
    assert.equal(3, set:label(4))
    assert.equal(4, set:steps(3))
  end)

  it("packs rows one behind the other, without padding", function()
    local batches = {}
    for batch in make(6):batches {size = 4} do
      batches[#batches + 1] = {
        ids = batch.ids:totable(), offsets = batch.offsets:totable(),
        types = batch.types:totable(), positions = batch.positions:totable(),
        labels = batch.labels:totable(), tokens = batch.tokens, examples = batch.examples,
      }
    end
    assert.equal(2, #batches)
    assert.same({
      ids = {2, 6, 3, 2, 6, 6, 3, 2, 6, 6, 6, 3, 2, 6, 6, 6, 6, 3}, offsets = {0, 3, 7, 12, 18},
      types = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
      positions = {0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5},
      labels = {0, 1, 2, 3}, tokens = 18, examples = 4,
    }, batches[1])
    assert.same({0, 3, 7}, batches[2].offsets)
    assert.same({4, 5}, batches[2].labels)
  end)

  it("gives pairs their token types", function()
    local path = scratch.file(table.concat(cases.vocabulary, "\n"))
    local tokenizer = octet.text.wordpiece(path)
    local set = data.dataset {encoding = tokenizer:encode_all({"a", "a a"}, {"hello a", "the"})}
    for batch in set:batches {size = 2} do
      assert.same({2, 6, 3, 10, 6, 3, 2, 6, 6, 3, 5, 3}, batch.ids:totable())
      assert.same({0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1}, batch.types:totable())
      assert.is_nil(batch.labels)
    end
  end)

  it("gives classes as i32 and scores as f32", function()
    for batch in make(3):batches {size = 3} do assert.equal("i32", batch.labels:dtype()) end
    for batch in make(3, 1):batches {size = 3} do
      assert.equal("f32", batch.labels:dtype())
      assert.same({0, 0.5, 1}, batch.labels:totable())
    end
  end)

  describe("is shuffled", function()
    local set
    setup(function() set = make(50) end)
    local function order(seed, epoch, start)
      return labels_of(set, {size = 7, shuffle = true, seed = seed, epoch = epoch, start = start})
    end

    it("into an order of all its rows", function()
      local all = order(1, 1)
      assert.is_not.same(labels_of(set, {size = 7}), all)
      table.sort(all)
      assert.same(labels_of(set, {size = 7}), all)
    end)

    it("by seed and epoch alone", function()
      local first = order(1, 1)
      order(2, 9)
      octet.seed(77)
      assert.same(first, order(1, 1))
      assert.is_not.same(first, order(1, 2))
      assert.is_not.same(first, order(2, 1))
    end)

    it("so that going on at batch k gives what a whole pass gives from there", function()
      local whole = order(3, 5)
      for start = 0, 9 do
        local rest = order(3, 5, start)
        assert.equal(math.max(50 - 7 * start, 0), #rest)
        for i = 1, #rest do assert.equal(whole[7 * start + i], rest[i]) end
      end
    end)
  end)

  it("has parts, the same ones for the same seed", function()
    local set = make(40)
    local part = set:part(12, 5)
    assert.equal(12, part.rows)
    assert.same(labels_of(part, {size = 5}), labels_of(set:part(12, 5), {size = 12}))
    local shuffled = labels_of(part, {size = 5, shuffle = true, seed = 2, epoch = 1})
    table.sort(shuffled)
    local plain = labels_of(part, {size = 5})
    assert.equal(plain[3], part:label(3))
    table.sort(plain)
    assert.same(plain, shuffled)
  end)

  describe("releases what a step makes", function()
    it("when the next batch is asked for, and when the loop ends", function()
      local set, last = make(9), nil
      collectgarbage()
      local before = octet.memory()
      for batch in set:batches {size = 4} do
        if last then assert.is_true(last:is_released()) end
        last = batch.ids:to "f32" * 2
        assert.is_false(last:is_released())
      end
      assert.is_true(last:is_released())
      assert.equal(before.data.now, octet.memory().data.now)
      assert.equal(before.activations.now, octet.memory().activations.now)
    end)

    it("when a loop that was left early is followed by another", function()
      local set, other = make(9), make(5)
      local left = set:batches {size = 4} ().ids
      for batch in other:batches {size = 2} do
        assert.is_false(left:is_released())
        assert.is_false(batch.ids:is_released())
      end
      set:batches {size = 4}
      assert.is_true(left:is_released())
    end)

    it("when one loop stands in another and the inner one is left early", function()
      local set, inner, outer_ids = make(9), make(5), nil
      local seen = 0
      for batch in set:batches {size = 4} do
        outer_ids = batch.ids
        inner:batches {size = 2} ()
        assert.is_false(outer_ids:is_released())
        seen = seen + batch.examples
      end
      assert.equal(9, seen)
      assert.is_true(outer_ids:is_released())
      assert.error_matches(function() octet.end_scope() end, ".")
    end)
  end)

  it("refuses a batch size or start that is none", function()
    for _, bad in ipairs {0, -1, 1.5, "4"} do
      assert.error_matches(function() make(3):batches {size = bad} end,
        "batches: size is .*, expected a whole number from 1 on")
    end
    assert.error_matches(function() make(3):batches {size = 1, start = -1} end, "start is %-1")
    assert.error_matches(function() make(3):batches {size = 1, shufle = true} end,
      'batches: unknown option "shufle"; it is one of shuffle')
  end)
end)
