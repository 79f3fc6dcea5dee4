-- Ops that write into a tensor of the caller's and are never recorded.
local check = require "spec.ops.check"
local octet = require "octet"

local tensor = octet.tensor

local function bytes(t) return require "ffi".string(t:data(), 4 * t:size()) end

describe("lerp_", function()
  it("moves towards the source by its weight", function()
    for _, n in ipairs {1, 7, 33, 20001} do
      local a, b = check.values(n, -2, 3, 1), check.values(n, -1, 5, 2)
      for _, weight in ipairs {0.001, 0.25, 0.5, 0.9} do
        local expected, first = {}, nil
        for i = 1, n do expected[i] = (1 - weight) * a[i] + weight * b[i] end
        check.everywhere(function(isa)
          local x = tensor.from(a)
          assert.equal(x, x:lerp_(tensor.from(b), weight))
          check.near(x:totable(), expected, 3e-7, isa)
          first = first or bytes(x)
          assert.is_true(first == bytes(x), isa .. " gives other bits")
        end)
      end
    end
  end)

  it("is exact at both ends", function()
    local a, b = check.values(1000, -1e6, 1e6, 3), check.values(1000, -1e-3, 1e-3, 4)
    check.everywhere(function()
      local x, y = tensor.from(a), tensor.from(b)
      local before = bytes(x)
      assert.is_true(before == bytes(x:lerp_(y, 0)))
      assert.is_true(bytes(y) == bytes(x:lerp_(y, 1)))
    end)
  end)

  it("leaves an element that equals the source exactly as it is", function()
    local a = check.values(1000, -3, 3, 5)
    check.everywhere(function()
      for _, weight in ipairs {0.1, 0.7} do
        local x = tensor.from(a)
        local before = bytes(x)
        assert.is_true(before == bytes(x:lerp_(tensor.from(a), weight)))
      end
    end)
  end)

  it("is not recorded, and is seen by the next product in bf16", function()
    local w = tensor.ones({2, 2}):parameter_()
    local x = tensor.ones {1, 2}
    octet.set_precision "bf16"
    local function product() return x:matmul(w):totable()[1] end
    local ok, message = pcall(function()
      assert.equal(2, product())
      w:lerp_(tensor.full({2, 2}, 3), 0.5)
      assert.equal(4, product())
    end)
    octet.set_precision "f32"
    assert.is_true(ok, message)
    assert.is_nil(w:grad())
    assert.is_true(w:is_parameter())
  end)

  it("refuses what does not fit, in one line", function()
    local x = tensor.zeros {2, 3}
    assert.has_error(function() x:lerp_(tensor.zeros {5}, 0.5) end,
      "lerp: sizes differ: destination [2 x 3], source [5]")
    assert.has_error(function() x:lerp_(tensor.zeros({6}, "i32"), 0.5) end,
      "lerp: the source is i32, expected f32")
    for _, weight in ipairs {-0.1, 1.5, 0 / 0} do
      assert.error_matches(function() x:lerp_(tensor.zeros {6}, weight) end,
        "lerp: the weight is .*, expected 0 to 1")
    end
    local all = tensor.zeros {4}
    assert.has_error(function() all:rows(1, 3):lerp_(all:rows(2, 3), 0.5) end,
      "lerp: the two tensors share a part of their memory")
  end)
end)

describe("swap_", function()
  it("exchanges contents of any type and size", function()
    for _, n in ipairs {1, 5, 1023, 1024, 1025, 5000} do
      for _, dtype in ipairs {"f32", "i32", "u8"} do
        local a, b = {}, {}
        for i = 1, n do a[i], b[i] = i % 200, (7 * i + 3) % 250 end
        local x, y = tensor.from(a, {n}, dtype), tensor.from(b, {n}, dtype)
        assert.equal(x, x:swap_(y))
        assert.same(b, x:totable())
        assert.same(a, y:totable())
      end
    end
  end)

  it("leaves what lies beside a slice alone", function()
    local t = tensor.from {1, 2, 3, 4, 5, 6}
    t:rows(2, 2):swap_(t:rows(5, 2))
    assert.same({1, 5, 6, 4, 2, 3}, t:totable())
  end)

  it("refuses what does not fit, in one line", function()
    local x = tensor.zeros {2, 3}
    assert.has_error(function() x:swap_(tensor.zeros {5}) end,
      "swap: sizes differ: [2 x 3] and [5]")
    assert.has_error(function() x:swap_(tensor.zeros({6}, "i32")) end,
      "swap: the second tensor is i32, expected f32")
    assert.has_error(function() x:swap_(x:rows(1, 2)) end, "swap: the two tensors share memory")
  end)
end)
