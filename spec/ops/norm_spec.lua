local octet = require "octet"
local check = require "spec.ops.check"

local C, tensor = require("octet.binding").C, octet.tensor

local function layer_norm(x, gain, shift)
  tensor.call(C.oct_layer_norm, tensor.out, x, gain, shift, 1e-5)
  return tensor.take()
end

local function formula(width)
  return function(x, gain, shift)
    local y = {}
    for row = 0, #x / width - 1 do
      local mean, variance = 0, 0
      for i = 1, width do mean = mean + x[row * width + i] / width end
      for i = 1, width do variance = variance + (x[row * width + i] - mean) ^ 2 / width end
      for i = 1, width do
        local h = (x[row * width + i] - mean) / math.sqrt(variance + 1e-5)
        y[row * width + i] = h * gain[i] + shift[i]
      end
    end
    return y
  end
end

local function case(rows, width, more)
  local o = {
    inputs = {{check.values(rows * width, -1, 3, rows), {rows, width}},
      {check.values(width, 0.5, 1.5, 2), {width}}, {check.values(width, -1, 1, 3), {width}}},
    op = layer_norm, formula = formula(width), forward = 2e-6,
  }
  for k, v in pairs(more or {}) do o[k] = v end
  check.op(o)
end

describe("layer norm", function()
  it("is its formula, and its three gradients the formula's", function()
    for _, shape in ipairs {{1, 7}, {3, 2}, {5, 16}, {3, 33}, {70, 5}} do
      case(shape[1], shape[2], {backward = 3e-5})
    end
  end)

  it("gives the same bits with two threads on many rows", function()
    case(200, 100, {probes = 5, backward = 3e-5})
    case(1000, 17, {probes = 5, backward = 3e-5})
  end)

  it("keeps a large mean from drowning the variance", function()
    local x = tensor.from({10000, 10001, 10002, 10003}, {1, 4})
    check.everywhere(function()
      local y = layer_norm(x, tensor.ones {4}, tensor.zeros {4})
      check.near(y:totable(), {-1.341635, -0.4472118, 0.4472118, 1.341635}, 1e-5, "layer norm")
    end)
  end)

  it("gives the shift where a row is constant", function()
    check.everywhere(function()
      local y = layer_norm(tensor.full({2, 9}, 5), tensor.ones {9}, tensor.full({9}, 0.25))
      check.near(y:totable(), tensor.full({18}, 0.25):totable(), 0, "layer norm")
    end)
  end)
end)
