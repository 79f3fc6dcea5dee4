local file = require "octet.file"
local octet = require "octet"
local scratch = require "spec.scratch"

local folder
before_each(function() folder = scratch.folder() end)
after_each(scratch.clean)

--- The texts of a folder; what is left out is a text of one known word.
local function write(texts)
  for _, part in ipairs(octet.data.ptb.PARTS) do
    file.save(("%s/ptb.%s.txt"):format(folder, part), texts[part] or "the\n")
  end
end

local function load(texts)
  write(texts)
  return octet.data.ptb.load {data = folder}
end

local function words_of(set, part)
  local words = {}
  for i = 1, set[part].tokens do words[i] = set.vocabulary[set[part].ids[i - 1] + 1] end
  return table.concat(words, " ")
end

describe("the Penn Treebank's texts", function()
  it("are words between blanks, and <eos> where a line ends", function()
    local set = load {train = " the cat \n\n sat\ton the\r\n mat", valid = "the mat",
      test = "cat\n"}
    assert.equal("the cat <eos> <eos> sat on the <eos> mat <eos>", words_of(set, "train"))
    assert.equal("the mat <eos>", words_of(set, "valid"))
    assert.equal("cat <eos>", words_of(set, "test"))
    assert.equal(folder, set.folder)
  end)

  it("have the vocabulary of the training text, the commonest word first", function()
    local set = load {train = "b the a the\nb c\nthe the\n", valid = "the"}
    assert.same({"the", "<eos>", "b", "a", "c"}, set.vocabulary)
    octet.data.ptb.save_vocabulary(folder .. "/vocab.txt", set.vocabulary)
    assert.equal("the\n<eos>\nb\na\nc\n", file.read(folder .. "/vocab.txt"))
  end)

  it("take <unk> for a word that was never seen in training, where there is one", function()
    local set = load {train = "the <unk> sat", valid = "the cat sat", test = "dog"}
    assert.equal("the <unk> sat <eos>", words_of(set, "valid"))
    assert.equal("<unk> <eos>", words_of(set, "test"))
  end)

  it("are found below a folder of data sets, too", function()
    write {}
    file.make_folder(folder .. "/data/ptb")
    for _, part in ipairs(octet.data.ptb.PARTS) do
      file.rename(("%s/ptb.%s.txt"):format(folder, part),
        ("%s/data/ptb/ptb.%s.txt"):format(folder, part))
    end
    assert.equal(folder .. "/data/ptb", octet.data.ptb.load({data = folder .. "/data"}).folder)
  end)

  it("may hold any sign of UTF-8, and a mark of byte order", function()
    local text = "caf\195\169 \226\130\172 \240\159\152\128 \237\159\191 \244\143\191\191"
    local set = load {train = "\239\187\191" .. text .. " the"}
    assert.equal(text .. " the <eos>", words_of(set, "train"))
  end)

  it("are refused in one line where something is wrong with them", function()
    local function refused(message, texts)
      local ok, err = pcall(load, texts)
      assert.is_false(ok)
      assert.equal(folder .. "/" .. message, err)
    end
    refused("ptb.train.txt: holds no word", {train = ""})
    refused("ptb.valid.txt: holds no word", {train = "the", valid = " \n\n"})
    refused('ptb.test.txt line 2: "cat" is no word of ptb.train.txt, which has no <unk> either',
      {train = "the", test = "the\nthe cat\n"})
    -- Latin-1, a sign cut off, one written too long, half a pair, past the last one.
    for _, bad in ipairs {"caf\233", "\226\130", "\192\175", "\237\160\128", "\244\144\128\128",
      "\195\169\169"} do
      refused("ptb.train.txt line 3: not UTF-8", {train = "a\n\n" .. bad .. "\nthe\n"})
    end
  end)

  it("are missed by name", function()
    write {}
    file.remove(folder .. "/ptb.valid.txt")
    local ok, err = pcall(octet.data.ptb.load, {data = folder})
    assert.is_false(ok)
    assert.matches("^ptb: ptb%.train%.txt, ptb%.valid%.txt, ptb%.test%.txt were not found in ", err)
    assert.truthy(err:find(folder, 1, true))
  end)

  it("of the Penn Treebank are 10,000 words", function()
    local data = os.getenv "OCTET_DATA"
    if not data or not file.is_file(data .. "/ptb/ptb.train.txt") then
      pending "OCTET_DATA holds no ptb/ptb.train.txt"
    end
    local set = octet.data.ptb.load {}
    assert.equal(10000, #set.vocabulary)
    assert.same({929589, 73760, 82430},
      {set.train.tokens, set.valid.tokens, set.test.tokens})
  end)
end)
