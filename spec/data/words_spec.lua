local ffi = require "ffi"
local file = require "octet.file"
local octet = require "octet"
local scratch = require "spec.scratch"

local words, imdb = octet.data.words, octet.data.imdb

local function list(iterator)
  local all = {}
  for word in iterator do all[#all + 1] = word end
  return all
end

local function corpus_of(texts)
  return words.corpus(#texts, function(row) return texts[row] end, words.words_and_marks)
end

local function rows_of(encoded, rows)
  local all = {}
  for row = 1, rows do
    all[row] = {}
    for at = tonumber(encoded.offsets[row - 1]), tonumber(encoded.offsets[row]) - 1 do
      table.insert(all[row], encoded.ids[at])
    end
  end
  return all
end

local function all_rows(count)
  local selection = ffi.new("int32_t[?]", count)
  for i = 0, count - 1 do selection[i] = i end
  return selection
end

describe("words and marks", function()
  it("are runs of letters and digits, and every other sign by itself", function()
    assert.same({"Don't", "call", "0800", ",", "it", "'", "s", "caf\195\169", "!", "!"},
      list(words.words_and_marks " Don't call 0800, it 's caf\195\169!! "))
    assert.same({}, list(words.words_and_marks " \n"))
  end)

  it("of a review are lower case, letters alone, without stop words", function()
    assert.same({"film", "great", "isnt", "really"},
      list(imdb.words_of "This FILM was<br />great, isn't it? Really, 10/10!"))
  end)
end)

describe("a vocabulary", function()
  it("holds the commonest words first, those seen often enough, of the rows given", function()
    local corpus = corpus_of {"b a b", "c a b", "z z z z"}
    assert.same({"b", "a", "c"}, words.vocabulary(corpus, all_rows(2), 2, {}))
    assert.same({"b", "a"}, words.vocabulary(corpus, all_rows(2), 2, {least = 2}))
    assert.same({"z"}, words.vocabulary(corpus, all_rows(3), 3, {most = 1}))
  end)

  it("gives ids, 1 for what it lacks and for a text without a word", function()
    local corpus = corpus_of {"a b x", "", "x"}
    local vocabulary = {"a", "b"}
    assert.same({{2, 3, 1}, {1}, {1}}, rows_of(words.encode(corpus, vocabulary, {}), 3))
    assert.same({{2, 3}, {1}, {1}},
      rows_of(words.encode(corpus, vocabulary, {unknown = false}), 3))
  end)

  it("cuts rows", function()
    local corpus = corpus_of {"a b c d", "c", ""}
    assert.same({{2, 3, 4}, {4}, {1}},
      rows_of(words.encode(corpus, {"a", "b", "c"}, {length = 3}), 3))
  end)
end)

describe("batches by length", function()
  it("share like lengths, hold every row once, and come in an order of seed and epoch", function()
    local texts = {}
    for i = 1, 23 do texts[i] = ("w "):rep(i * 7 % 23 + 1) end
    local encoded = words.encode(corpus_of(texts), {"w"}, {})
    local set = octet.data.dataset {ids = encoded.ids, offsets = encoded.offsets, all_rows = 23}
    local function lengths(epoch)
      local batches = {}
      for batch in set:batches {size = 5, shuffle = true, seed = 3, epoch = epoch,
        by_length = true} do
        local offsets, own = batch.offsets:totable(), {}
        assert.equal(batch.tokens, batch.ids:size())
        for i = 1, batch.examples do own[i] = offsets[i + 1] - offsets[i] end
        batches[#batches + 1] = own
      end
      return batches
    end
    local first, seen = lengths(1), {}
    for _, batch in ipairs(first) do
      for i, length in ipairs(batch) do
        seen[length] = (seen[length] or 0) + 1
        assert.is_true(i == 1 or length == batch[i - 1] + 1)
      end
    end
    for length = 1, 23 do assert.equal(1, seen[length]) end
    assert.equal(3, #first[5])
    assert.same(first, lengths(1))
    assert.not_same(first, lengths(2))
  end)
end)

describe("a user's own table", function()
  local home = scratch.folder()
  teardown(scratch.clean)

  local function load_text(text, name)
    local path = home .. "/" .. (name or "own.csv")
    file.save(path, text)
    return octet.data.own_table.load {data = path, text_column = "text", label_column = "label"}
  end

  it("gives its classes, sorted, and its rows", function()
    local set = load_text "id,label,text\n1,no,a b\n2,yes,\"c, d\"\n3,no,a\n4,yes,\n"
    assert.same({"no", "yes"}, set.task.label_names)
    assert.equal(2, set.train.rows)
    assert.equal(2, set.dev.rows)
    assert.same({"accuracy", "f1"}, set.task.metrics)
    assert.equal(3, load_text("label\ttext\na\tx\nb\tx\nc\tx\na\tx\nb\tx\nc\tx\n", "own.tsv")
      .task.classes)
  end)

  it("says in one line, with its place, what is wrong", function()
    for message, text in pairs {
      ["own.csv line 3: .*quote"] = "label,text\na,b\na,\"open\nb,c\n",
      ["own.csv line 3: the label is empty"] = "label,text\na,b\n,c\n",
      ["column label holds 1 different label, expected 2"] = "label,text\na,b\na,c\n",
      ['class "b" has 1 example'] = "label,text\na,b\na,c\nb,d\n",
      ["own.csv: no rows behind the header"] = "label,text\n",
      ["no column"] = "label,words\na,b\n",
    } do
      local ok, said = pcall(load_text, text)
      assert.is_false(ok)
      assert.matches(message, said)
      assert.is_nil(said:find "\n")
    end
    assert.error_matches(function()
      octet.data.own_table.load {data = home .. "/none.csv", text_column = "a", label_column = "b"}
    end, "there is no file .*none.csv")
  end)
end)
