local ffi = require "ffi"
local octet = require "octet"
local tensor = octet.tensor

describe("a tensor", function()
  it("knows its shape, size and type", function()
    local t = tensor.zeros({2, 3}, "i32")
    assert.same({2, 3}, t:shape())
    assert.equal(6, t:size())
    assert.equal(3, t:size(2))
    assert.equal("i32", t:dtype())
  end)

  it("shows its values", function()
    assert.equal("tensor i32 [2 x 3]\n  0  0  0\n  0  0  0",
      tostring(tensor.zeros({2, 3}, "i32")))
    assert.equal("tensor f32 [] 1.5000", tostring(tensor.from({1.5}):sum()))
    assert.equal("tensor bf16 [3]\n   1.0000  -2.5000      inf",
      tostring(tensor.from({1, -2.5, math.huge}):to "bf16"))
    assert.equal("tensor f32 [2]\n  1.0000e-05  2.0000e-07", tostring(tensor.from {1e-5, 2e-7}))
    assert.equal("tensor f32 [2 x 2 x 1]\n  1\n  2\n\n  3\n  4",
      tostring(tensor.from {{{1}, {2}}, {{3}, {4}}}))
  end)

  it("shows the edges of a large one, and that a released one is none", function()
    local lines = {}
    for line in (tostring(tensor.zeros {50, 40}) .. "\n"):gmatch "(.-)\n" do
      lines[#lines + 1] = line
    end
    assert.equal("tensor f32 [50 x 40]", lines[1])
    assert.equal("    0    0    0  ...    0    0    0", lines[2])
    assert.equal("  ...", lines[5])
    assert.equal(8, #lines)
    local t
    octet.scope(function() t = tensor.zeros {2} * 2 end)
    assert.equal("tensor (released)", tostring(t))
  end)

  it("has the shape of nested tables, which must be even", function()
    assert.same({2, 3}, tensor.from({{1, 2, 3}, {4, 5, 6}}):shape())
    assert.same({2, 1, 2}, tensor.from({{{1, 2}}, {{3, 4}}}):shape())
    assert.same({6}, tensor.from({1, 2, 3, 4, 5, 6}):shape())
    assert.error_matches(function() tensor.from {{1, 2}, {3}} end, "a row of 1 among rows of 2")
    for _, mixed in ipairs {{1, {2}}, {{1}, 2}, {{1, 2}, {{3}, {4}}}} do
      assert.error_matches(function() tensor.from(mixed) end, "numbers and rows side by side")
    end
    assert.error_matches(function() tensor.from {} end, "tensor.from: no values")
  end)

  it("refuses what is neither a tensor nor a number beside it", function()
    local t = tensor.zeros {2}
    assert.error_matches(function() return t + "x" end, "add: a tensor and a string")
    assert.error_matches(function() return {} - t end, "sub: a tensor and a table")
    assert.error_matches(function() return t * nil end, "mul: a tensor and a nil")
    assert.error_matches(function() return t ^ t end, "pow: the power is a cdata")
    assert.error_matches(function() return t ^ (1 / 0) end, "the power is inf, expected a finite")
    assert.error_matches(function() return t:matmul {1, 2}, 1 end, "expected a tensor, got a table")
  end)

  it("has a smallest element", function()
    local t = tensor.from {{3, -1}, {2, 5}}
    assert.equal(-1, t:min():item())
    assert.same({2, -1}, t:min(1):totable())
    assert.same({2, 1}, t:min(2, true):shape())
  end)

  it("takes nested tables, C arrays, and refuses a wrong count", function()
    assert.same({1, 2, 3, 4}, tensor.from({{1, 2}, {3, 4}}, {2, 2}):totable())
    local array = require("ffi").new("float[3]", 5, 6, 7)
    assert.same({5, 6, 7}, tensor.from(array, {3}):totable())
    assert.error_matches(function() tensor.from({1, 2, 3}, {2, 2}) end,
      "3 values for a shape of 4 elements")
  end)

  it("refuses sizes below 1, products that overflow and unknown types", function()
    assert.error_matches(function() tensor.new {2, 0} end, "size 0 of dimension 2")
    assert.error_matches(function() tensor.new {2 ^ 42, 2 ^ 42} end, "more than any memory holds")
    assert.error_matches(function() tensor.new({2}, "f64") end, "no type \"f64\"")
    assert.error_matches(function() tensor.new {1, 1, 1, 1, 1, 1, 1} end, "7 dimensions")
  end)

  it("shares memory with its reshaped and sliced views", function()
    local t = tensor.from({1, 2, 3, 4, 5, 6}, {3, 2})
    t:reshape(6):data()[0] = 9
    t:rows(2, 2):data()[0] = 8
    assert.same({9, 2, 8, 4, 5, 6}, t:totable())
    assert.same({2, 3}, t:reshape(-1, 3):shape())
  end)

  it("copies where a slice is not of the leading dimension", function()
    local t = tensor.from({1, 2, 3, 4, 5, 6}, {2, 3})
    assert.same({2, 3, 5, 6}, t:narrow(2, 2, 2):totable())
    assert.same({1, 4, 2, 5, 3, 6}, t:transpose():totable())
    assert.same({1, 2, 3, 1, 4, 5, 6, 4}, tensor.cat({t, t:narrow(2, 1, 1)}, 2):totable())
    assert.error_matches(function() t:narrow(2, 3, 2) end, "places 3 to 4 of dimension 2")
  end)

  it("rounds to half precision and bfloat16 to the nearest even", function()
    local values = {1, 1 + 2 ^ -11, 1 + 3 * 2 ^ -11, 65504, 65520, 2 ^ -24, 2 ^ -25, -0.1, 2 ^ -15}
    assert.same({1, 1, 1 + 2 ^ -9, 65504, math.huge, 2 ^ -24, 0, -0.0999755859375, 2 ^ -15},
      tensor.from(values):to("f16"):totable())
    assert.same({1, 1, 1 + 2 ^ -6, -0.10009765625},
      tensor.from({1, 1 + 2 ^ -8, 1 + 3 * 2 ^ -8, -0.1}):to("bf16"):totable())
  end)

  it("refuses a value that an integer type does not hold", function()
    assert.error_matches(function() tensor.from({1, 300}):to("u8") end, "element 2 is outside")
  end)

  it("is made of the same random numbers for the same seed alone", function()
    local function draw(seed)
      octet.seed(seed)
      return tensor.new({1000}):uniform_():totable()
    end
    assert.same(draw(7), draw(7))
    assert.are_not.same(draw(7), draw(8))
  end)

  it("gives every NaN as a number, whatever its bits are", function()
    -- Bits that LuaJIT would take for its own nil, or for a pointer.
    for _, bits in ipairs {-1, -100, -1310720, 0x7fc00001} do
      local x = tensor.new {3}
      local raw = ffi.cast("int32_t *", x:data())
      for i = 0, 2 do raw[i] = bits end
      local values = x:totable()
      assert.equal(3, #values)
      for _, v in ipairs(values) do assert.is_true(type(v) == "number" and v ~= v) end
      assert.is_true(x:rows(1):item() ~= x:rows(1):item())
      assert.matches("nan", tostring(x))
    end
    assert.is_true(tensor.from({1}, {1}, "f32"):item() == 1)
  end)

  it("is made of numbers of every type, and of nothing that is none", function()
    for _, dtype in ipairs {"f32", "f16", "bf16", "i32", "u8"} do
      assert.same({3, 1}, tensor.from({3, 1}, {2}, dtype):totable())
      assert.same({1, 1}, tensor.ones({2}, dtype):totable())
    end
    assert.same({0.5, -2}, tensor.from({0.5, -2}, {2}, "bf16"):totable())
    for _, case in ipairs {
      {{300}, "u8", "value 1 is 300, expected a whole number from 0 to 255"},
      {{0, 1.5}, "i32", "value 2 is 1.5, expected a whole number from -2147483648 to 2147483647"},
      {{0 / 0}, "i32", "value 1 is nan, expected a whole number"},
      {{1, nil, 3}, nil, "value 2 is a nil, expected a number"},
      {{1, "2"}, nil, "value 2 is a string, expected a number"},
      {tensor.ones {2}, nil, "a tensor, expected numbers in a table, or a C array"},
    } do
      assert.error_matches(function() tensor.from(case[1], nil, case[2]) end,
        "tensor.from: " .. case[3], 1, true)
    end
  end)

  it("takes a C array of its own type that has all its elements", function()
    assert.same({1, 2}, tensor.from(ffi.new("const float[3]", 1, 2, 3), {2}):totable())
    assert.same({1, 2}, tensor.from(ffi.new("int32_t[2]", 1, 2), {2}, "i32"):totable())
    assert.same({7, 8}, tensor.from(ffi.new("uint8_t[?]", 2, 7, 8), {2}, "u8"):totable())
    local t = tensor.ones {2}
    assert.same({1, 1}, tensor.from(t:data(), {2}):totable())
    assert.error_matches(function() tensor.from(ffi.new("float[2]"), {4}) end,
      "the array has 2 elements, the shape 4")
    assert.error_matches(function() tensor.from(ffi.new("int[4]"), {4}) end,
      "int %[4%], expected an array of float")
    assert.error_matches(function() tensor.from(ffi.new("double[4]"), {4}) end,
      "double %[4%], expected an array of float")
  end)

  it("says what it cannot take, by the name of what was called", function()
    local x, ids = tensor.ones {2}, tensor.zeros({2}, "i32")
    for _, case in ipairs {
      {function() x:matmul(3) end, "matmul: expected a tensor, got a number"},
      {function() x:copy_() end, "copy: the source is nil, expected a tensor"},
      {function() x:fill_ "1" end, "fill_: expected a number, got a string"},
      {function() x:clamp(x) end, "clamp: expected a number, got a tensor"},
      {function() ids:fill_(1.5) end, "fill: 1.5 is not a value of type i32"},
      {function() return ids + 1 end, "arithmetic: x is i32, expected f32"},
      {function() x:max(x) end, "max: the dimension is tensor f32 %[2%], expected a whole"},
      {function() tensor.zeros({2}, x) end, "tensor.new: no type tensor f32 %[2%]; expected"},
      {function() tensor.zeros() end, "tensor.new: the shape is nil, expected a table of sizes"},
      {function() tensor.zeros {batch = 2} end, "tensor.new: the shape is a table of names"},
      {function() tensor.cat {x, "a"} end, "tensor.cat: entry 2 is a string, expected a tensor"},
      {function() tensor.cat(x, x) end, "tensor.cat: a tensor, expected a list of tensors"},
      {function() octet.set_isa() end, "set_isa: nil, expected a name"},
      {function() octet.open_device() end, "open_device: nil, expected a name"},
      {function() octet.set_threads(1.5) end, "set_threads: 1.5, expected a whole number"},
      {function() octet.seed(0 / 0) end, "seed: %-?nan, expected a whole number"},
      {function() octet.nn.mse_loss(x) end, "mse_loss: argument 2 is nil, expected a tensor"},
    } do
      local _, text = pcall(case[1])
      assert.matches("^%S*tensor_spec%.lua:%d+: " .. case[2], text)
      assert.is_nil(text:find "\n")
    end
    assert.is_nil(x:grad())
    assert.equal(1, select("#", x:grad()))
  end)

  it("says where a program went wrong, however deep in the library that shows", function()
    local ids, x = tensor.zeros({2}, "i32"), tensor.ones {2}
    for _, wrong in ipairs {
      function() local _ = ids:pow(3) end, function() local _ = ids:min() end,
      function() local _ = 3 / ids end, function() local _ = x:ne(tensor.ones {3}) end,
      function() local _ = x:clamp(2, 1) end, function() local _ = x:eq {} end,
      function() local _ = x:copy_(ids) end, function() local _ = octet.nn.gelu(ids) end,
    } do
      local line = debug.getinfo(wrong, "S").linedefined
      local _, text = pcall(wrong)
      assert.matches(("tensor_spec%%.lua:%d: "):format(line), text)
    end
  end)

  it("takes no place that is no whole number, and no option that is none", function()
    local x = tensor.ones {2, 2}
    for _, case in ipairs {
      {function() return x:sum(0) end, "sum: the dimension is 0, expected a whole number from 1"},
      {function() return x:max(1.5) end, "max: the dimension is 1.5, expected a whole number"},
      {function() return x:rows("1") end, "rows: the first row is \"1\", expected a whole number"},
      {function() return x:narrow(2, 2) end, "narrow: the number of places is nil, expected"},
      {function() return x:transpose(0, 1) end, "transpose: a dimension is 0, expected"},
      {function() return x:softmax(1) end, "softmax: dimension 1, expected none: it is the last"},
      {function() return x:argmax(1) end, "argmax: dimension 1, expected none: it is the last"},
      {function() return x:to() end, "to: nil, expected a type or a device"},
      {function() return x:matmul(x, {tranpose_b = true}) end,
        'matmul: unknown option "tranpose_b"'},
    } do
      assert.error_matches(case[1], case[2], 1, true)
    end
    assert.same(x:softmax():totable(), x:softmax(2):totable())
  end)

  it("is divided by a number as by a tensor, to the last bit", function()
    for i = 1, 200 do
      local x = tensor.from {i, i * 0.7}
      assert.same((x / tensor.from {i, i}):totable(), (x / i):totable())
      assert.same((tensor.from {i, i} / x):totable(), (i / x):totable())
    end
  end)

  it("of whole numbers is printed with all their digits", function()
    assert.equal("tensor i32 [2]\n  2147483647           7",
      tostring(tensor.from({2147483647, 7}, {2}, "i32")))
  end)
end)

describe("broadcasting", function()
  it("follows the last dimension", function()
    local a = tensor.from({1, 2, 3, 4, 5, 6}, {2, 3})
    assert.same({11, 22, 33, 14, 25, 36}, (a + tensor.from {10, 20, 30}):totable())
    assert.same({10, 20, 30, 80, 100, 120}, (a * tensor.from({10, 20}, {2, 1})):totable())
    assert.error_matches(function() return a + tensor.from {1, 2} end,
      "add: shapes %[2 x 3%] and %[2%] do not broadcast")
  end)

  it("works with numbers on either side", function()
    local a = tensor.from {1, 2, 4}
    assert.same({3, 2, 0}, (4 - a):totable())
    assert.same({8, 4, 2}, (8 / a):totable())
    assert.same({-1, -2, -4}, (-a):totable())
  end)
end)

describe("backward", function()
  it("adds into the gradients of parameters", function()
    local w = tensor.from({2, 3}):parameter_()
    w:square():sum():backward()
    assert.same({4, 6}, w:grad():totable())
    w:square():sum():backward()
    assert.same({8, 12}, w:grad():totable())
    w:zero_grad()
    assert.is_nil(w:grad())
    w:square():sum():backward()
    assert.same({4, 6}, w:grad():totable())
  end)

  it("adds up where a result is used more than once", function()
    local w = tensor.from({3}):parameter_()
    local h = w * 2
    (h + h * h):sum():backward()           -- 2w + 4w^2
    assert.same({2 + 8 * 3}, w:grad():totable())
  end)

  it("keeps apart the gradients of two inputs that share one", function()
    local a, b = tensor.from({1, 2}):parameter_(), tensor.from({3, 4}):parameter_()
    local x, y = a * 1, b * 1
    ((x + y) + x * 10):sum():backward()
    assert.same({11, 11}, a:grad():totable())
    assert.same({1, 1}, b:grad():totable())
  end)

  it("releases intermediates, but neither the loss nor what was kept", function()
    local w = tensor.from({2, 3}):parameter_()
    local dropped, kept = w * 2, (w * 3):keep()
    local loss = (dropped * kept):sum()
    loss:backward()
    assert.equal(78, loss:item())
    assert.same({6, 9}, kept:totable())
    assert.is_true(dropped:is_released())
    assert.error_matches(function() dropped:totable() end, "was released.*call :keep%(%)")
  end)

  it("says so where nothing was recorded", function()
    assert.error_matches(function() tensor.from({1}):sum():backward() end, "nothing is recorded")
    local w = tensor.from({2}):parameter_()
    local loss = octet.no_grad(function() return w:sum() end)
    assert.error_matches(function() loss:backward() end, "nothing is recorded")
    assert.error_matches(function() (w * tensor.from({1, 2})):backward() end, "expected a scalar")
  end)

  it("leaves a frozen parameter without a gradient", function()
    local w, v = tensor.from({2}):parameter_(), tensor.from({3}):parameter_(false)
    local loss = (w * v):sum()
    loss:backward()
    assert.same({3}, w:grad():totable())
    assert.is_nil(v:grad())
  end)
end)

describe("a scope", function()
  it("releases what was made in it, except what is returned or kept", function()
    local held
    local returned = octet.scope(function()
      local a = tensor.ones {4}
      held = a + 1
      return a + 2
    end)
    assert.same({3, 3, 3, 3}, returned:totable())
    assert.is_true(held:is_released())
  end)

  it("leaves what is recorded to the scope around it", function()
    octet.scope(function()
      local w = tensor.from({2}):parameter_()
      local h = octet.scope(function() return (w * 3):square() end)
      h:sum():backward()
      assert.same({36}, w:grad():totable())
    end)
  end)

  it("ends when its function fails", function()
    local held
    assert.error_matches(function()
      octet.scope(function()
        held = tensor.ones {4}
        error("stop", 0)
      end)
    end, "stop")
    assert.is_true(held:is_released())
  end)
end)

describe("memory", function()
  it("is accounted by purpose, to the byte", function()
    local before = octet.memory()
    local w = tensor.new({100, 3}):fill_(1):parameter_()
    assert.equal(before.parameters.now + 1200, octet.memory().parameters.now)
    w:sum():backward()
    assert.equal(before.gradients.now + 1200, octet.memory().gradients.now)
  end)

  it("is collected past a soft limit where a loop has no scope", function()
    collectgarbage()
    collectgarbage()
    tensor.set_soft_limit(2 ^ 24)
    octet.reset_peak_memory()
    local before = octet.memory().total.now
    local y = tensor.zeros {2 ^ 18}
    for _ = 1, 200 do y = y + 1 end               -- a megabyte each
    assert.equal(200, y:data()[0])
    local grown = octet.memory().total.peak - before
    tensor.set_soft_limit(2 ^ 30)
    assert.is_true(grown < 3 * 2 ^ 24, grown .. " bytes")
  end)

  it("does not grow over steps, and no handle is left", function()
    local w = tensor.new({64, 64}):normal_(0, 0.1):parameter_()
    local function step()
      octet.scope(function()
        local x = tensor.new({32, 64}):normal_()
        local loss = x:matmul(w):tanh():square():mean()
        loss:backward()
        w:zero_grad()
      end)
    end
    step()
    collectgarbage()
    collectgarbage()
    local live, bytes = octet.live_tensors(), octet.memory().total.now
    for _ = 1, 200 do step() end
    collectgarbage()
    collectgarbage()
    assert.equal(live, octet.live_tensors())
    assert.equal(bytes, octet.memory().total.now)
  end)
end)
