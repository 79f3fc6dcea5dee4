local octet = require "octet"
local check = require "spec.ops.check"
local philox = require "spec.ops.philox"

local tensor, nn = octet.tensor, octet.nn

--- Seed the run and put a stream at a block.
local function at(seed, stream, offset)
  octet.seed(seed)
  octet.set_random_state {[stream] = offset}
end

-- Seed above 32 bits; the second offset crosses from 32 bits to 33.
local SEED, OFFSETS = 2 ^ 40 + 12345, {0, 2 ^ 32 - 3}

describe("Philox", function()
  it("gives the numbers of its authors' test vectors", function()
    assert.same({0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}, philox.block(0, 0, 0))
  end)
end)

describe("dropout", function()
  it("drops where the element's 16 bits are below p * 65536, and scales what it keeps", function()
    local n = 333
    local values = check.values(n, 1, 2, 8)
    for _, offset in ipairs(OFFSETS) do
      for _, p in ipairs {0.1, 0.5, 0.9} do
        local threshold = math.floor(p * 65536 + 0.5)
        check.op{inputs = {{values, {n}}}, probes = 10,
          op = function(x)
            at(SEED, "dropout", offset)
            return nn.dropout(x, p)
          end,
          formula = function(x)
            local y = {}
            for i = 1, n do
              local dropped = philox.half_word(SEED, philox.DROPOUT, i - 1, offset) < threshold
              y[i] = dropped and 0 or x[i] / (1 - p)
            end
            return y
          end}
      end
    end
  end)

  it("gives the same bits with two threads on many elements", function()
    local n, first = 50001, nil
    check.everywhere(function()
      at(7, "dropout", 11)
      local y = nn.dropout(tensor.ones {n}, 0.25):totable()
      for _, i in ipairs {0, 4095, 4096, 20001, 50000} do
        local dropped = philox.half_word(7, philox.DROPOUT, i, 11) < 16384
        assert.equal(dropped and 0 or 4 / 3, y[i + 1] == 0 and 0 or 4 / 3)
      end
      first = first or y
      assert.is_true(check.distance(first, y) == 0)
    end)
  end)

  it("draws anew each time, and drops a share of p", function()
    octet.seed(3)
    local x = tensor.ones {20000}
    local a, b = nn.dropout(x, 0.3), nn.dropout(x, 0.3)
    assert.are_not.same(a:totable(), b:totable())
    assert.near(1, a:mean():item(), 0.02)
    assert.near(1, b:mean():item(), 0.02)
  end)

  it("with p = 0 changes nothing, and refuses a p that is no probability", function()
    local x = tensor.from {1, 2, 3}
    assert.same({1, 2, 3}, nn.dropout(x, 0):totable())
    for _, p in ipairs {1, -0.1, 0 / 0} do
      assert.error_matches(function() nn.dropout(x, p) end, "at least 0 and below 1")
    end
  end)
end)

describe("uniform numbers", function()
  it("are 24 bits of the stream, the upper end excluded", function()
    check.everywhere(function()
      for _, offset in ipairs(OFFSETS) do
        at(SEED, "init", offset)
        local y = tensor.new({101}):uniform_(-2, 3):totable()
        for i = 1, 101 do
          local word = philox.word(SEED, philox.INIT, i - 1, offset)
          assert.near(-2 + 5 * math.floor(word / 256) / 2 ^ 24, y[i], 5e-7)
        end
      end
      at(SEED, "init", 9)
      local many = tensor.new({50001}):uniform_()
      for _, i in ipairs {0, 4095, 4096, 20001, 50000} do
        local word = philox.word(SEED, philox.INIT, i, 9)
        assert.near(math.floor(word / 256) / 2 ^ 24, many:data()[i], 1e-7)
      end
      assert.is_true(many:max():item() < 1)
      -- Between neighbours there is the lower one alone.
      assert.equal(1, tensor.new({1000}):uniform_(1, 1 + 2 ^ -23):max():item())
    end)
  end)
end)

describe("normal numbers", function()
  it("are Box's and Muller's of pairs of the stream", function()
    check.everywhere(function()
      for _, offset in ipairs(OFFSETS) do
        at(SEED, "init", offset)
        local y = tensor.new({102}):normal_(1, 2):totable()
        for i = 0, 100, 2 do
          local u = (math.floor(philox.word(SEED, philox.INIT, i, offset) / 2) + 0.5) / 2 ^ 31
          local angle = 2 * math.pi * philox.word(SEED, philox.INIT, i + 1, offset) / 2 ^ 32
          local radius = math.sqrt(-2 * math.log(u))
          assert.near(1 + 2 * radius * math.cos(angle), y[i + 1], 5e-6)
          assert.near(1 + 2 * radius * math.sin(angle), y[i + 2], 5e-6)
        end
      end
    end)
  end)

  it("have their mean, deviation and tails, and the same bits for two threads", function()
    local n, first = 200001, nil
    check.everywhere(function()
      octet.seed(11)
      local x = tensor.new({n}):normal_(3, 0.5)
      local y = (x - 3) / 0.5
      assert.near(0, y:mean():item(), 0.01)
      assert.near(1, y:square():mean():item(), 0.015)
      assert.near(3, y:square():square():mean():item(), 0.1)
      assert.is_true(x:all_finite())
      local values = x:totable()
      first = first or values
      assert.is_true(check.distance(first, values) == 0)
    end)
  end)
end)
