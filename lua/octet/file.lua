--- Files: saved whole or not at all, read with a limit, and folders.
-- Every failure is an error of one line that names the path and the reason.
-- @module octet.file
local ffi = require "ffi"
local binding = require "octet.binding"

local C, call = binding.C, binding.call

local M = {}

local size_out = ffi.new "int64_t[1]"
local kind_out = ffi.new "int[1]"
local text_out = ffi.new "char *[1]"
local digest_out = ffi.new "char[65]"

--- A path from Lua: C would stop at a zero byte, and open another file than the one named.
local function checked(path)
  if type(path) ~= "string" or path == "" or path:find("%z") then
    error(("file: a path is %s, expected a name"):format(
      type(path) == "string" and ("%q"):format(path) or type(path)), 3)
  end
  return path
end

-- ---- whole files -------------------------------------------------------------------------------

--- Save a text, whole or not at all, on the disk when this returns. On failure the former file
-- stands.
-- @tparam string path
-- @tparam string text
function M.save(path, text)
  call(C.oct_file_save, checked(path), text, #text)
end

--- Save a value as JSON, indented, as @{save} does.
-- @tparam string path
-- @param value what octet.json encodes
function M.save_json(path, value)
  M.save(path, require("octet.json").encode(value, "  ") .. "\n")
end

local function take_text()
  local text = ffi.string(text_out[0], size_out[0])
  C.oct_file_release(text_out[0])
  return text
end

--- The bytes of a regular file.
-- @tparam string path
-- @tparam[opt] number limit_bytes a longer file is an error
-- @treturn string
function M.read(path, limit_bytes)
  call(C.oct_file_load, text_out, size_out, checked(path), limit_bytes or -1)
  return take_text()
end

--- The value of a JSON file. It is data and nothing else: nothing in it is run.
-- @tparam string path
-- @tparam[opt=64 MiB] number limit_bytes
-- @treturn table an object or an array; null is octet.json's null
function M.read_json(path, limit_bytes)
  local text = M.read(path, limit_bytes or 2 ^ 26)
  local value = require("octet.json").decode(text, path)
  if type(value) ~= "table" then
    error(("%s: holds a %s, expected an object"):format(path, type(value)), 2)
  end
  return value
end

--- The SHA-256 of a file.
-- @tparam string path
-- @treturn string 64 hexadecimal digits
function M.sha256(path)
  call(C.oct_file_sha256, digest_out, checked(path))
  return ffi.string(digest_out)
end

--- The SHA-256 of bytes in memory.
-- @tparam string|cdata bytes a text, or a pointer
-- @tparam[opt=#bytes] number count
-- @treturn string 64 hexadecimal digits
function M.bytes_sha256(bytes, count)
  call(C.oct_sha256, digest_out, bytes, count or #bytes)
  return ffi.string(digest_out)
end

--- Let a write past the limit on the size of files (`ulimit -f`) be an error, whoever writes,
-- instead of a signal that ends the process. What this module writes needs no such call.
-- @tparam boolean on each true wants its false, except in a program that wants it to its end
function M.hold_size_signal(on)
  binding.check(C.oct_hold_size_signal(on and 1 or 0))
end

-- ---- names and folders -------------------------------------------------------------------------

local KINDS = {[C.OCT_FILE] = "file", [C.OCT_FOLDER] = "folder", [C.OCT_OTHER] = "other"}

--- What a path leads to, links followed.
-- @tparam string path
-- @treturn ?string "file", "folder", "other", or nil where there is nothing
-- @treturn number bytes of a file, else 0
function M.kind(path)
  call(C.oct_file_kind, kind_out, size_out, checked(path))
  return KINDS[kind_out[0]], tonumber(size_out[0])
end

function M.is_file(path) return (M.kind(path)) == "file" end
function M.is_folder(path) return (M.kind(path)) == "folder" end

--- Make a folder and those above it; fine where it is there.
-- @tparam string path
function M.make_folder(path)
  call(C.oct_folder_make, checked(path))
end

--- Make a folder that is not there, and those above it.
-- @tparam string path
-- @treturn boolean false where something has that name already
function M.claim_folder(path)
  call(C.oct_folder_claim, kind_out, checked(path))
  return kind_out[0] == 1
end

--- Give a file a second name; a file that had it is replaced.
function M.link(from, to)
  call(C.oct_file_link, checked(from), checked(to))
end

--- The names in a folder, sorted.
-- @tparam string path
-- @treturn {string,...}
function M.list(path)
  call(C.oct_folder_list, text_out, size_out, checked(path))
  local names = {}
  for name in take_text():gmatch "[^%z]+" do names[#names + 1] = name end
  return names
end

--- Rename a file or folder, durably.
function M.rename(from, to)
  call(C.oct_file_rename, checked(from), checked(to))
end

--- Remove a file or an empty folder; fine where there is none.
function M.remove(path)
  call(C.oct_file_remove, checked(path))
end

--- Remove a folder and all that is in it. Links are removed, not followed.
function M.remove_folder(path)
  call(C.oct_folder_remove, checked(path))
end

-- ---- files written in pieces -------------------------------------------------------------------

local Writer = {}
Writer.__index = Writer

--- Begin a file that is written in pieces: nothing is seen of it before commit.
-- @tparam string path
-- @treturn table with write(text), write_bytes(pointer, bytes), sha256(), descriptor(), commit(),
-- abandon()
function M.writer(path)
  local out = ffi.new "oct_writer *[1]"
  call(C.oct_writer_open, out, checked(path))
  return setmetatable({handle = ffi.gc(out[0], C.oct_writer_abandon), path = path}, Writer)
end

local function handle_of(self)
  return self.handle or error(("file: %s is closed"):format(self.path), 3)
end

function Writer:write(text)
  call(C.oct_writer_write, handle_of(self), text, #text)
end

--- As write, from memory that Lua does not own.
function Writer:write_bytes(pointer, bytes)
  call(C.oct_writer_write, handle_of(self), pointer, bytes)
end

--- The SHA-256 of what has been written so far.
-- @treturn string 64 hexadecimal digits
function Writer:sha256()
  handle_of(self)
  return M.sha256(self.path .. ".partial")
end

--- The descriptor, for a library that writes by itself; it remains the writer's.
function Writer:descriptor()
  call(C.oct_writer_descriptor, kind_out, handle_of(self))
  return kind_out[0]
end

--- The handle, which from here on nobody frees but the caller.
local function let_go(self)
  local handle = ffi.gc(handle_of(self), nil)
  self.handle = nil
  return handle
end

function Writer:commit()
  binding.check(C.oct_writer_commit(let_go(self)))
end

function Writer:abandon()
  if self.handle then C.oct_writer_abandon(let_go(self)) end
end

local Log = {}
Log.__index = Log

--- Open a file that grows by lines.
-- @tparam string path
-- @tparam[opt] number keep_bytes cut the file to so many bytes first
-- @treturn table with write(text), flush(sync), size(), close()
function M.log(path, keep_bytes)
  local out = ffi.new "oct_log *[1]"
  call(C.oct_log_open, out, checked(path), keep_bytes or -1)
  return setmetatable({handle = ffi.gc(out[0], C.oct_log_close), path = path}, Log)
end

function Log:write(text)
  call(C.oct_log_write, handle_of(self), text, #text)
end

--- Hand what was gathered to the system.
-- @tparam[opt=false] boolean sync and wait until it is on the disk
function Log:flush(sync)
  call(C.oct_log_flush, handle_of(self), sync and 1 or 0)
end

--- Bytes written and gathered so far: what a checkpoint records to resume from.
function Log:size()
  call(C.oct_log_size, size_out, handle_of(self))
  return tonumber(size_out[0])
end

function Log:close()
  binding.check(C.oct_log_close(let_go(self)))
end

return M
