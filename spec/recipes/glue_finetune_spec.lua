-- The recipe from its command line to the folder it leaves, on a tiny BERT.
local file = require "octet.file"
local json = require "octet.json"
local octet = require "octet"
local scratch = require "spec.scratch"
local tiny = require "spec.recipes.tiny"

local home, model, data

setup(function()
  home = scratch.folder()
  model = tiny.model(home .. "/model")
  data = home .. "/data"
  tiny.all_data(data)
end)
teardown(scratch.clean)

local function finetune(arguments, o)
  local all, given = {}, {}
  for i, argument in ipairs(arguments) do all[i], given[argument] = argument, true end
  for name, value in pairs {data = data, model = model, batch = "8", lr = "1e-2"} do
    if not given["--" .. name] then all[#all + 1], all[#all + 2] = "--" .. name, value end
  end
  return tiny.run("glue_finetune", all, o)
end

--- What must not depend on whether a run was stopped.
local KEPT = {"log.jsonl", "metrics.csv", "model.safetensors", "curve.svg",
  "checkpoint/last.safetensors", "checkpoint/best.safetensors"}

local function bytes_of(run)
  local all = {}
  for _, name in ipairs(KEPT) do all[name] = file.sha256(run .. "/" .. name) end
  return all
end

--- A run that has all but its result.
local function without_result(name, steps)
  local run = home .. "/" .. name
  assert.equal(0, (finetune {"--task", "sst2", "--out", run, "--steps", steps or "2"}))
  file.remove(run .. "/result.json")
  return run
end

describe("glue_finetune", function()
  it("learns, and leaves all that a run leaves", function()
    local run = home .. "/sst2"
    local status, out, err = finetune {"--task", "sst2", "--epochs", "4", "--out", run}
    assert.equal(0, status, err)
    assert.equal("", err)
    assert.matches("^SST%-2: 64 training and 16 development examples, from " .. data, out)
    assert.matches("optimizer state: .* are saved\n", out)
    assert.matches("at 32 bits %(fewer than 4096 elements%): ", out)
    for _, name in ipairs {"config.json", "vocab.txt", "tokenizer_config.json", "result.json",
        unpack(KEPT)} do
      assert.is_true(file.is_file(run .. "/" .. name), name)
    end
    local result = file.read_json(run .. "/result.json")
    assert.equal(1, result.metrics.accuracy)
    for field, kind in pairs {recipe = "string", task = "string", data = "table",
        optimizer = "string", precision = "string", device = "string", threads = "number",
        seed = "number", metrics = "table", steps = "number", seconds = "number",
        tokens_per_second = "number", memory = "table"} do
      assert.equal(kind, type(result[field]), field)
    end
    assert.equal(64, result.data.train)
    assert.equal("SST-2", result.data.name)
    assert.equal(32, result.steps)
    for _, purpose in ipairs {"parameters", "gradients", "optimizer_state", "activations",
        "workspace", "total_peak", "rss_peak"} do
      assert.is_true(result.memory[purpose] > 0, purpose)
    end
    local lines = select(2, file.read(run .. "/log.jsonl"):gsub("\n", ""))
    assert.equal(32, lines)
    assert.matches("^step,epoch,train_loss,accuracy,loss\n", file.read(run .. "/metrics.csv"))
    assert.matches("^<svg ", file.read(run .. "/curve.svg"))
  end)

  it("saves the model in Hugging Face's layout, which it can begin with again", function()
    local run = home .. "/hf"
    assert.equal(0, (finetune {"--task", "mnli", "--pooling", "cls", "--out", run}))
    local config = file.read_json(run .. "/config.json")
    assert.same({["0"] = "entailment", ["1"] = "neutral", ["2"] = "contradiction"}, config.id2label)
    assert.same({entailment = 0, neutral = 1, contradiction = 2}, config.label2id)
    assert.equal("bert", config.model_type)
    local weights = octet.safetensors.open(run .. "/model.safetensors")
    assert.same({3, 32}, weights:info "classifier.weight".shape)
    assert.same({32, 32}, weights:info "bert.encoder.layer.1.attention.self.key.weight".shape)
    assert.same({32, 32}, weights:info "bert.pooler.dense.weight".shape)
    weights:close()
    assert.equal(0, (tiny.run("glue_finetune", {"--task", "mnli", "--data", data, "--model", run,
      "--pooling", "cls", "--steps", "1", "--out", home .. "/hf2"})))
  end)

  it("scores a regression by its correlations", function()
    local run = home .. "/stsb"
    local status, out = finetune {"--task", "stsb", "--out", run, "--optim", "adamw8"}
    assert.equal(0, status)
    assert.matches("pearson %-?[%d.]+  spearman %-?[%d.]+  loss", out)
    local config = file.read_json(run .. "/config.json")
    assert.equal("regression", config.problem_type)
    assert.matches("^step,epoch,train_loss,pearson,spearman,loss\n",
      file.read(run .. "/metrics.csv"))
  end)

  it("tells the emotions of tweets, with the settings of their own report", function()
    local labels, lines = octet.data.task("smile").label_names, {}
    for n = 1, 60 do
      lines[n] = ('%d,"%s",%s'):format(n, tiny.sentence(n), labels[n % 6 + 1])
    end
    file.make_folder(data .. "/smile")
    file.save(data .. "/smile/smile-annotations-final.csv", table.concat(lines, "\n") .. "\n")
    local run = home .. "/smile"
    local status, _, err = tiny.run("glue_finetune", {"--task", "smile", "--data", data, "--model",
      model, "--out", run})
    assert.equal(0, status, err)
    local result = file.read_json(run .. "/result.json")
    assert.equal(1e-5, result.learning_rate)
    assert.equal(10 * 48 / 4, result.steps)
    assert.is_true(result.metrics.weighted_f1 >= 0 and result.metrics.weighted_f1 <= 1)
    local first = file.read(run .. "/log.jsonl"):match '"lr": ?([^,]+)'
    assert.equal(1e-5, tonumber(first))
  end)

  it("gives the same numbers with any number of threads, in any locale, from any folder", function()
    local hashes = {}
    for i, o in ipairs {{before = "OMP_NUM_THREADS=1"}, {before = "OMP_NUM_THREADS=4"},
        {before = "LC_ALL=de_DE.UTF-8 LANG=de_DE.UTF-8"}} do
      local run = home .. "/same" .. i
      assert.equal(0, (finetune({"--task", "rte", "--epochs", "1", "--out", run}, o)))
      hashes[i] = bytes_of(run)
    end
    assert.same(hashes[1], hashes[2])
    assert.same(hashes[1], hashes[3])
  end)

  it("takes a part of the data, the same one for the same seed", function()
    local run = home .. "/limit"
    local status, out = finetune {"--task", "sst2", "--limit", "20", "--epochs", "1", "--out", run}
    assert.equal(0, status)
    assert.matches("^SST%-2: 20 of 64 training", out)
    assert.equal(3, file.read_json(run .. "/result.json").steps)
  end)

  it("makes the same steps on one batch and on several that are half its size", function()
    local plain = tiny.model(home .. "/plain", {dropout = 0})
    local logs = {}
    for accumulate, batch in ipairs {"16", "8"} do
      local run = home .. "/accumulate" .. accumulate
      local status, _, err = finetune {"--task", "sst2", "--model", plain, "--optim", "adam",
        "--limit", "40", "--epochs", "2", "--batch", batch, "--accumulate", tostring(accumulate),
        "--out", run}
      assert.equal(0, status, err)
      local steps = {}
      for line in file.read(run .. "/log.jsonl"):gmatch "[^\n]+" do
        steps[#steps + 1] = json.decode(line)
      end
      assert.equal(6, #steps)
      logs[accumulate] = steps
    end
    for step, one in ipairs(logs[1]) do
      local two = logs[2][step]
      assert.same({one.tokens, one.lr, one.epoch}, {two.tokens, two.lr, two.epoch})
      assert.near(one.loss, two.loss, 1e-3)
      assert.near(1, two.grad_norm / one.grad_norm, 1e-2)
    end
    assert.near(logs[1][1].loss, logs[2][1].loss, 1e-6)
  end)

  it("names a default folder after the run, and the next number where it exists", function()
    local before = ("cd %s && ln -sfn %s/recipes recipes;"):format(home,
      io.popen "pwd":read "*l")
    for _, name in ipairs {"glue_finetune-cola-adam-3", "glue_finetune-cola-adam-3-2"} do
      local status, out = finetune({"--task", "cola", "--optim", "adam", "--seed", "3", "--steps",
        "2"}, {before = before})
      assert.equal(0, status)
      assert.matches("the run is in runs/" .. name:gsub("%-", "%%-") .. ";", out)
      assert.is_true(file.is_file(home .. "/runs/" .. name .. "/result.json"))
    end
  end)

  it("points out predictions of a single class", function()
    local status, out = finetune {"--task", "sst2", "--steps", "1", "--out", home .. "/single"}
    assert.equal(0, status)
    assert.matches('note: every one of the 16 predictions is "', out)
    assert.matches("every one of the 16",
      file.read_json(home .. "/single/result.json").notes[1])
  end)
end)

describe("a fine-tuning that is stopped", function()
  local OPTIONS = {"--task", "sst2", "--epochs", "6", "--evaluate-every", "5",
    "--checkpoint-every", "7"}
  local expected

  local function with_out(run)
    local all = {unpack(OPTIONS)}
    all[#all + 1], all[#all + 2] = "--out", run
    return all
  end

  setup(function()
    assert.equal(0, (finetune(with_out(home .. "/whole"))))
    expected = bytes_of(home .. "/whole")
  end)

  --- Run, and send a signal after some time. Where that finds it differs from machine to machine,
  -- also after its end; fit_spec stops at each step.
  local function stop(run, signal, seconds)
    return finetune(with_out(run), {before = ([[
      (sleep %s; kill -%s $(cat %s.pid)) 2>/dev/null & sh -c 'echo $$ > %s.pid; exec "$@"' sh]])
      :format(seconds, signal, run, run)})
  end

  for _, signal in ipairs {"INT", "TERM", "KILL"} do
    it("by SIG" .. signal .. " goes on to the same bytes", function()
      for number, seconds in ipairs {0.1, 0.2, 0.4} do
        local run = ("%s/%s%d"):format(home, signal, number)
        local status, out = stop(run, signal, seconds)
        -- A signal that comes while the process still loads, or when all is saved, ends it plainly.
        local finished = file.is_file(run .. "/result.json")
        if status ~= 0 and not finished and file.is_file(run .. "/config.json") then
          if signal ~= "KILL" then
            assert.equal(signal == "INT" and 130 or 143, status)
            assert.matches("stopped by ", out)
            assert.truthy(out:find("go on with:\n  luajit recipes/glue_finetune.lua --resume "
              .. run .. "\n", 1, true))
          end
          local err
          status, out, err = tiny.run("glue_finetune", {"--resume", run})
          assert.equal(0, status, err)
          assert.matches("the run is in ", out)
        end
        if status == 0 or finished then assert.same(expected, bytes_of(run)) end
      end
    end)
  end

  it("keeps its options, and says so where others are given", function()
    local run = home .. "/options"
    assert.equal(0, (finetune {"--task", "sst2", "--out", run, "--steps", "2"}))
    local status, _, err = tiny.run("glue_finetune", {"--resume", run})
    assert.equal(1, status)
    assert.matches("^glue_finetune: %-%-resume: the run in .* is finished", err)
    file.remove(run .. "/result.json")
    status, _, err = tiny.run("glue_finetune", {"--resume", run, "--batch", "4"})
    assert.equal(1, status)
    assert.equal("glue_finetune: --batch cannot be given with --resume: the run keeps its own "
      .. "(8)\n", err)
    status, _, err = tiny.run("glue_finetune", {"--resume", run, "--optim", "adam"})
    assert.equal(1, status)
    assert.matches("^glue_finetune: %-%-optim cannot be given with %-%-resume: the run keeps its "
      .. "own %(adam8%)\n$", err)
    assert.equal(0, (tiny.run("glue_finetune", {"--resume", run, "--threads", "1"})))
  end)

  it("does not go on with other data", function()
    local run, other = without_result("same"), home .. "/other"
    tiny.data(other, "SST-2", 63)
    local status, _, err = tiny.run("glue_finetune", {"--resume", run, "--data", other})
    assert.equal(1, status)
    assert.matches("^glue_finetune: %-%-resume: the data of .* train is 63, expected 64\n$", err)
    -- As many, but one of them says the opposite.
    local path = home .. "/opposite/SST-2/train.tsv"
    tiny.data(home .. "/opposite", "SST-2", 64)
    local text = file.read(path)
    file.save(path, (text:gsub("\t1\n", "\t0\n", 1)))
    assert.not_equal(text, file.read(path))
    status, _, err = tiny.run("glue_finetune", {"--resume", run, "--data", home .. "/opposite"})
    assert.equal(1, status)
    assert.matches("^glue_finetune: %-%-resume: the data of .* digest is %x+, expected %x+\n$", err)
  end)

  it("does not go on with another model", function()
    local run, other = without_result("other-model"), home .. "/model2"
    tiny.model(other, {dropout = 0.5})
    local status, _, err = tiny.run("glue_finetune", {"--resume", run, "--model", other})
    assert.equal(1, status)
    assert.matches("^glue_finetune: %-%-resume: the model of .* digest is %x+, expected %x+", err)
  end)

  it("goes on from the best checkpoint where the last one is gone, to the same bytes", function()
    local whole, run = home .. "/never-stopped", home .. "/no-last"
    for _, folder in ipairs {whole, run} do
      local done, _, why = finetune {"--task", "sst2", "--out", folder, "--steps", "12",
        "--evaluate-every", "5"}
      assert.equal(0, done, why)
    end
    file.remove(run .. "/result.json")
    file.remove(run .. "/checkpoint/last.safetensors")
    local status, out = tiny.run("glue_finetune", {"--resume", run})
    assert.equal(0, status)
    assert.matches("goes on after step", out)
    for _, name in ipairs {"log.jsonl", "metrics.csv", "model.safetensors"} do
      assert.is_true(file.read(whole .. "/" .. name) == file.read(run .. "/" .. name), name)
    end
  end)

  it("comes to its end though somebody has damaged its log", function()
    local run = without_result("damaged-log", "4")
    local text = file.read(run .. "/log.jsonl")
    file.save(run .. "/log.jsonl", (text:gsub("{", "5", 1)))
    local status, _, err = tiny.run("glue_finetune", {"--resume", run})
    assert.equal(0, status)
    assert.matches("^note: curve.svg was not drawn: [^\n]+\n$", err)
    assert.is_true(file.is_file(run .. "/result.json"))
  end)

  it("leaves a folder alone in which another process is at work", function()
    local run = without_result("taken")
    assert.is_false(file.is_file(run .. "/.lock.partial"))
    local before = file.read(run .. "/log.jsonl")
    local lock = file.writer(run .. "/.lock")
    local status, _, err = tiny.run("glue_finetune", {"--resume", run})
    assert.equal(1, status)
    assert.equal(("glue_finetune: another process is at work in %s\n"):format(run), err)
    assert.equal(before, file.read(run .. "/log.jsonl"))
    lock:abandon()
    assert.equal(0, (tiny.run("glue_finetune", {"--resume", run})))
  end)

  it("does not go on with options that no option could have been", function()
    local run = without_result("tampered")
    local config = file.read_json(run .. "/config.json")
    for name, value in pairs {lr = -1, task = "sst3", batch = 1.5, nonsense = 1, optim = {}} do
      local options = {}
      for key, kept in pairs(config.octet.options) do options[key] = kept end
      options[name] = value
      file.save_json(run .. "/config.json", {octet = {recipe = "glue_finetune", options = options}})
      local status, _, err = tiny.run("glue_finetune", {"--resume", run})
      assert.equal(1, status)
      assert.matches("^glue_finetune: .*config.json: .*" .. name, err)
    end
  end)
end)

describe("several fine-tunings", function()
  it("of one task report the median over their seeds", function()
    local run = home .. "/seeds"
    local status, out = finetune {"--task", "mrpc", "--seeds", "3", "--epochs", "1", "--out", run}
    assert.equal(0, status)
    local values = {}
    for seed = 1, 3 do
      local one = file.read_json(("%s/mrpc-adam8-%d/result.json"):format(run, seed))
      assert.equal(seed, one.seed)
      values[seed] = one.metrics.accuracy
    end
    table.sort(values)
    local result = file.read_json(run .. "/result.json")
    assert.equal(values[2], result.median.mrpc.metrics.accuracy)
    assert.matches("optimizer +MRPC +Mean\nadam8 +[%d.]+ +[%d.]+\n.*median of 3 seeds", out)
  end)

  it("stop at a signal, with the line that goes on", function()
    local run = home .. "/stopped-seeds"
    local status, out = finetune({"--task", "rte", "--seeds", "6", "--epochs", "2", "--out", run},
      {before = ([[(sleep 0.4; kill -INT $(cat %s.pid)) 2>/dev/null &
        sh -c 'echo $$ > %s.pid; exec "$@"' sh]]):format(run, run)})
    -- On a machine that is very busy it may not have begun.
    if not file.is_file(run .. "/config.json") then return end
    if status ~= 0 and not file.is_file(run .. "/result.json") then
      assert.equal(130, status)
      assert.truthy(out:find("stopped by Ctrl-C; go on with:\n  luajit "
        .. "recipes/glue_finetune.lua --resume " .. run .. "\n", 1, true))
      assert.equal(0, (tiny.run("glue_finetune", {"--resume", run})))
    end
    assert.equal(6, file.read_json(run .. "/result.json").median.rte.runs)
  end)

  it("of all tasks print a table, and go on where they were stopped", function()
    local run = home .. "/all"
    local arguments = {"--task", "all", "--epochs", "1", "--out", run}
    local status, out = finetune(arguments)
    assert.equal(0, status)
    assert.matches("optimizer +MNLI +QNLI +QQP +RTE +SST%-2 +MRPC +CoLA +STS%-B +Mean\nadam8 ", out)
    assert.equal(8, #file.read_json(run .. "/result.json").runs)
    local before = file.read(run .. "/result.json")
    file.remove(run .. "/result.json")
    file.remove_folder(run .. "/stsb-adam8-1")
    status, out = tiny.run("glue_finetune", {"--resume", run})
    assert.equal(0, status)
    assert.equal(7, select(2, out:gsub("finished before", "")))
    local function medians(text) return json.encode(json.decode(text).median) end
    assert.equal(medians(before), medians(file.read(run .. "/result.json")))
  end)
end)

describe("where data cannot be had", function()
  -- A proxy that refuses: no spec goes through the network.
  local before
  setup(function()
    before = ("export https_proxy=http://127.0.0.1:9 XDG_CACHE_HOME=%s/cache OCTET_DATA=;")
      :format(home)
  end)

  it("the table leaves the task out, and says so", function()
    local some = home .. "/some"
    tiny.data(some, "CoLA")
    tiny.data(some, "RTE")
    local status, out = finetune({"--task", "all", "--data", some, "--epochs", "1", "--out",
      home .. "/some-run"}, {before = before})
    assert.equal(0, status)
    assert.equal(6, select(2, out:gsub("is left out: its data cannot be had: ", "")))
    assert.matches("optimizer +RTE +CoLA +Mean\n", out)
  end)

  it("the default task stands on the snippets, and the first line says so", function()
    local rows = {}
    for n = 1, 200 do
      local text, label = tiny.sentence(n)
      rows[n] = ("%d\t%.1f\t%s"):format(n, label == 1 and 1.5 or -1.5, text)
    end
    local place = home .. "/cache/octet/data/snippets"
    file.make_folder(place)
    file.save(place .. "/movieReviewSnippets_GroundTruth.txt", table.concat(rows, "\n") .. "\n")
    local run = home .. "/default"
    file.make_folder(home .. "/nothing")
    local status, out, err = finetune({"--data", home .. "/nothing", "--epochs", "1", "--out", run},
      {before = before})
    assert.equal(0, status, err)
    assert.matches("^movie%-review snippets: .*used instead of SST%-2: ", out)
    local result = file.read_json(run .. "/result.json")
    assert.equal("snippets", result.task)
    assert.is_string(result.data.instead_of_sst2)
  end)
end)

describe("glue_finetune says in one line", function()
  local function failure(arguments, o)
    local status, _, err = finetune(arguments, o)
    assert.equal(1, status, err)
    assert.equal(1, select(2, err:gsub("\n", "")), err)
    assert.equal("glue_finetune: ", err:sub(1, 15))
    return err:sub(16, -2)
  end

  it("what an option, a task, an optimizer should have been", function()
    assert.matches("^unknown option %-%-optm; did you mean %-%-optim%?",
      failure {"--optm", "adam8"})
    assert.matches('unknown task "sst%-2"; it is one of sst2, ', failure {"--task", "sst-2"})
    assert.matches('unknown optimizer "adam_8"; it is one of adam8, ',
      failure {"--optim", "adam_8"})
  end)

  it("that the folder of a run exists", function()
    file.make_folder(home .. "/there")
    assert.equal(("--out: %s/there exists already; name a new folder, or go on with --resume "
      .. "%s/there"):format(home, home), failure {"--task", "sst2", "--out", home .. "/there"})
  end)

  local function with_data(name, train)
    local folder = home .. "/" .. name
    tiny.data(folder, "SST-2")
    file.save(folder .. "/SST-2/train.tsv", train)
    return failure {"--task", "sst2", "--data", folder, "--out", home .. "/run-" .. name}
  end

  it("which line of the data is wrong, and how", function()
    assert.matches('train.tsv line 3: label "2", expected 0 to 1', with_data("label",
      "sentence\tlabel\nfine\t1\nbad\t2\n"))
    assert.matches("train.tsv line 3: ", with_data("columns", "sentence\tlabel\nfine\t1\nbad\n"))
    assert.matches("train.tsv line 2: .*UTF%-8",
      with_data("utf8", "sentence\tlabel\nf\255ne\t1\nbad\t0\n"))
    assert.matches("train.tsv", with_data("empty", "sentence\tlabel\n"))
    assert.matches("train.tsv", with_data("nothing", ""))
    for _, name in ipairs {"label", "columns", "utf8", "empty", "nothing"} do
      assert.is_false(file.is_folder(home .. "/run-" .. name))
    end
  end)

  local function with_model(name, change)
    local folder = tiny.model(home .. "/model-" .. name)
    change(folder)
    return failure {"--task", "sst2", "--model", folder, "--out", home .. "/run-" .. name}
  end

  it("what is wrong with a model's files", function()
    assert.matches("%[UNK%]", with_model("vocab", function(folder)
      file.save(folder .. "/vocab.txt", "[PAD]\n[CLS]\n[SEP]\nthe\n")
    end))
    assert.matches("model.safetensors", with_model("cut", function(folder)
      local path = folder .. "/model.safetensors"
      file.save(path, file.read(path):sub(1, -9))
    end))
    assert.matches("model.safetensors", with_model("header", function(folder)
      file.save(folder .. "/model.safetensors", "\255\255\255\255\255\255\255\127{}")
    end))
    assert.matches("config.json: .*vocab_size", with_model("config", function(folder)
      file.save(folder .. "/config.json", '{"hidden_size": -1}')
    end))
    assert.matches("the folder has no vocab.txt", with_model("missing", function(folder)
      file.remove(folder .. "/vocab.txt")
    end))
  end)

  it("that the texts are longer than the model reads", function()
    local long = home .. "/long"
    tiny.data(long, "SST-2")
    file.save(long .. "/SST-2/dev.tsv", "sentence\tlabel\n" .. ("the film "):rep(60) .. "\t1\n")
    assert.equal("--max-length: 128, but this model reads 64 tokens at most",
      failure {"--task", "sst2", "--data", long, "--out", home .. "/run-long"})
    assert.is_false(file.is_folder(home .. "/run-long"))
  end)

  it("that the loss is not a number, at which step, and what is kept", function()
    local folder = tiny.model(home .. "/model-poison", {poison = true})
    local rows = file.read(data .. "/SST-2/train.tsv")
    local poisoned = home .. "/data-poison"
    tiny.data(poisoned, "SST-2")
    file.save(poisoned .. "/SST-2/train.tsv", rows .. "the poison film\t1\n")
    local run = home .. "/run-poison"
    local err = failure {"--task", "sst2", "--data", poisoned, "--model", folder, "--out", run,
      "--checkpoint-every", "1"}
    local step, good = err:match(
      "^the loss is nan at step (%d+) %(epoch 1%): .* of step (%d+), is kept in ")
    assert.equal(tonumber(step) - 1, tonumber(good), err)
    assert.is_true(file.is_file(run .. "/checkpoint/last.safetensors"))
  end)

  it("that a file cannot be written", function()
    assert.matches("checkpoint/.*file too large", failure({"--task", "sst2", "--out",
      home .. "/full"}, {before = "ulimit -f 500;"}))
  end)
end)
