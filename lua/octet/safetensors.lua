--- Tensors in safetensors files: read by name, saved whole or not at all.
-- Files that Octet saves carry a SHA-256 for each tensor and for the header, which are checked when
-- they are read; other readers see them as metadata.
--
--     model:load(safetensors.load "model.safetensors")
--     local file = safetensors.open "model.safetensors"
--     local weight = file:read "encoder.weight"
--     safetensors.save("copy.safetensors", {["encoder.weight"] = weight}, {step = "100"})
-- @module octet.safetensors
local ffi = require "ffi"
local binding = require "octet.binding"
local nearest = require "octet.nearest"
local tensor = require "octet.tensor"

local C, call = binding.C, binding.call

local M = {}
local File = {}
File.__index = File

local DTYPES, PURPOSES = tensor.DTYPES, tensor.PURPOSES

local names_out = ffi.new "const char *[2]"
local ndim_out = ffi.new "int[1]"
local shape_out = ffi.new("int64_t[?]", C.OCT_MAX_DIMS)
local bytes_out = ffi.new "int64_t[2]"
local tensor_out = ffi.new "oct_tensor *[1]"

--- C would take a text with a zero byte for a shorter one.
local function checked(text, what)
  if type(text) ~= "string" or text:find("%z") then
    error(("safetensors: %s is %s, expected a text"):format(what,
      type(text) == "string" and ("%q"):format(text) or type(text)), 3)
  end
  return text
end

local function read_entry(handle, index)
  call(C.oct_safetensors_info, names_out, names_out + 1, ndim_out, shape_out, bytes_out, handle,
    index)
  local shape = {}
  for i = 1, ndim_out[0] do shape[i] = tonumber(shape_out[i - 1]) end
  return {index = index, name = ffi.string(names_out[0]), type = ffi.string(names_out[1]),
    shape = shape, bytes = tonumber(bytes_out[0])}
end

--- Open a file. Its header is checked whole; no tensor is read yet.
-- @tparam string path
-- @treturn File
function M.open(path)
  local out = ffi.new "oct_safetensors *[1]"
  call(C.oct_safetensors_open, out, checked(path, "a path"))
  local self = setmetatable({path = path, entries = {}, list = {}, texts = {}}, File)
  self.handle = ffi.gc(out[0], C.oct_safetensors_close)
  call(C.oct_safetensors_counts, bytes_out, bytes_out + 1, self.handle)
  local tensors, metadata = tonumber(bytes_out[0]), tonumber(bytes_out[1])
  for i = 1, tensors do
    local entry = read_entry(self.handle, i - 1)
    self.entries[entry.name], self.list[i] = entry, entry.name
  end
  for i = 0, metadata - 1 do
    call(C.oct_safetensors_metadata, names_out, names_out + 1, self.handle, i)
    self.texts[ffi.string(names_out[0])] = ffi.string(names_out[1])
  end
  return self
end

local function entry_of(self, name)
  return self.entries[name]
    or error(("safetensors: %s: there is no tensor \"%s\""):format(self.path, tostring(name)), 3)
end

local function handle_of(self)
  return self.handle or error(("safetensors: %s is closed"):format(self.path), 3)
end

--- The tensors' names, sorted.
-- @treturn {string,...}
function File:names()
  local names = {}
  for i, name in ipairs(self.list) do names[i] = name end
  return names
end

--- What the file says of a tensor; nil where it has none of that name.
-- @tparam string name
-- @treturn ?table type ("F32", "BF16", ... as in the file), shape, bytes
function File:info(name)
  local entry = self.entries[name]
  if not entry then return nil end
  local shape = {}
  for i, n in ipairs(entry.shape) do shape[i] = n end
  return {type = entry.type, shape = shape, bytes = entry.bytes}
end

--- The file's metadata, checksums left out.
-- @treturn {[string]=string,...}
function File:metadata()
  local metadata = {}
  for key, value in pairs(self.texts) do
    if key ~= "sha256" and key:sub(1, 7) ~= "sha256:" then metadata[key] = value end
  end
  return metadata
end

--- Read one tensor. Its checksum, where the file carries one, is checked.
-- @tparam string name
-- @tparam[opt] tensor|table into a tensor of the same shape that receives it (f32 takes F16, BF16
-- and F64 too), or options for a new one: dtype (the file's own), purpose ("parameters")
-- @treturn tensor
function File:read(name, into)
  local entry, handle = entry_of(self, name), handle_of(self)
  if type(into) == "cdata" then
    local there = tensor.is_tensor(into) and not into:is_released() and into:device() ~= "cpu"
    local here = there and tensor.new(into:shape(), into:dtype()) or into
    call(C.oct_safetensors_read_into, here, handle, entry.index)
    return there and into:copy_(here) or into
  end
  local options = into or {}
  nearest.check_options("safetensors", options, {"dtype", "purpose"})
  local dtype = options.dtype and (DTYPES[options.dtype]
    or error(("safetensors: no type '%s'"):format(tostring(options.dtype)), 2)) or -1
  local purpose = PURPOSES[options.purpose or "parameters"]
    or error(("safetensors: no purpose '%s'"):format(tostring(options.purpose)), 2)
  call(C.oct_safetensors_read, tensor_out, handle, entry.index, dtype, purpose)
  return tensor.own(tensor_out[0])
end

--- Close the file; the garbage collector does so too.
function File:close()
  if self.handle then C.oct_safetensors_close(ffi.gc(self.handle, nil)) end
  self.handle = nil
end

--- All tensors of a file, as save() takes them.
-- @tparam string path
-- @tparam[opt] table options of the tensors: as of read
-- @treturn {[string]=tensor,...}
function M.load(path, options)
  local opened, tensors = M.open(path), {}
  for _, name in ipairs(opened.list) do tensors[name] = opened:read(name, options) end
  opened:close()
  return tensors
end

local function gather(writer, tensors, metadata)
  local names = {}
  for name, t in pairs(tensors) do
    names[#names + 1] = checked(name, "a tensor's name")
    if not tensor.is_tensor(t) then
      error(("safetensors: '%s' is a %s, expected a tensor"):format(name, type(t)), 3)
    end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local t = tensors[name]
    call(C.oct_safetensors_writer_add, writer, name, t:is_released() and t or t:to "cpu")
  end
  for key, value in pairs(metadata) do
    call(C.oct_safetensors_writer_metadata, writer, checked(key, "a metadata key"),
      checked(value, "metadata \"" .. key .. "\""))
  end
end

--- Save tensors, whole or not at all, on the disk when this returns. On failure the former file
-- stands. The same tensors and metadata give the same bytes.
-- @tparam string path
-- @tparam {[string]=tensor,...} tensors
-- @tparam[opt] {[string]=string,...} metadata; format = "pt" is added, without which Hugging Face's
-- libraries refuse a model
-- @tparam[opt] table options checksums = false leaves the checksums out
function M.save(path, tensors, metadata, options)
  local out = ffi.new "oct_safetensors_writer *[1]"
  call(C.oct_safetensors_writer_new, out)
  local writer = ffi.gc(out[0], C.oct_safetensors_writer_free)
  local texts = {format = "pt"}
  for key, value in pairs(metadata or {}) do texts[key] = value end
  gather(writer, tensors, texts)
  local checksums = not (options and options.checksums == false)
  call(C.oct_safetensors_writer_save, writer, checked(path, "a path"), checksums and 1 or 0)
  C.oct_safetensors_writer_free(ffi.gc(writer, nil))
end

return M
