local octet = require "octet"
local check = require "spec.ops.check"

local C, tensor = require("octet.binding").C, octet.tensor

--- op(a) op(b), a and b flat tables; m, n, k of the product.
local function product(a, b, m, n, k, transpose_a, transpose_b)
  local y = {}
  for i = 0, m - 1 do
    for j = 0, n - 1 do
      local sum = 0
      for l = 0, k - 1 do
        local left = transpose_a and a[l * m + i + 1] or a[i * k + l + 1]
        local right = transpose_b and b[j * k + l + 1] or b[l * n + j + 1]
        sum = sum + left * right
      end
      y[i * n + j + 1] = sum
    end
  end
  return y
end

describe("a matrix product", function()
  for _, transposed in ipairs {{false, false}, {true, false}, {false, true}, {true, true}} do
    local transpose_a, transpose_b = unpack(transposed)
    local name = ("of %s and %s"):format(transpose_a and "a'" or "a", transpose_b and "b'" or "b")
    it(name .. " is its formula, and its gradients the formula's", function()
      for _, sizes in ipairs {{1, 1, 1}, {1, 7, 3}, {5, 4, 33}, {17, 3, 2}} do
        local m, n, k = unpack(sizes)
        check.op{
          inputs = {{check.values(m * k, -1, 1, 1), transpose_a and {k, m} or {m, k}},
            {check.values(k * n, -1, 1, 2), transpose_b and {n, k} or {k, n}}},
          op = function(a, b)
            return a:matmul(b, {transpose_a = transpose_a, transpose_b = transpose_b})
          end,
          formula = function(a, b) return product(a, b, m, n, k, transpose_a, transpose_b) end,
          forward = 3e-6}
      end
    end)
  end

  it("gives the same bits with two threads on large matrices", function()
    local a, b = tensor.new({130, 140}):normal_(), tensor.new({140, 150}):normal_()
    octet.set_threads(1)
    local y = a:matmul(b):totable()
    octet.set_threads(2)
    assert.same(y, a:matmul(b):totable())
  end)

  it("keeps what it made for shapes that never come again within bounds", function()
    local function resident()
      local f = assert(io.open "/proc/self/status")
      local kilobytes = f:read("*a"):match "VmRSS:%s*(%d+)"
      f:close()
      return tonumber(kilobytes)
    end
    local function multiply(from, to)
      for k = from, to do
        octet.scope(function()
          local y = tensor.ones {2, k}:matmul(tensor.ones {k, 3})
          assert(y:sum():item() == 6 * k)
        end)
      end
    end
    multiply(1, 1500)
    local before = resident()
    multiply(1501, 4500)
    -- 9 KB each would be 27 MB.
    assert.is_true(resident() - before < 8000, resident() - before)
    multiply(1, 10)
  end)

  it("refuses matrices that do not fit, and gives both shapes", function()
    assert.error_matches(function() tensor.zeros({2, 3}):matmul(tensor.zeros({4, 5})) end,
      "%[2 x 3%].*%[4 x 5%]")
    assert.error_matches(function()
      tensor.zeros({2, 2}):matmul(tensor.zeros {2, 2}, {transpose_b = 1})
    end, "matmul: transpose_b is 1, expected true or false")
    assert.error_matches(function() tensor.zeros({3}):matmul(tensor.zeros({3, 5})) end,
      "expected matrices, got %[3%] x %[3 x 5%]")
  end)
end)

describe("a product of many matrices", function()
  --- Of flat tables of `batch` matrices each; b has one for all where `one`.
  local function products(batch, m, n, k, transpose_a, transpose_b, one)
    return function(a, b)
      local y = {}
      for i = 0, batch - 1 do
        local first = one and 0 or i * k * n
        local part = product({unpack(a, i * m * k + 1, (i + 1) * m * k)},
          {unpack(b, first + 1, first + k * n)}, m, n, k, transpose_a, transpose_b)
        for j = 1, m * n do y[i * m * n + j] = part[j] end
      end
      return y
    end
  end

  for _, transposed in ipairs {{false, false}, {true, false}, {false, true}, {true, true}} do
    local ta, tb = unpack(transposed)
    it(("of %s and %s, one by one"):format(ta and "a'" or "a", tb and "b'" or "b"), function()
      for _, sizes in ipairs {{{2}, 1, 1, 1}, {{3}, 5, 4, 9}, {{2, 3}, 17, 3, 2}, {{1}, 4, 5, 6},
        {{2, 1, 4}, 1, 7, 3}} do
        local lead, m, n, k = unpack(sizes)
        local batch, a_shape, b_shape = 1, {}, {}
        for i, size in ipairs(lead) do batch, a_shape[i], b_shape[i] = batch * size, size, size end
        for _, size in ipairs(ta and {k, m} or {m, k}) do a_shape[#a_shape + 1] = size end
        for _, size in ipairs(tb and {n, k} or {k, n}) do b_shape[#b_shape + 1] = size end
        check.op{
          inputs = {{check.values(batch * m * k, -1, 1, 1), a_shape},
            {check.values(batch * k * n, -1, 1, 2), b_shape}},
          op = function(a, b) return a:matmul(b, {transpose_a = ta, transpose_b = tb}) end,
          formula = products(batch, m, n, k, ta, tb), forward = 3e-6}
      end
    end)
  end

  it("takes one matrix on the right for all", function()
    for _, tb in ipairs {false, true} do
      check.op{
        inputs = {{check.values(6 * 5 * 4, -1, 1, 1), {2, 3, 5, 4}},
          {check.values(4 * 7, -1, 1, 2), tb and {7, 4} or {4, 7}}},
        op = function(a, b) return a:matmul(b, {transpose_b = tb}) end,
        formula = products(6, 5, 7, 4, false, tb, true), forward = 3e-6}
    end
  end)

  it("gives the same bits with two threads, and with large matrices", function()
    for _, sizes in ipairs {{3, 130, 140, 150}, {40, 20, 30, 10}} do
      local batch, m, n, k = unpack(sizes)
      local a = tensor.new({batch, m, k}):normal_()
      local b = tensor.new({batch, n, k}):normal_()
      octet.set_threads(1)
      local y = a:matmul(b, {transpose_b = true}):totable()
      octet.set_threads(2)
      assert.same(y, a:matmul(b, {transpose_b = true}):totable())
      local last = a:rows(batch):reshape {m, k}
      last = last:matmul(b:rows(batch):reshape {n, k}, {transpose_b = true}):totable()
      check.near({unpack(y, #y - 99)}, {unpack(last, m * n - 99)}, 1e-5, "the last")
    end
  end)

  it("does not depend on the threads of the process in which it is first made", function()
    -- oneDNN fixes much where a product is made, and it is kept: each number has its own process.
    local program = [[
      local octet = require "octet"
      octet.set_threads(tonumber(arg[1]))
      local sums = {}
      for _, c in ipairs {{11, 16, 3, 2}, {5, 24, 24, 16}, {3, 130, 140, 150}, {17, 64, 64, 32}} do
        local batch, m, k, n = unpack(c)
        octet.seed(1)
        local a, b = octet.tensor.new({batch, m, k}):normal_(), octet.tensor.new({batch, n, k})
        local y = a:matmul(b:normal_(), {transpose_b = true})
        local path = os.tmpname()
        octet.safetensors.save(path, {y = y}, {}, {checksums = true})
        sums[#sums + 1] = io.open(path):read "*a"
        os.remove(path)
      end
      io.write(table.concat(sums))]]
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write(program)
    file:close()
    local function run(threads)
      local line = ("LUA_PATH='%s' luajit %s %d"):format(package.path, path, threads)
      local pipe = assert(io.popen(line))
      local text = pipe:read "*a"
      pipe:close()
      return text
    end
    local one = run(1)
    assert.is_true(#one > 200000)
    assert.is_true(one == run(2))
    assert.is_true(one == run(3))
    os.remove(path)
  end)

  it("in bf16 multiplies rounded factors and sums in f32", function()
    if not octet.has_bf16() then pending "this processor does not multiply bf16" end
    local a = tensor.from(check.values(3 * 6 * 40, -1, 1, 1), {3, 6, 40})
    local b = tensor.from(check.values(3 * 40 * 5, -1, 1, 2), {3, 40, 5})
    local expected = products(3, 6, 5, 40)(a:to("bf16"):totable(), b:to("bf16"):totable())
    octet.set_precision "bf16"
    local y = a:matmul(b):totable()
    octet.set_precision "f32"
    check.near(y, expected, 2e-6, "bf16")
  end)

  it("makes attention out of its parts", function()
    -- As nn's attention has it: heads side by side, softmax of scaled products.
    octet.seed(3)
    local heads, tokens, size = 2, 7, 4
    local qkv = tensor.new({tokens, 3 * heads * size}):normal_()
    local by_head = qkv:reshape({tokens, 3, heads, size}):transpose(1, 3)
    local function part(i) return by_head:narrow(2, i, 1):reshape {heads, tokens, size} end
    local scores = part(1):matmul(part(2), {transpose_b = true}) / math.sqrt(size)
    local y = scores:softmax():matmul(part(3)):transpose(1, 2):reshape {tokens, heads * size}
    local fused = octet.nn.attention(qkv, tensor.from({0, tokens}, {2}, "i32"), heads)
    check.near(y:totable(), fused:totable(), 1e-5, "attention")
  end)

  it("refuses other leading sizes, and says what would do", function()
    local a = tensor.zeros {2, 3, 4}
    for _, case in ipairs {{tensor.zeros {3, 4, 5}}, {tensor.zeros {1, 2, 4, 5}},
      {tensor.zeros {3, 5}, {transpose_a = true}}} do
      assert.error_matches(function() return a:matmul(unpack(case)) end,
        "%[2 x 3 x 4%].*expected the same leading sizes, or one matrix on the right")
    end
    assert.error_matches(function() return a:matmul(tensor.zeros {2, 5, 4}) end,
      "inner sizes differ: %[2 x 3 x 4%] x %[2 x 5 x 4%]")
  end)
end)

describe("a linear layer", function()
  local ACTIVATIONS = {
    none = {-1, function(x) return x end},
    relu = {C.OCT_OP_RELU, function(x) return math.max(x, 0) end},
    tanh = {C.OCT_OP_TANH, math.tanh},
    sigmoid = {C.OCT_OP_SIGMOID, function(x) return 1 / (1 + math.exp(-x)) end},
    silu = {C.OCT_OP_SILU, function(x) return x / (1 + math.exp(-x)) end},
    neg = {C.OCT_OP_NEG, function(x) return -x end},
    gelu = {C.OCT_OP_GELU, function(x)
      -- x times the normal distribution's share below x, by its series.
      local term, sum = x, x
      for i = 1, 60 do
        term = term * x * x / (2 * i + 1)
        sum = sum + term
      end
      return x * (0.5 + sum * math.exp(-x * x / 2) / math.sqrt(2 * math.pi))
    end},
  }

  local function linear(x, w, bias, code)
    tensor.call(C.oct_linear, tensor.out, x, w, bias, code)
    return tensor.take()
  end

  local function formula(rows, outputs, inputs, f)
    return function(x, w, bias)
      local y = product(x, w, rows, outputs, inputs, false, true)
      for i = 1, #y do y[i] = f(y[i] + (bias and bias[(i - 1) % outputs + 1] or 0)) end
      return y
    end
  end

  for name, activation in pairs(ACTIVATIONS) do
    local code, f = unpack(activation)
    it("with activation " .. name .. " is its formula, and its gradients the formula's", function()
      for _, sizes in ipairs {{1, 1, 1}, {3, 7, 5}, {2, 33, 4}, {70, 3, 2}} do
        local rows, outputs, inputs = unpack(sizes)
        local o = {
          inputs = {{check.values(rows * inputs, -1.5, 1.5, 1), {rows, inputs}},
            {check.values(outputs * inputs, -1, 1, 2), {outputs, inputs}},
            {check.values(outputs, -1, 1, 3), {outputs}}},
          op = function(x, w, bias) return linear(x, w, bias, code) end,
          formula = formula(rows, outputs, inputs, f), forward = 2e-6, backward = 2e-5}
        check.op(o)
        o.inputs[3] = nil
        check.op(o)
      end
    end)
  end

  it("gives the same bits with two threads on many rows", function()
    local code, f = unpack(ACTIVATIONS.gelu)
    check.op{probes = 4, forward = 4e-6, backward = 1e-4,
      inputs = {{check.values(300 * 20, -1, 1, 1), {300, 20}},
        {check.values(70 * 20, -0.5, 0.5, 2), {70, 20}}, {check.values(70, -1, 1, 3), {70}}},
      op = function(x, w, bias) return linear(x, w, bias, code) end,
      formula = formula(300, 70, 20, f)}
  end)

  it("takes x of any number of dimensions", function()
    local x, w = tensor.ones({2, 3, 4}), tensor.ones({5, 4})
    assert.same({2, 3, 5}, linear(x, w, nil, -1):shape())
  end)

  it("in bf16 multiplies rounded factors and sums in f32", function()
    if not octet.has_bf16() then pending "this processor does not multiply bf16" end
    local x = tensor.from(check.values(6 * 40, -1, 1, 1), {6, 40})
    local w = tensor.from(check.values(5 * 40, -1, 1, 2), {5, 40})
    local expected = formula(6, 5, 40, math.tanh)(x:to("bf16"):totable(), w:to("bf16"):totable())
    octet.set_precision "bf16"
    local y = linear(x, w, nil, C.OCT_OP_TANH):totable()
    octet.set_precision "f32"
    check.near(y, expected, 2e-6, "bf16")
  end)
end)
