local bit = require "bit"
local ffi = require "ffi"
local archive = require "octet.archive"
local file = require "octet.file"

local folder

local function shell(format, ...)
  local command = ("cd %s && " .. format):format(folder, ...)
  assert(os.execute(command .. " 2>/dev/null") == 0, command)
end

local function refused(reason, path, wanted, ...)
  local ok, message = pcall(archive.extract, path, wanted, ...)
  assert.is_false(ok)
  assert.is_truthy(message:find(reason, 1, true), message)
  assert.is_nil(message:find("\n", 1, true))
  assert.same({}, file.list(folder .. "/out"))
end

local function crc32(text)
  local crc = -1
  for i = 1, #text do
    crc = bit.bxor(crc, text:byte(i))
    for _ = 1, 8 do
      crc = bit.bxor(bit.rshift(crc, 1), bit.band(0xedb88320, -bit.band(crc, 1)))
    end
  end
  return bit.bnot(crc)
end

local function le(bytes, ...)
  local parts = {}
  for i, n in ipairs {...} do
    parts[i] = ffi.string(ffi.new("int64_t[1]", n), bytes[i])
  end
  return table.concat(parts)
end

--- A zip archive of stored entries, written by hand.
local function zip(entries)
  local parts, directory, at = {}, {}, 0
  for _, e in ipairs(entries) do
    local name, text = e[1], e[2]
    local common = le({2, 2, 2, 2, 2, 4, 4, 4, 2, 2}, 20, 0, 0, 0, 33, crc32(text), #text, #text,
      #name, 0)
    local record = "PK\3\4" .. common .. name .. text
    directory[#directory + 1] = "PK\1\2" .. le({2}, 20) .. common
      .. le({2, 2, 2, 4, 4}, 0, 0, 0, 0, at) .. name
    parts[#parts + 1] = record
    at = at + #record
  end
  local listed = table.concat(directory)
  return table.concat(parts) .. listed .. "PK\5\6"
    .. le({2, 2, 2, 2, 4, 4, 2}, 0, 0, #entries, #entries, #listed, at, 0)
end

describe("an archive", function()
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    file.make_folder(folder .. "/out")
    file.make_folder(folder .. "/in/sub")
    file.save(folder .. "/in/a.txt", "text of a")
    file.save(folder .. "/in/sub/b.txt", ("b"):rep(100000))
  end)
  after_each(function() file.remove_folder(folder) end)

  it("gives the files that are asked for by name, and no others", function()
    shell "tar czf x.tar.gz in && tar cf x.tar in"
    for _, name in ipairs {"/x.tar.gz", "/x.tar"} do
      archive.extract(folder .. name, {["in/sub/b.txt"] = folder .. "/out/b"})
      assert.same({"b"}, file.list(folder .. "/out"))
      assert.equal(("b"):rep(100000), file.read(folder .. "/out/b"))
    end
  end)

  it("may be a zip, and one within another", function()
    file.save(folder .. "/x.zip", zip {{"p/one", "1"}, {"p/inner.zip", zip {{"two", "22"}}}})
    archive.extract(folder .. "/x.zip", {["p/one"] = folder .. "/out/one",
      ["p/inner.zip"] = folder .. "/out/inner"})
    archive.extract(folder .. "/out/inner", {two = folder .. "/out/two"})
    assert.equal("1", file.read(folder .. "/out/one"))
    assert.equal("22", file.read(folder .. "/out/two"))
  end)

  it("gives all of the files or none", function()
    shell "tar cf x.tar in"
    refused('no "in/c.txt"', folder .. "/x.tar", {["in/a.txt"] = folder .. "/out/a",
      ["in/c.txt"] = folder .. "/out/c"})
    refused("not the one", folder .. "/x.tar", {["in/a.txt"] = folder .. "/out/a"}, nil,
      function(name, sha256)
        assert.equal("in/a.txt", name)
        assert.equal(file.bytes_sha256 "text of a", sha256)
        error("not the one", 0)
      end)
  end)

  it("is refused where the name is a link, a hard link, a device or a folder", function()
    shell "ln -s /etc/passwd in/link && ln in/a.txt in/same && mkfifo in/pipe"
    shell "tar cf x.tar in/a.txt in"
    for _, name in ipairs {"in/link", "in/same", "in/pipe", "in/sub/"} do
      refused("no regular file", folder .. "/x.tar", {[name] = folder .. "/out/x"})
    end
  end)

  it("is not asked for names that lead elsewhere", function()
    shell "tar cPf x.tar --transform 's,^in,../up,' in"
    for _, name in ipairs {"../up/a.txt", "/etc/passwd", "a/../../b", ".."} do
      refused("no name within an archive", folder .. "/x.tar", {[name] = folder .. "/out/x"})
    end
  end)

  it("is refused where it holds more than is allowed, wanted or not", function()
    shell "head -c 50000000 /dev/zero > in/zeros && tar czf x.tar.gz in/zeros in/a.txt"
    local path = folder .. "/x.tar.gz"
    refused("more than the 1000000 bytes", path, {["in/zeros"] = folder .. "/out/z"}, 1000000)
    refused("more than the 1000000 bytes", path, {["in/a.txt"] = folder .. "/out/a"}, 1000000)
    archive.extract(path, {["in/a.txt"] = folder .. "/out/a"}, 60000000)
  end)

  it("is refused where it is cut short, damaged or no archive", function()
    shell "tar czf x.tar.gz in"
    local whole = file.read(folder .. "/x.tar.gz")
    file.save(folder .. "/cut", whole:sub(1, -20))
    refused("", folder .. "/cut", {["in/sub/b.txt"] = folder .. "/out/b"})
    file.save(folder .. "/none", "no archive at all")
    refused("none", folder .. "/none", {["in/sub/b.txt"] = folder .. "/out/b"})
    refused("there is no such file", folder .. "/absent", {["a"] = folder .. "/out/b"})
    local damaged = zip({{"a", "text"}}):gsub("text", "tent")
    file.save(folder .. "/x.zip", damaged)
    refused("x.zip", folder .. "/x.zip", {a = folder .. "/out/a"})
  end)
end)
