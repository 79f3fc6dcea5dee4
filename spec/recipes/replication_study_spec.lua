-- The study on a small set of messages: its runs, its table, and how it goes on.
local file = require "octet.file"
local scratch = require "spec.scratch"
local tiny = require "spec.recipes.tiny"

local home = scratch.folder()

setup(function()
  local lines = {"type,text"}
  for n = 1, 160 do
    local text, label = tiny.sentence(n)
    lines[n + 1] = (label == 1 and "spam," or "ham,") .. text
  end
  file.make_folder(home .. "/data/sms-spam")
  file.save(home .. "/data/sms-spam/sms_spam.csv", table.concat(lines, "\n") .. "\n")
end)
teardown(scratch.clean)

local function study(out, arguments, o)
  local all = {"--experiment", "sms", "--data", home .. "/data", "--out", out, "--jobs", "2"}
  for _, argument in ipairs(arguments) do all[#all + 1] = argument end
  return tiny.run("replication_study", all, o)
end

local ARMS = {"adam", "adam8", "paper", "bnb", "bnb-0.36"}

describe("replication_study", function()
  it("runs every arm, writes table and plot, and adds seeds to what is there", function()
    local out = home .. "/study"
    local status, said, err = study(out, {"--epochs", "2", "--seeds", "1"})
    assert.equal(0, status, err)
    assert.equal("", err)
    assert.matches("\nAdam, 32 bits +1 +0%.%d%d%d%d +", said)
    assert.matches("\n8 bits, bitsandbytes 0.36's map +1 +0%.%d%d%d%d +[+-]0%.%d%d%d%d", said)
    -- The report says nothing of a second epoch.
    assert.is_nil(said:find("report, 32 bits", 1, true))
    local results = file.read_json(out .. "/results.json").sms
    for _, arm in ipairs(ARMS) do assert.equal(1, results[arm].seeds) end
    assert.equal(8, results.adam.state_bytes.mean / results.adam.parameters.mean)
    assert.is_true(results.adam8.state_bytes.mean < results.adam.state_bytes.mean / 3)
    assert.matches("<svg", file.read(out .. "/curves.svg"))
    assert.matches("^| SMS spam", file.read(out .. "/table.md"))
    local begun = file.sha256(out .. "/sms-adam-1/log.jsonl")

    status, said, err = study(out, {"--epochs", "2", "--seeds", "2"})
    assert.equal(0, status, err)
    assert.is_nil(said:find("sms-adam-1:", 1, true))
    assert.matches("sms%-adam%-2: accuracy", said)
    assert.matches("\nAdam, 32 bits +2 +0%.%d%d%d%d ± 0%.%d%d%d%d", said)
    assert.equal(begun, file.sha256(out .. "/sms-adam-1/log.jsonl"))

    file.remove(out .. "/table.md")
    status, said, err = study(out, {"--epochs", "2", "--seeds", "3", "--report"})
    assert.equal(0, status, err)
    assert.matches("\nAdam, 32 bits +2 ", said)
    assert.is_true(file.is_file(out .. "/table.md"))
    assert.is_false(file.is_folder(out .. "/sms-adam-3"))

    -- A run that diverged is over, and counts as what it is.
    file.remove(out .. "/sms-bnb-0.36-1/result.json")
    file.save_json(out .. "/sms-bnb-0.36-1/diverged.json", {step = 9, epoch = 2})
    status, said, err = study(out, {"--epochs", "2", "--seeds", "1"})
    assert.equal(0, status, err)
    assert.matches("\n8 bits, bitsandbytes 0.36's map +0, 1 diverged *\n", said)
    assert.equal(1, file.read_json(out .. "/results.json").sms["bnb-0.36"].diverged)

    status, said, err = study(out, {"--epochs", "3"})
    assert.equal(1, status)
    assert.equal("", said)
    assert.equal(("replication_study: --epochs: 3, but the study in %s has 2\n"):format(out), err)
  end)

  it("stopped, goes on to the same bytes", function()
    local whole, cut = home .. "/whole", home .. "/cut"
    local arguments = {"--epochs", "50", "--seeds", "1"}
    local status, said = study(whole, arguments)
    assert.equal(0, status)
    assert.matches("\nreport, 32 bits +%.085\n", said)
    status, said = study(cut, arguments, {before = ([[
      (while [ ! -f %s/sms-adam-1/checkpoint/last.safetensors ]; do sleep 0.01; done
       kill -INT $(cat %s.pid)) & sh -c 'echo $$ > %s.pid; exec "$@"' sh]]):format(cut, cut, cut)})
    assert.equal(130, status)
    assert.matches("stopped by Ctrl%-C; the same command goes on with " .. cut:gsub("%p", "%%%0"),
      said)
    assert.is_false(file.is_file(cut .. "/sms-adam-1/result.json"))
    assert.equal(0, (study(cut, arguments)))
    for _, arm in ipairs(ARMS) do
      for _, name in ipairs {"log.jsonl", "metrics.csv", "model.safetensors"} do
        local path = ("/sms-%s-1/%s"):format(arm, name)
        assert.equal(file.sha256(whole .. path), file.sha256(cut .. path), path)
      end
    end
  end)

  it("says in one line what it lacks", function()
    local status, _, err = tiny.run("replication_study", {"--experiment", "sms", "--data",
      home .. "/none", "--out", home .. "/lacking"}, {before = "OCTET_DATA="})
    assert.equal(1, status)
    assert.matches("^replication_study: sms%-adam8?%-1: lstm_classify: %-%-data: there is no "
      .. "folder .*/none\n$", err)
    assert.equal(1, select(2, err:gsub("\n", "")))
    file.make_folder(home .. "/other")
    status, _, err = study(home .. "/other", {})
    assert.equal(1, status)
    assert.equal(("replication_study: --out: %s/other exists and is no study\n"):format(home), err)
  end)
end)
