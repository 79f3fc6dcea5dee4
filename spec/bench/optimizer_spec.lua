-- The programs that prove the optimizers run, and say what they found, on sizes that take no time.
local file = require "octet.file"
local optim = require "octet.optim"
local safetensors = require "octet.safetensors"
local tensor = require "octet.tensor"
local gradients = require "spec.optim.gradients"

local function output_of(command)
  local pipe = assert(io.popen("PEER_PYTHON= luajit bench/" .. command .. " 2>&1; echo status $?"))
  local text = pipe:read "*a"
  pipe:close()
  return text
end

describe("bench/optimizer", function()
  it("prints time, bytes and share of each width, and keeps them as JSON", function()
    local path = os.tmpname()
    local text = output_of("optimizer.lua --rules adam --sizes 0.1 --rounds 1 --json " .. path)
    for _, name in ipairs {"adam", "adam8", "adam4"} do
      assert.is_truthy(text:find(name .. " +[%d.]+ ns +[%d.]+ bytes +%d+ %%"), text)
    end
    local kinds = file.read_json(path).records[1].optimizers
    assert.near(28, kinds[1].bytes, 1e-9)
    assert.near(12 + 4 + 16 / 256, kinds[2].bytes, 0.01)
    os.remove(path)
  end)

  it("refuses a rule that there is not, by a line that names those there are", function()
    local text = output_of "optimizer.lua --rules adm"
    assert.is_truthy(text:find('unknown rule "adm"; it is one of adam, ', 1, true), text)
    assert.is_truthy(text:find("status 1", 1, true))
  end)
end)

describe("bench/optimizer_large", function()
  it("finds windows of a large tensor the same as small tensors, and what is no number left out",
    function()
      local text = output_of "optimizer_large.lua --elements 40000"
      assert.is_truthy(text:find("step 2: 40000 elements in .- s; 3 windows are the same", 1), text)
    end)
end)

describe("bench/quantization_error", function()
  it("measures what a run's checkpoint holds", function()
    local size = 8192
    local w = tensor.zeros({size}):parameter_()
    local opt = optim.adam({{name = "layer.weight", tensor = w}})
    for _ = 1, 3 do
      gradients.set(w, tensor.new({size}):normal_(0, 1e-3))
      opt:step()
    end
    local tensors = {}
    for name, t in pairs(opt:state().tensors) do tensors["optimizer." .. name] = t end
    local path = os.tmpname()
    safetensors.save(path, tensors)
    local text = output_of("quantization_error.lua " .. path)
    os.remove(path)
    assert.is_truthy(text:find("1 tensors, 8192 elements", 1, true), text)
    local paper = tonumber(text:match "dynamic, 2048 %(the paper's%) +([%d.]+) %%")
    local octet = tonumber(text:match "dynamic, 256, by chance %(Octet%) +([%d.]+) %%")
    assert.is_true(paper > 0.1 and paper < 20, text)
    assert.is_true(octet > 0.1 and octet < 5, text)
  end)
end)
