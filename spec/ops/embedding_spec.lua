local octet = require "octet"
local check = require "spec.ops.check"

local tensor, nn = octet.tensor, octet.nn

--- Where sequences of at least one row begin, and the end.
local function offsets_of(lengths)
  local offsets = {0}
  for i, length in ipairs(lengths) do offsets[i + 1] = offsets[i] + length end
  return offsets
end

describe("distinct", function()
  it("gives the different ids as they first appear, and each id's place among them", function()
    local function distinct(ids, shape)
      local values, places = nn.distinct(tensor.from(ids, shape or {#ids}, "i32"))
      return values:totable(), places:totable(), places:shape()
    end
    assert.same({{7}, {0}, {1}}, {distinct {7}})
    assert.same({{5, 0, 2147483647, -3}, {0, 1, 0, 2, 3, 1}, {2, 3}},
      {distinct({5, 0, 5, 2147483647, -3, 0}, {2, 3})})
    local ids = {}
    for i = 1, 5000 do ids[i] = i * i % 1117 * 4096 end
    local values, places = distinct(ids)
    local seen = {}
    for i, id in ipairs(ids) do
      assert.equal(id, values[places[i] + 1])
      seen[id] = true
    end
    for _, value in ipairs(values) do
      assert.is_true(seen[value])
      seen[value] = nil
    end
    assert.is_nil(next(seen))
  end)

  it("wants ids as i32", function()
    assert.error_matches(function() nn.distinct(tensor.from({1}, {1})) end, "expected i32")
  end)
end)

describe("embedding", function()
  local function case(ids, rows, width, more)
    local id_tensor = tensor.from(ids, {#ids}, "i32")
    local o = {inputs = {{check.values(rows * width, -1, 1, 4), {rows, width}}}, forward = 0,
      op = function(table) return nn.embedding(table, id_tensor) end,
      formula = function(table)
        local y = {}
        for _, id in ipairs(ids) do
          for i = 1, width do y[#y + 1] = table[id * width + i] end
        end
        return y
      end}
    for k, v in pairs(more or {}) do o[k] = v end
    check.op(o)
  end

  it("is the table's rows, and adds up the gradients of a row that is named twice", function()
    case({0}, 1, 1)
    case({2, 0, 2, 2, 1}, 4, 7)
    case({3, 3, 3}, 5, 33)
  end)

  it("gives the same bits with two threads on many rows", function()
    local ids = {}
    for i, v in ipairs(check.values(300, 0, 20, 6)) do ids[i] = math.floor(v) end
    case(ids, 20, 100, {probes = 10})
  end)

  it("takes ids of any shape", function()
    local table = tensor.from({1, 2, 3, 4}, {2, 2})
    local y = nn.embedding(table, tensor.from({0, 1, 1, 0}, {2, 2}, "i32"))
    assert.same({2, 2, 2}, y:shape())
    assert.same({1, 2, 3, 4, 3, 4, 1, 2}, y:totable())
  end)

  it("refuses an id outside of the table, and says which", function()
    local table = tensor.zeros {2, 3}
    assert.error_matches(function()
      nn.embedding(table, tensor.from({0, 2}, {2}, "i32"))
    end, "id 2 at place 2, expected 0 to 1")
    assert.error_matches(function()
      nn.embedding(table, tensor.from({-1}, {1}, "i32"))
    end, "id %-1 at place 1")
  end)
end)

describe("the mean of each sequence", function()
  local function case(lengths, width, more)
    local offsets = offsets_of(lengths)
    local places = tensor.from(offsets, {#offsets}, "i32")
    local tokens = offsets[#offsets]
    local o = {inputs = {{check.values(tokens * width, -1, 1, 4), {tokens, width}}},
      op = function(x) return nn.segment_mean(x, places) end,
      formula = function(x)
        local y = {}
        for s, length in ipairs(lengths) do
          for i = 1, width do
            local sum = 0
            for row = offsets[s], offsets[s + 1] - 1 do sum = sum + x[row * width + i] end
            y[#y + 1] = sum / length
          end
        end
        return y
      end}
    for k, v in pairs(more or {}) do o[k] = v end
    check.op(o)
  end

  it("is its formula, and its gradient the formula's", function()
    case({1}, 1)
    case({3, 1, 5}, 7)
    case({2, 4}, 33)
  end)

  it("gives the same bits with two threads on many rows", function()
    case({30, 1, 70, 99, 100}, 70, {probes = 10})
  end)
end)

describe("the first row of each sequence", function()
  it("is that row, and so is its gradient", function()
    local offsets = {0, 3, 4, 9}
    local places = tensor.from(offsets, {4}, "i32")
    check.op{inputs = {{check.values(9 * 5, -1, 1, 4), {9, 5}}}, forward = 0,
      op = function(x) return nn.segment_first(x, places) end,
      formula = function(x)
        local y = {}
        for s = 1, 3 do
          for i = 1, 5 do y[#y + 1] = x[offsets[s] * 5 + i] end
        end
        return y
      end}
  end)
end)
