-- The recipe from its command line to the folder it leaves.
local file = require "octet.file"
local octet = require "octet"
local scratch = require "spec.scratch"
local tiny = require "spec.recipes.tiny"

local home, song, noise

--- The three texts in a folder; text(words) gives one of some words.
local function write(folder, text)
  file.make_folder(folder)
  for part, words in pairs {train = 2400, valid = 240, test = 240} do
    file.save(("%s/ptb.%s.txt"):format(folder, part), text(words))
  end
  return folder
end

setup(function()
  home = scratch.folder()
  -- What comes behind "round" hangs on the word before it.
  song = write(home .. "/song", function(words)
    return ("row round the boat\nturn round the wheel\n"):rep(words / 10)
  end)
  noise = write(home .. "/noise", function(words)
    local state, lines = 1, {}
    for i = 1, words do
      state = (state * 1103 + 377) % 65521
      lines[i] = ("w%d%s"):format(state % 50, i % 9 == 0 and "\n" or "")
    end
    return table.concat(lines, " ")
  end)
end)
teardown(scratch.clean)

local function run_on(data, out, arguments, o)
  -- Wide enough that the LSTM's weights have 8-bit state.
  local all = {"--data", data, "--hidden", "32", "--embedding", "32", "--length", "5", "--out", out}
  for _, argument in ipairs(arguments or {}) do all[#all + 1] = argument end
  if not table.concat(all, " "):find("--batch", 1, true) then
    all[#all + 1], all[#all + 2] = "--batch", "4"
  end
  return tiny.run("lstm_language_model", all, o)
end

local KEPT = {"log.jsonl", "metrics.csv", "model.safetensors", "curve.svg", "vocab.txt",
  "checkpoint/last.safetensors", "checkpoint/best.safetensors"}

local function bytes_of(run)
  local all = {}
  for _, name in ipairs(KEPT) do all[name] = file.sha256(run .. "/" .. name) end
  return all
end

describe("lstm_language_model", function()
  it("learns a text that repeats, and leaves all that a run leaves", function()
    local run = home .. "/learns"
    local status, out, err = run_on(song, run, {"--epochs", "4", "--lr", "1e-2"})
    assert.equal(0, status, err)
    assert.equal("", err)
    assert.matches("^PTB: 2,400 words to train on, 240 to validate, 240 to test, 7 "
      .. "different ones, from ", out)
    assert.matches("\ntest: perplexity 1%.", out)
    for _, name in ipairs {"config.json", "result.json", unpack(KEPT)} do
      assert.is_true(file.is_file(run .. "/" .. name), name)
    end
    local result = file.read_json(run .. "/result.json")
    assert.equal(480, result.steps)
    assert.equal(4 * 4 * 599, result.tokens)
    -- The lines take turns: nothing is left to chance but the first word.
    assert.is_true(result.metrics.perplexity < 1.03, result.metrics.perplexity)
    assert.near(math.exp(result.metrics.loss), result.metrics.perplexity, 1e-9)
    assert.near(math.exp(result.metrics.loss_test), result.metrics.perplexity_test, 1e-9)
    assert.equal("<eos>\nround\nthe\nboat\nrow\nturn\nwheel\n", file.read(run .. "/vocab.txt"))
    assert.same({7, 32}, octet.safetensors.open(run .. "/model.safetensors")
      :info "embed.weight".shape)
  end)

  it("keeps the evaluation of the lowest perplexity as its best", function()
    local run = home .. "/best"
    assert.equal(0, (run_on(noise, run, {"--epochs", "6", "--lr", "3e-2", "--decay", "1"})))
    local result = file.read_json(run .. "/result.json")
    local _, metrics = octet.train.run_folder.open(run):history()
    local lowest = math.min(unpack(metrics.perplexity))
    assert.near(lowest, result.best.value, 1e-4)
    assert.is_true(result.metrics.perplexity > lowest)
  end)

  it("halves its learning rate after each epoch, once so many have passed", function()
    local run = home .. "/decay"
    assert.equal(0, (run_on(noise, run, {"--epochs", "4", "--lr", "1", "--decay", "0.5",
      "--decay-after", "2", "--optim", "sgd", "--momentum", "0"})))
    local log, seen = octet.train.run_folder.open(run):history(), {}
    for i, epoch in ipairs(log.epoch) do
      seen[epoch] = seen[epoch] or {}
      seen[epoch][log.lr[i]] = true
    end
    assert.same({{[1] = true}, {[1] = true}, {[0.5] = true}, {[0.25] = true}}, seen)
  end)

  it("goes on after a signal within an epoch to the same bytes, what it had read included",
    function()
      local whole, cut = home .. "/whole", home .. "/cut"
      -- An evaluation within the epoch must not touch what training has read.
      local arguments = {"--epochs", "3", "--checkpoint-every", "7", "--evaluate-every", "50"}
      assert.equal(0, (run_on(noise, whole, arguments)))
      local status, out = run_on(noise, cut, arguments, {before = ([[
        (while [ ! -f %s/checkpoint/last.safetensors ]; do sleep 0.01; done
         kill -INT $(cat %s.pid)) & sh -c 'echo $$ > %s.pid; exec "$@"' sh]]):format(cut, cut,
        cut)})
      assert.equal(130, status)
      assert.truthy(out:find("go on with:\n  luajit recipes/lstm_language_model.lua --resume "
        .. cut, 1, true))
      local position = octet.train.checkpoint.position(cut .. "/checkpoint/last.safetensors")
      assert.is_true(position.batch > 0)
      local resumed, _, err = tiny.run("lstm_language_model", {"--resume", cut})
      assert.equal(0, resumed, err)
      assert.same(bytes_of(whole), bytes_of(cut))
    end)

  it("gives the same numbers with any number of threads", function()
    local arguments, one, two = {"--epochs", "1", "--threads", "1"}, home .. "/one", home .. "/two"
    assert.equal(0, (run_on(noise, one, arguments)))
    arguments[4] = "2"
    assert.equal(0, (run_on(noise, two, arguments)))
    assert.equal(2, file.read_json(two .. "/result.json").threads)
    assert.same(bytes_of(one), bytes_of(two))
  end)

  it("runs several seeds, and reports their median", function()
    local run = home .. "/seeds"
    local status, out, err = run_on(song, run, {"--seeds", "2", "--steps", "20"})
    assert.equal(0, status, err)
    assert.matches("median of 2 seeds: perplexity", out)
    assert.equal(2, #file.read_json(run .. "/result.json").runs)
  end)

  it("says in one line what it lacks", function()
    local function fails(message, data, arguments)
      local out = home .. "/fails"
      local status, _, err = run_on(data, out, arguments, {before = "OCTET_DATA="})
      assert.equal(1, status)
      assert.matches(message, err)
      assert.equal(1, select(2, err:gsub("\n", "")))
      if file.is_folder(out) then file.remove_folder(out) end
    end
    fails("ptb%.train%.txt, ptb%.valid%.txt, ptb%.test%.txt were not found in " .. home, home)
    fails("a text of 2400 words cannot be read in 2400 columns, expected 2401 words or more", song,
      {"--batch", "2400"})
    fails('unknown task "wikitext"; it is one of ptb', song, {"--task", "wikitext"})
    fails("adam8: .*momentum", song, {"--momentum", "0.9"})
    fails("training has diverged", noise, {"--optim", "sgd", "--lr", "1000", "--clip", "0"})
    local empty = write(home .. "/empty", function() return "\n" end)
    fails("ptb%.train%.txt: holds no word", empty)
    file.save(empty .. "/ptb.train.txt", "a b\n")
    file.save(empty .. "/ptb.valid.txt", "a\nb c\n")
    file.save(empty .. "/ptb.test.txt", "a\n")
    fails('ptb%.valid%.txt line 2: "c" is no word of ptb%.train%.txt', empty)
  end)
end)
