-- A parameter in bf16: ops take its copy in f32, and the gradient comes back by way of it.
local machine = require "octet.machine"
local scope = require "octet.scope"
local tensor = require "octet.tensor"

local function parameter(values, shape)
  return tensor.from(values, shape):to("bf16"):parameter_()
end

describe("a parameter in bf16", function()
  it("collects a gradient in f32 through its copy in f32", function()
    local w = parameter({1, 2, 3, 4}, {2, 2})
    local loss = (w:to "f32" * tensor.from({1 + 2 ^ -20, 2, -3, 0.1}, {2, 2})):sum()
    loss:backward()
    assert.equal("f32", w:grad():dtype())
    assert.same({2, 2}, w:grad():shape())
    assert.same({1 + 2 ^ -20, 2, -3}, {unpack(w:grad():totable(), 1, 3)})
    assert.same({1, 2, 3, 4}, w:totable())
  end)

  it("adds up gradients of several copies, and of views", function()
    local w = parameter({1, 2, 3, 4}, {2, 2})
    for _ = 1, 2 do
      local x = w:to "f32"
      local loss = (x * x):sum() + w:rows(2):to("f32"):sum() + (w:reshape(4):to "f32" * 3):sum()
      loss:backward()
    end
    assert.same({10, 14, 20, 24}, w:grad():totable())
    w:zero_grad()
    assert.is_nil(w:grad())
  end)

  it("is accounted as a parameter of two bytes, and its gradient as one of four", function()
    collectgarbage()
    collectgarbage()
    local before = machine.memory()
    local w = tensor.zeros({1000}, "bf16"):parameter_()
    w:to("f32"):sum():backward()
    local now = machine.memory()
    assert.equal(2000, now.parameters.now - before.parameters.now)
    assert.equal(4000, now.gradients.now - before.gradients.now)
  end)

  it("records nothing where it is only read, is frozen, or gradients are off", function()
    local w = parameter {1, 2}
    local function nothing_recorded(y)
      local ok, message = pcall(y.backward, y)
      assert.is_false(ok)
      assert.matches("nothing is recorded", message)
    end
    w:totable()
    w:rows(1):item()
    nothing_recorded(scope.no_grad(function() return w:to("f32"):sum() end))
    w:parameter_(false)
    nothing_recorded(w:to("f32"):sum())
    assert.is_nil(w:grad())
  end)

  it("is refused by ops as it stands, and its copy in another type takes no gradient", function()
    local w = parameter {1, 2}
    assert.error_matches(function() return w + w end, "is bf16, expected f32")
    local ok, message = pcall(function() w:to("f16"):to("f32"):sum():backward() end)
    assert.is_false(ok)
    assert.matches("nothing is recorded", message)
    assert.error_matches(function() tensor.zeros({2}, "f16"):parameter_() end,
      "the tensor is f16, expected f32 or bf16")
  end)
end)
