local octet = require "octet"
local check = require "spec.ops.check"

local tensor = octet.tensor

local function gather(shape, out_shape, place)
  -- place(index of the result) -> index of x; both 0-based lists
  return function(x)
    local y = {}
    for i, index in check.places(out_shape) do
      local from, at = place(index), 0
      for d = 1, #shape do at = at * shape[d] + from[d] end
      y[i] = x[at + 1]
    end
    return y
  end
end

describe("the gradient passes through", function()
  local inputs = {{check.values(3 * 4 * 5, -1, 1, 1), {3, 4, 5}}}

  it("reshape", function()
    check.op{inputs = inputs, op = function(x) return x:reshape(12, 5):square():reshape(-1) end,
      formula = function(x)
        local y = {}
        for i = 1, #x do y[i] = x[i] ^ 2 end
        return y
      end}
  end)

  it("rows of the leading dimension", function()
    check.op{inputs = inputs, forward = 0, op = function(x) return x:rows(2, 2) end,
      formula = gather({3, 4, 5}, {2, 4, 5}, function(i) return {i[1] + 1, i[2], i[3]} end)}
  end)

  it("a part of any dimension", function()
    check.op{inputs = inputs, forward = 0, op = function(x) return x:narrow(2, 2, 3) end,
      formula = gather({3, 4, 5}, {3, 3, 5}, function(i) return {i[1], i[2] + 1, i[3]} end)}
    check.op{inputs = inputs, forward = 0, op = function(x) return x:narrow(3, 5, 1) end,
      formula = gather({3, 4, 5}, {3, 4, 1}, function(i) return {i[1], i[2], 4} end)}
  end)

  it("a copy of all, of any type", function()
    check.op{inputs = inputs, forward = 0, op = function(x) return x:clone() end,
      formula = function(x) return x end}
    local x = tensor.from({3, 4}, {2}, "i32")
    local y = x:clone()
    y:fill_(5)
    assert.same({3, 4}, x:totable())
    assert.equal("i32", y:dtype())
    local number = tensor.full({}, 2):parameter_()
    number:clone():square():backward()
    assert.same({}, number:clone():shape())
    assert.equal(4, number:grad():item())
  end)

  it("two dimensions exchanged", function()
    check.op{inputs = inputs, forward = 0, op = function(x) return x:transpose(1, 3) end,
      formula = gather({3, 4, 5}, {5, 4, 3}, function(i) return {i[3], i[2], i[1]} end)}
    check.op{inputs = inputs, forward = 0, op = function(x) return x:transpose(2, 3) end,
      formula = gather({3, 4, 5}, {3, 5, 4}, function(i) return {i[1], i[3], i[2]} end)}
  end)

  it("tensors joined along a dimension", function()
    check.op{
      inputs = {{check.values(6, -1, 1, 1), {2, 3}}, {check.values(4, -1, 1, 2), {2, 2}}},
      forward = 0, op = function(a, b) return tensor.cat({a, b, a}, 2) end,
      formula = function(a, b)
        return {a[1], a[2], a[3], b[1], b[2], a[1], a[2], a[3],
          a[4], a[5], a[6], b[3], b[4], a[4], a[5], a[6]}
      end}
  end)
end)
