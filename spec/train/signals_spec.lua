local signals = require "octet.train.signals"

-- Not os.execute: system() ignores SIGINT while it waits.
local function send(name)
  io.popen("kill -" .. name .. " $PPID"):close()
end

local function run(body)
  local pipe = io.popen(([[luajit -e 'package.path = "./lua/?.lua;./lua/?/init.lua;" .. package.path
    local signals = require "octet.train.signals"
    local function send(name) io.popen("kill -" .. name .. " $PPID"):close() end
    %s' 2>&1; echo status $?]]):format(body))
  local out = pipe:read "*a"
  pipe:close()
  return out
end

-- The shell says "Terminated" of its own, or not.
local TERMINATED = "^T?e?r?m?i?n?a?t?e?d?\n?status 143\n$"

describe("signals", function()
  it("leave a mark that a loop can ask for", function()
    signals.caught(function()
      assert.is_nil(signals.seen())
      send "TERM"
      assert.equal(15, signals.seen())
      assert.equal("SIGTERM", signals.name(15))
    end)
    signals.caught(function()
      assert.is_nil(signals.seen())
      send "INT"
      assert.equal(2, signals.seen())
    end)
  end)

  it("end the process at once the second time", function()
    assert.matches("^status 130\n$",
      run 'signals.caught(function() send "INT"; send "INT" end); print "on"')
    assert.matches(TERMINATED,
      run 'signals.caught(function() send "INT"; send "TERM" end); print "on"')
  end)

  it("do as before once they are no longer caught, also after an error", function()
    assert.matches(TERMINATED,
      run 'pcall(signals.caught, error, "x"); send "TERM"; print "on"')
  end)

  it("stay caught to the end of the outermost", function()
    assert.matches("status 143\n$", run [[signals.caught(function()
        signals.caught(function() end)
        send "TERM"
      end)
      print(signals.seen())
      send "TERM"
      print "on"]])
  end)

  it("pass results and errors on", function()
    assert.same({1, 2}, {signals.caught(function(a) return a, 2 end, 1)})
    assert.has_error(function() signals.caught(function() error("x", 0) end) end, "x")
  end)
end)
