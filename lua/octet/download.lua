--- One file from a URL, saved whole or not at all, its size and SHA-256 checked. libcurl, by way of
-- the FFI: no shell, no callback into Lua.
-- @module octet.download
local ffi = require "ffi"
local file = require "octet.file"

ffi.cdef [[
int curl_global_init(long flags);
void *curl_easy_init(void);
void curl_easy_cleanup(void *easy);
int curl_easy_setopt(void *easy, int option, ...);
int curl_easy_getinfo(void *easy, int info, ...);
const char *curl_easy_strerror(int code);
void *curl_multi_init(void);
int curl_multi_cleanup(void *multi);
int curl_multi_add_handle(void *multi, void *easy);
int curl_multi_remove_handle(void *multi, void *easy);
int curl_multi_perform(void *multi, int *running);
int curl_multi_poll(void *multi, void *extra, unsigned count, int timeout_ms, int *changed);
void *curl_multi_info_read(void *multi, int *left);
struct curl_slist;
struct curl_slist *curl_slist_append(struct curl_slist *, const char *text);
void curl_slist_free_all(struct curl_slist *);
int dup(int fd);
int isatty(int fd);
struct _IO_FILE;
struct _IO_FILE *fdopen(int fd, const char *mode);
struct _IO_FILE *tmpfile(void);
int fclose(struct _IO_FILE *);
int fflush(struct _IO_FILE *);
void rewind(struct _IO_FILE *);
size_t fread(void *data, size_t size, size_t count, struct _IO_FILE *);
]]

local M = {}

-- curl/curl.h's numbers.
local OPTION = {
  write_data = 10001, url = 10002, error_buffer = 10010, user_agent = 10018, http_header = 10023,
  header_data = 10029, low_speed_limit = 19, low_speed_time = 20, no_progress = 43,
  fail_on_error = 45, follow_location = 52, max_redirects = 68, no_signal = 99,
  connect_timeout_ms = 156, protocols = 181, redirect_protocols = 182,
}
local INFO = {response_code = 0x200002, downloaded = 0x600008, length = 0x60000F}
local HTTP, HTTPS, FILE = 1, 2, 1024
local WRITE_ERROR = 23

-- No handle of the library has a finalizer: it might run after the library has been unloaded.
local curl
-- CURLMsg: nameless, since a name may be declared only once.
local message_type = ffi.typeof [[
  struct { int kind; void *easy; union { void *any; int result; } data; } *]]

local function library()
  if curl then return curl end
  local ok, loaded = pcall(ffi.load, "libcurl.so.4")
  if not ok then
    error("download: libcurl.so.4 was not found; install libcurl4 (./setup does)", 0)
  end
  loaded.curl_global_init(3)
  curl = loaded
  return curl
end

-- ---- one transfer ------------------------------------------------------------------------------

local function set(easy, option, value)
  if type(value) == "number" then value = ffi.cast("long", value) end
  curl.curl_easy_setopt(easy, OPTION[option], value)
end

local number_out = ffi.new "int64_t[1]"
-- libcurl writes here until a handle is cleaned up, so the collector must not get hold of it.
local error_text = ffi.new "char[256]"

local function get(easy, info)
  number_out[0] = 0
  curl.curl_easy_getinfo(easy, INFO[info], number_out)
  return tonumber(number_out[0])
end

local function in_mb(bytes) return ("%.1f MB"):format(bytes / 1e6) end

--- One line on a terminal that is written over; elsewhere nothing.
local function show(name, done, length)
  local share = length > 0 and (" of %s, %d %%"):format(in_mb(length), 100 * done / length) or ""
  io.stderr:write(("\r%s: %s%s\27[K"):format(name, in_mb(done), share))
  io.stderr:flush()
end

--- Turn until the transfer ends. @treturn ?string nil, or why it was stopped
local function turn(multi, easy, options)
  local running, changed = ffi.new "int[1]", ffi.new "int[1]"
  local watched = not options.quiet and ffi.C.isatty(2) == 1
  repeat
    curl.curl_multi_perform(multi, running)
    local done = get(easy, "downloaded")
    if options.size and done > options.size then
      return ("longer than the %d bytes expected"):format(options.size)
    end
    if watched and done > 0 then show(options.name, done, get(easy, "length")) end
    if running[0] > 0 then curl.curl_multi_poll(multi, nil, 0, 200, changed) end
  until running[0] == 0
  if watched then io.stderr:write "\r\27[K" end
end
-- A compiled loop would not notice the interpreter's own Ctrl-C.
jit.off(turn)

local function result_of(multi)
  local left = ffi.new "int[1]"
  local message = ffi.cast(message_type, curl.curl_multi_info_read(multi, left))
  local code = message ~= nil and message.data.result or -1
  if code == 0 then return 0 end
  local text = ffi.string(error_text)
  return code, text ~= "" and text or ffi.string(curl.curl_easy_strerror(code))
end

--- The headers of every answer, the redirecting ones too; names in lower case, the first one wins.
local function read_headers(from)
  ffi.C.rewind(from)
  local buffer = ffi.new "char[65536]"
  local text = ffi.string(buffer, ffi.C.fread(buffer, 1, 65536, from))
  local headers = {}
  for name, value in text:gmatch "([%w%-]+):[ \t]*([^\r\n]*)" do
    name = name:lower()
    headers[name] = headers[name] or value
  end
  return headers
end

local function prepare(easy, url, options, stream, header_stream)
  set(easy, "url", url)
  set(easy, "write_data", stream)
  set(easy, "header_data", header_stream)
  set(easy, "error_buffer", error_text)
  set(easy, "user_agent", "octet")
  set(easy, "no_progress", 1)
  set(easy, "no_signal", 1)
  set(easy, "fail_on_error", 1)
  set(easy, "follow_location", 1)
  set(easy, "max_redirects", 10)
  set(easy, "protocols", HTTP + HTTPS + FILE)
  set(easy, "redirect_protocols", HTTP + HTTPS)
  set(easy, "connect_timeout_ms", 1000 * (options.connect_seconds or 10))
  set(easy, "low_speed_limit", 1000)
  set(easy, "low_speed_time", 30)
end

--- Transfer into a C stream. @treturn number|nil curl's code, nil where we stopped it
local function transfer(url, options, stream, header_stream)
  local easy = curl.curl_easy_init()
  local multi = curl.curl_multi_init()
  if easy == nil or multi == nil then error("download: out of memory", 0) end
  error_text[0] = 0
  prepare(easy, url, options, stream, header_stream)
  local list
  for _, header in ipairs(options.headers or {}) do list = curl.curl_slist_append(list, header) end
  if list ~= nil then set(easy, "http_header", list) end
  curl.curl_multi_add_handle(multi, easy)
  local ok, stopped = pcall(turn, multi, easy, options)
  local code, why = result_of(multi)
  local status = get(easy, "response_code")
  curl.curl_multi_remove_handle(multi, easy)
  curl.curl_easy_cleanup(easy)
  curl.curl_multi_cleanup(multi)
  if list ~= nil then curl.curl_slist_free_all(list) end
  if not ok then error(stopped, 0) end
  if stopped then return nil, stopped, status end
  return code, why, status
end

-- ---- into a file -------------------------------------------------------------------------------

local function check(writer, options)
  if options.size then
    local _, bytes = file.kind(options.path .. ".partial")
    if bytes ~= options.size then
      return ("%d bytes came, expected %d"):format(bytes, options.size)
    end
  end
  if options.sha256 then
    local sha256 = writer:sha256()
    if sha256 ~= options.sha256 then
      return ("its SHA-256 is %s, expected %s"):format(sha256, options.sha256)
    end
  end
end

local function receive(url, options, writer)
  local stream = ffi.C.fdopen(ffi.C.dup(writer:descriptor()), "wb")
  local header_stream = ffi.C.tmpfile()
  if stream == nil or header_stream == nil then error("no stream could be opened", 0) end
  local code, why, status = transfer(url, options, stream, header_stream)
  if ffi.C.fclose(stream) ~= 0 and code == 0 then code = WRITE_ERROR end
  local headers = read_headers(header_stream)
  ffi.C.fclose(header_stream)
  -- Where the stream could not be written, the same write by hand tells why.
  if code == WRITE_ERROR then writer:write " " end
  if code ~= 0 then return nil, why or "it could not be written", status end
  -- The hub says what a large file's SHA-256 must be.
  local linked = (headers["x-linked-etag"] or ""):match '^"?(%x+)"?$'
  if not options.sha256 and linked and #linked == 64 then options.sha256 = linked:lower() end
  local wrong = check(writer, options)
  if wrong then return nil, wrong, status end
  return headers
end

--- Download a URL into a file, whole or not at all.
-- @tparam string url http, https or file
-- @tparam table options path; and where wanted: sha256, size (bytes), headers (a list of lines),
-- name (for the progress line), quiet, connect_seconds (10)
-- @treturn ?table the answer's headers, by their names in lower case; nil where it failed
-- @treturn ?string why it failed, in one line
-- @treturn ?number the HTTP status
function M.try(url, options)
  library()
  local o = {name = url:match "[^/]*$"}
  for key, value in pairs(options) do o[key] = value end
  local opened, writer = pcall(file.writer, o.path)
  if not opened then return nil, writer end
  -- The streams are not written by octet.file.
  file.hold_size_signal(true)
  local ok, headers, why, status = pcall(receive, url, o, writer)
  file.hold_size_signal(false)
  if ok and headers then
    local committed, message = pcall(writer.commit, writer)
    if committed then return headers end
    return nil, message
  end
  writer:abandon()
  return nil, ("%s: %s"):format(url, ok and why or headers), status
end

--- As @{try}, but a failure is an error.
function M.fetch(url, options)
  local headers, why = M.try(url, options)
  if not headers then error("download: " .. why, 0) end
  return headers
end

return M
