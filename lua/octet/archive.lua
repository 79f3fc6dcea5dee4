--- Named files out of archives: zip (and so .whl), tar, tar.gz. libarchive, by way of the FFI.
-- An archive comes from outside: nothing is taken that was not asked for by its name, no link or
-- device is followed or made, and what it claims to hold is bounded.
-- @module octet.archive
local ffi = require "ffi"
local file = require "octet.file"

ffi.cdef [[
struct archive;
struct archive_entry;
struct archive *archive_read_new(void);
int archive_read_free(struct archive *);
int archive_read_support_filter_gzip(struct archive *);
int archive_read_support_format_tar(struct archive *);
int archive_read_support_format_zip(struct archive *);
int archive_read_open_filename(struct archive *, const char *path, size_t block_bytes);
int archive_read_next_header(struct archive *, struct archive_entry **);
ssize_t archive_read_data(struct archive *, void *data, size_t bytes);
const char *archive_error_string(struct archive *);
const char *archive_entry_pathname(struct archive_entry *);
const char *archive_entry_hardlink(struct archive_entry *);
unsigned archive_entry_filetype(struct archive_entry *);
int64_t archive_entry_size(struct archive_entry *);
]]

local M = {}

local END, WARNING = 1, -20                  -- ARCHIVE_EOF, ARCHIVE_WARN
local REGULAR = tonumber("0100000", 8)       -- AE_IFREG
local PIECE_BYTES = 2 ^ 18

-- No handle of a library has a finalizer: it might run after the library has been unloaded.
local archive

local function library()
  if archive then return archive end
  local ok, loaded = pcall(ffi.load, "libarchive.so.13")
  if not ok then
    error("archive: libarchive.so.13 was not found; install libarchive13 (./setup does)", 0)
  end
  archive = loaded
  return archive
end

local function fail(path, format, ...)
  error(("archive: %s: %s"):format(path, format:format(...)), 0)
end

local function reason(L, handle)
  local text = L.archive_error_string(handle)
  return text ~= nil and ffi.string(text) or "it cannot be read"
end

local function check_wanted(wanted)
  local left = 0
  for name in pairs(wanted) do
    if name:find "^/" or ("/" .. name .. "/"):find("/../", 1, true) then
      error(("archive: \"%s\" is no name within an archive"):format(name), 0)
    end
    left = left + 1
  end
  return left
end

--- Copy the entry that the handle stands at into a writer.
local function copy(L, handle, path, name, to, limit_bytes)
  local piece = ffi.new("char[?]", PIECE_BYTES)
  local total = 0
  while true do
    local bytes = tonumber(L.archive_read_data(handle, piece, PIECE_BYTES))
    if bytes == 0 then return total end
    if bytes < 0 then fail(path, "\"%s\": %s", name, reason(L, handle)) end
    total = total + bytes
    if total > limit_bytes then
      fail(path, "\"%s\" is longer than the %d bytes allowed", name, limit_bytes)
    end
    to:write_bytes(piece, bytes)
  end
end

local function take(L, handle, entry, path, wanted, writers, limit_bytes)
  local name = ffi.string(L.archive_entry_pathname(entry))
  if L.archive_entry_filetype(entry) ~= REGULAR or L.archive_entry_hardlink(entry) ~= nil then
    fail(path, "\"%s\" is no regular file", name)
  end
  local writer = file.writer(wanted[name])
  writers[#writers + 1] = writer
  writers[name] = writer
  return copy(L, handle, path, name, writer, limit_bytes)
end

--- Walk the archive until every wanted name has been met.
local function walk(L, handle, path, wanted, left, writers, limit_bytes)
  local entry = ffi.new "struct archive_entry *[1]"
  local passed = 0
  while left > 0 do
    local status = L.archive_read_next_header(handle, entry)
    if status == END then break end
    if status < WARNING then fail(path, "%s", reason(L, handle)) end
    local name = L.archive_entry_pathname(entry[0])
    name = name ~= nil and ffi.string(name) or nil
    -- What is passed over is decompressed too, so it counts.
    passed = passed + math.max(0, tonumber(L.archive_entry_size(entry[0])))
    if passed > limit_bytes then
      fail(path, "it holds more than the %d bytes allowed", limit_bytes)
    end
    if name and wanted[name] and not writers[name] then
      take(L, handle, entry[0], path, wanted, writers, limit_bytes)
      left = left - 1
    end
  end
  for name in pairs(wanted) do
    if not writers[name] then fail(path, "there is no \"%s\" in it", name) end
  end
end

--- Take named regular files out of an archive: all of them, or none. Each is saved durably.
-- @tparam string path the archive
-- @tparam {[string]=string,...} wanted name in the archive = path to save it as
-- @tparam[opt=4 GiB] number limit_bytes of what the archive holds, decompressed
-- @tparam[opt] function check called with (name, SHA-256) of each before any is saved; it raises
-- an error where that is not what was expected
function M.extract(path, wanted, limit_bytes, check)
  local left = check_wanted(wanted)
  if not file.is_file(path) then fail(path, "there is no such file") end
  local L = library()
  local handle, writers = L.archive_read_new(), {}
  if handle == nil then fail(path, "out of memory") end
  local ok, message = pcall(function()
    L.archive_read_support_filter_gzip(handle)
    L.archive_read_support_format_tar(handle)
    L.archive_read_support_format_zip(handle)
    if L.archive_read_open_filename(handle, path, 2 ^ 16) ~= 0 then
      fail(path, "%s", reason(L, handle))
    end
    walk(L, handle, path, wanted, left, writers, limit_bytes or 2 ^ 32)
    for name in pairs(wanted) do
      if check then check(name, writers[name]:sha256()) end
    end
    for _, writer in ipairs(writers) do writer:commit() end
  end)
  L.archive_read_free(handle)
  if ok then return end
  for _, writer in ipairs(writers) do writer:abandon() end
  error(message, 0)
end

return M
