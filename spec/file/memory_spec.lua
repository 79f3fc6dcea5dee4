-- Every allocation of a load and of a save fails once: an error, nothing leaked, nothing broken.
local ffi = require "ffi"
local file = require "octet.file"
local safetensors = require "octet.safetensors"
local sweep = require "spec.sweep"
local tensor = require "octet.tensor"

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
    sweep.fail_allocation(0)
    file.remove_folder(folder)
  end)

  it("a save keeps the former file", function()
    sweep.allocations(function() safetensors.save(path, tensors, {step = "1"}) end, function()
      file.save(path, "former")
    end, function()
      assert.equal("former", file.read(path))
      assert.same({"model"}, file.list(folder))
    end)
  end)

  it("a load leaves no tensor and no open file behind", function()
    safetensors.save(path, tensors, {step = "1"})
    sweep.allocations(function()
      local opened = safetensors.open(path)
      for _, name in ipairs(opened:names()) do opened:read(name) end
      opened:close()
    end)
  end)

  it("a tensor that is damaged or does not fit leaves none behind", function()
    safetensors.save(path, tensors)
    local whole = file.read(path)
    file.save(path, whole:sub(1, -2) .. "x")
    local before = sweep.live()
    for _ = 1, 100 do
      assert.is_false((pcall(function() safetensors.open(path):read "c" end)))
      assert.is_false((pcall(function() safetensors.open(path):read("c", tensors.a) end)))
    end
    assert.same(before, sweep.live())
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
    sweep.allocations(function()
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
