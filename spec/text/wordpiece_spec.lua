local ffi = require "ffi"
local octet = require "octet"
local binding = require "octet.binding"
local cases = require "spec.text.wordpiece_cases"
local scratch = require "spec.scratch"
local sweep = require "spec.sweep"
local text = octet.text

local function vocabulary(tokens)
  return scratch.file(table.concat(tokens or cases.vocabulary, "\n") .. "\n", "vocab.txt")
end

local function ids_of(tokenizer, a, b, max_length)
  return (tokenizer:encode(a, b, max_length))
end


describe("WordPiece", function()
  teardown(scratch.clean)

  describe("gives the ids of Hugging Face's tokenizers", function()
    local folder, uncased, cased
    setup(function()
      folder = vocabulary()
      uncased = text.wordpiece(folder)
      cased = text.wordpiece(folder, {lower_case = false})
    end)

    for i, case in ipairs(cases.cases) do
      it(("for text %d, uncased and cased"):format(i), function()
        assert.same(case.uncased, (uncased:encode(case[1], nil, nil, false)))
        assert.same(case.cased, (cased:encode(case[1], nil, nil, false)))
      end)
    end

    it("where marks that are kept stand in canonical order", function()
      -- U+302E (class 224) and U+1D165 (216) change places; U+16FF0 (6 since Unicode 13) is a
      -- starter to that library, and stays where it is.
      local stem, dot, reading = "\240\157\133\165", "\227\128\174", "\240\150\191\176"
      local tokenizer = text.wordpiece(vocabulary {"[UNK]", "[CLS]", "[SEP]", "a", "##" .. stem,
        "##" .. dot, "##" .. reading})
      local function ids(s) return (tokenizer:encode(s, nil, nil, false)) end
      assert.same({3, 4, 5}, ids("a" .. dot .. stem))
      assert.same({3, 4, 5}, ids("a" .. stem .. dot))
      assert.same({3, 5, 6, 4}, ids("a" .. dot .. reading .. stem))
    end)

    it("when many texts are encoded at once, by any number of threads", function()
      local texts = {}
      for n = 1, 20 do
        for i, case in ipairs(cases.cases) do texts[(n - 1) * #cases.cases + i] = case[1] end
      end
      local before = octet.threads()
      finally(function() octet.set_threads(before) end)
      for threads = 1, 3 do
        octet.set_threads(threads)
        local encoding = uncased:encode_all(texts)
        local ids, offsets, _, rows = text.arrays(encoding)
        assert.equal(#texts, rows)
        for i = 1, rows do
          local expected = cases.cases[(i - 1) % #cases.cases + 1].uncased
          local first, last = tonumber(offsets[i - 1]), tonumber(offsets[i]) - 1
          assert.equal(#expected + 2, last - first + 1)
          for k = 1, #expected do assert.equal(expected[k], ids[first + k]) end
        end
      end
    end)
  end)

  describe("lays out", function()
    local tokenizer
    setup(function() tokenizer = text.wordpiece(vocabulary()) end)

    it("a text as [CLS] a [SEP], all of type 0", function()
      local ids, types = tokenizer:encode "hello world"
      assert.same({2, 10, 11, 3}, ids)
      assert.same({0, 0, 0, 0}, types)
    end)

    it("a pair as [CLS] a [SEP] b [SEP], type 1 from b on", function()
      local ids, types = tokenizer:encode("hello", "the world")
      assert.same({2, 10, 3, 5, 11, 3}, ids)
      assert.same({0, 0, 0, 1, 1, 1}, types)
    end)

    it("an empty second text as a pair all the same", function()
      local ids, types = tokenizer:encode("hello", "")
      assert.same({2, 10, 3, 3}, ids)
      assert.same({0, 0, 0, 1}, types)
    end)

    it("a literal [SEP] as that token, unless told not to", function()
      assert.same({2, 6, 3, 6, 3}, ids_of(tokenizer, "a[SEP]a"))
      local plain = text.wordpiece(vocabulary(), {special = false})
      assert.same({2, 6, 23, plain:id "sep", 24, 6, 3}, ids_of(plain, "a[SEP]a"))
    end)
  end)

  describe("cuts to max_length", function()
    local tokenizer
    setup(function() tokenizer = text.wordpiece(vocabulary()) end)
    local function words(word, n) return (word .. " "):rep(n) end

    it("a text's end", function()
      assert.same({2, 10, 10, 3}, ids_of(tokenizer, words("hello", 9), nil, 4))
      assert.same({2, 10, 3}, ids_of(tokenizer, words("hello", 9), nil, 3))
      assert.same({2, 10, 10, 3}, ids_of(tokenizer, words("hello", 2), nil, 4))
    end)

    -- Lengths of a and b, room for both, what is left of each: as Hugging Face's library has it.
    for _, c in ipairs {
      {5, 2, 7, 5, 2}, {5, 2, 6, 4, 2}, {2, 5, 6, 2, 4}, {5, 5, 6, 3, 3}, {5, 5, 5, 2, 3},
      {6, 5, 5, 3, 2}, {5, 6, 5, 2, 3}, {9, 1, 2, 1, 1}, {1, 9, 2, 1, 1}, {3, 3, 1, 0, 1},
      {4, 3, 1, 1, 0}, {3, 3, 0, 0, 0}, {0, 9, 4, 0, 4}, {9, 0, 4, 4, 0}, {2, 3, 5, 2, 3},
    } do
      it(("a pair of %d and %d tokens into %d: %d and %d"):format(unpack(c)), function()
        local ids = tokenizer:encode(words("hello", c[1]), words("world", c[2]), c[3] + 3)
        local expected = {2}
        for _ = 1, c[4] do expected[#expected + 1] = 10 end
        expected[#expected + 1] = 3
        for _ = 1, c[5] do expected[#expected + 1] = 11 end
        expected[#expected + 1] = 3
        assert.same(expected, ids)
      end)
    end

    it("no shorter than 3", function()
      assert.error_matches(function() tokenizer:encode("a", nil, 2) end,
        "max_length is 2, expected at least 3")
    end)
  end)

  it("turns ids back into text", function()
    local tokenizer = text.wordpiece(vocabulary())
    assert.equal("hello, unaffable world! don't",
      tokenizer:decode(ids_of(tokenizer, "Hello , unaffable world! don't")))
    assert.equal("[CLS] a [SEP]", tokenizer:decode({2, 6, 3}, false))
    assert.error_matches(function() tokenizer:decode {999} end, "id 999, expected 0 to 106")
  end)

  it("knows its vocabulary", function()
    local tokenizer = text.wordpiece(vocabulary())
    assert.equal(#cases.vocabulary, tokenizer.size)
    assert.equal(10, tokenizer:id "hello")
    assert.is_nil(tokenizer:id "nowhere")
    assert.equal("hello", tokenizer:token(10))
  end)

  it("takes do_lower_case and its like from tokenizer_config.json", function()
    local folder = scratch.folder {
      ["vocab.txt"] = table.concat(cases.vocabulary, "\n"),
      ["tokenizer_config.json"] = '{"do_lower_case": false, "strip_accents": null}',
    }
    local tokenizer = text.wordpiece(folder .. "/vocab.txt")
    assert.is_false(tokenizer.lower_case)
    assert.is_false(tokenizer.strip_accents)
    assert.same({2, 1, 3}, ids_of(tokenizer, "HELLO"))
    assert.same({2, 10, 3}, ids_of(text.wordpiece(folder .. "/vocab.txt", {lower_case = true}),
      "HELLO"))
  end)

  it("reads a vocabulary with CR LF and without a last newline", function()
    local path = scratch.file(table.concat(cases.vocabulary, "\r\n"))
    assert.same({2, 10, 11, 3}, ids_of(text.wordpiece(path), "hello world"))
  end)

  it("takes time in proportion to a character repeated a million times", function()
    local tokenizer = text.wordpiece(vocabulary())
    local start = octet.clock()
    for _, c in ipairs {"x", "\204\129", "\227\128\174", "中", "[", "é", "\239\191\189"} do
      tokenizer:encode(c:rep(1e6), nil, 8)
    end
    assert.is_true(octet.clock() - start < 5)
  end)

  it("accounts encoded data to the byte and gives it back", function()
    local tokenizer = text.wordpiece(vocabulary())
    collectgarbage()
    collectgarbage()
    local before = octet.memory().data.now
    local encoding = tokenizer:encode_all {"hello world", "the"}
    assert.equal(4 * 7 + 8 * 3 + 4 * 2, octet.memory().data.now - before)
    binding.C.oct_encoding_free(ffi.gc(encoding, nil))
    assert.equal(before, octet.memory().data.now)
  end)

  describe("refuses, in one line,", function()
    local function refused(pattern, path, ...)
      local ok, why = pcall(text.wordpiece, path, ...)
      assert.is_false(ok)
      assert.is_nil(tostring(why):find "\n")
      assert.matches(pattern, why)
    end

    it("a vocabulary that is not there", function()
      refused("/no/such/vocab.txt.*No such file", "/no/such/vocab.txt")
    end)
    it("an empty vocabulary", function()
      refused("vocab.txt: empty", scratch.file("", "vocab.txt"))
    end)
    for _, token in ipairs {"[UNK]", "[CLS]", "[SEP]"} do
      it("a vocabulary without " .. token, function()
        local tokens = {}
        for _, t in ipairs(cases.vocabulary) do if t ~= token then tokens[#tokens + 1] = t end end
        refused("vocab.txt: no token %" .. token .. " among", vocabulary(tokens))
      end)
    end
    it("a token that occurs twice", function()
      refused('vocab.txt line 5: token "b" stands in line 4 already',
        vocabulary {"[UNK]", "[CLS]", "[SEP]", "b", "b"})
    end)
    it("an empty line", function()
      refused("vocab.txt line 4: empty", vocabulary {"[UNK]", "[CLS]", "[SEP]", "", "b"})
    end)
    it("bytes that are not UTF-8", function()
      refused("vocab.txt line 4: not UTF%-8 %(byte 0xff%)",
        vocabulary {"[UNK]", "[CLS]", "[SEP]", "b\255"})
    end)
    it("a folder in place of a vocabulary", function()
      refused("is a folder", scratch.folder())
    end)
    it("a tokenizer_config.json that is none", function()
      local folder = scratch.folder {["vocab.txt"] = "a", ["tokenizer_config.json"] = "{"}
      refused("tokenizer_config.json", folder .. "/vocab.txt")
    end)
    for name, bad in pairs {
      ["a lone continuation byte"] = "ab\128", ["an over-long form"] = "ab\192\175",
      ["a surrogate"] = "ab\237\160\128", ["a character cut short"] = "ab\226\130",
      ["what lies past U+10FFFF"] = "ab\244\144\128\128",
    } do
      it("a text with " .. name, function()
        local tokenizer = text.wordpiece(vocabulary())
        assert.error_matches(function() tokenizer:encode("a", bad) end,
          "^pair 1, second text: byte 2 %(0x%x%x%) is not UTF%-8$")
        assert.error_matches(function() tokenizer:encode_all {"a", "b", bad} end,
          "^text 3: byte 2 %(0x%x%x%) is not UTF%-8$")
      end)
    end
    it("a text that is no string", function()
      local tokenizer = text.wordpiece(vocabulary())
      assert.error_matches(function() tokenizer:encode(7) end, "a is a number, expected a string")
      assert.error_matches(function() tokenizer:encode_all {"a", {}} end, "text 2 is a table")
    end)
  end)

  it("survives any allocation that fails", function()
    local path = vocabulary()
    sweep.allocations(function() text.wordpiece(path):encode_all {"hello world", "中 é"} end)
  end)
end)
