local file = require "octet.file"
local octet = require "octet"
local cases = require "spec.text.wordpiece_cases"
local scratch = require "spec.scratch"
local data = octet.data
local glue = data.glue

-- Two rows of each task's layout as GLUE writes it: train and dev.
local MNLI = "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
  .. "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\t"
local MNLI_ROW = "0\t1\t1e\tfiction\t( a )\t( b )\t(ROOT)\t(ROOT)\t"
local FILES = {
  ["SST-2/train.tsv"] = "sentence\tlabel\nhello world \t1\nthe \"hello \t0\n",
  ["SST-2/dev.tsv"] = "sentence\tlabel\nhello . \t1\n",
  ["CoLA/train.tsv"] = "gj04\t1\t\tHello world.\ngj04\t0\t*\tWorld hello the.\n",
  ["CoLA/dev.tsv"] = "gj04\t1\t\tHello.\n",
  ["MRPC/train.tsv"] = "\239\187\191Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
    .. "1\t10\t11\tHello \"world\t\"Hello\r\n0\t12\t13\tthe\tworld\r\n",
  ["MRPC/dev.tsv"] = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\thello\tworld\n",
  ["RTE/train.tsv"] = "index\tsentence1\tsentence2\tlabel\n0\thello\tworld\tnot_entailment\n"
    .. "1\tthe world\thello\tentailment\n",
  ["RTE/dev.tsv"] = "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n",
  ["STS-B/train.tsv"] = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\t"
    .. "sentence2\tscore\n0\tmain\tf\t2012\t1\tnone\tnone\thello\tworld\t2.500\n"
    .. "1\tmain\tf\t2012\t2\tnone\tnone\tthe\tworld\t5.000\n",
  ["STS-B/dev.tsv"] = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\t"
    .. "sentence2\tscore\n0\tmain\tf\t2012\t1\tnone\tnone\thello\tworld\t0.000\n",
  ["QNLI/train.tsv"] = "index\tquestion\tsentence\tlabel\n0\thello?\tworld\tentailment\n"
    .. "1\tthe?\tworld\tnot_entailment\n",
  ["QNLI/dev.tsv"] = "index\tquestion\tsentence\tlabel\n0\ta?\tb\tentailment\n",
  ["QQP/train.tsv"] = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    .. "1\t2\t3\thello?\tworld?\t0\n4\t5\t6\tthe?\tthe?\t1\n",
  ["QQP/dev.tsv"] = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\ta?\tb?\t0\n",
  ["MNLI/train.tsv"] = MNLI .. "gold_label\n" .. MNLI_ROW .. "hello\tworld\tneutral\tneutral\n"
    .. MNLI_ROW .. "the\tworld\tcontradiction\tcontradiction\n",
  ["MNLI/dev_matched.tsv"] = MNLI .. "label2\tlabel3\tlabel4\tlabel5\tgold_label\n" .. MNLI_ROW
    .. "a\tb\tneutral\tneutral\tneutral\tneutral\tneutral\tentailment\n",
  ["MNLI/dev_mismatched.tsv"] = MNLI .. "label2\tlabel3\tlabel4\tlabel5\tgold_label\n" .. MNLI_ROW
    .. "b\ta\tneutral\tneutral\tneutral\tneutral\tneutral\tcontradiction\n",
}

-- Title, classes, labels of the training rows, words of the first, first metric.
local EXPECTED = {
  sst2 = {"SST-2", 2, {1, 0}, "[CLS] hello world [SEP]", "accuracy"},
  cola = {"CoLA", 2, {1, 0}, "[CLS] hello world. [SEP]", "matthews"},
  mrpc = {"MRPC", 2, {1, 0}, '[CLS] hello " world [SEP] " hello [SEP]', "accuracy"},
  rte = {"RTE", 2, {1, 0}, "[CLS] hello [SEP] world [SEP]", "accuracy"},
  stsb = {"STS-B", 1, {2.5, 5}, "[CLS] hello [SEP] world [SEP]", "pearson"},
  qnli = {"QNLI", 2, {0, 1}, "[CLS] hello? [SEP] world [SEP]", "accuracy"},
  qqp = {"QQP", 2, {0, 1}, "[CLS] hello? [SEP] world? [SEP]", "accuracy"},
  mnli = {"MNLI", 3, {1, 2}, "[CLS] hello [SEP] world [SEP]", "accuracy"},
}

describe("GLUE", function()
  local tokenizer, folder, places
  setup(function()
    places = scratch.hide_places()
    tokenizer = octet.text.wordpiece(scratch.file(table.concat(cases.vocabulary, "\n")))
    folder = scratch.folder(FILES)
  end)
  teardown(function()
    scratch.show_places(places)
    scratch.clean()
  end)

  local function load(name, options)
    options = options or {}
    options.tokenizer, options.offline = tokenizer, true
    options.data = options.data or folder
    return data.load(name, options)
  end

  it("has the eight tasks of the paper's table", function()
    assert.same({"mnli", "qnli", "qqp", "rte", "sst2", "mrpc", "cola", "stsb"}, glue.NAMES)
    for _, name in ipairs(glue.NAMES) do assert.equal(name, glue.TASKS[name].name) end
  end)

  for name, expected in pairs(EXPECTED) do
    it("reads " .. expected[1] .. " in its own layout", function()
      local set = load(name)
      assert.equal(expected[1], set.task.title)
      assert.equal(expected[2], set.task.classes)
      assert.equal(expected[5], set.task.metrics[1])
      assert.equal(2, set.train.rows)
      assert.equal(1, set.dev.rows)
      for batch in set.train:batches {size = 2} do
        assert.same(expected[3], batch.labels:totable())
      end
      local first = set.train:batches {size = 1} ()
      assert.equal(expected[4], tokenizer:decode(first.ids:totable(), false))
      set.train:finish()
      assert.equal(name == "mnli", set.dev_mismatched ~= nil)
    end)
  end

  it("reads MNLI's two development sets apart", function()
    local set = load "mnli"
    assert.equal(0, set.dev:label(1))
    assert.equal(2, set.dev_mismatched:label(1))
  end)

  it("is found below glue/, directly, and as the task's own folder", function()
    local below = scratch.folder {
      ["glue/SST-2/train.tsv"] = FILES["SST-2/train.tsv"],
      ["glue/SST-2/dev.tsv"] = FILES["SST-2/dev.tsv"],
    }
    assert.equal(below .. "/glue/SST-2", load("sst2", {data = below}).folder)
    assert.equal(folder .. "/SST-2", load("sst2", {data = folder .. "/"}).folder)
    assert.equal(folder .. "/SST-2", load("sst2", {data = folder .. "/SST-2"}).folder)
  end)

  it("says which data are used, and how many", function()
    local set = load "sst2"
    assert.equal("SST-2: 2 training and 1 development examples, from " .. folder .. "/SST-2",
      data.describe(set))
    local part = load("sst2", {limit = 1})
    assert.matches("^SST%-2: 1 of 2 training and 1 dev", data.describe(part))
    local facts = data.facts(part)
    assert.same({name = "SST-2", task = "sst2", folder = folder .. "/SST-2", train = 1,
      train_available = 2, dev = 1, digest = facts.digest}, facts)
    assert.equal(facts.digest, data.facts(load("sst2", {limit = 1})).digest)
    assert.not_equal(facts.digest, data.facts(set).digest)
    assert.matches("%(and 1 mismatched ones%)$", data.describe(load "mnli"))
  end)

  it("splits MRPC as GLUE does", function()
    local corpus = "\239\187\191Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t1\t2\ta\tb\r\n"
      .. "0\t3\t4\tc\td\r\n1\t5\t6\te\tf\r\n"
    local train, dev = glue.split_mrpc(corpus, "3\t4\n")
    local header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    assert.equal(header .. "1\t1\t2\ta\tb\n1\t5\t6\te\tf\n", train)
    assert.equal(header .. "0\t3\t4\tc\td\n", dev)
    assert.error_matches(function() glue.split_mrpc(corpus, "3\t4\n7\t8\n") end,
      "1 of the development set's pairs are not in the corpus")
  end)

  describe("is fetched from its home", function()
    local asked, before
    setup(function()
      before = {hub = package.loaded["octet.hub"], archive = package.loaded["octet.archive"]}
      -- In place of the network: what is asked for is written down, and made-up files are left.
      package.loaded["octet.hub"] = {
        cache = function() return os.getenv "XDG_CACHE_HOME" .. "/octet" end,
        download = function(url, o)
          asked[#asked + 1] = {url, o.sha256, o.size}
          local texts = {["mrpc_dev_ids.tsv"] = "3\t4\n", ["msr_paraphrase_train.txt"] =
            "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t1\t2\ta\tb\r\n0\t3\t4\tb\ta\r\n"}
          file.save(o.path, texts[o.path:match "[^/]*$"] or "archive")
        end,
      }
      package.loaded["octet.archive"] = {
        extract = function(path, wanted)
          assert.equal("archive", file.read(path))
          for inside, target in pairs(wanted) do
            file.save(target, assert(FILES[inside], "no " .. inside))
          end
        end,
      }
    end)
    before_each(function() asked = {} end)
    teardown(function()
      package.loaded["octet.hub"], package.loaded["octet.archive"] = before.hub, before.archive
      file.remove_folder(os.getenv "XDG_CACHE_HOME" .. "/octet")
    end)

    for name, task in pairs(glue.TASKS) do
      it(("into the cache: %s, with size and SHA-256"):format(task.title), function()
        local set = data.load(name, {tokenizer = tokenizer})
        assert.equal(os.getenv "XDG_CACHE_HOME" .. "/octet/glue/" .. task.folder, set.folder)
        assert.equal(task.pieces and 2 or 1, #asked)
        for _, one in ipairs(asked) do
          assert.matches("^https://dl%.fbaipublicfiles%.com/", one[1])
          assert.matches("^%x+$", one[2])
          assert.equal(64, #one[2])
          assert.is_true(one[3] > 1000)
        end
        -- Once there, it is not asked for again, and nothing else is left there.
        asked = {}
        assert.equal(set.train.rows, data.load(name, {tokenizer = tokenizer}).train.rows)
        assert.same({}, asked)
        local files = {}
        for _, path in pairs(task.files) do files[#files + 1] = path end
        table.sort(files)
        assert.same(files, file.list(set.folder))
      end)
    end

    it("and says why where that fails", function()
      local download = package.loaded["octet.hub"].download
      finally(function() package.loaded["octet.hub"].download = download end)
      package.loaded["octet.hub"].download = function() error("no network here", 0) end
      file.remove_folder(os.getenv "XDG_CACHE_HOME" .. "/octet/glue/RTE")
      assert.error_matches(function() data.load("rte", {tokenizer = tokenizer}) end,
        "^rte: dev.tsv, train.tsv not found in .*; download failed: no network here$")
    end)
  end)

  describe("refuses, in one line,", function()
    local function refused(pattern, name, files)
      local ok, why = pcall(load, name, files and {data = scratch.folder(files)})
      assert.is_false(ok)
      assert.is_nil(tostring(why):find "\n")
      assert.matches(pattern, why)
    end

    it("a task that there is not, the nearest name first", function()
      refused("^no task 'sst'; there are: sst2, stsb", "sst")
      refused("^no task 'nil'", nil)
    end)
    it("a label out of range: value, file, line, range", function()
      refused('SST%-2/train.tsv line 3: label "2", expected 0 to 1$', "sst2", {
        ["SST-2/train.tsv"] = "sentence\tlabel\na\t1\nb\t2\n",
        ["SST-2/dev.tsv"] = FILES["SST-2/dev.tsv"],
      })
      refused('STS%-B/dev.tsv line 2: label "5.2", expected a number from 0 to 5$', "stsb", {
        ["STS-B/train.tsv"] = FILES["STS-B/train.tsv"],
        ["STS-B/dev.tsv"] = FILES["STS-B/dev.tsv"]:gsub("0%.000", "5.2"),
      })
    end)
    it("a line with too few columns", function()
      refused("CoLA/dev.tsv line 1: 2 columns, expected at least 4$", "cola", {
        ["CoLA/train.tsv"] = FILES["CoLA/train.tsv"], ["CoLA/dev.tsv"] = "gj04\t1\n",
      })
    end)
    it("bytes that are not UTF-8", function()
      refused("RTE/dev.tsv line 2: not UTF%-8 %(byte 0xe9%)$", "rte", {
        ["RTE/train.tsv"] = FILES["RTE/train.tsv"],
        ["RTE/dev.tsv"] = "index\tsentence1\tsentence2\tlabel\n0\tcaf\233\tb\tentailment\n",
      })
    end)
    it("an empty file", function()
      refused("SST%-2/dev.tsv: empty, expected a header$", "sst2", {
        ["SST-2/train.tsv"] = FILES["SST-2/train.tsv"], ["SST-2/dev.tsv"] = "",
      })
    end)
    it("a task that is nowhere, saying where it was looked for", function()
      local empty = scratch.folder()
      local ok, why = pcall(load, "qqp", {data = empty})
      assert.is_false(ok)
      assert.matches("^qqp: dev.tsv, train.tsv not found in " .. empty:gsub("%p", "%%%0"), why)
    end)
  end)

  it("reads the real files, where they are", function()
    local real = places.data or "../shared/data"
    if not file.is_folder(real .. "/glue") then
      pending "no ../shared/data and no OCTET_DATA"
      return
    end
    for name, sizes in pairs {sst2 = {67349, 872}, cola = {8551, 1043}, mrpc = {3668, 408},
      rte = {2490, 277}, stsb = {5749, 1500}} do
      local set = load(name, {data = real, max_length = 128})
      assert.same(sizes, {set.train.rows, set.dev.rows})
    end
  end)
end)
