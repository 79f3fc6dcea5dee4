-- Files and folders that last as long as a spec.
local ffi = require "ffi"
local file = require "octet.file"

ffi.cdef [[
int setenv(const char *name, const char *value, int overwrite);
int unsetenv(const char *name);
]]

local M = {}
local made = {}

--- A path at which nothing is yet; in memory where the system has such a place, since a checkpoint
-- waits for the disk.
function M.path()
  local name = os.tmpname()
  os.remove(name)
  return file.is_folder "/dev/shm" and (name:gsub("^/tmp", "/dev/shm")) or name
end

--- A new folder holding files: {["SST-2/dev.tsv"] = text, ...}.
function M.folder(files)
  local name = M.path()
  file.make_folder(name)
  made[#made + 1] = name
  for path, text in pairs(files or {}) do
    local parent = path:match "^(.*)/"
    if parent then file.make_folder(name .. "/" .. parent) end
    file.save(name .. "/" .. path, text)
  end
  return name
end

--- A new file with this content; returns its path.
function M.file(text, name)
  name = name or "file"
  return M.folder {[name] = text} .. "/" .. name
end

--- A run in a folder of its own under `folder`, as a recipe begins one.
function M.run(folder, name)
  local run = require "octet.train.run_folder".create(folder .. "/" .. name)
  run:save_json("config.json", {})
  return run
end

--- Remove what was made.
function M.clean()
  for _, folder in ipairs(made) do file.remove_folder(folder) end
  made = {}
end

--- Hide this machine's data and cache from what looks for data sets; returns what to show again.
function M.hide_places()
  local hidden = {data = os.getenv "OCTET_DATA", cache = os.getenv "XDG_CACHE_HOME"}
  ffi.C.unsetenv "OCTET_DATA"
  ffi.C.setenv("XDG_CACHE_HOME", M.folder(), 1)
  return hidden
end

function M.show_places(hidden)
  for name, value in pairs {OCTET_DATA = hidden.data or false,
    XDG_CACHE_HOME = hidden.cache or false} do
    if value then ffi.C.setenv(name, value, 1) else ffi.C.unsetenv(name) end
  end
end

return M
