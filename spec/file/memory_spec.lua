-- Every allocation of a load and of a save fails once: an error, nothing leaked, nothing broken.
local ffi = require "ffi"
local file = require "octet.file"
local safetensors = require "octet.safetensors"
local tensor = require "octet.tensor"
local C = require("octet.binding").C

local made = ffi.new "int64_t[2]"

local function fail_allocation(nth, on_and_on)
  C.oct_fail_allocation(made, nth, on_and_on and 1 or 0)
  return tonumber(made[0])
end

local function live()
  collectgarbage()
  collectgarbage()
  C.oct_live_tensors(made)
  local tensors = tonumber(made[0])
  C.oct_memory(made, made + 1, -1)
  return {tensors, tonumber(made[0])}
end

local function open_files()
  return #file.list "/proc/self/fd"
end

--- Let each allocation of `f` fail in turn, for good, and once.
local function sweep(f, before_each_run, after_each_failure)
  f()
  fail_allocation(0)
  f()
  local calls = fail_allocation(0)
  assert.is_true(calls > 2)
  local before, descriptors = live(), open_files()
  for nth = 1, calls do
    if before_each_run then before_each_run() end
    fail_allocation(nth, true)
    local ok, message = pcall(f)
    fail_allocation(0)
    assert.is_false(ok, "allocation " .. nth)
    assert.is_truthy(message:find("out of memory", 1, true), message)
    assert.is_nil(message:find("\n", 1, true))
    if after_each_failure then after_each_failure() end
    -- Once only: the second try, after a collection, may succeed.
    fail_allocation(nth)
    pcall(f)
    fail_allocation(0)
  end
  assert.same(before, live())
  assert.equal(descriptors, open_files())
end

describe("where memory ends", function()
  local folder, path, tensors
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    file.make_folder(folder)
    path = folder .. "/model"
    tensors = {a = tensor.from({1, 2}, {2}), b = tensor.zeros {3, 3}, c = tensor.zeros({5}, "u8")}
  end)
  after_each(function()
    fail_allocation(0)
    file.remove_folder(folder)
  end)

  it("a save keeps the former file", function()
    sweep(function() safetensors.save(path, tensors, {step = "1"}) end, function()
      file.save(path, "former")
    end, function()
      assert.equal("former", file.read(path))
      assert.same({"model"}, file.list(folder))
    end)
  end)

  it("a load leaves no tensor and no open file behind", function()
    safetensors.save(path, tensors, {step = "1"})
    sweep(function()
      local opened = safetensors.open(path)
      for _, name in ipairs(opened:names()) do opened:read(name) end
      opened:close()
    end)
  end)

  it("a tensor that is damaged or does not fit leaves none behind", function()
    safetensors.save(path, tensors)
    local whole = file.read(path)
    file.save(path, whole:sub(1, -2) .. "x")
    local before = live()
    for _ = 1, 100 do
      assert.is_false((pcall(function() safetensors.open(path):read "c" end)))
      assert.is_false((pcall(function() safetensors.open(path):read("c", tensors.a) end)))
    end
    assert.same(before, live())
  end)

  it("loading again and again takes no more of it", function()
    local header = '{"a":{"dtype":"F16","shape":[100000],"data_offsets":[0,200000]}}'
    file.save(path, ffi.string(ffi.new("uint64_t[1]", #header), 8) .. header .. ("a"):rep(200000))
    local function resident_kb()
      local status = assert(io.open "/proc/self/status")
      local kb = tonumber(status:read("*a"):match "VmRSS:%s*(%d+)")
      status:close()
      return kb
    end
    local into, first = tensor.zeros {100000}, nil
    for i = 1, 400 do
      local opened = safetensors.open(path)
      opened:read("a", into)
      opened:close()
      if i == 100 then first = resident_kb() end
    end
    assert.is_true(resident_kb() - first < 8000, resident_kb() - first)
  end)

  it("reading, hashing, listing and logging leave nothing behind", function()
    file.save(path, "text")
    sweep(function()
      file.read(path)
      file.sha256(path)
      file.list(folder)
      file.make_folder(folder .. "/a/b")
      local log = file.log(folder .. "/log")
      log:write "line\n"
      log:close()
    end)
  end)
end)
