local progress = require "octet.train.progress"

local function screen(o)
  local s = {text = "", now = 0, columns = o.columns or 0}
  s.bar = progress.new {
    total = o.total or 200, label = o.label or "epoch 1/3", unit = "tokens", utf8 = o.utf8 or false,
    done = o.done, columns = function() return s.columns end,
    write = function(text) s.text = s.text .. text end, clock = function() return s.now end,
  }
  return s
end

describe("progress on a terminal", function()
  it("is one row that is redrawn in place", function()
    local s = screen {columns = 100}
    for i = 1, 200 do
      s.now = i * 0.2
      s.bar:update(i, {loss = 0.5, units = 100})
    end
    s.bar:finish()
    assert.equal(1, select(2, s.text:gsub("\n", "")))
    assert.matches("epoch 1/3 100%% %[#+%]  200/200  loss 0.5000  500 tokens/s  0:40\27%[K\n$",
      s.text)
    assert.matches(" 50%% .*100/200  loss 0.5000  500 tokens/s  0:20 left\27%[K\r", s.text)
  end)

  it("is never wider than the terminal, however narrow", function()
    for _, columns in ipairs {1, 10, 20, 40, 60, 80, 200} do
      local s = screen {columns = columns}
      s.now = 1
      s.bar:update(70, {loss = 0.5, units = 100})
      local row = s.text:match "^\r(.*)\27%[K$"
      assert.is_true(#row <= math.max(0, columns - 1), ("%d: %q"):format(columns, row))
    end
  end)

  it("is drawn at most ten times a second", function()
    local s = screen {columns = 80, total = 1e6}
    for i = 1, 1000 do
      s.now = i / 1000
      s.bar:update(i)
    end
    assert.is_true(select(2, s.text:gsub("\r", "")) <= 11)
  end)

  it("lets a line pass above it", function()
    local s = screen {columns = 80}
    s.now = 1
    s.bar:update(10)
    s.text = ""
    s.bar:say "accuracy 0.8"
    assert.matches("^\raccuracy 0.8\27%[K\n\repoch 1/3 ", s.text)
  end)

  it("does not count the time of an evaluation", function()
    local s = screen {columns = 80}
    s.now = 20
    s.bar:pause(10)
    s.bar:update(100, {units = 1000})
    assert.matches("100 tokens/s  0:10 left", s.text)
  end)

  it("counts a resumed run's speed from where it went on", function()
    local s = screen {columns = 100, done = 100}
    s.now = 10
    s.bar:update(150, {units = 500})
    assert.matches("150/200  50 tokens/s  0:10 left", s.text)
  end)
end)

describe("progress without a terminal", function()
  it("is some ten plain lines", function()
    local s = screen {total = 2105}
    for i = 1, 2105 do
      s.now = i / 10
      s.bar:update(i, {loss = 0.25, units = 600})
    end
    s.bar:finish()
    assert.is_nil(s.text:find "[\r\27]")
    assert.equal(10, select(2, s.text:gsub("\n", "")))
    assert.matches("epoch 1/3 2,105/2,105  loss 0.2500  6,000 tokens/s  3:31\n$", s.text)
  end)

  it("is one line where the loop is soon done", function()
    local s = screen {total = 10}
    for i = 1, 10 do
      s.now = i / 100
      s.bar:update(i)
    end
    assert.equal("epoch 1/3 10/10  0:00\n", s.text)
  end)
end)

describe("numbers for people", function()
  it("have commas, and times have colons", function()
    assert.equal("999", progress.count_text(999))
    assert.equal("1,000", progress.count_text(1000))
    assert.equal("12,345,678", progress.count_text(12345678))
    assert.equal("0:00", progress.time_text(0.4))
    assert.equal("1:23", progress.time_text(83))
    assert.equal("1:02:03", progress.time_text(3723))
  end)
end)
