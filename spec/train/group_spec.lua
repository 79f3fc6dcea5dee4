local file = require "octet.file"
local group = require "octet.train.group"
local run_folder = require "octet.train.run_folder"

local MEMBERS = {{name = "a-1", seed = 1}, {name = "a-2", seed = 2}, {name = "a-3", seed = 3}}

describe("a group of runs", function()
  local folder, ran
  local function run(stop_at)
    return function(member, own, resumed)
      ran[#ran + 1] = member.name .. (resumed and " again" or "")
      own:save_json("config.json", {})
      if member.seed == stop_at then return nil, 2 end
      local result = {task = "a", metrics = {accuracy = member.seed / 10}}
      own:save_json("result.json", result)
      return result
    end
  end

  before_each(function()
    folder, ran = os.tmpname(), {}
    os.remove(folder)
  end)
  after_each(function() file.remove_folder(folder) end)

  it("goes on where it was stopped", function()
    local all = run_folder.create(folder)
    local results, signal = group.run(all, MEMBERS, run(2), function() end)
    assert.is_nil(results)
    assert.equal(2, signal)
    ran[#ran + 1] = "stop"
    all:leave()
    results = group.run(run_folder.open_or_create(folder), MEMBERS, run(), function() end)
    assert.same({"a-1", "a-2", "stop", "a-2 again", "a-3"}, ran)
    assert.equal(3, #results)
    assert.equal(0.1, results[1].metrics.accuracy)
  end)

  it("brings the others to their end where one diverges, and does not repeat that one", function()
    local function diverging(member, own, resumed)
      if member.seed < 3 and member.seed ~= 1 then
        ran[#ran + 1] = member.name
        own:save_json("diverged.json", {step = 1})
        error("the loss is nan: training has diverged", 0)
      end
      return run(nil)(member, own, resumed)
    end
    local all = run_folder.create(folder)
    local results, diverged = group.run(all, MEMBERS, diverging, function() end)
    assert.equal(2, #results)
    assert.same({"a-2"}, diverged)
    results = group.run(all, MEMBERS, diverging, function() end)
    assert.equal(2, #results)
    assert.same({"a-1", "a-2", "a-3"}, ran)
    assert.error_matches(function()
      group.run(all, {MEMBERS[2]}, diverging, function() end)
    end, "every run diverged: a%-2")
    assert.error_matches(function()
      group.run(all, {{name = "b-1"}}, function() error("no space left", 0) end, function() end)
    end, "no space left")
  end)

  it("holds no model of a run that is over", function()
    local held = setmetatable({}, {__mode = "v"})
    group.run(run_folder.create(folder), MEMBERS, function(member, own)
      collectgarbage()
      assert.is_nil(next(held), "the model of the run before")
      held[1] = {}
      own:attach(held[1], {})
      own:save_json("result.json", {})
      return {task = "a", metrics = {accuracy = member.seed}}
    end, function() end)
  end)

  it("has the median of each task's metrics", function()
    local medians = group.medians {
      {task = "a", metrics = {accuracy = 0.9, loss = 1}}, {task = "b", metrics = {pearson = 0.5}},
      {task = "a", metrics = {accuracy = 0.7, loss = 3}},
      {task = "a", metrics = {accuracy = 0.8, loss = 2}},
    }
    assert.same({a = {runs = 3, metrics = {accuracy = 0.8, loss = 2}},
      b = {runs = 1, metrics = {pearson = 0.5}}}, medians)
  end)

  it("prints as a table", function()
    assert.same({"optim   SST-2  Mean", "adamw8   81.2  81.2"},
      group.table_text {{"optim", "SST-2", "Mean"}, {"adamw8", "81.2", "81.2"}})
  end)
end)
