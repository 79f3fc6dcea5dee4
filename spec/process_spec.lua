local file = require "octet.file"
local process = require "octet.process"
local scratch = require "spec.scratch"

describe("another program", function()
  local home = scratch.folder()
  teardown(scratch.clean)

  local function finish(other)
    for _ = 1, 1000 do
      local status = other:ended()
      if status then return status end
      process.sleep(0.01)
    end
    error "it does not end"
  end

  it("gets its arguments as they are, and leaves its output and status", function()
    local path = home .. "/out"
    file.save(path, "before\n")
    local script = 'echo "$1"; cat; echo e >&2; exit 3'
    local other = process.start({"sh", "-c", script, "sh", "a  'b'\n"}, path)
    assert.equal(3, finish(other))
    assert.equal(3, other:ended())
    assert.equal("before\na  'b'\n\ne\n", file.read(path))
  end)

  it("says by its status that there is none, or which signal ended it", function()
    assert.equal(127, finish(process.start({"octet-has-no-such-program"}, home .. "/none")))
    local other = process.start({"sleep", "60"}, home .. "/sleep")
    assert.is_nil(other:ended())
    other:signal(15)
    assert.equal(128 + 15, finish(other))
    other:signal(15)
    assert.error_matches(function() process.start({"true"}, home .. "/no/out") end,
      "/no/out: No such file or directory")
  end)

  it("ends when the one that started it is killed", function()
    local pid_file = home .. "/pid"
    local starter = process.start({"luajit", "-e", ([[
      package.path = "./lua/?.lua;./lua/?/init.lua;" .. package.path
      local process = require "octet.process"
      process.start({"sh", "-c", "echo $$ > %s.new; mv %s.new %s; exec sleep 60"}, "/dev/null")
      process.sleep(60)]]):format(pid_file, pid_file, pid_file)}, home .. "/starter")
    for _ = 1, 1000 do
      if file.is_file(pid_file) then break end
      process.sleep(0.01)
    end
    local number = file.read(pid_file):match "%d+"
    starter:signal(9)
    assert.equal(128 + 9, finish(starter))
    local gone
    for _ = 1, 500 do
      local status = io.open("/proc/" .. number .. "/status")
      gone = not status or status:read "*a":find "State:%s*Z"
      if status then status:close() end
      if gone then break end
      process.sleep(0.01)
    end
    assert.truthy(gone)
  end)
end)
