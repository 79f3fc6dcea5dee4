-- Clipping by a percentile of the norms before, held against the released code's arithmetic.
local clip = require "octet.optim.clip"
local failure = require "spec.failure"
local gradients = require "spec.optim.gradients"
local json = require "octet.json"
local optim = require "octet.optim"

--- The released code: a vector of 100 squared norms, filled by step 1, then written at step % 100;
-- sorted, the element of 0-based place `percentile` is the limit.
local function released(percentile)
  local vector, step = {}, 0
  return function(norm)
    step = step + 1
    if step == 1 then
      for i = 0, 99 do vector[i] = norm * norm end
    else
      vector[step % 100] = norm * norm
    end
    local sorted = {}
    for i = 0, 99 do sorted[i + 1] = vector[i] end
    table.sort(sorted)
    local limit = math.sqrt(sorted[percentile + 1])
    return norm > limit and limit / norm or 1
  end
end

local function norms(count, seed)
  local draw, list = gradients.draws(seed), {}
  for i = 1, count do list[i] = math.exp(3 * draw()) / (1 + i / 100) end
  return list
end

describe("clipping by percentile", function()
  it("scales as the released code does, over many times its window", function()
    for _, percentile in ipairs {0, 1, 5, 50, 95, 99} do
      local limit, expected = clip.percentile {percentile = percentile}, released(percentile)
      local clipped = 0
      for i, norm in ipairs(norms(450, 3)) do
        local scale = math.min(1, limit:max_norm(norm) / norm)
        local factor = expected(norm)
        if math.abs(scale - factor) > 1e-14 then
          error(("percentile %d, step %d: %.17g, expected %.17g"):format(percentile, i, scale,
            factor), 0)
        end
        if factor < 1 then clipped = clipped + 1 end
      end
      -- 99 others come before the largest of 100.
      assert.equal(percentile < 99, clipped > 0)
    end
  end)

  it("clips nothing at percentile 100, and nothing in the first step", function()
    local limit = clip.percentile {percentile = 100}
    for _, norm in ipairs(norms(150, 4)) do assert.equal(math.huge, (limit:max_norm(norm))) end
    assert.same({math.huge, 7}, {clip.percentile():max_norm(7)})
    assert.equal(math.huge, (clip.percentile():max_norm(0)))
  end)

  it("keeps histories of different names apart", function()
    local limit, one, other = clip.percentile(), clip.percentile(), clip.percentile()
    for i, norm in ipairs(norms(120, 5)) do
      assert.equal((one:max_norm(norm)), (limit:max_norm(norm, "a")), i)
      assert.equal((other:max_norm(1000 * norm)), (limit:max_norm(1000 * norm, "b")), i)
    end
  end)

  it("does not keep a norm that is not finite", function()
    local limit = clip.percentile {window = 4}
    assert.same({math.huge, math.huge}, {limit:max_norm(math.huge)})
    limit:max_norm(2)
    assert.same({2, 2}, {limit:max_norm(math.huge)})
    assert.same({2, 2}, {limit:max_norm(0 / 0)})
    assert.same({2, 2}, {limit:max_norm(3)})
    assert.same({steps = 2, norms = {2, 2, 3, 2}}, limit:state().histories[""])
  end)

  it("makes a step of exactly that length", function()
    -- eps is so large that the step is lr / eps times the gradient.
    local w = gradients.parameter {0, 0}
    local opt, limit = optim.adam({w}, {betas = {0, 0}, eps = 1e6, lr = 1e6}), clip.percentile()
    limit:max_norm(1)
    gradients.set(w, {3, 4})
    local norm = opt:clip_norm(math.huge)
    assert.equal(5, norm)
    opt:step {grad_scale = math.min(1, limit:max_norm(norm) / norm)}
    local moved = w:totable()
    assert.is_true(gradients.difference(moved, {-0.6, -0.8}, 1) < 1e-5)
  end)

  it("goes on from its state, through a file of JSON, wherever it was stopped", function()
    local list, expected = norms(260, 6), {}
    local whole = clip.percentile {percentile = 20}
    for i, norm in ipairs(list) do expected[i] = whole:max_norm(norm) end
    for stop = 0, 250, 25 do
      local first = clip.percentile {percentile = 20}
      for i = 1, stop do first:max_norm(list[i]) end
      local state = json.decode(json.encode(first:state()), "state")
      local second = clip.percentile {percentile = 20}:load(state)
      for i = stop + 1, #list do assert.equal(expected[i], (second:max_norm(list[i]))) end
    end
  end)

  it("says in one line what it cannot use", function()
    assert.matches('^clip.percentile: unknown option "percent"; it is one of percentile, ',
      failure(clip.percentile, {percent = 5}))
    for _, bad in ipairs {-1, 101, 2.5, "5", 0 / 0} do
      assert.matches("percentile is .*, expected a whole number from 0 to 100",
        failure(clip.percentile, {percentile = bad}))
    end
    assert.matches("window is 0, expected a whole number", failure(clip.percentile, {window = 0}))
    local limit = clip.percentile()
    assert.matches("the norm is %-1, expected a number", failure(limit.max_norm, limit, -1))
    assert.matches("the state has no histories", failure(limit.load, limit, {}))
    limit:max_norm(1)
    local other = clip.percentile {percentile = 6}
    assert.matches("load: percentile is 5, expected 6", failure(other.load, other, limit:state()))
    local state = limit:state()
    state.histories[""].norms[7] = -1
    assert.matches("norm 7 of .* is %-1, expected a number", failure(limit.load, limit, state))
    state.histories[""].norms = {1}
    assert.matches("has 1 norms, expected 100", failure(limit.load, limit, state))
  end)
end)
