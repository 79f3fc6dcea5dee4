local octet = require "octet"
local check = require "spec.ops.check"
local philox = require "spec.ops.philox"

local tensor, nn = octet.tensor, octet.nn

--- softmax(Q K' / sqrt(size)) V, place by place. kept(row, head, key): the factor of dropout.
local function formula(lengths, heads, size, causal, kept)
  return function(x)
    local width, y, first = heads * size, {}, 0
    local function at(row, part, head, i) return x[((row * 3 + part) * heads + head) * size + i] end
    for _, length in ipairs(lengths) do
      for q = first, first + length - 1 do
        for head = 0, heads - 1 do
          local last = causal and q or first + length - 1
          local weights, sum = {}, 0
          for k = first, last do
            local score = 0
            for i = 1, size do score = score + at(q, 0, head, i) * at(k, 1, head, i) end
            weights[k] = math.exp(score / math.sqrt(size))
            sum = sum + weights[k]
          end
          for i = 1, size do
            local value = 0
            for k = first, last do
              local factor = kept and kept(q, head, k - first) or 1
              value = value + weights[k] / sum * factor * at(k, 2, head, i)
            end
            y[q * width + head * size + i] = value
          end
        end
      end
      first = first + length
    end
    return y
  end
end

local function case(lengths, heads, size, causal, more)
  more = more or {}
  local offsets, longest = {0}, 0
  for i, length in ipairs(lengths) do
    offsets[i + 1] = offsets[i] + length
    longest = math.max(longest, length)
  end
  local tokens = offsets[#offsets]
  local places = tensor.from(offsets, {#offsets}, "i32")
  local kept
  if more.dropout then
    local stride = math.ceil(longest / 8) * 8
    local threshold = math.floor(more.dropout * 65536 + 0.5)
    kept = function(row, head, key)
      local element = (row * heads + head) * stride + key
      return philox.half_word(5, philox.DROPOUT, element) < threshold and 0
        or 1 / (1 - more.dropout)
    end
  end
  local o = {
    inputs = {{check.values(tokens * 3 * heads * size, -1.5, 1.5, tokens),
      {tokens, 3 * heads * size}}},
    op = function(x)
      if more.dropout then octet.seed(5) end
      return nn.attention(x, places, heads, {causal = causal, dropout = more.dropout})
    end,
    formula = formula(lengths, heads, size, causal, kept), forward = 2e-6,
  }
  for k, v in pairs(more) do o[k] = v end
  check.op(o)
end

for _, causal in ipairs {false, true} do
  describe(causal and "causal attention" or "attention", function()
    it("is its formula, and its gradient the formula's", function()
      case({1}, 1, 1, causal)
      case({3, 1, 4}, 2, 3, causal)
      case({7}, 3, 8, causal)
      case({5, 9}, 1, 17, causal)
    end)

    it("is so for head sizes of 32 and 64", function()
      case({13, 2}, 2, 32, causal, {probes = 12})
      case({20}, 1, 64, causal, {probes = 12})
    end)

    it("is so for sequences longer than a block of keys", function()
      case({130}, 1, 4, causal, {probes = 9, forward = 3e-6})
      case({257, 3}, 1, 2, causal, {probes = 9, forward = 3e-6})
    end)

    it("is so with dropout of the probabilities", function()
      case({3, 1, 12}, 2, 3, causal, {dropout = 0.25, probes = 20})
      case({140}, 1, 2, causal, {dropout = 0.5, probes = 6})
    end)
  end)
end

describe("attention's scores", function()
  it("may be so large that their exponents are no numbers", function()
    check.everywhere(function(isa)
      -- Two tokens, one head of 4: the first key is 100 times the second.
      local qkv = tensor.from({
        30, 30, 30, 30, 30, 30, 30, 30, 1, 2, 3, 4,
        30, 30, 30, 30, 1, 1, 1, 1, 5, 6, 7, 8}, {2, 12}):parameter_()
      local y = nn.attention(qkv, tensor.from({0, 2}, {2}, "i32"), 1)
      check.near(y:totable(), {1, 2, 3, 4, 1, 2, 3, 4}, 1e-6, isa)
      y:sum():backward()
      assert.is_true(qkv:grad():all_finite())
    end)
  end)

  it("of other sequences do not matter, not even NaN", function()
    check.everywhere(function()
      local values = check.values(5 * 6, -1, 1, 3)
      local offsets = tensor.from({0, 2, 5}, {3}, "i32")
      local clean = nn.attention(tensor.from(values, {5, 6}), offsets, 1):totable()
      for i = 2 * 6 + 1, 5 * 6 do values[i] = 0 / 0 end
      local other = nn.attention(tensor.from(values, {5, 6}), offsets, 1):totable()
      for i = 1, 4 do assert.equal(clean[i], other[i]) end
      for i = 5, 10 do assert.is_true(other[i] ~= other[i]) end
    end)
  end)
end)

describe("attention's memory", function()
  it("does not grow with the square of the length", function()
    local function peak(length)
      return octet.scope(function()
        local qkv = tensor.new({length, 3 * 32}):normal_():parameter_()
        local y = nn.attention(qkv, tensor.from({0, length}, {2}, "i32"), 1):sum()
        octet.reset_peak_memory()
        local before = octet.memory().workspace.now
        y:backward()
        return octet.memory().workspace.peak - before
      end)
    end
    -- The matrix of scores would be 16 MiB at 2,048 tokens.
    assert.is_true(peak(2048) < 2 ^ 20)
  end)
end)
