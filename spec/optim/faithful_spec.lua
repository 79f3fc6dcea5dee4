-- Quantized state trains as 32-bit state does: free-running, side by side, and where it does not.
local ffi = require "ffi"
local free_run = require "spec.optim.free_run"
local gradients = require "spec.optim.gradients"
local machine = require "octet.machine"
local optim = require "octet.optim"
local rules = require "octet.optim.rules"
local tensor = require "octet.tensor"

-- Globals of a spec are found by way of a function, and such loops are not compiled.
local abs, floor, max = math.abs, math.floor, math.max

local DECADES = {0, 1, 2, 3}

-- Options beside the defaults, for all of a rule's states to be there.
local MORE = {
  adafactor = {{beta1 = 0.9}}, rmsprop = {{}, {momentum = 0.9, centered = true}},
  sgd = {{}, {nesterov = true}},
}
-- Rules whose steps are as long as their gradients: measured in units of each coordinate.
local BY_SCALE = {sgd = true, lars = true, muon = true}
-- Muon's products take long. Lion's step is a sign, all of it or its opposite where m is near 0: it
-- takes more of them for its displacement to stand out.
local STEPS = {adam = 3000, adamw = 3000, muon = 100, lion = 1200}

local function shown(options)
  local parts = {}
  for name, value in pairs(options) do parts[#parts + 1] = name .. " " .. tostring(value) end
  table.sort(parts)
  return #parts > 0 and ", " .. table.concat(parts, ", ") or ""
end

local function with(a, b)
  local both = {}
  for _, options in ipairs {a, b} do
    for name, value in pairs(options) do both[name] = value end
  end
  return both
end

-- Each list of options beside 32-bit state: results by list and decades.
local function beside(rule, bits, options, lists, o)
  local entrants = {{rule, options}}
  for i, list in ipairs(lists) do entrants[i + 1] = {rule .. bits, with(options, list)} end
  return free_run.run {entrants = entrants, decades = o.decades or DECADES, steps = o.steps,
    by_scale = o.by_scale}
end

-- An error that shows all that was seen, where something is outside its bar.
local function hold(seen, decades, bar)
  local function within(name, value, ok)
    if ok then return end
    error(("%d decades: %s is %.4g (length %.4f, largest %.3f, of the second half %.3f, "
      .. "cosine %.4f)"):format(decades, name, value, seen.length, seen.most, seen.late,
      seen.cosine), 0)
  end
  within("mean update", seen.length, seen.length > bar.shortest and seen.length < bar.longest)
  within("largest update", seen.most, seen.most <= bar.most)
  within("largest update of the second half", seen.late, seen.late <= bar.most)
  within("cosine", seen.cosine, seen.cosine > bar.cosine)
end

local EIGHT = {shortest = 0.95, longest = 1.05, most = 2, cosine = 0.99}

local function meets(seen, bar)
  return seen.length > bar.shortest and seen.length < bar.longest and seen.most <= bar.most
    and seen.cosine > bar.cosine
end

describe("8-bit state beside 32-bit state", function()
  local threads
  setup(function()
    threads = machine.threads()
    machine.set_threads(1)
  end)
  teardown(function() machine.set_threads(threads) end)

  for _, rule in ipairs(rules.all) do
    for _, options in ipairs(MORE[rule.name] or {{}}) do
      it(("takes steps as long, and in the direction, 0 to 3 decades: %s%s"):format(rule.name,
        shown(options)), function()
        local seen = beside(rule.name, 8, options, {{}},
          {steps = STEPS[rule.name] or 600, by_scale = BY_SCALE[rule.name]})
        for k, decades in ipairs(DECADES) do hold(seen[1][k], decades, EIGHT) end
      end)
    end
  end

  it("takes steps as long with one scale a tensor, too, where gradients are of a size", function()
    for _, rule in ipairs {"adam", "sgd", "lamb", "muon", "adafactor"} do
      local options = MORE[rule] and MORE[rule][1] or {}
      local seen = beside(rule, 8, options, {{scale = "tensor"}},
        {steps = rule == "muon" and 50 or 300, decades = {0}, by_scale = BY_SCALE[rule]})
      hold(seen[1][1], 0, EIGHT)
    end
  end)

  it("fails with the paper's format and bitsandbytes': v underflows beside large neighbours",
    function()
      local seen = beside("adam", 8, {}, {{format = "paper"}, {format = "bnb"}},
        {steps = 1500, decades = {0, 1, 2, 3}})
      for format = 1, 2 do
        assert.is_true(meets(seen[format][1], EIGHT))
        assert.is_false(meets(seen[format][4], EIGHT))
        assert.is_true(seen[format][4].most > 1000, "largest update " .. seen[format][4].most)
        assert.is_true(seen[format][4].cosine < 0.5, "cosine " .. seen[format][4].cosine)
      end
      -- At 2 decades steps are too long before v underflows: 2,048 elements have a larger largest.
      assert.is_true(seen[1][3].length > 1.05, "mean update " .. seen[1][3].length)
    end)

  it("fails with the map of bitsandbytes 0.36.0: v shrinks, and steps are many times as long",
    function()
      local seen = beside("adam", 8, {betas = {0.9, 0.999}}, {{format = "bnb-0.36"}},
        {steps = 3000, decades = {0, 1}})
      assert.is_true(seen[1][1].length > 15,
        "mean update " .. seen[1][1].length)
      assert.is_true(seen[1][2].length > 8, "mean update " .. seen[1][2].length)
    end)
end)

-- With 4 bits roots of v end at a tenth of the block's largest, and m at a 64th. So 0 and 1 decade
-- are held closely; beyond that small coordinates make shorter steps, and their direction is theirs
-- in part. What m alone decides comes out worse: 16 values rounded by chance add noise to a mean
-- over 100 gradients (lion) that changes signs, and to a matrix (muon) whose weakest directions the
-- iteration makes as long as the strongest. SGD's and LARS's are measured by their steps' lengths.
local FOUR = {
  [0] = {shortest = 0.95, longest = 1.06, most = 2, cosine = 0.97},
  {shortest = 0.93, longest = 1.1, most = 2.6, cosine = 0.95},
  {shortest = 0.65, longest = 1.1, most = 2.8, cosine = 0.8},
  {shortest = 0.45, longest = 1.1, most = 2.8, cosine = 0.65},
}
local FOUR_COSINE = {
  lion = {[0] = 0.88, 0.84, 0.74, 0.64}, muon = {[0] = 0.8, 0.75, 0.75, 0.75},
}

describe("4-bit state beside 32-bit state", function()
  local threads
  setup(function()
    threads = machine.threads()
    machine.set_threads(1)
  end)
  teardown(function() machine.set_threads(threads) end)

  for _, rule in ipairs(rules.all) do
    for _, options in ipairs(MORE[rule.name] or {{}}) do
      it("is held to bars of its own, 0 to 3 decades: " .. rule.name .. shown(options), function()
        local seen = beside(rule.name, 4, options, {{}},
          {steps = rule.name == "muon" and 100 or 600, by_scale = rule.name == "muon"})
        for k, decades in ipairs(DECADES) do
          local own = FOUR_COSINE[rule.name]
          hold(seen[1][k], decades, with(FOUR[decades], {cosine = own and own[decades]}))
        end
      end)
    end
  end

  it("keeps to 32 bits more closely than torchao's format", function()
    local seen = beside("adam", 4, {}, {{}, {format = "torchao"}}, {steps = 1000})
    for k = 1, #DECADES do
      local octet, torchao = seen[1][k], seen[2][k]
      assert.is_true(abs(octet.length - 1) < abs(torchao.length - 1) + 0.01)
      assert.is_true(octet.cosine > torchao.cosine - 0.001)
    end
    assert.is_true(seen[1][2].cosine > 0.97 and seen[2][2].cosine < 0.93)
    assert.is_true(seen[1][2].length > 1 and seen[2][2].length < 0.8)
  end)

  it("fails with dynamic maps of 16 values: v underflows", function()
    local seen = beside("adam", 4, {}, {{map = "dynamic"}}, {steps = 600})
    assert.is_true(seen[1][3].most > 10, "largest update " .. seen[1][3].most)
  end)
end)

-- ---- an embedding ------------------------------------------------------------------------------

-- Rows drawn by Zipf's law, scattered over the table; `dead` rows are never drawn.
local ROWS, WIDTH, DRAWN, DEAD = 1024, 16, 64, 16

local function zipf()
  local draw = gradients.draws(1)
  local cumulative, sum, place = {}, 0, {}
  for rank = 1, ROWS - DEAD do
    sum = sum + 1 / rank
    cumulative[rank] = sum
  end
  for row = 1, ROWS do place[row] = row - 1 end
  for row = ROWS, 2, -1 do
    local other = 1 + floor((draw() + 0.5) * row)
    place[row], place[other] = place[other], place[row]
  end
  local dead = {}
  for rank = ROWS - DEAD + 1, ROWS do dead[#dead + 1] = place[rank] end
  return function()
    local y, low, high = (draw() + 0.5) * sum, 1, ROWS - DEAD
    while low < high do
      local middle = floor((low + high) / 2)
      if cumulative[middle] < y then low = middle + 1 else high = middle end
    end
    return place[low]
  end, dead
end

local function largest_change(p, old)
  local most = 0
  for i = 0, ROWS * WIDTH - 1 do most = max(most, abs(p[i] - old[i])) end
  return most
end

-- The largest update, in units of lr, of an optimizer of a table whose rows' gradients are exactly
-- 0 but where they are drawn; and how far the rows went that never are.
local function train_embedding(rule, options, steps)
  machine.seed(1)
  local w = tensor.zeros({ROWS, WIDTH}):parameter_()
  gradients.set(w, tensor.zeros {ROWS, WIDTH})
  local opt = optim[rule]({w}, with({lr = 1, min_8bit_size = 0}, options))
  local kept, noise = w:grad():keep(), tensor.new({DRAWN * WIDTH}):keep()
  local g, p, x = kept:data(), w:data(), noise:data()
  local draw_row, dead = zipf()
  local old, most = ffi.new("float[?]", ROWS * WIDTH), 0
  for _ = 1, steps do
    kept:fill_(0)
    noise:normal_(0, 1)
    for k = 0, DRAWN - 1 do
      local at = draw_row() * WIDTH
      for i = 0, WIDTH - 1 do g[at + i] = g[at + i] + x[k * WIDTH + i] end
    end
    ffi.copy(old, p, 4 * ROWS * WIDTH)
    opt:step()
    most = max(most, largest_change(p, old))
  end
  local drift = 0
  for _, row in ipairs(dead) do
    for i = 0, WIDTH - 1 do drift = max(drift, abs(p[row * WIDTH + i])) end
  end
  return most, drift
end

describe("an embedding's gradients by Zipf's law", function()
  for _, case in ipairs {{"adam", 3}, {"adam8", 3}, {"adamw8", 3}, {"adam4", 4}, {"adamw4", 4}} do
    it(("make no update of %d lr: %s"):format(case[2], case[1]), function()
      local most, drift = train_embedding(case[1], {weight_decay = 0}, 1000)
      assert.is_true(most > 1 and most < case[2], ("largest update: %g lr"):format(most))
      assert.equal(0, drift)
    end)
  end

  -- The format of bitsandbytes' kernels. Here a row that has never been drawn does not drift even
  -- so; there, where rounding keeps signs, it does.
  it("make updates of more than 10 lr in bitsandbytes' format, where v becomes 0 under a living m",
    function()
      for _, format in ipairs {"bnb", "paper"} do
        local most, drift = train_embedding("adam8", {format = format}, 300)
        assert.is_true(most > 10, ("largest update: %g lr"):format(most))
        assert.equal(0, drift)
      end
    end)
end)
