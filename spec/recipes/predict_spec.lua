-- Predictions of tiny models that glue_finetune made.
local file = require "octet.file"
local scratch = require "spec.scratch"
local tiny = require "spec.recipes.tiny"

local home, runs

setup(function()
  home, runs = scratch.folder(), {}
  local model = tiny.model(home .. "/model")
  tiny.all_data(home .. "/data")
  for _, task in ipairs {"sst2", "mrpc", "stsb"} do
    runs[task] = home .. "/" .. task
    assert.equal(0, (tiny.run("glue_finetune", {"--task", task, "--data", home .. "/data",
      "--model", model, "--batch", "8", "--lr", "1e-2", "--epochs", "4", "--out", runs[task]})))
  end
end)
teardown(scratch.clean)

local function predict(arguments, o) return tiny.run("predict", arguments, o) end

local function failure(arguments, o)
  local status, out, err = predict(arguments, o)
  assert.equal(1, status)
  assert.equal(1, select(2, err:gsub("\n", "")), err)
  return err, out
end

describe("predict", function()
  it("writes label, probability and text", function()
    local status, out = predict {"--model", runs.sst2, "--text", "the film is bad"}
    assert.equal(0, status)
    local label, probability, text = out:match "^([^\t]*)\t([^\t]*)\t([^\n]*)\n$"
    assert.equal("negative", label)
    assert.is_true(tonumber(probability) > 0.5 and tonumber(probability) <= 1)
    assert.equal("the film is bad", text)
  end)

  it("answers what comes before a line that it cannot read, and names that line", function()
    local input = {}
    for i = 1, 30000 do input[i] = "the film is good" end
    input[29990] = "bad \255"
    local err, out = failure({"--model", runs.sst2, "--batch", "1000"},
      {input = table.concat(input, "\n")})
    assert.equal("predict: line 29990: byte 4 (0xff) is not UTF-8\n", err)
    assert.equal(29989, select(2, out:gsub("\n", "")))
    err, out = failure({"--model", runs.mrpc}, {input = "a\tb\nc\td\ne\n"})
    assert.matches("^predict: line 3: expected two texts", err)
    assert.equal(2, select(2, out:gsub("\n", "")))
    err, out = failure({"--model", runs.mrpc}, {input = "a\tb\nc\t\255\n"})
    assert.matches("^predict: line 2, second text: byte %d", err)
    assert.equal(1, select(2, out:gsub("\n", "")))
  end)

  it("writes one line for each that it reads, whatever the batch and the line's end", function()
    local texts, input = {}, {}
    for i = 1, 200 do
      texts[i] = i % 10 == 0 and "" or (tiny.sentence(i))
      input[i] = texts[i] .. (i % 3 == 0 and "\r\n" or "\n")
    end
    input[200] = texts[200]
    local expected
    for _, batch in ipairs {"1", "7", "64", "1000"} do
      local status, out = predict({"--model", runs.sst2, "--batch", batch},
        {input = table.concat(input)})
      assert.equal(0, status)
      expected = expected or out
      assert.equal(expected, out)
    end
    local i = 0
    for line in expected:gmatch "([^\n]*)\n" do
      i = i + 1
      assert.equal(i < 200 and texts[i] or texts[200], line:match "^%a+\t[%d.]+\t(.*)$")
    end
    assert.equal(texts[200] == "" and 199 or 200, i)
  end)

  it("agrees with the recipe's own evaluation", function()
    local rows, labels = {}, {}
    for line in file.read(home .. "/data/SST-2/dev.tsv"):gmatch "[^\n]+" do
      local text, label = line:match "^(.*)\t(%d)$"
      if label then rows[#rows + 1], labels[#labels + 1] = text, label end
    end
    local _, out = predict({"--model", runs.sst2}, {input = table.concat(rows, "\n")})
    local right, i = 0, 0
    for label in out:gmatch "(%a+)\t" do
      i = i + 1
      if (label == "positive") == (labels[i] == "1") then right = right + 1 end
    end
    assert.equal(file.read_json(runs.sst2 .. "/result.json").metrics.accuracy, right / #rows)
  end)

  it("reads pairs, and scores them", function()
    local status, out = predict({"--model", runs.mrpc}, {input = "the film\ta story\n"})
    assert.equal(0, status)
    assert.matches("^n?o?t?_?equivalent\t[%d.]+\tthe film\ta story\n$", out)
    status, out = predict {"--model", runs.stsb, "--text", "the film\ta story"}
    assert.equal(0, status)
    assert.matches("^%-?%d+%.%d+\tthe film\ta story\n$", out)
  end)

  it("answers each line at once where they come slowly", function()
    local pipe = io.popen(([[export OMP_NUM_THREADS=1
      mkfifo %s/slow %s/gate
      (echo the film is bad; cat %s/gate; echo the film is good) > %s/slow &
      luajit recipes/predict.lua --model %s < %s/slow |
      (read first; echo "got $first"; echo > %s/gate; cat)]]):format(home, home, home, home,
      runs.sst2, home, home))
    local out = pipe:read "*a"
    pipe:close()
    assert.matches("^got negative\t[%d.]+\tthe film is bad\n", out)
    assert.matches("\tthe film is good\n$", out)
  end)

  it("keeps a TAB in the text of a model of single texts", function()
    local _, out = predict {"--model", runs.sst2, "--text", "the\tfilm"}
    assert.matches("\tthe\tfilm\n$", out)
  end)

  it("has nothing to say of no input", function()
    local status, out = predict({"--model", runs.sst2}, {input = ""})
    assert.equal(0, status)
    assert.equal("", out)
  end)

  it("says in one line what is wrong", function()
    assert.matches("^predict: %-%-model is missing", failure {})
    assert.matches("^predict: .*/none", failure {"--model", home .. "/none"})
    assert.matches("names no classes", failure {"--model", home .. "/model"})
    assert.matches("^predict: line 2: expected two texts parted by a TAB, got 1",
      failure({"--model", runs.mrpc}, {input = "a\tb\nc\n"}))
    assert.matches("^predict: .*UTF%-8", failure({"--model", runs.sst2}, {input = "f\255ne\n"}))
    assert.equal("predict: standard output: No space left on device\n",
      (failure({"--model", runs.sst2, "--text", "a"}, {output = "/dev/full"})))
  end)
end)
