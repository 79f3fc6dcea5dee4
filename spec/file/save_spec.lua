local ffi = require "ffi"
local file = require "octet.file"
local C = require("octet.binding").C

local ENOSPC, EIO, EINTR = 28, 5, 4
local folder, path, made

local function fail_file(nth, errno, on_and_on)
  C.oct_fail_file(made, nth, errno or 0, on_and_on and 1 or 0)
  return tonumber(made[0])
end

local function message_of(f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok)
  assert.is_nil(message:find("\n", 1, true))
  return message
end

describe("saving a file", function()
  before_each(function()
    made = ffi.new "int64_t[1]"
    folder = os.tmpname()
    os.remove(folder)
    file.make_folder(folder)
    path = folder .. "/model"
  end)
  after_each(function()
    fail_file(0)
    file.remove_folder(folder)
  end)

  it("replaces the former file and leaves nothing beside it", function()
    file.save(path, "former")
    file.save(path, "new\0text")
    assert.equal("new\0text", file.read(path))
    assert.same({"model"}, file.list(folder))
  end)

  it("keeps the former file where any system call fails, and says why in one line", function()
    local text = ("x"):rep(100000)
    fail_file(0)
    file.save(path, text)
    local calls = fail_file(0)
    assert.is_true(calls >= 6)
    file.save(path, "former")
    for errno, reason in pairs {[ENOSPC] = "disk full", [EIO] = "Input/output error"} do
      for nth = 1, calls do
        file.save(path, "former")
        fail_file(nth, errno)
        local message = message_of(file.save, path, text)
        fail_file(0)
        assert.is_truthy(message:find(reason, 1, true), message)
        assert.is_truthy(message:find(folder, 1, true), message)
        -- The folder's own sync comes after the rename: by then the new file is whole.
        local now = file.read(path)
        assert.is_true(now == "former" or (now == text and nth >= calls - 1), "call " .. nth)
        assert.same({"model"}, file.list(folder))
      end
    end
  end)

  it("goes on after short writes and interrupted calls", function()
    local text = ("0123456789"):rep(100)
    fail_file(1, 0, true)
    file.save(path, text)
    fail_file(0)
    assert.equal(text, file.read(path))
    for nth = 1, 8 do
      fail_file(nth, EINTR)
      file.save(path, text .. nth)
      fail_file(0)
      assert.equal(text .. nth, file.read(path))
    end
  end)

  it("starts over what a killed process left", function()
    local left = assert(io.open(path .. ".partial", "wb"))
    left:write(("left"):rep(1000))
    left:close()
    file.save(path, "new")
    assert.equal("new", file.read(path))
    assert.same({"model"}, file.list(folder))
  end)

  it("refuses a second writer of the same path, and lets it in afterwards", function()
    local first = file.writer(path)
    first:write "first"
    assert.is_truthy(message_of(file.writer, path):find("another process is writing it", 1, true))
    first:commit()
    file.save(path, "second")
    assert.equal("second", file.read(path))
  end)

  it("leaves nothing of a writer that was abandoned or collected", function()
    file.writer(path):abandon()
    file.writer(path):write "lost"
    collectgarbage()
    collectgarbage()
    assert.same({}, file.list(folder))
  end)

  it("publishes nothing after a write that failed", function()
    local writer = file.writer(path)
    fail_file(1, ENOSPC)
    message_of(writer.write, writer, "text")
    fail_file(0)
    message_of(writer.commit, writer)
    assert.same({}, file.list(folder))
  end)

  it("keeps the former file's permissions", function()
    file.save(path, "secret")
    os.execute("chmod 600 " .. path)
    file.save(path, "newer")
    local mode = io.popen("stat -c %a " .. path):read "*l"
    assert.equal("600", mode)
  end)

  it("names what cannot be a file's path", function()
    assert.is_truthy(message_of(file.save, folder, "x"):find("is a folder", 1, true))
    local nowhere = folder .. "/no/where"
    assert.is_truthy(message_of(file.save, nowhere, "x"):find("No such file", 1, true))
    message_of(file.save, "", "x")
    message_of(file.save, path .. "\0hidden", "x")
  end)
end)

describe("reading a file", function()
  local target = os.tmpname()
  teardown(function() os.remove(target) end)

  it("gives its bytes, and refuses more than the limit", function()
    file.save(target, "a\0b\n")
    assert.equal("a\0b\n", file.read(target))
    assert.equal("a\0b\n", file.read(target, 4))
    local message = message_of(file.read, target, 3)
    assert.is_truthy(message:find("has 4 bytes, expected at most 3", 1, true))
  end)

  it("refuses what is no regular file, without waiting", function()
    assert.is_truthy(message_of(file.read, "/tmp"):find("is a folder", 1, true))
    assert.is_truthy(message_of(file.read, "/dev/zero"):find("not a regular file", 1, true))
    assert.is_truthy(message_of(file.read, target .. ".none"):find("No such file", 1, true))
    local pipe = target .. ".pipe"
    os.execute("mkfifo " .. pipe)
    assert.is_truthy(message_of(file.read, pipe):find("not a regular file", 1, true))
    os.remove(pipe)
  end)

  it("puts short reads together and reports a failing one", function()
    made = ffi.new "int64_t[1]"
    local text = ("0123456789"):rep(1000)
    file.save(target, text)
    fail_file(1, 0, true)
    assert.equal(text, file.read(target))
    fail_file(2, EIO)
    assert.is_truthy(message_of(file.read, target):find("Input/output error", 1, true))
    fail_file(0)
  end)

  it("gives SHA-256 as FIPS 180-4 does", function()
    local abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert.equal(abc, file.bytes_sha256 "abc")
    file.save(target, "abc")
    assert.equal(abc, file.sha256(target))
    file.save(target, ("a"):rep(3000000))
    assert.equal(file.bytes_sha256(("a"):rep(3000000)), file.sha256(target))
  end)

  it("takes JSON as data and nothing else", function()
    file.save(target, '{"a": [1, 2.5], "b": null}')
    assert.equal(2.5, file.read_json(target).a[2])
    for _, text in ipairs {"", "{", "3", '"text"', "return {}", '{"a":1}}', ("["):rep(100000)} do
      file.save(target, text)
      assert.is_truthy(message_of(file.read_json, target):find(target, 1, true))
    end
  end)
end)

describe("folders", function()
  it("are made with those above them, listed in order and removed with what is in them", function()
    local base = os.tmpname()
    os.remove(base)
    file.make_folder(base .. "/a/b//c/")
    file.make_folder(base .. "/a/b")
    file.save(base .. "/a/2", "")
    file.save(base .. "/a/1", "")
    assert.same({"1", "2", "b"}, file.list(base .. "/a"))
    assert.is_true(file.is_folder(base .. "/a/b/c"))
    assert.is_nil(file.kind(base .. "/a/b/d"))
    assert.same({"file", 0}, {file.kind(base .. "/a/1")})
    message_of(file.make_folder, base .. "/a/1/x")
    assert.is_truthy(message_of(file.make_folder, base .. "/a/1"):find("is no folder", 1, true))
    os.execute(("ln -s /usr %s/a/link"):format(base))
    file.remove_folder(base)
    assert.is_nil(file.kind(base))
    assert.is_true(file.is_folder "/usr")
  end)
end)
