local ffi = require "ffi"
local file = require "octet.file"
local C = require("octet.binding").C

local ENOSPC = 28
local made = ffi.new "int64_t[1]"

describe("a log", function()
  local path
  before_each(function() path = os.tmpname() end)
  after_each(function()
    C.oct_fail_file(made, 0, 0, 0)
    os.remove(path)
  end)

  it("holds every line once it is closed, in order", function()
    local log, lines = file.log(path), {}
    for i = 1, 20000 do
      lines[i] = ('{"step": %d}\n'):format(i)
      log:write(lines[i])
    end
    assert.equal(#table.concat(lines), log:size())
    log:close()
    assert.equal(table.concat(lines), file.read(path))
  end)

  it("is cut to the length that a checkpoint recorded, and goes on from there", function()
    local log = file.log(path)
    log:write "one\n"
    local recorded = log:size()
    log:write "two\nthr"
    log:close()
    log = file.log(path, recorded)
    log:write "2\n"
    log:close()
    assert.equal("one\n2\n", file.read(path))
  end)

  it("says so where the file is shorter than the checkpoint recorded", function()
    local ok, message = pcall(file.log, path, 10)
    assert.is_false(ok)
    assert.is_truthy(message:find("has 0 bytes, expected at least 10", 1, true))
  end)

  it("reports a full disk, and writes what was refused once there is room", function()
    local log = file.log(path)
    log:write "one\n"
    C.oct_fail_file(made, 1, ENOSPC, 0)
    local ok, message = pcall(log.flush, log)
    assert.is_false(ok)
    assert.is_truthy(message:find("disk full", 1, true))
    log:write "two\n"
    C.oct_fail_file(made, 1, 0, 1)
    log:flush(true)
    C.oct_fail_file(made, 0, 0, 0)
    assert.equal("one\ntwo\n", file.read(path))
    log:close()
    assert.equal("one\ntwo\n", file.read(path))
  end)

  it("reports a full disk when it is closed, and not before", function()
    local log = file.log(path)
    log:write "one\n"
    C.oct_fail_file(made, 1, ENOSPC, 1)
    local ok, message = pcall(log.close, log)
    assert.is_false(ok)
    assert.is_truthy(message:find("disk full", 1, true))
  end)

  it("is no device, folder or pipe", function()
    assert.is_false((pcall(file.log, "/dev/full")))
    assert.is_false((pcall(file.log, "/tmp")))
  end)
end)
