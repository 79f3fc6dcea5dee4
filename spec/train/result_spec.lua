local octet = require "octet"
local result = require "octet.train.result"
local nn, optim = octet.nn, octet.optim

describe("the summary", function()
  it("says what 8-bit state saved, and which parameters stayed at 32 bits and why", function()
    local model = nn.Sequential(nn.Linear(64, 128), nn.Linear(128, 2))
    local lines = result.state_text(optim.adam8(model:parameters(), {lr = 1e-3}):report())
    -- 8,192 weights at 8 bits in 32 blocks of 256; 128 + 256 + 2 at 32 bits.
    assert.equal(("optimizer state: 19.7 kB, %.2f bytes a parameter; 32-bit state would take "
      .. "68.6 kB, so 48.9 kB are saved"):format((2 * 8192 + 8 * 32 + 8 * 386) / 8578), lines[1])
    assert.equal("  at 32 bits (fewer than 4096 elements): 386 of 8,578 parameters, in 3 tensors: "
      .. "1.bias, 2.weight, 2.bias", lines[2])
    assert.is_nil(lines[3])
  end)

  it("has nothing to save with 32-bit state", function()
    local lines = result.state_text(optim.adam(nn.Linear(64, 128):parameters(), {lr = 1e-3})
      :report())
    assert.equal("optimizer state: 66.6 kB, 8.00 bytes a parameter", lines[1])
    assert.is_nil(lines[2])
  end)

  it("writes bytes as a person reads them", function()
    assert.equal("999 bytes", result.bytes_text(999))
    assert.equal("1 kB", result.bytes_text(1000))
    assert.equal("46 MB", result.bytes_text(46030024))
    assert.equal("1.28 GB", result.bytes_text(1281921024))
    assert.equal("1 MB", result.bytes_text(999700))
  end)

  it("puts the loss behind the scores", function()
    assert.equal("accuracy 0.5000  f1 0.2500  loss 1.0000",
      result.metrics_text {loss = 1, f1 = 0.25, accuracy = 0.5})
  end)
end)

describe("memory", function()
  it("is counted by purpose, exactly", function()
    collectgarbage() collectgarbage()
    local before = result.memory()
    local model = nn.Linear(64, 128)
    local optimizer = optim.adam8(model:parameters(), {lr = 1e-3})
    local after = result.memory()
    assert.equal(4 * 8320, after.parameters - before.parameters)
    assert.equal(2 * 8192 + 8 * 32 + 8 * 128, after.optimizer_state - before.optimizer_state)
    assert.is_true(after.rss_peak > 1e6)
    assert.equal(optimizer:report().bytes, after.optimizer_state - before.optimizer_state)
  end)
end)
