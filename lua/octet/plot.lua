--- Line plots as SVG: panels one above the other, with axes at round numbers, a light grid and a
-- legend. Text only; nothing is drawn but what a browser or a document needs.
--
--     octet.plot.svg{title = "MRPC", panels = {
--       {x = "step", y = "loss", series = {
--         {name = "each step", x = steps, y = losses, faint = true},
--         {name = "smoothed", x = steps, y = octet.plot.smooth(losses, 0.95)}}},
--     }}
-- @module octet.plot
local M = {}

--- Okabe and Ito's colours, which also those who see few colours can tell apart.
M.COLOURS = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"}
local INK, SOFT, GRID = "#222222", "#666666", "#E6E6E6"
local WIDTH, PANEL_HEIGHT = 760, 280
local LEFT, RIGHT, TOP, BOTTOM = 72, 24, 34, 46
local TITLE_HEIGHT = 34
local CHARACTER = 6.7           -- mean width of a character at 12 pixels
-- More points than this along the axis cannot be told apart: each column keeps its extremes.
local COLUMNS = 600

--- Round numbers that cover a range.
-- @tparam number low
-- @tparam number high
-- @tparam number count about how many
-- @treturn table the ticks, and in field `step` their distance
function M.ticks(low, high, count)
  -- Numbers that differ by rounding alone would have no round number between them.
  if high - low <= 1e-9 * math.max(math.abs(low), math.abs(high)) then
    local half = math.max(math.abs(low) * 0.1, 1e-3)
    low, high = low - half, high + half
  end
  local rough = (high - low) / math.max(1, count)
  local magnitude = 10 ^ math.floor(math.log10(rough))
  local step = 10 * magnitude
  for _, factor in ipairs {1, 2, 2.5, 5} do
    if factor * magnitude >= rough * 0.999 then
      step = factor * magnitude
      break
    end
  end
  local ticks = {step = step}
  for i = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) do
    ticks[#ticks + 1] = i * step + 0          -- + 0: -0 becomes 0
  end
  return ticks
end

--- A tick's number, with as many decimals as its neighbours need.
local function tick_text(value, step)
  if value ~= 0 and (math.abs(value) >= 1e6 or step < 1e-5) then
    return (("%.3g"):format(value):gsub("e([+-])0+(%d)", "e%1%2"))
  end
  local decimals, scaled = 0, step
  while decimals < 6 and math.abs(scaled - math.floor(scaled + 0.5)) > 1e-6 do
    decimals, scaled = decimals + 1, scaled * 10
  end
  local text = ("%." .. decimals .. "f"):format(value)
  if decimals == 0 then
    local changed
    repeat
      text, changed = text:gsub("^(-?%d+)(%d%d%d)", "%1,%2")
    until changed == 0
  end
  return text
end

--- Ticks of a logarithmic axis: powers of ten, over a short range 2 and 5 times those, too.
-- @tparam number low above 0
-- @tparam number high
-- @tparam number count at most about how many
-- @treturn table the ticks
function M.log_ticks(low, high, count)
  local first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
  local step = math.max(1, math.ceil((last - first) / (count + 1)))
  local factors = 3 * (last - first) <= 2 * count and {1, 2, 5} or {1}
  local ticks = {}
  for exponent = math.ceil(first / step) * step, last, step do
    for _, factor in ipairs(factors) do
      local tick = factor * 10 ^ exponent
      if tick >= low * (1 - 1e-9) and tick <= high * (1 + 1e-9) then ticks[#ticks + 1] = tick end
    end
  end
  return ticks
end

--- Such a tick: in full where that is short.
local function log_tick_text(value)
  local exponent = math.floor(math.log10(value) + 1e-9)
  if math.abs(exponent) <= 3 then return ("%.4g"):format(value) end
  return ("%ge%d"):format(value / 10 ^ exponent, exponent)
end

local function escape(text)
  local out = tostring(text):gsub("[%z\1-\8\11\12\14-\31]", "?")
    :gsub("[&<>\"]", {["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;"})
  return out
end

--- Exponential moving average, without the pull of its first value.
-- @tparam table values
-- @tparam number keep how much of the past stays, 0 to 1
-- @treturn table
function M.smooth(values, keep)
  local out, mean, weight = {}, 0, 0
  for i, v in ipairs(values) do
    mean, weight = keep * mean + (1 - keep) * v, keep * weight + (1 - keep)
    out[i] = mean / weight
  end
  return out
end

local function finite(v) return v == v and v ~= math.huge and v ~= -math.huge end

--- An axis: from `low` to `high`, even in the numbers or in their logarithms.
local function axis_of(low, high, is_log)
  local function place(v) return is_log and math.log10(v) or v end
  local from, to = place(low), place(high)
  return {
    low = low, high = high,
    -- 0 at the lower end, 1 at the upper one; NaN for what cannot be drawn.
    share = function(v) return (place(v) - from) / (to - from) end,
    ticks = function(count)
      if is_log then return M.log_ticks(low, high, count), log_tick_text end
      local ticks = M.ticks(low, high, count)
      return ticks, function(v) return tick_text(v, ticks.step) end
    end,
  }
end

local function drawable(v, is_log) return finite(v) and (not is_log or v > 0) end

--- Smallest and largest of a field over all series, taking only points that can be drawn.
local function extent(series, axis, x_log, y_log)
  local low, high = math.huge, -math.huge
  for _, s in ipairs(series) do
    for i = 1, math.min(#s.x, #s.y) do
      if drawable(s.x[i], x_log) and drawable(s.y[i], y_log) then
        low, high = math.min(low, s[axis][i]), math.max(high, s[axis][i])
      end
    end
  end
  if low > high then return 0, 1 end
  return low, high
end

--- The range of a panel's y axis, with room around the lines.
local function y_range(panel, x_log)
  local low, high = extent(panel.series, "y", x_log, panel.y_log)
  if panel.y_log then
    low = math.max(low, high * 1e-30)          -- 0: there was nothing to draw
    local room = math.max((high / low) ^ 0.04, 1.05)
    return low / room, high * room
  end
  local room = (high - low) * 0.04
  if room <= 1e-9 * math.abs(high) then room = math.max(math.abs(high) * 0.05, 1e-3) end
  return low >= 0 and low < 0.35 * high and 0 or low - room, high + room
end

--- The points of a line in pixels; runs of points in one column become its lowest and highest.
local function polyline(s, to_x, to_y, width)
  local points, n = {}, math.min(#s.x, #s.y)
  local function put(i) points[#points + 1] = ("%.1f,%.1f"):format(to_x(s.x[i]), to_y(s.y[i])) end
  local thin = n > 2 * COLUMNS
  local column, low, high
  local function flush()
    if not low then return end
    put(math.min(low, high))
    if low ~= high then put(math.max(low, high)) end
    low, high = nil, nil
  end
  for i = 1, n do
    if finite(to_x(s.x[i])) and finite(to_y(s.y[i])) then
      if not thin then
        put(i)
      else
        local c = math.floor((to_x(s.x[i]) - LEFT) / width * COLUMNS)
        if c ~= column then
          flush()
          column = c
        end
        if not low or s.y[i] < s.y[low] then low = i end
        if not high or s.y[i] > s.y[high] then high = i end
      end
    end
  end
  flush()
  return points
end

local function draw_legend(out, series, top, colours)
  local x = LEFT
  for i, s in ipairs(series) do
    if s.name then
      out(('<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%s"%s/>')
        :format(x, top + 18, x + 18, top + 18, colours[i], s.faint and 1.5 or 2.5,
        s.faint and ' stroke-opacity="0.45"' or ""))
      out(('<text x="%.1f" y="%.1f" fill="%s">%s</text>')
        :format(x + 24, top + 22, INK, escape(s.name)))
      x = x + 24 + #s.name * CHARACTER + 22
    end
  end
end

local function draw_series(out, s, colour, to_x, to_y, width)
  local points = polyline(s, to_x, to_y, width)
  if #points == 0 then return end
  if #points > 1 then
    out(('<polyline points="%s" fill="none" stroke="%s" stroke-width="%s"'
      .. ' stroke-linejoin="round"%s/>'):format(table.concat(points, " "), colour,
      s.faint and 1 or 2, s.faint and ' stroke-opacity="0.35"' or ""))
  end
  if s.points or #points == 1 then
    for _, p in ipairs(points) do
      out(('<circle cx="%s" cy="%s" r="3.5" fill="%s" stroke="#FFFFFF"/>'):format(
        p:match("^[^,]+"), p:match("[^,]+$"), colour))
    end
  end
end

local function draw_panel(out, panel, top, x_axis, x_log)
  local series = panel.series
  local width, height = WIDTH - LEFT - RIGHT, PANEL_HEIGHT - TOP - BOTTOM
  local y_low, y_high = y_range(panel, x_log)
  local y_axis = axis_of(y_low, y_high, panel.y_log)
  local function to_x(x) return LEFT + x_axis.share(x) * width end
  local function to_y(y) return top + TOP + (1 - y_axis.share(y)) * height end

  local ticks, text_of = y_axis.ticks(5)
  for _, y in ipairs(ticks) do
    out(('<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="%s"/>'):format(
      LEFT, to_y(y), LEFT + width, to_y(y), GRID))
    out(('<text x="%d" y="%.1f" text-anchor="end" fill="%s">%s</text>'):format(
      LEFT - 8, to_y(y) + 4, SOFT, text_of(y)))
  end
  ticks, text_of = x_axis.ticks(8)
  local bottom = top + TOP + height
  for _, x in ipairs(ticks) do
    out(('<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s"/>'):format(
      to_x(x), bottom, to_x(x), bottom + 4, SOFT))
    out(('<text x="%.1f" y="%d" text-anchor="middle" fill="%s">%s</text>'):format(
      to_x(x), bottom + 18, SOFT, text_of(x)))
  end
  out(('<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="%s"/>'):format(
    LEFT, bottom, LEFT + width, bottom, SOFT))
  out(('<text x="%.1f" y="%d" text-anchor="middle" fill="%s">%s</text>'):format(
    LEFT + width / 2, bottom + 36, INK, escape(panel.x or "")))
  local middle = top + TOP + height / 2
  out(('<text x="18" y="%.1f" text-anchor="middle" fill="%s"'
    .. ' transform="rotate(-90 18 %.1f)">%s</text>')
    :format(middle, INK, middle, escape(panel.y or "")))

  local colours = {}
  for i, s in ipairs(series) do colours[i] = s.colour or M.COLOURS[(i - 1) % #M.COLOURS + 1] end
  for i, s in ipairs(series) do draw_series(out, s, colours[i], to_x, to_y, width) end
  draw_legend(out, series, top, colours)
end

--- The x axis of some series.
local function x_axis_of(series, x_log)
  local low, high = extent(series, "x", x_log)
  if x_log then
    low = low > 0 and low or high / 10
    if low == high then low, high = low / 10, high * 10 end
  elseif low == high then
    low, high = low - 0.5, high + 0.5
  elseif low > 0 and low < 0.1 * high then
    low = 0
  end
  return axis_of(low, high, x_log)
end

--- A plot as the text of an SVG file. All panels share the range of the x axis, unless each has its
-- own.
-- @tparam table plot title, x_log (the x axis is logarithmic), x_apart (each panel has its own
-- range), and panels: each with x and y (the axes' labels), y_log, and series, each of them
-- name (no name: it is not in the legend), x, y (arrays of numbers), and optionally faint, points
-- (mark them), colour. On a logarithmic axis what is not above 0 is not drawn.
-- @treturn string
function M.svg(plot)
  local lines = {}
  local function out(text) lines[#lines + 1] = text end
  local height = TITLE_HEIGHT + PANEL_HEIGHT * #plot.panels
  out(('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d"'
    .. ' font-family="Helvetica, Arial, sans-serif" font-size="12">')
    :format(WIDTH, height, WIDTH, height))
  out('<rect width="100%" height="100%" fill="#FFFFFF"/>')
  out(('<text x="%d" y="24" font-size="15" font-weight="bold" fill="%s">%s</text>'):format(
    LEFT, INK, escape(plot.title or "")))
  local all = {}
  for _, panel in ipairs(plot.panels) do
    for _, s in ipairs(panel.series) do all[#all + 1] = s end
  end
  local shared = not plot.x_apart and x_axis_of(all, plot.x_log)
  for i, panel in ipairs(plot.panels) do
    draw_panel(out, panel, TITLE_HEIGHT + (i - 1) * PANEL_HEIGHT,
      shared or x_axis_of(panel.series, plot.x_log), plot.x_log)
  end
  out("</svg>")
  return table.concat(lines, "\n") .. "\n"
end

return M
