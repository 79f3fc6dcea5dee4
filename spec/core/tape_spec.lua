-- What is recorded, and for how long: several losses, results that no loss needs, scopes between.
local binding = require "octet.binding"
local machine = require "octet.machine"
local octet = require "octet"
local tensor = require "octet.tensor"

describe("the record", function()
  before_each(function() binding.collect() end)

  local function parameter() return tensor.from({1, 2}):parameter_() end

  it("of one loss outlives another's way back", function()
    for _, first_is_older in ipairs {true, false} do
      local p, q = parameter(), parameter()
      local a, b = (p * p):sum(), (q * q * q):sum()
      if not first_is_older then a, b = b, a end
      a:backward()
      b:backward()
      assert.same({2, 4}, p:grad():totable())
      assert.same({3, 12}, q:grad():totable())
    end
  end)

  it("of a part that two losses share is gone behind the first, and the second says so", function()
    local p = parameter()
    local shared = p * 3
    local a, b = shared:sum(), (shared * shared):sum()
    a:backward()
    local message = "an earlier backward has used what it was computed from; losses that share a "
      .. "part are to be added up"
    assert.error_matches(function() b:backward() end, message, 1, true)
    -- Though the part itself is still there.
    for _, make in ipairs {function() return (p * 3):sum() end,
      function() return (p * 3):keep() end} do
      shared = make()
      a, b = shared:sum(), (shared * shared):sum()
      a:backward()
      assert.error_matches(function() b:backward() end, message, 1, true)
    end
    p:zero_grad()
    shared = p * 3
    local loss = shared:sum() + (shared * shared):sum()
    loss:backward()
    assert.same({3 + 18, 3 + 36}, p:grad():totable())
  end)

  it("of a result that was written over is refused", function()
    for _, write in ipairs {
      function(y) y:fill_(5) end, function(y) y:copy_(tensor.ones {2}) end,
      function(y) y:reshape(2, 1):uniform_() end, function(y) y:swap_(tensor.ones {2}) end,
    } do
      local w = tensor.from({1, 2}):parameter_()
      local y = w:exp()
      write(y)
      assert.error_matches(function() (y * 1):sum():backward() end,
        "what the loss was computed from has been changed since")
      assert.is_nil(w:grad())
    end
    local w = tensor.from({1, 2}):parameter_()
    local y = w * 2
    assert.same({2, 4}, y:totable())             -- to read is no change
    y:square():sum():backward()
    assert.same({8, 16}, w:grad():totable())
  end)

  it("of what has been changed since is refused", function()
    local p, q = parameter(), parameter()
    local opt = require "octet.optim".sgd({p}, {lr = 1})
    local a, b = (p * 2):sum(), (p * q):sum()
    a:backward()
    opt:step()
    local message = "backward: what the loss was computed from has been changed since, by a step "
      .. "or in place; go back before"
    assert.error_matches(function() b:backward() end, message, 1, true)
    local x = tensor.ones {2}
    b = (x * q):sum()
    x:fill_(7)
    assert.error_matches(function() b:backward() end, message, 1, true)
    -- To look at something is no change.
    b = (x * q):sum()
    assert.same({7, 7}, x:totable())
    b:backward()
    assert.same({7, 7}, q:grad():totable())
  end)

  it("keeps what a loss does not need for whoever holds it", function()
    local p = parameter()
    local aside = p:exp()
    p:square():sum():backward()
    assert.is_false(aside:is_released())
    aside:sum():backward()
    local gradient = p:grad():totable()
    assert.is_true(math.abs(gradient[2] - (4 + math.exp(2))) < 1e-5)
  end)

  it("of what nobody holds does not grow, whether losses go back or not", function()
    local p = tensor.ones({1000}):parameter_()
    for _, goes_back in ipairs {true, false} do
      binding.collect()
      local before = machine.memory().total.now
      for _ = 1, 2000 do
        local y = p * p
        local _ = y:exp()
        if goes_back then y:sum():backward() end
      end
      binding.collect()
      local held = machine.memory().total.now - before
      assert.is_true(held <= 4000, held .. " bytes")            -- p's gradient
    end
  end)

  it("of what leans on a loss that has gone back goes with it, within scopes too", function()
    local w = tensor.ones({64, 64}):parameter_()
    octet.scope(function()
      local most = 0
      for i = 1, 50 do
        octet.scope(function()
          local y = w * 2
          local aside = (y - 1):square():mean()
          y:sum():backward()
          assert.is_false(aside:is_released())
        end)
        local now = machine.memory().activations.now
        most = i == 1 and now or math.max(most, now)
        assert.is_true(now <= most)
      end
      assert.is_true(most < 4 * 64 * 64, most .. " bytes")
    end)
  end)

  it("of an inner scope stays for the outer one, though what was recorded before goes", function()
    local p = parameter()
    octet.scope(function()
      local loss
      for _ = 1, 3 do
        for _ = 1, 300 do local _ = p:exp() end
        binding.collect()
        local y = octet.scope(function() return (p * 2):square() end)
        loss = loss and loss + y:sum() or y:sum()
        for _ = 1, 300 do local _ = p:exp() end
      end
      loss:backward()
    end)
    assert.same({24, 48}, p:grad():totable())
  end)

  it("of another loss is left alone by a step within backward", function()
    local p, q = parameter(), parameter()
    local opt = require "octet.optim".sgd({p}, {lr = 1, momentum = 0})
    local other = (q * q):sum()
    opt:step_backward((p * 2):sum())
    assert.same({-1, 0}, p:totable())
    other:backward()
    assert.same({2, 4}, q:grad():totable())
  end)
end)
