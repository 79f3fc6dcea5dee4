-- The recipe from its command line to the folder it leaves.
local file = require "octet.file"
local octet = require "octet"
local scratch = require "spec.scratch"
local tiny = require "spec.recipes.tiny"

local home, table_path

setup(function()
  home = scratch.folder()
  table_path = home .. "/mail.csv"
  tiny.own_table(table_path)
end)
teardown(scratch.clean)

local function classify(out, arguments, o)
  local all = {"--data", table_path, "--text-column", "text", "--label-column", "label",
    "--hidden", "8", "--embedding", "8", "--lr", "1e-2", "--batch", "16", "--out", out}
  for _, argument in ipairs(arguments or {}) do all[#all + 1] = argument end
  return tiny.run("lstm_classify", all, o)
end

local KEPT = {"log.jsonl", "metrics.csv", "model.safetensors", "curve.svg", "vocab.txt",
  "checkpoint/last.safetensors", "checkpoint/best.safetensors"}

local function bytes_of(run)
  local all = {}
  for _, name in ipairs(KEPT) do all[name] = file.sha256(run .. "/" .. name) end
  return all
end

describe("lstm_classify", function()
  it("learns a user's own table, and leaves all that a run leaves", function()
    local run = home .. "/own"
    local status, out, err = classify(run, {"--epochs", "8"})
    assert.equal(0, status, err)
    assert.equal("", err)
    assert.matches("^mail%.csv: 90 training and 30 development examples, from .*; 20 words\n", out)
    for _, name in ipairs {"config.json", "result.json", unpack(KEPT)} do
      assert.is_true(file.is_file(run .. "/" .. name), name)
    end
    local result = file.read_json(run .. "/result.json")
    assert.equal(1, result.metrics.accuracy)
    assert.equal(1, result.metrics.f1)
    assert.equal(48, result.steps)
    local state = octet.safetensors.open(run .. "/model.safetensors")
    assert.same({16, 8}, state:info "out.weight".shape and {state:info "lstm.weight_ih_l1".shape[2],
      state:info "lstm.weight_hh_l0".shape[2]})
  end)

  it("goes on after a signal to the same bytes", function()
    local whole, cut = home .. "/whole", home .. "/cut"
    local arguments = {"--epochs", "60", "--checkpoint-every", "5"}
    assert.equal(0, (classify(whole, arguments)))
    -- As soon as there is a checkpoint; 60 epochs are a second and more.
    local status, out = classify(cut, arguments, {before = ([[
      (while [ ! -f %s/checkpoint/last.safetensors ]; do sleep 0.01; done
       kill -INT $(cat %s.pid)) & sh -c 'echo $$ > %s.pid; exec "$@"' sh]]):format(cut, cut, cut)})
    assert.equal(130, status)
    assert.truthy(out:find("go on with:\n  luajit recipes/lstm_classify.lua --resume " .. cut, 1,
      true))
    local resumed, _, err = tiny.run("lstm_classify", {"--resume", cut})
    assert.equal(0, resumed, err)
    assert.same(bytes_of(whole), bytes_of(cut))
  end)

  it("runs several seeds, and reports their median", function()
    local run = home .. "/seeds"
    local status, out, err = classify(run, {"--seeds", "2", "--epochs", "1"})
    assert.equal(0, status, err)
    assert.matches("median of 2 seeds: accuracy", out)
    assert.equal(2, #file.read_json(run .. "/result.json").runs)
  end)

  it("says in one line what it lacks", function()
    local function fails(message, arguments)
      local status, _, err = tiny.run("lstm_classify", arguments, {before = "OCTET_DATA="})
      assert.equal(1, status)
      assert.matches(message, err)
      assert.equal(1, select(2, err:gsub("\n", "")))
    end
    fails("%-%-data is a file: texts of your own need %-%-text%-column NAME and "
      .. "%-%-label%-column NAME", {"--data", table_path})
    fails("%-%-task file needs %-%-data FILE, %-%-text%-column NAME and %-%-label%-column NAME",
      {"--text-column", "a"})
    fails("%-%-task sms has its own columns", {"--task", "sms", "--text-column", "a"})
    fails('unknown task "spam"; it is one of sms, imdb, file', {"--task", "spam"})
    fails('mail.csv line 1: no column "body"', {"--data", table_path, "--text-column", "body",
      "--label-column", "label"})
    fails("sms_spam.csv was not found in " .. home, {"--task", "sms", "--data", home})
  end)

  it("reaches 97 % on SMS spam with 8-bit state", function()
    local data = os.getenv "OCTET_DATA"
    if not data or not file.is_file(data .. "/sms-spam/sms_spam.csv") then
      pending "OCTET_DATA holds no sms-spam/sms_spam.csv"
    end
    local run = home .. "/sms"
    local status, _, err = tiny.run("lstm_classify", {"--task", "sms", "--optim", "adam8",
      "--epochs", "4", "--lr", "3e-3", "--out", run})
    assert.equal(0, status, err)
    assert.is_true(file.read_json(run .. "/result.json").metrics.accuracy >= 0.97)
  end)
end)
