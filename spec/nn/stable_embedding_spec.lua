-- The stable embedding and its three parts, each of which can be left out.
local octet = require "octet"
local failure = require "spec.failure"
local nn, optim, tensor = octet.nn, octet.optim, octet.tensor

local ROWS, WIDTH = 500, 100
local BOUND = math.sqrt(6 / (ROWS + WIDTH))

local function made(options)
  octet.seed(3)
  return nn.StableEmbedding(ROWS, WIDTH, options)
end

local function spread(t)
  local most, squares = 0, 0
  for _, x in ipairs(t:totable()) do
    most, squares = math.max(most, math.abs(x)), squares + x * x
  end
  return most, math.sqrt(squares / t:size())
end

local ids = tensor.from({0, 7, 499, 7}, {2, 2}, "i32"):keep()

--- Mean and root mean square of each row of what comes out, at their furthest from 0 and 1.
local function off_normal(embedding)
  local y = octet.no_grad(function() return embedding(ids):totable() end)
  local off = 0
  for row = 0, 3 do
    local sum, squares = 0, 0
    for i = 1, WIDTH do
      local x = y[row * WIDTH + i]
      sum, squares = sum + x, squares + x * x
    end
    off = math.max(off, math.abs(sum / WIDTH), math.abs(squares / WIDTH - 1))
  end
  return off
end

local function bits_of(embedding)
  local opt = optim.adam8(embedding:parameters())
  return opt.parameters[1].bits
end

describe("the stable embedding", function()
  it("has layer norm, Xavier start and 32-bit state where nothing else is said", function()
    for _, options in ipairs {false, {}, {layer_norm = true, xavier = true, bits32 = true}} do
      local embedding = made(options or nil)
      local most, deviation = spread(embedding.weight)
      assert.is_true(most <= BOUND and most > 0.99 * BOUND)
      assert.is_true(math.abs(deviation / (BOUND / math.sqrt(3)) - 1) < 0.02)
      assert.is_true(off_normal(embedding) < 0.01)
      assert.equal(32, bits_of(embedding))
      assert.equal(3, #embedding:parameters())
    end
    assert.same({2, 2, WIDTH}, made()(ids):shape())
  end)

  it("without layer norm gives the rows as they are, and has no other parameter", function()
    local embedding = made {layer_norm = false}
    local y = embedding(ids):totable()
    for i = 1, WIDTH do
      assert.equal(embedding.weight:rows(8):totable()[i], y[WIDTH + i])
      assert.equal(y[WIDTH + i], y[3 * WIDTH + i])
    end
    assert.equal(1, #embedding:parameters())
    assert.equal(32, bits_of(embedding))
    assert.is_true(spread(embedding.weight) <= BOUND)
  end)

  it("without Xavier starts standard normal, as the plain embedding does", function()
    local embedding = made {xavier = false}
    octet.seed(3)
    local plain = nn.Embedding(ROWS, WIDTH)
    assert.same(plain.weight:totable(), embedding.weight:totable())
    assert.is_true(math.abs(select(2, spread(embedding.weight)) - 1) < 0.02)
    assert.is_true(off_normal(embedding) < 0.01)
    assert.equal(32, bits_of(embedding))
  end)

  it("without its 32 bits has what the optimizer has", function()
    local embedding = made {bits32 = false}
    assert.equal(8, bits_of(embedding))
    assert.is_true(spread(embedding.weight) <= BOUND)
    assert.is_true(off_normal(embedding) < 0.01)
    assert.equal(32, optim.adam(embedding:parameters()).parameters[1].bits)
  end)

  it("without all three is a plain embedding", function()
    local embedding = made {layer_norm = false, xavier = false, bits32 = false}
    octet.seed(3)
    local plain = nn.Embedding(ROWS, WIDTH)
    assert.same(plain(ids):totable(), embedding(ids):totable())
    assert.equal(bits_of(plain), bits_of(embedding))
  end)

  it("says in one line what it cannot use", function()
    local function message(options) return failure(nn.StableEmbedding, 4, 4, options) end
    assert.equal('nn.StableEmbedding: unknown option "layernorm"; it is one of layer_norm, xavier, '
      .. "bits32", message {layernorm = false})
    assert.equal("nn.StableEmbedding: bits32 is 8, expected true or false", message {bits32 = 8})
    assert.equal("nn.StableEmbedding: options are a boolean, expected a table", message(true))
  end)
end)
