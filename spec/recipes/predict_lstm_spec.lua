-- Predictions of tiny LSTMs that lstm_classify made.
local file = require "octet.file"
local json = require "octet.json"
local scratch = require "spec.scratch"
local tiny = require "spec.recipes.tiny"

local home, texts, labels

local function train(name, arguments)
  local all = {"--hidden", "8", "--embedding", "8", "--lr", "1e-2", "--batch", "16", "--out",
    home .. "/" .. name}
  for _, argument in ipairs(arguments) do all[#all + 1] = argument end
  local status, out, err = tiny.run("lstm_classify", all)
  assert.equal(0, status, err)
  return out
end

setup(function()
  home = scratch.folder()
  texts, labels = tiny.own_table(home .. "/two.csv")
  tiny.own_table(home .. "/three.csv", function(n, label)
    return n % 40 == 0 and "none" or label
  end)
  local reviews = {}
  for n, text in ipairs(texts) do
    reviews[n] = ("%d\t%d\t7\t%s"):format(labels[n] == "good" and 1 or 0, n, text)
  end
  file.make_folder(home .. "/imdb")
  for _, name in ipairs {"train", "test"} do
    file.save(("%s/imdb/%s.tsv"):format(home, name), table.concat(reviews, "\n") .. "\n")
  end
  for _, name in ipairs {"two", "three"} do
    train(name, {"--data", ("%s/%s.csv"):format(home, name), "--text-column", "text",
      "--label-column", "label", "--epochs", "8"})
  end
end)
teardown(scratch.clean)

local function predict(run, o, more)
  local arguments = {"--model", home .. "/" .. run}
  for _, argument in ipairs(more or {}) do arguments[#arguments + 1] = argument end
  return tiny.run("predict", arguments, o)
end

describe("predict with an LSTM", function()
  it("says what the recipe learned, whatever the batch", function()
    local expected
    for _, batch in ipairs {"1", "64"} do
      local status, out, err = predict("two", {input = table.concat(texts, "\n") .. "\n"},
        {"--batch", batch})
      assert.equal(0, status, err)
      local n = 0
      for label, probability, text in out:gmatch "(%a+)\t([%d.]+)\t([^\n]*)\n" do
        n = n + 1
        assert.equal(labels[n], label)
        assert.is_true(tonumber(probability) >= 0.5 and tonumber(probability) <= 1)
        assert.equal(texts[n], text)
      end
      assert.equal(120, n)
      expected = expected or out
      assert.equal(expected, out)
    end
  end)

  it("knows more than two classes, and texts without a known word", function()
    local status, out, err = predict("three", {input = texts[1] .. "\n\nxyzzy\n"})
    assert.equal(0, status, err)
    assert.matches("^" .. labels[1] .. "\t", out)
    assert.matches("\n%a+\t[%d.]+\t\n%a+\t[%d.]+\txyzzy\n$", out)
  end)

  it("pads and drops words as the task that it was trained on", function()
    local out = train("reviews", {"--task", "imdb", "--data", home, "--epochs", "3"})
    local scores = file.read_json(home .. "/reviews/result.json").metrics
    assert.equal(1, scores.accuracy, out)
    local _, said = predict("reviews", {input = texts[1] .. "\nThe " .. texts[1]:upper() .. "!\n"})
    local first, second = said:match "^(%a+\t[%d.]+)\t[^\n]*\n(%a+\t[%d.]+)\t"
    assert.matches(labels[1] == "good" and "^positive" or "^negative", first)
    assert.equal(first, second)
  end)

  it("says in one line what is wrong with a folder", function()
    local whole = home .. "/two/config.json"
    local function fails(message, change)
      local folder = home .. "/broken"
      file.remove_folder(folder)
      file.make_folder(folder)
      for _, name in ipairs {"vocab.txt", "model.safetensors"} do
        file.save(folder .. "/" .. name, file.read(home .. "/two/" .. name))
      end
      local config = file.read_json(whole)
      change(config.octet, folder)
      file.save(folder .. "/config.json", json.encode(config))
      local status, _, err = predict("broken", {}, {"--text", "a"})
      assert.equal(1, status)
      assert.matches(message, err)
      assert.equal(1, select(2, err:gsub("\n", "")), err)
    end
    fails("does not say what LSTM it describes", function(own) own.model = nil end)
    fails("octet.model.hidden is 8.5, expected a whole number", function(own)
      own.model.hidden = 8.5
    end)
    fails("octet.model.layers is 1000000000, expected", function(own) own.model.layers = 1e9 end)
    fails("octet.model.classes is 1, expected a whole number from 2", function(own)
      own.model.classes = 1
    end)
    fails("octet.labels are 3, expected 2 names", function(own)
      own.labels = json.array {"a", "b", "c"}
    end)
    fails("octet.labels are %d, expected 2 names", function(own) own.labels = {x = 1} end)
    fails("no task ptb", function(own) own.task = "ptb" end)
    fails("vocab.txt: expected a word a line", function(_, folder)
      file.save(folder .. "/vocab.txt", "a\nb\n")
    end)
    fails("model.safetensors: load: tensor 'embed.weight' is %[22 x 8%], expected %[3 x 8%]",
      function(_, folder) file.save(folder .. "/vocab.txt", "<pad>\n<unknown>\nfilm\n") end)
    fails("model.safetensors: load: tensor 'lstm.weight_ih_l0' is %[32 x 8%], expected %[64 x 8%]",
      function(own) own.model.hidden = 16 end)
  end)
end)
