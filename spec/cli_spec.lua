local cli = require "octet.cli"
local nearest = require "octet.nearest"

local PROGRAM = {
  name = "demo", about = "A demonstration.",
  options = {
    cli.choice("task", {"sst2", "cola", "stsb", "mrpc"}, {default = "sst2"}),
    cli.common.optim{default = "adam8"}, cli.common.lr{default = 1e-4}, cli.common.seed(),
    cli.common.out(), cli.integer("max-length", {least = 8, most = 512, default = 128}),
    cli.flag("quiet"),
  },
}

local function parse(...) return cli.parse({...}, PROGRAM) end
local function failure(...)
  local ok, err = pcall(cli.parse, {...}, PROGRAM)
  assert.is_false(ok)
  assert.is_nil(err:find("\n"))
  return err
end

describe("options", function()
  it("have their defaults where they are not given, and tell which were given", function()
    local values, given = parse("--lr", "2e-5")
    assert.same({task = "sst2", optim = "adam8", lr = 2e-5, seed = 1, max_length = 128}, values)
    assert.same({lr = true}, given)
  end)

  it("take their value after a space or an equals sign", function()
    assert.equal(64, (parse("--max-length", "64")).max_length)
    assert.equal(64, (parse("--max-length=64")).max_length)
    assert.is_true((parse("--quiet")).quiet)
  end)

  it("name the nearest option first where one is unknown", function()
    assert.matches("^unknown option %-%-optm; did you mean %-%-optim%?", failure("--optm", "adam"))
    assert.matches("nearest first: %-%-optim ", failure("--optm", "adam"))
  end)

  it("name what would do, nearest first, where a name is unknown", function()
    assert.equal('--task: unknown task "sts2"; it is one of sst2, stsb, cola, mrpc',
      failure("--task", "sts2"))
    assert.matches('unknown optimizer "adamW"; it is one of adamw, adam',
      failure("--optim", "adamW"))
  end)

  it("take only numbers that are written as numbers, in their range", function()
    for _, text in ipairs {"", ".", "nan", "inf", "0x10", "1e", "1,5", "1 ", "0", "-1", "2",
        "1e999", "1e-400"} do
      assert.matches("^%-%-lr: .* is no number above 0, at most 1$", failure("--lr=" .. text))
    end
    for text, value in pairs {["1"] = 1, [".5"] = 0.5, ["5e-5"] = 5e-5, ["1.E-1"] = 0.1} do
      assert.equal(value, (parse("--lr", text)).lr)
    end
  end)

  it("take only whole numbers where one is meant", function()
    for _, text in ipairs {"1.5", "1e3", "7", "513", "99999999999999999999", "-8", "0x40"} do
      assert.matches("^%-%-max%-length: .* is no whole number from 8 to 512$",
        failure("--max-length", text))
    end
  end)

  it("say what is wrong with a word that stands alone, a value that is missing or one too many",
    function()
      assert.equal('"adam8" stands alone; options are written --name value', failure("adam8"))
      assert.equal('"x" stands alone; options are written --name value', failure("--lr=1", "x"))
      assert.equal("--lr needs a value", failure("--lr"))
      assert.matches("given more than once", failure("--lr", "1", "--lr", "1"))
      assert.matches("^%-%-out: expected a folder, got nothing$", failure("--out="))
      assert.matches("'%-%-quiet' does not take arguments", failure("--quiet=1"))
    end)
end)

describe("the common options", function()
  it("know every optimizer and every format there is", function()
    assert.same(require "octet.optim".NAMES, cli.common.optim{default = "adam8"}.choices)
    assert.same(require "octet.optim.format".NAMES, cli.common.format().choices)
  end)
end)

describe("the nearest name", function()
  it("counts insertions, deletions, replacements and swaps", function()
    assert.equal(0, nearest.distance("adam8", "adam8"))
    assert.equal(1, nearest.distance("adma8", "adam8"))
    assert.equal(1, nearest.distance("adam", "adam8"))
    assert.equal(3, nearest.distance("kitten", "sitting"))
    assert.equal(4, nearest.distance("", "cola"))
  end)

  it("looks at no more of a word than a person types", function()
    assert.equal("sst2", nearest.sorted(("sst2"):rep(1e5), {"sst2", "x"})[1])
  end)
end)

describe("an error's line", function()
  it("has no place in the source", function()
    local _, err = pcall(error, "labels: 3 is out of range", 1)
    assert.equal("labels: 3 is out of range", cli.one_line(err))
    assert.equal("x: y", cli.one_line("lua/octet/a.lua:12: recipes/b.lua:3: x: y"))
    assert.equal("train.tsv:12: too few columns", cli.one_line("train.tsv:12: too few columns"))
  end)

  it("is one line", function() assert.equal("a; b; c", cli.one_line("a\n  b\nc")) end)

  it("keeps the place where the program itself is at fault", function()
    assert.matches("^lua/octet/a%.lua:12: attempt to index .*OCTET_TRACEBACK",
      cli.one_line("lua/octet/a.lua:12: attempt to index a nil value"))
  end)
end)

describe("a recipe's frame", function()
  local function run(body, redirect)
    local path = os.tmpname() .. ".lua"
    local f = assert(io.open(path, "w"))
    f:write('package.path = "./lua/?.lua;./lua/?/init.lua;" .. package.path\n',
      'require "octet.cli".main("demo", function() ', body, " end)\n")
    f:close()
    local pipe = io.popen("luajit " .. path .. " 2>&1 " .. (redirect or "") .. "; echo status $?")
    local out = pipe:read "*a"
    pipe:close()
    os.remove(path)
    return out
  end

  it("turns an error into one line and exit status 1", function()
    assert.equal("demo: no such thing\nstatus 1\n", run 'error "no such thing"')
  end)

  it("shows the way to the error where OCTET_TRACEBACK is set", function()
    local out = run('error "no such thing"', "|| true"):gsub("status.*", "")
    assert.is_nil(out:find("traceback"))
    local traced = io.popen([[OCTET_TRACEBACK=1 luajit -e 'package.path="./lua/?.lua;"..package.path
      require "octet.cli".main("demo", function() error "x" end)' 2>&1]]):read "*a"
    assert.matches("stack traceback", traced)
  end)

  it("passes on the exit status that the recipe returns", function()
    assert.equal("status 130\n", run "return 130")
    assert.equal("fine\nstatus 0\n", run 'print "fine"')
  end)

  it("does not take a full disk behind its output for success", function()
    assert.equal("demo: standard output: No space left on device\nstatus 1\n",
      run('print "fine"', "> /dev/full"))
  end)

  it("says in one line that the library is missing", function()
    for _, name in ipairs {"glue_finetune", "lstm_classify", "lstm_language_model", "predict",
      "replication_study"} do
      local pipe = io.popen(("OCTET_LIBRARY=/nowhere/octet.so luajit recipes/%s.lua 2>&1; echo $?")
        :format(name))
      assert.equal("octet: liboctet.so was not found; build it with ./setup, or set OCTET_LIBRARY "
        .. "to its path\n1\n", pipe:read "*a")
      pipe:close()
    end
  end)
end)
