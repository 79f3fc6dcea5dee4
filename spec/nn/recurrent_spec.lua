local octet = require "octet"
local check = require "spec.ops.check"
local sweep = require "spec.sweep"

local nn, tensor = octet.nn, octet.tensor
local KINDS = {"LSTM", "GRU"}

local function random(shape, seed)
  local count = 1
  for _, n in ipairs(shape) do count = count * n end
  return tensor.from(check.values(count, -1, 1, seed), shape)
end

--- The gradients of x and of a layer's parameters, taken away.
local function gradients_of(layer, x)
  local found = {x:grad():totable()}
  x:zero_grad()
  for _, p in ipairs(layer:parameters()) do
    found[#found + 1] = p.tensor:grad():totable()
    p.tensor:zero_grad()
  end
  return found
end

-- spec/nn/pytorch_figures.py wrote what is compared with.
for _, kind in ipairs(KINDS) do
  describe("an " .. kind .. " loaded from PyTorch", function()
    local file = octet.safetensors.open "spec/nn/pytorch_figures.safetensors"
    local function read(name) return file:read(kind .. "." .. name) end

    local function near(actual, name, tolerance)
      local expected = read(name):totable()
      local largest = 1
      for _, v in ipairs(expected) do largest = math.max(largest, math.abs(v)) end
      check.near(actual:totable(), expected, tolerance * largest, kind .. " " .. name)
    end

    it("gives its outputs within 1e-5 and its gradients within 1e-4", function()
      check.everywhere(function()
        local layer = nn[kind](5, 7, {layers = 2, bidirectional = true})
        local state = {}
        for _, name in ipairs(file:names()) do
          local own = name:match("^" .. kind .. "%.state%.(.*)$")
          if own then state[own] = file:read(name) end
        end
        layer:load(state)
        octet.scope(function()
          local leaves, initial = {x = read "x":parameter_()}, {}
          for _, part in ipairs(kind == "LSTM" and {"h", "c"} or {"h"}) do
            initial[part] = read(part .. "_0"):parameter_()
            leaves[part .. "_0"] = initial[part]
          end
          local y, _, final = layer(leaves.x, file:read "offsets", initial)
          local loss = (y * read "loss.y"):sum()
          near(y, "y", 1e-5)
          for part, t in pairs(final) do
            near(t, part, 1e-5)
            loss = loss + (t * read("loss." .. part)):sum()
          end
          loss:backward()
          for name, leaf in pairs(leaves) do near(leaf:grad(), "gradient." .. name, 1e-4) end
          for _, p in ipairs(layer:parameters()) do
            near(p.tensor:grad(), "gradient." .. p.name, 1e-4)
          end
        end)
      end)
    end)
  end)

  describe("an " .. kind, function()
    it("gives a sequence the same among others as alone", function()
      check.everywhere(function(isa)
        octet.seed(1)
        local layer = nn[kind](10, 12, {layers = 2, bidirectional = true})
        local lengths, x = {3, 1, 40, 7, 40, 1, 2}, random({94, 10}, 5)
        local y, last = layer(x, lengths)
        local first = 1
        for s, length in ipairs(lengths) do
          local y_alone, last_alone = layer(x:rows(first, length), {length})
          check.near(y:rows(first, length):totable(), y_alone:totable(), 1e-6, isa)
          check.near(last:rows(s):totable(), last_alone:totable(), 1e-6, isa)
          first = first + length
        end
      end)
    end)

    it("has, over chunks of many sequences, the sum of the gradients of each alone", function()
      for _, bidirectional in ipairs {true, false} do
        octet.seed(1)
        local layer = nn[kind](6, 130, {bidirectional = bidirectional})
        local lengths, first = {}, 1
        for s = 1, 12 do lengths[s] = s % 3 == 0 and 61 or 130 end
        local x = random({1284, 6}, 5):parameter_()
        local function run(rows, list)
          octet.scope(function() layer(rows, list):square():sum():backward() end)
        end
        run(x, lengths)
        local together = gradients_of(layer, x)
        for _, length in ipairs(lengths) do
          run(x:rows(first, length), {length})
          first = first + length
        end
        for i, alone in ipairs(gradients_of(layer, x)) do
          check.near(together[i], alone, 1e-4, "gradient " .. i)
        end
      end
    end)

    it("gives for tokens that share rows of x what it gives for each by itself", function()
      -- 1,284 tokens of 130 units are three chunks; 12 are one.
      for _, o in ipairs {{1284, 130}, {12, 18}} do
        local tokens, hidden = unpack(o)
        for _, bidirectional in ipairs {true, false} do
          octet.seed(1)
          local layer = nn[kind](6, hidden, {bidirectional = bidirectional, layers = 2})
          local x, at = random({5, 6}, 5):parameter_(), {}
          for t = 1, tokens do at[t] = t * t * t % 7 % 5 end
          local rows = tensor.from(at, {tokens}, "i32")
          local lengths = {tokens / 2, tokens / 3, tokens / 6 - 1, 1}
          local function results(input, of_tokens)
            local y = octet.scope(function()
              local y = layer(input(), lengths, nil, of_tokens):keep()
              y:square():sum():backward()
              return y
            end)
            return y:totable(), gradients_of(layer, x)
          end
          local y, expected = results(function() return nn.embedding(x, rows) end)
          local shared, gradients = results(function() return x end, rows)
          check.near(shared, y, 1e-6, "y")
          for i = 1, #expected do check.near(gradients[i], expected[i], 1e-4, "gradient " .. i) end
        end
      end
    end)

    it("does so in bf16, but for what rounds otherwise", function()
      if not octet.has_bf16() then pending "this processor does not multiply bf16" end
      finally(function() octet.set_precision "f32" end)
      octet.seed(1)
      local layer = nn[kind](6, 18, {bidirectional = true})
      local x, rows = random({5, 6}, 5):parameter_(), tensor.from({1, 4, 4, 0, 2}, {5}, "i32")
      local function results()
        octet.scope(function() layer(x, {3, 2}, nil, rows):square():sum():backward() end)
        return gradients_of(layer, x)
      end
      local exact = results()
      octet.set_precision "bf16"
      for i, values in ipairs(results()) do
        check.near(values, exact[i], 0.02, "gradient " .. i)
        assert.is_true(check.distance(values, exact[i]) > 0)
      end
    end)

    it("does not look at other sequences, not even at NaN", function()
      local layer = nn[kind](4, 5, {bidirectional = true})
      local values = check.values(7 * 4, -1, 1, 1)
      local clean = layer(tensor.from(values, {7, 4}), {3, 4}):totable()
      for i = 3 * 4 + 1, 7 * 4 do values[i] = 0 / 0 end
      local other = layer(tensor.from(values, {7, 4}), {3, 4}):totable()
      for i = 1, 3 * 10 do assert.equal(clean[i], other[i]) end
    end)

    it("takes offsets, lengths, and sequences of one length by shape", function()
      octet.seed(1)
      local layer = nn[kind](4, 3)
      local x = random({6, 4}, 2)
      local expected = layer(x, tensor.from({0, 3, 6}, {3}, "i32")):totable()
      assert.same(expected, layer(x, tensor.from({3, 3}, {2}, "i32")):totable())
      assert.same(expected, layer(x, {3, 3}):totable())
      local y = layer(x:reshape(2, 3, 4))
      assert.same({2, 3, 3}, y:shape())
      assert.same(expected, y:totable())
    end)

    it("gives the last state of each sequence, the forward direction's first", function()
      local layer = nn[kind](4, 3, {layers = 2, bidirectional = true})
      local y, last, state = layer(random({5, 4}, 2), {2, 3})
      local all, h = y:totable(), state.h:totable()
      assert.same({2, 6}, last:shape())
      assert.same({4, 2, 3}, state.h:shape())
      last = last:totable()
      for s, rows in ipairs {{2, 1}, {5, 3}} do
        for i = 1, 3 do
          local forward, back = all[(rows[1] - 1) * 6 + i], all[(rows[2] - 1) * 6 + 3 + i]
          assert.equal(forward, last[(s - 1) * 6 + i])
          assert.equal(back, last[(s - 1) * 6 + 3 + i])
          -- Layer 2 is rows 3 (forward) and 4 of the states.
          assert.equal(forward, h[2 * 2 * 3 + (s - 1) * 3 + i])
          assert.equal(back, h[3 * 2 * 3 + (s - 1) * 3 + i])
        end
      end
    end)

    it("may be walked in stretches, the state handed on", function()
      octet.seed(1)
      local layer = nn[kind](5, 6, {layers = 2})
      local x = random({2, 9, 5}, 4)
      local function stretch(first, count) return x:narrow(2, first, count) end
      local whole, _, whole_state = layer(x)
      whole_state.h:keep()
      whole:sum():backward()
      local expected = {}
      for _, p in ipairs(layer:parameters()) do
        expected[p.name] = p.tensor:grad():totable()
        p.tensor:zero_grad()
      end
      local one, _, state = layer(stretch(1, 4))
      local two, _, final = layer(stretch(5, 5), nil, state)
      local h = final.h:keep()
      local loss = one:sum() + two:sum()
      loss:backward()
      check.near(h:totable(), whole_state.h:totable(), 1e-6, "the final state")
      for _, p in ipairs(layer:parameters()) do
        check.near(p.tensor:grad():totable(), expected[p.name], 1e-5, p.name)
      end
    end)

    it("gives behind a shared prefix what the whole sequences give", function()
      check.everywhere(function(isa)
        octet.seed(1)
        local layer = nn[kind](5, 18, {layers = 2})
        local prefix = random({6, 5}, 3):parameter_()
        local counts, lengths = {2, 0, 6, 2, 5}, {1, 3, 2, 7, 4}
        local x = random({17, 5}, 4):parameter_()
        local function results(run)
          local found = octet.scope(function()
            local last, state = run()
            local loss = (last * random({5, 18}, 6)):sum()
            local values = {last = last:totable()}
            for part, t in pairs(state) do
              values[part] = t:totable()
              loss = loss + (t * random({2, 5, 18}, 7)):sum()
            end
            loss:backward()
            return values
          end)
          local leaves = {x = x, prefix = prefix}
          for _, p in ipairs(layer:parameters()) do leaves[p.name] = p.tensor end
          for name, leaf in pairs(leaves) do
            found["gradient of " .. name] = leaf:grad():totable()
            leaf:zero_grad()
          end
          return found
        end
        local whole = results(function()
          local rows, whole_lengths, first = {}, {}, 1
          for s, count in ipairs(counts) do
            if count > 0 then rows[#rows + 1] = prefix:rows(1, count) end
            rows[#rows + 1] = x:rows(first, lengths[s])
            first = first + lengths[s]
            whole_lengths[s] = count + lengths[s]
          end
          local _, last, state = layer(tensor.cat(rows), whole_lengths)
          return last, state
        end)
        local shared = results(function()
          local y, last, state = layer:behind(prefix, tensor.from(counts, {5}, "i32"), x, lengths)
          assert.same({17, 18}, y:shape())
          return last, state
        end)
        for name, values in pairs(whole) do
          check.near(shared[name], values, 2e-6, name .. ", " .. isa)
        end
      end)
    end)

    it("passes no gradient into a stretch whose state was detached", function()
      octet.seed(1)
      local layer = nn[kind](5, 6)
      local initial = {h = random({1, 2, 6}, 1):parameter_()}
      local state = octet.scope(function()
        local y, _, state = layer(random({2, 3, 5}, 1), nil, initial)
        state = nn.detach(state)
        y:sum():backward()
        return state
      end)
      initial.h:zero_grad()
      octet.scope(function()
        local y = layer(random({2, 3, 5}, 2), nil, state)
        y:sum():backward()
        assert.is_true(y:is_released())
      end)
      assert.is_nil(initial.h:grad())
      assert.is_true(state.h:all_finite())
    end)

    it("gives the same bits for any number of threads over one chunk and many", function()
      -- 9,000 tokens of 16 units are two chunks of 2 MiB; 600 of 300 units are two of 512 rows. In
      -- one chunk two threads take a direction each.
      local before = octet.threads()
      finally(function() octet.set_threads(before) end)
      for _, o in ipairs {{9000, 4, 7}, {600, 8, 300}, {300, 8, 30}} do
        local tokens, inputs, hidden = unpack(o)
        octet.seed(1)
        local layer = nn[kind](inputs, hidden, {bidirectional = true, layers = 2})
        local x = random({tokens, inputs}, 3):parameter_()
        local lengths, first = {tokens / 2, tokens / 3, tokens / 6 - 1, 1}, nil
        local at = {}
        for t = 1, tokens do at[t] = t * t % 97 end
        local rows = tensor.from(at, {tokens}, "i32"):keep()
        for _, threads in ipairs {1, 2, 3, 4} do
          octet.set_threads(threads)
          local found = octet.scope(function()
            local y, _, state = layer(x, lengths)
            local shared = layer(x, lengths, nil, rows)
            local values = {y:totable(), state.h:totable(), shared:totable()}
            local loss = y:square():mean() + state.h:sum() + shared:square():mean()
            loss:backward()
            for _, gradient in ipairs(gradients_of(layer, x)) do values[#values + 1] = gradient end
            return values
          end)
          first = first or found
          for i, values in ipairs(found) do
            local most = check.distance(values, first[i])
            assert.equal(0, most, ("%d threads, result %d"):format(threads, i))
          end
        end
      end
    end)

    it("gives the same within rounding on each instruction set", function()
      local first
      for _, isa in ipairs(check.isas) do
        octet.set_isa(isa)
        octet.seed(1)
        local layer = nn[kind](20, 30, {layers = 2, bidirectional = true})
        local y = layer(random({60, 20}, 3), {30, 10, 20}):totable()
        first = first or y
        check.near(y, first, 1e-6, isa)
      end
      octet.set_isa "auto"
    end)

    it("drops out between layers in training alone, and differently each time", function()
      octet.seed(7)
      local layer = nn[kind](4, 8, {layers = 2, dropout = 0.5})
      local x = random({6, 4}, 1)
      local function run() return layer(x, {6}):totable() end
      local one, two = run(), run()
      assert.not_same(one, two)
      octet.seed(7)
      local again = nn[kind](4, 8, {layers = 2, dropout = 0.5})
      assert.same(one, again(x, {6}):totable())
      layer:eval()
      assert.same(run(), run())
    end)

    it("keeps for the way back gates and cells alone, and without gradients nothing", function()
      local layer = nn[kind](8, 16)
      local x = random({2, 50, 8}, 1)
      -- What other specs have left is not to be freed while bytes are counted.
      collectgarbage()
      collectgarbage()
      collectgarbage "stop"
      finally(function() collectgarbage "restart" end)
      octet.scope(function()
        layer(x):sum():backward()                    -- gradients are there from here on
        local before = octet.memory().activations.now
        octet.reset_peak_memory()
        local results = {layer(x)}
        -- y, the states, gates, cells; 2 sequences, 4 bytes a number, the order's too.
        local states, cells = kind == "LSTM" and 2 or 1, kind == "LSTM" and 16 or 0
        local expected = 4 * (100 * 16 + states * 2 * 16 + 100 * (4 * 16 + cells) + 2 * 2 + 51)
        assert.equal(expected, octet.memory().activations.now - before)
        assert.is_true(octet.memory().workspace.peak < 500000)
        results[1]:sum():backward()
        before = octet.memory().activations.now
        octet.no_grad(function()
          local plain = layer(x)
          assert.equal(4 * (100 * 16 + states * 2 * 16),
            octet.memory().activations.now - before)
          return plain, results
        end)
      end)
    end)

    it("says in one line what does not fit", function()
      local layer = nn[kind](4, 3, {layers = 2})
      local x = random({6, 4}, 1)
      local function fails(text, f)
        local ok, message = pcall(f)
        assert.is_false(ok)
        assert.matches(text, message)
        assert.is_nil(message:find "\n")
      end
      fails("recurrent_spec.lua:%d+: " .. kind .. ": the lengths add up to 5, but there are 6 "
        .. "tokens", function() layer(x, {2, 3}) end)
      fails("offsets %[3%] must go from 0 to the 6 tokens", function()
        layer(x, tensor.from({0, 2, 5}, {3}, "i32"))
      end)
      fails("sequence 2 has 0 tokens", function() layer(x, {6, 0}) end)
      fails("x is %[6 x 4%]; without offsets or lengths", function() layer(x) end)
      fails("offsets or lengths expected as an i32 tensor", function() layer(x, 6) end)
      fails("weight_ih is %[%d+ x 4%], expected %[%d+ x 5%]", function()
        layer(random({6, 5}, 1), {6})
      end)
      fails("state.h is %[1 x 1 x 3%], expected %[2 x sequences x 3%]", function()
        layer(x, {6}, {h = random({1, 1, 3}, 1)})
      end)
      fails("h_0 is %[1 x 2 x 3%], expected %[1 x 1 x 3%]", function()
        layer(x, {6}, {h = random({2, 2, 3}, 1)})
      end)
      fails("behind: one direction expected", function()
        local both = nn[kind](4, 3, {bidirectional = true})
        both:behind(x, tensor.from({1}, {1}, "i32"), x, {6})
      end)
      fails("behind: 2 counts, but 1 sequences", function()
        layer:behind(x, tensor.from({1, 1}, {2}, "i32"), x, {6})
      end)
      fails("id 7 at place 1, expected 0 to 6", function()
        layer:behind(x, tensor.from({7}, {1}, "i32"), x, {6})
      end)
      fails("token 2 is row 6 of x, expected 0 to 5", function()
        layer(x, {2}, nil, tensor.from({5, 6}, {2}, "i32"))
      end)
      fails("the lengths add up to 3, but there are 2 tokens", function()
        layer(x, {3}, nil, tensor.from({5, 5}, {2}, "i32"))
      end)
      fails("0 layers with dropout 0", function() nn[kind](4, 3, {layers = 0}) end)
      fails("1.5 layers", function() nn[kind](4, 3, {layers = 1.5}) end)
      fails("dropout 1", function() nn[kind](4, 3, {dropout = 1}) end)
    end)
  end)

  for _, precision in ipairs {"f32", "bf16"} do
    it("an allocation that fails in a step of an " .. kind .. " in " .. precision
      .. " is one clear line, leaks nothing and breaks nothing", function()
      if precision == "bf16" and not octet.has_bf16() then
        pending "this processor does not multiply bf16"
      end
      finally(function()
        sweep.fail_allocation(0)
        octet.set_precision "f32"
      end)
      octet.set_precision(precision)
      local layer = nn[kind](3, 20, {layers = 2, bidirectional = true, dropout = 0.5})
      local one = nn[kind](3, 4, {layers = 2})
      -- Enough tokens for each direction to have a thread.
      local long = random({40, 3}, 1):keep()
      local x = random({5, 3}, 1):keep()
      local rows = select(2, nn.distinct(tensor.from({1, 4, 1, 2, 2, 3}, {6}, "i32"))):keep()
      local counts = tensor.from({3, 1}, {2}, "i32"):keep()
      local loss_of_step
      local function clear()
        for _, p in ipairs(layer:parameters()) do p.tensor:zero_grad() end
        for _, p in ipairs(one:parameters()) do p.tensor:zero_grad() end
      end
      local function step()
        octet.seed(1)
        octet.scope(function()
          local y, last, state = layer(long, {15, 25})
          local _, again = one:behind(x, counts, x, {4, 2}, rows)
          local loss = y:mean() + last:sum() + state.h:square():sum() + again:sum()
          loss:backward()
          loss_of_step = loss:item()
        end)
        clear()
      end
      step()
      local expected = loss_of_step
      sweep.allocations(step, nil, clear)
      assert.equal(expected, loss_of_step)
    end)
  end
end

describe("an LSTM's forget bias", function()
  it("is what the forget gate's two biases come to at the start", function()
    local layer = nn.LSTM(3, 4, {bidirectional = true, layers = 2, forget_bias = 1.5})
    for _, suffix in ipairs {"l0", "l0_reverse", "l1", "l1_reverse"} do
      local ih = layer["bias_ih_" .. suffix]:totable()
      local hh = layer["bias_hh_" .. suffix]:totable()
      for unit = 1, 16 do
        if unit > 4 and unit <= 8 then
          assert.equal(1.5, ih[unit] + hh[unit])
        else
          assert.is_true(math.abs(ih[unit]) <= 0.5 and math.abs(hh[unit]) <= 0.5)
        end
      end
    end
    assert.error_matches(function() nn.LSTM(3, 4, {bias = false, forget_bias = 1}) end,
      "a forget bias, but no bias")
  end)
end)

describe("a tensor's detach", function()
  it("shares memory, passes no gradient and outlives backward", function()
    local x = tensor.ones({3}):parameter_()
    local y = x * 2
    local apart = y:detach()
    assert.is_false(apart:requires_grad())
    y:sum():backward()
    assert.is_true(y:is_released())
    assert.same({2, 2, 2}, apart:totable())
  end)
end)
