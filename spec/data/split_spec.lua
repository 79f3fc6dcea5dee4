local ffi = require "ffi"
local split = require "octet.data.split"

describe("a split", function()
  local function labels_of(values)
    return ffi.new("int32_t[?]", #values, values)
  end

  it("keeps the classes' shares, and every row on one side", function()
    local values = {}
    for i = 1, 100 do values[i] = i <= 20 and 1 or 0 end
    local sides, seen = split.stratified(labels_of(values), 100, {"a", "b"}, 0.25), {}
    assert.equal(75, sides.train.rows)
    assert.equal(25, sides.dev.rows)
    local ones = 0
    for _, side in pairs(sides) do
      for i = 0, side.rows - 1 do
        local row = side.selection[i]
        assert.is_nil(seen[row])
        seen[row] = true
        if side == sides.dev then ones = ones + values[row + 1] end
      end
    end
    assert.equal(5, ones)
    assert.same(sides.dev.rows, split.stratified(labels_of(values), 100, {"a", "b"}, 0.25).dev.rows)
  end)

  it("leaves each class an example on both sides, and refuses a class that has but one", function()
    local sides = split.stratified(labels_of {0, 0, 1, 1}, 4, {"a", "b"}, 0.1)
    assert.equal(2, sides.train.rows)
    assert.equal(2, sides.dev.rows)
    assert.error_matches(function() split.stratified(labels_of {0, 0, 1}, 3, {"a", "b"}, 0.25) end,
      'class "b" has 1 example, expected 2 or more: one to train on, one to test on')
  end)

  it("passes over rows with a label below 0", function()
    local sides = split.stratified(labels_of {0, -1, 0, 1, -1, 1}, 6, {"a", "b"}, 0.5)
    local seen = {}
    for _, side in pairs(sides) do
      for i = 0, side.rows - 1 do seen[#seen + 1] = side.selection[i] end
    end
    table.sort(seen)
    assert.same({0, 2, 3, 5}, seen)
  end)
end)
