local plot = require "octet.plot"

local function svg(series)
  return plot.svg {title = "t", panels = {{x = "step", y = "loss", series = series}}}
end

describe("a plot", function()
  it("has ticks at round numbers", function()
    assert.same({0, 500, 1000, 1500, 2000, step = 500}, plot.ticks(0, 2105, 5))
    assert.same({-1, 0, 1, step = 1}, plot.ticks(-1.4, 1.2, 4))
    for _, range in ipairs {{3, 3}, {1, 1 + 2^-52}, {0, 0}, {-1e-300, 1e-300}, {1e300, 1.1e300}} do
      local count = #plot.ticks(range[1], range[2], 5)
      assert.is_true(count >= 2 and count <= 12)
    end
  end)

  it("names its series and axes, and is well-formed whatever the names are", function()
    local text = svg {{name = "a<b & \"c\"\1", x = {1, 2}, y = {1, 2}}}
    assert.matches("a&lt;b &amp; &quot;c&quot;?</text>", text, 1, true)
    assert.matches(">step</text>", text, 1, true)
    assert.matches("^<svg .*</svg>\n$", text)
  end)

  it("draws one point, equal points, none, and leaves out what is no number", function()
    assert.matches("<circle", svg {{x = {1}, y = {0.5}}})
    assert.matches("<polyline", svg {{x = {1, 2}, y = {0.5, 0.5}}})
    assert.is_nil(svg({{x = {}, y = {}}}):find "polyline")
    local text = svg {{x = {1, 2, 3}, y = {1, 0 / 0, 1 / 0}}}
    assert.is_nil(text:lower():find "nan")
    assert.is_nil(text:find "inf")
  end)

  it("stays small however many points there are, and keeps the extremes", function()
    local x, y = {}, {}
    for i = 1, 100000 do x[i], y[i] = i, i == 51234 and 9 or i % 7 / 7 end
    local text = svg {{x = x, y = y}}
    assert.is_true(#text < 40000)
    local highest = math.huge
    for point in text:match('points="(.-)"'):gmatch ",([%d.]+)" do
      highest = math.min(highest, tonumber(point))
    end
    assert.is_true(highest < 80)
  end)

  it("smooths without a pull towards its first value", function()
    for _, v in ipairs(plot.smooth({2, 2, 2, 2}, 0.9)) do assert.near(2, v, 1e-12) end
    assert.near(1, plot.smooth({0, 1, 1, 1, 1, 1, 1, 1}, 0.1)[8], 1e-6)
  end)

  it("has logarithmic axes: ticks at powers of ten, equal ratios are equal distances", function()
    assert.same({0.01, 1, 100}, plot.log_ticks(0.005, 200, 2))
    assert.same({1, 2, 5, 10}, plot.log_ticks(0.7, 12, 5))
    local series = {{name = "a", x = {1, 10, 100, 1000}, y = {1, 10, 0, 1000}}}
    local text = plot.svg {title = "t", x_log = true,
      panels = {{x = "size", y = "error", y_log = true, series = series}}}
    local points = {}
    for x, y in text:match('polyline points="([^"]+)"'):gmatch "([%d.]+),([%d.]+)" do
      points[#points + 1] = {tonumber(x), tonumber(y)}
    end
    assert.equal(3, #points)                -- 0 has no place
    assert.near(2 * (points[2][1] - points[1][1]), points[3][1] - points[2][1], 0.2)
    assert.near(2 * (points[2][2] - points[1][2]), points[3][2] - points[2][2], 0.2)
    for _, label in ipairs {">1<", ">10<", ">100<", ">1000<"} do
      assert.is_truthy(text:find(label, 1, true))
    end
  end)

  it("of nothing but what a logarithmic axis cannot show is still a plot", function()
    local text = plot.svg {title = "t", x_log = true, panels = {{x = "x", y = "y", y_log = true,
      series = {{name = "a", x = {0, -1}, y = {-2, 0}}}}}}
    assert.is_nil(text:find("nan", 1, true))
    assert.is_nil(text:find("inf", 1, true))
  end)
end)
