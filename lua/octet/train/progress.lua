--- What a loop shows of itself: one bar that is redrawn in place on a terminal, plain lines where
-- the output is none.
-- @module octet.train.progress
local ffi = require "ffi"
local binding = require "octet.binding"
local machine = require "octet.machine"
local lines = require "octet.lines"

local M = {}

local Progress = {}
Progress.__index = Progress

-- More often than this the eye sees nothing new, and a slow terminal would slow the training.
local REDRAW_SECONDS = 0.1
-- Without a terminal: so many lines in a loop, and not more often than this.
local PLAIN_LINES, PLAIN_SECONDS = 10, 1

--- 83 -> "1:23", 3723 -> "1:02:03".
-- @tparam number seconds
-- @treturn string
function M.time_text(seconds)
  seconds = math.max(0, math.floor(seconds + 0.5))
  local hours, minutes = math.floor(seconds / 3600), math.floor(seconds / 60) % 60
  if hours > 0 then return ("%d:%02d:%02d"):format(hours, minutes, seconds % 60) end
  return ("%d:%02d"):format(minutes, seconds % 60)
end

--- 12345 -> "12,345".
-- @tparam number n
-- @treturn string
function M.count_text(n)
  local text = ("%d"):format(math.floor(n + 0.5))
  local changed
  repeat
    text, changed = text:gsub("^(-?%d+)(%d%d%d)", "%1,%2")
  until changed == 0
  return text
end

local function speaks_utf8()
  local locale = os.getenv "LC_ALL" or ""
  if locale == "" then locale = os.getenv "LC_CTYPE" or "" end
  if locale == "" then locale = os.getenv "LANG" or "" end
  return locale:lower():find("utf%-?8") ~= nil
end

local int_out = ffi.new "int[1]"

--- Width of the terminal behind standard output.
-- @treturn number columns; 0 where it is no terminal
function M.columns()
  binding.check(binding.C.oct_terminal_columns(int_out, 1))
  return int_out[0]
end

--- Put text on standard output, at once, and make sure that it got there.
-- @tparam string text
function M.write(text)
  lines.write(text)
  lines.flush()
end

--- Begin to show a loop.
-- @tparam table o `total`: how much there is to do; `label`: what stands in front; `unit`: what is
-- counted ("tokens"); `done`: where a resumed loop begins; and for another screen than standard
-- output: `columns`, a function that gives its width, 0 where it is no terminal; `write`, a
-- function that puts text out; `clock`, seconds
function M.new(o)
  local self = setmetatable({
    total = o.total, label = o.label or "", unit = o.unit, columns = o.columns or M.columns,
    write = o.write or M.write, clock = o.clock or machine.clock, done = o.done or 0, utf8 = o.utf8,
  }, Progress)
  if self.utf8 == nil then self.utf8 = speaks_utf8() end
  self.start, self.first = self.clock(), self.done
  -- A bar is there at once; a plain line has something to say first.
  self.drawn_at = self.columns() > 0 and -math.huge or self.start
  self.units, self.shown = 0, false
  self.next_line = self:line_after(self.done)
  return self
end

--- The count at which the next plain line is due.
function Progress:line_after(done)
  local each = math.max(1, math.ceil(self.total / PLAIN_LINES))
  return math.min(self.total, (math.floor(done / each) + 1) * each)
end

--- The parts of the line, most important first.
function Progress:parts()
  local seconds = self.clock() - self.start - (self.paused or 0)
  local parts = {}
  if self.loss then parts[#parts + 1] = ("loss %.4f"):format(self.loss) end
  if self.unit and seconds > 0 and self.units > 0 then
    parts[#parts + 1] = M.count_text(self.units / seconds) .. " " .. self.unit .. "/s"
  end
  local did = self.done - self.first
  if did > 0 and self.done < self.total then
    parts[#parts + 1] = M.time_text(seconds / did * (self.total - self.done)) .. " left"
  elseif self.done >= self.total then
    parts[#parts + 1] = M.time_text(seconds)
  end
  return parts
end

local function bar_text(part, cells, utf8)
  local full = math.floor(part * cells + 1e-9)
  if utf8 then return ("━"):rep(full) .. ("╌"):rep(cells - full) end
  return "[" .. ("#"):rep(full) .. ("."):rep(cells - full) .. "]"
end

--- The line at a width: the bar gives way first, then the parts, last first.
function Progress:line_text(columns)
  local count = ("%s/%s"):format(M.count_text(self.done), M.count_text(self.total))
  local part = self.total > 0 and math.min(1, self.done / self.total) or 1
  local head = ("%s %3d%%"):format(self.label, math.floor(part * 100))
  local parts = self:parts()
  table.insert(parts, 1, count)
  while true do
    local tail = table.concat(parts, "  ")
    local room = columns - #head - #tail - 3 - (self.utf8 and 0 or 2)
    if room >= 8 then
      -- Never wider than it was, so that it does not jump as the figures behind it change.
      if columns ~= self.last_columns then self.cells, self.last_columns = 40, columns end
      self.cells = math.min(self.cells, room)
      return head .. " " .. bar_text(part, self.cells, self.utf8) .. "  " .. tail
    end
    if #head + 2 + #tail <= columns or #parts == 0 then
      return (head .. "  " .. tail):sub(1, columns)
    end
    parts[#parts] = nil
  end
end

function Progress:draw()
  local columns = self.columns()
  if columns == 0 then return end
  -- One write: the text, then the rest of the row cleared. Clearing first would flicker. The last
  -- column stays free, since some terminals wrap as soon as it is filled.
  self.write("\r" .. self:line_text(columns - 1) .. "\27[K")
  self.drawn_at, self.shown = self.clock(), true
end

--- Tell how far the loop is.
-- @tparam number done
-- @tparam[opt] table news `loss`, and `units` done since the last call
function Progress:update(done, news)
  self.done = done
  if news then
    self.loss = news.loss or self.loss
    self.units = self.units + (news.units or 0)
  end
  if self.columns() > 0 then
    if done >= self.total or self.clock() - self.drawn_at >= REDRAW_SECONDS then self:draw() end
  elseif done >= self.total or (done >= self.next_line
      and self.clock() - self.drawn_at >= PLAIN_SECONDS) then
    self.next_line, self.drawn_at = self:line_after(done), self.clock()
    local parts = self:parts()
    table.insert(parts, 1, ("%s %s/%s"):format(self.label, M.count_text(done),
      M.count_text(self.total)))
    self.write(table.concat(parts, "  ") .. "\n")
  end
end

--- Print a line of text above the bar.
-- @tparam string text
function Progress:say(text)
  if self.shown then
    self.write("\r" .. text .. "\27[K\n")
    self:draw()
  else
    self.write(text .. "\n")
  end
end

--- Seconds that something else took, such as an evaluation in between, are not the loop's.
-- @tparam number seconds
function Progress:pause(seconds) self.paused = (self.paused or 0) + seconds end

--- Leave the bar as it stands and go to the next row; with `erase`, take it away.
-- @tparam[opt] boolean erase
function Progress:finish(erase)
  if not self.shown then return end
  if erase then
    self.write("\r\27[K")
  else
    self:draw()
    self.write("\n")
  end
  self.shown = false
end

return M
