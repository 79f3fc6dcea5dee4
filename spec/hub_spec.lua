local ffi = require "ffi"
local file = require "octet.file"
local hub = require "octet.hub"
local download = require "octet.download"

ffi.cdef [[
int setenv(const char *name, const char *value, int replace);
int unsetenv(const char *name);
]]

local NAMES = {"XDG_CACHE_HOME", "HOME", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE",
  "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_TOKEN"}
local before, folder = {}, nil

local function set(name, value)
  if value then ffi.C.setenv(name, value, 1) else ffi.C.unsetenv(name) end
end

local function put_model(place, ...)
  file.make_folder(place)
  for _, name in ipairs {...} do file.save(place .. "/" .. name, name .. " of " .. place) end
  return place
end

local function put_whole(place)
  return put_model(place, "config.json", "model.safetensors", "vocab.txt")
end

local function message_of(f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok)
  assert.is_nil(message:find("\n", 1, true))
  return message
end

local function finds(text, message)
  assert.is_truthy(message:find(text, 1, true), message)
end

before_each(function()
  folder = os.tmpname()
  os.remove(folder)
  file.make_folder(folder)
  for _, name in ipairs(NAMES) do
    before[name] = os.getenv(name) or false
    set(name, nil)
  end
  set("HOME", folder .. "/home")
  set("HF_ENDPOINT", "file://" .. folder .. "/server")
end)

after_each(function()
  for _, name in ipairs(NAMES) do set(name, before[name] or nil) end
  file.remove_folder(folder)
end)

describe("a model", function()
  it("is a folder that is named, and that folder must hold all of it", function()
    local place = put_whole(folder .. "/mine")
    assert.equal(place, hub.model(place))
    finds("has no model.safetensors", message_of(hub.model,
      put_model(folder .. "/half", "config.json")))
    finds("has no vocab.txt or tokenizer.json", message_of(hub.model,
      put_model(folder .. "/other", "config.json", "model.safetensors")))
    local other = put_model(folder .. "/json", "config.json", "model.safetensors", "tokenizer.json")
    assert.equal(other, hub.model(other))
  end)

  it("is found in the hub's cache where there is no home, else the error says that there is none",
    function()
      set("HOME", nil)
      set("HF_HOME", folder .. "/hf")
      set("HF_HUB_OFFLINE", "1")
      finds("neither HOME nor XDG_CACHE_HOME is set", message_of(hub.model, "org/m"))
      local place = folder .. "/hf/hub/models--org--m"
      file.make_folder(place .. "/refs")
      file.save(place .. "/refs/main", "abc123")
      local snapshot = put_whole(place .. "/snapshots/abc123")
      assert.equal(snapshot, hub.model "org/m")
    end)

  it("is found in Octet's cache, by XDG_CACHE_HOME or in the home", function()
    local place = put_whole(folder .. "/home/.cache/octet/models/org/name")
    assert.equal(place, hub.model "org/name")
    local other = put_whole(folder .. "/xdg/octet/models/org/name")
    set("XDG_CACHE_HOME", folder .. "/xdg")
    assert.equal(other, hub.model "org/name")
    set("XDG_CACHE_HOME", "relative")
    assert.equal(place, hub.model "org/name")
  end)

  it("is found in the hub's cache, wherever the environment puts that", function()
    local caches = {
      {folder .. "/home/.cache/huggingface/hub"},
      {folder .. "/xdg/huggingface/hub", "XDG_CACHE_HOME", folder .. "/xdg"},
      {folder .. "/hf/hub", "HF_HOME", folder .. "/hf"},
      {folder .. "/hubs", "HF_HUB_CACHE", folder .. "/hubs"},
    }
    for _, cache in ipairs(caches) do
      local place = cache[1] .. "/models--org--name"
      file.make_folder(place .. "/refs")
      file.save(place .. "/refs/main", "0123abcd")
      put_whole(place .. "/snapshots/0123abcd")
      if cache[2] then set(cache[2], cache[3]) end
      assert.equal(place .. "/snapshots/0123abcd", hub.model "org/name")
    end
  end)

  it("is not looked for where a reference points out of the cache", function()
    local place = folder .. "/home/.cache/huggingface/hub/models--org--name"
    file.make_folder(place .. "/refs")
    file.make_folder(place .. "/snapshots")
    put_whole(folder .. "/home/.cache/evil")
    file.save(place .. "/refs/main", "../../../../evil")
    set("HF_HUB_OFFLINE", "1")
    message_of(hub.model, "org/name")
  end)

  it("is downloaded into Octet's cache, whole or not at all", function()
    local server = folder .. "/server/org/name/resolve/main"
    local cache = folder .. "/home/.cache/octet/models/org"
    put_model(server, "config.json", "vocab.txt")
    finds("model.safetensors", message_of(hub.model, "org/name", {quiet = true}))
    assert.same({}, file.list(cache))
    put_whole(server)
    assert.equal(cache .. "/name", hub.model("org/name", {quiet = true}))
    assert.same({"config.json", "model.safetensors", "vocab.txt"}, file.list(cache .. "/name"))
    -- From now on without a network, and without one being asked.
    set("HF_ENDPOINT", "file:///nowhere")
    assert.equal(cache .. "/name", hub.model "org/name")
  end)

  it("that was damaged in the cache is fetched again", function()
    put_whole(folder .. "/server/org/name/resolve/main")
    local place = put_model(folder .. "/home/.cache/octet/models/org/name", "config.json")
    assert.equal(place, hub.model("org/name", {quiet = true}))
    assert.is_true(file.is_file(place .. "/model.safetensors"))
  end)

  it("known by its SHA-256 is that one or none", function()
    put_whole(folder .. "/server/" .. hub.DEFAULT .. "/resolve/main")
    finds("SHA-256", message_of(hub.model, nil, {quiet = true}))
    assert.is_nil((hub.find(hub.DEFAULT)))
  end)

  it("that is nowhere is reported with all places, in order, in one line", function()
    set("HF_HUB_OFFLINE", "1")
    local message = message_of(hub.model, "org/name")
    local last = 0
    for _, part in ipairs {"model org/name was not found", "no folder of that name",
      "/.cache/octet/models/org/name", "/huggingface/hub/models--org--name", "HF_HUB_OFFLINE"} do
      local at = message:find(part, last + 1, true)
      assert.is_truthy(at, part .. " in " .. message)
      last = at
    end
  end)

  it("may not have a name that leads out of the cache", function()
    for _, name in ipairs {"../x", "a/../b", "a/b/c", "", ".hidden", "a/.b", "-x", "a b",
      "a/b?c"} do
      local ok, message = pcall(hub.model, name)
      assert.is_false(ok)
      assert.is_nil(message:find("resolve", 1, true), message)
    end
  end)
end)

-- A server in a few lines: /redirect leads to /file with the headers that the hub sends.
local SERVER = [[
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args): pass
    def do_GET(self):
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/file")
            self.send_header("X-Linked-Etag", '"%s"' % sys.argv[1])
            self.send_header("X-Repo-Commit", "abc123")
            self.end_headers()
        elif self.path == "/file":
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"bytes")
        elif self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "500")
            self.end_headers()
            self.wfile.write(b"bytes")
        else:
            self.send_error(404)
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, os.getpid(), flush=True)
server.serve_forever()
]]

local function start(sha256)
  file.save(folder .. "/server.py", SERVER)
  local pipe = io.popen(("timeout 20 python3 %s/server.py %s 2>/dev/null"):format(folder, sha256))
  local port, pid = (pipe:read "*l" or ""):match "(%d+) (%d+)"
  return port and "http://127.0.0.1:" .. port, pipe, pid
end

describe("a download", function()
  it("by HTTP is held against the checksum that the hub's redirection announces", function()
    local good = file.bytes_sha256 "bytes"
    for _, sha256 in ipairs {good, ("0"):rep(64)} do
      local base, pipe, pid = start(sha256)
      if not base then
        pipe:close()
        pending "is not tried: there is no python3 to serve it"
        return
      end
      local path = folder .. "/" .. sha256
      local headers, why = download.try(base .. "/redirect", {path = path, quiet = true})
      if sha256 == good then
        assert.equal("abc123", headers["x-repo-commit"])
        assert.equal("bytes", file.read(path))
        local _, gone, status = download.try(base .. "/absent", {path = path .. "2", quiet = true})
        assert.equal(404, status)
        finds("404", gone)
        local _, cut = download.try(base .. "/cut", {path = path .. "3", quiet = true})
        finds("/cut", cut)
      else
        finds("SHA-256", why)
      end
      os.execute("kill " .. pid)
      pipe:close()
    end
    assert.same({good, "server.py"}, file.list(folder))
  end)

  it("is refused where size or checksum are not those expected", function()
    local url = "file://" .. folder .. "/from"
    file.save(folder .. "/from", "12345")
    local path = folder .. "/to"
    finds("longer than the 4", message_of(download.fetch, url,
      {path = path, size = 4, quiet = true}))
    finds("5 bytes came, expected 6", message_of(download.fetch, url,
      {path = path, size = 6, quiet = true}))
    finds("SHA-256", message_of(download.fetch, url,
      {path = path, sha256 = ("0"):rep(64), quiet = true}))
    download.fetch(url, {path = path, size = 5, sha256 = file.bytes_sha256 "12345", quiet = true})
    assert.same({"from", "to"}, file.list(folder))
  end)

  it("says what failed: no server, no such protocol, no room", function()
    local path = folder .. "/to"
    finds("127.0.0.1", message_of(download.fetch, "http://127.0.0.1:1/",
      {path = path, quiet = true}))
    message_of(download.fetch, "ftp://127.0.0.1:1/", {path = path, quiet = true})
    finds("No such file", message_of(download.fetch, "file:///etc/passwd",
      {path = folder .. "/no/where", quiet = true}))
  end)
end)
