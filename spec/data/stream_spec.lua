local ffi = require "ffi"
local octet = require "octet"

local function stream_of(count)
  local ids = ffi.new("int32_t[?]", count)
  for i = 0, count - 1 do ids[i] = i end
  return octet.data.stream.new(ids, count)
end

--- All batches, as {ids, labels}.
local function all(stream, o)
  local list = {}
  for batch in stream:batches(o) do
    local ids, labels = batch.ids:totable(), batch.labels:totable()
    assert.equal(#ids, batch.tokens)
    assert.equal(#ids, batch.examples)
    assert.same({o.columns, #ids / o.columns}, batch.ids:shape())
    list[#list + 1] = {ids, labels}
  end
  return list
end

describe("a stream", function()
  it("is cut into columns, of which each batch reads on where the last one ended", function()
    assert.same({
      {{0, 1, 2, 5, 6, 7}, {1, 2, 3, 6, 7, 8}}, {{3, 4, 8, 9}, {4, 5, 9, 10}},
    }, all(stream_of(11), {columns = 2, length = 3}))
    assert.same({{{0, 1, 2, 4, 5, 6}, {1, 2, 3, 5, 6, 7}}, {{3, 7}, {4, 8}}},
      all(stream_of(10), {columns = 2, length = 3}))
  end)

  it("in one column gives every id but the first as a label, once", function()
    local labels = {}
    for _, batch in ipairs(all(stream_of(10), {columns = 1, length = 4})) do
      for _, label in ipairs(batch[2]) do labels[#labels + 1] = label end
    end
    assert.same({1, 2, 3, 4, 5, 6, 7, 8, 9}, labels)
  end)

  it("begins behind any batch, and tells how many there are", function()
    for _, count in ipairs {7, 10, 11, 12, 13} do
      local stream, o = stream_of(count), {columns = 2, length = 3}
      local whole = all(stream, o)
      assert.equal(stream:steps(2, 3), #whole)
      for start = 0, #whole do
        o.start = start
        assert.same({unpack(whole, start + 1)}, all(stream, o))
      end
    end
  end)

  it("needs a word more than there are columns", function()
    assert.equal(1, stream_of(4):steps(3, 20))
    assert.has_error(function() stream_of(3):steps(3, 20) end,
      "a text of 3 words cannot be read in 3 columns, expected 4 words or more")
  end)

  it("leaves no tensor behind", function()
    collectgarbage() collectgarbage()
    local before = octet.live_tensors()
    all(stream_of(11), {columns = 2, length = 3})
    collectgarbage() collectgarbage()
    assert.equal(before, octet.live_tensors())
  end)
end)
