-- A limit on the size of files (ulimit -f), which a write past it would otherwise answer with the
-- end of the process. Each spec is a process of its own under such a limit.
local file = require "octet.file"
local scratch = require "spec.scratch"

-- The shells' unit is 512 or 1,024 bytes: 4 or 8 KiB.
local LIMIT, MORE = 8, 100000

--- What a process under the limit prints, and its exit status; %FOLDER stands for `folder`.
local function run(folder, body, redirect)
  local script = scratch.file(([[
    local file, download = require "octet.file", require "octet.download"
    local folder, more = "%s", ("x"):rep(%d)
    %s]]):format(folder, MORE, body), "script.lua")
  local pipe = io.popen(("ulimit -f %d; LUA_PATH='%s' luajit %s 2>&1 %s; echo status $?"):format(
    LIMIT, package.path, script, redirect or ""))
  local output = pipe:read "*a"
  pipe:close()
  return output
end

describe("where a file would grow past the limit", function()
  teardown(scratch.clean)

  it("a save is an error of one line, and the former file stays", function()
    local folder = scratch.folder {model = "former"}
    assert.equal("demo: save: " .. folder .. "/model: file too large (see ulimit -f)\nstatus 1\n",
      run(folder, [[require("octet.cli").main("demo", function()
        file.save(folder .. "/model", more)
      end)]]))
    assert.equal("former", file.read(folder .. "/model"))
    assert.same({"model"}, file.list(folder))
  end)

  it("a log is an error, and what had fitted is whole", function()
    local folder = scratch.folder()
    assert.equal("false, false, false\nstatus 0\n", run(folder, [[
      local log, went = file.log(folder .. "/log"), {}
      for i, name in ipairs {"write", "flush", "close"} do
        went[i] = tostring(pcall(log[name], log, name == "write" and more or nil))
      end
      print(table.concat(went, ", "))]]))
    local kept = file.read(folder .. "/log")
    assert.is_true(#kept == LIMIT * 512 or #kept == LIMIT * 1024)
  end)

  it("a download says so", function()
    local folder = scratch.folder {source = ("x"):rep(MORE)}
    assert.matches("^file://.*: save: .*: file too large %(see ulimit %-f%)\nstatus 0\n$",
      run(folder, [[
        local headers, why = download.try("file://" .. folder .. "/source",
          {path = folder .. "/copy", quiet = true})
        print(not headers and why)]]))
    assert.same({"source"}, file.list(folder))
  end)

  it("the output of a recipe is an error with exit status 1", function()
    local folder = scratch.folder()
    assert.equal("demo: standard output: File too large\nstatus 1\n", run(folder,
      'require("octet.cli").main("demo", function() require("octet.lines").write(more) end)',
      "> " .. folder .. "/output"))
  end)

  it("the signal is as before afterwards, and is kept where the caller keeps it", function()
    local folder = scratch.folder()
    local body = [[
      local ffi = require "ffi"
      ffi.cdef "int sigprocmask(int how, const uint64_t *set, uint64_t *before);"
      local function blocked()
        local mask = ffi.new "uint64_t[16]"
        ffi.C.sigprocmask(0, nil, mask)
        return require("bit").band(tonumber(mask[0] %% 2 ^ 32), 2 ^ 24) ~= 0
      end
      io.stdout:setvbuf "no"
      %s
      pcall(file.save, folder .. "/model", more)
      print(blocked())
      io.open(folder .. "/other", "w"):write(more)]]
    assert.matches("^false\n.*status 153\n$", run(folder, body:format "file.list(folder)"))
    assert.equal("true\nstatus 0\n", run(folder, body:format "file.hold_size_signal(true)"))
  end)
end)
