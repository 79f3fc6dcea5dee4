-- RMSprop, centered: its one recursion of the variance against the two that define it.
local gradients = require "spec.optim.gradients"
local optim = require "octet.optim"

describe("centered RMSprop", function()
  -- Graves' equations in double precision: v and a apart, and the root of v - a^2.
  local function defined(p, g, of, o)
    of.v = o.alpha * of.v + (1 - o.alpha) * g * g
    of.a = o.alpha * of.a + (1 - o.alpha) * g
    of.m = o.momentum * of.m + g / (math.sqrt(of.v - of.a * of.a) + o.eps)
    return p - o.lr * of.m
  end

  for _, momentum in ipairs {0, 0.9} do
    it("divides by the root of v - a^2, momentum " .. momentum, function()
      local o = {lr = 1e-3, alpha = 0.95, momentum = momentum, eps = 1e-8}
      local draw = gradients.draws(1)
      local w = gradients.parameter(function() return 2 * draw() end, 6)
      local opt = optim.rmsprop({w}, {lr = o.lr, alpha = o.alpha, momentum = momentum,
        centered = true})
      local expected, of = w:totable(), {}
      for i = 1, 6 do of[i] = {v = 0, a = 0, m = 0} end
      for _ = 1, 50 do
        local g = {}
        for i = 1, 6 do
          g[i] = (draw() + 0.4) * 10 ^ (1 - i)
          expected[i] = defined(expected[i], g[i], of[i], o)
        end
        gradients.set(w, g)
        opt:step()
      end
      assert.is_true(gradients.difference(w:totable(), expected, 0.1) < 1e-5)
      local state = opt:state().tensors
      for i = 1, 6 do
        local v = of[i].v - of[i].a ^ 2
        assert.is_true(math.abs(state["1.v"]:data()[i - 1] / v - 1) < 1e-4)
        assert.is_true(math.abs(state["1.a"]:data()[i - 1] / of[i].a - 1) < 1e-4)
      end
    end)
  end
end)
