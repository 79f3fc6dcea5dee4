--- The CPU kernels against their limits: copying the same bytes, or the products of oneDNN.
--
--     luajit bench/kernels.lua --threads 2 --tokens 432
--
-- Sizes are those of a BERT of 384 columns and 1,536 in its middle layers. A time is the least of
-- many runs, through the tensors of Lua, so with what a call costs. Of a backward pass the time is
-- that of forwards and backwards less that of forwards. Bytes are what a kernel has to read and
-- write, so a share above 100 % of a copy is possible where more is read than written.
local here = arg and arg[0] and arg[0]:match "^(.*)/[^/]*$" or "."
package.path = table.concat({here .. "/../lua/?.lua", here .. "/../lua/?/init.lua", package.path},
  ";")
local cli = require "octet.cli"

local WIDTH, MIDDLE, VOCABULARY = 384, 1536, 30522

local function least_seconds(octet, f)
  local least, first = math.huge, octet.clock()
  local runs = 0
  repeat
    local start = octet.clock()
    octet.scope(f)
    local stop = octet.clock()
    least, runs = math.min(least, stop - start), runs + 1
  until runs >= 5 and stop - first > 0.15
  return least
end

local function run(o)
  local octet = require "octet"
  local tensor, nn = octet.tensor, octet.nn
  local C = require("octet.binding").C
  if o.threads then octet.set_threads(o.threads) end
  octet.set_isa(o.isa)

  local function line(name, seconds, amount, limit, unit)
    if o.only and not name:find(o.only, 1, true) then return end
    if seconds <= 0 then return print(("%-52s lost in noise"):format(name)) end
    io.write(("%-52s %9.1f us %8.1f %-7s %5.0f %%\n"):format(name, seconds * 1e6,
      amount / seconds / 1e9, unit, amount / seconds / limit * 100))
    io.flush()
  end
  local function time(f) return least_seconds(octet, f) end
  local function random(...) return tensor.new({...}):normal_(0, 0.5) end

  -- The limits.
  local tokens = o.tokens
  local from, to = random(tokens, MIDDLE), tensor.new {tokens, MIDDLE}
  local bytes = tokens * MIDDLE * 4
  local copy = 2 * bytes / time(function() to:copy_(from) end)
  local square = random(1536, 1536)
  local peak = 2 * 1536 ^ 3 / time(function() square:matmul(square) end)
  io.write(("%s, %d threads, %d tokens. A copy of %.1f MB: %.1f GB/s. A product of oneDNN: %.0f"
    .. " GFLOP/s.\n"):format(octet.isa(), octet.threads(), tokens, bytes / 1e6, copy / 1e9,
    peak / 1e9))

  --- An op of some parameters: forwards, then backwards. `reads`, `writes`: in bytes, of each.
  local function pair(name, inputs, f, forward, backward, limit, unit)
    local function both()
      local y = f(unpack(inputs))
      local loss = y:sum()
      loss:backward()
      for _, x in ipairs(inputs) do
        if x:requires_grad() then x:zero_grad() end
      end
    end
    local function alone() octet.no_grad(f, unpack(inputs)) end
    if o.only and not name:find(o.only, 1, true) then return end
    local forward_time = time(alone)
    line(name, forward_time, forward, limit or copy, unit or "GB/s")
    if backward then
      -- What the sum in front of it costs is in the same measurement of a reshaped input.
      local y = octet.no_grad(f, unpack(inputs)):keep():parameter_()
      local plain = time(function()
        y:sum():backward()
        y:zero_grad()
      end)
      line(name .. ", backwards", time(both) - forward_time - plain, backward,
        limit or copy, unit or "GB/s")
    end
  end

  local middle = random(tokens, MIDDLE):parameter_()
  for _, name in ipairs {"gelu", "tanh", "sigmoid", "relu"} do
    pair(name .. " of [tokens x 1536]", {middle}, function(x) return x[name](x) end, 2 * bytes,
      3 * bytes)
  end
  for _, name in ipairs {"exp", "log"} do
    pair(name .. " of [tokens x 1536]", {middle}, function(x) return x[name](x) end, 2 * bytes)
  end
  local row = random(MIDDLE):parameter_()
  pair("sum of two [tokens x 1536]", {middle, from}, function(a, b) return a + b end, 3 * bytes)
  pair("sum with a row", {middle, row}, function(a, b) return a + b end, 2 * bytes)
  pair("dropout of [tokens x 1536]", {middle}, function(x) return nn.dropout(x, 0.1) end,
    2 * bytes, 2 * bytes)
  pair("sum along rows", {middle}, function(x) return x:sum(2) end, bytes, bytes)
  pair("sum down columns", {middle}, function(x) return x:sum(1) end, bytes, bytes)
  pair("largest along rows", {middle}, function(x) return x:max(2) end, bytes)
  pair("softmax of [tokens x 1536]", {middle}, function(x) return x:softmax() end, 2 * bytes,
    3 * bytes)
  line("normal numbers", time(function() to:normal_() end), bytes, copy, "GB/s")

  local narrow, narrow_bytes = random(tokens, WIDTH):parameter_(), tokens * WIDTH * 4
  local gain, shift = random(WIDTH):parameter_(), random(WIDTH):parameter_()
  pair("layer norm of [tokens x 384]", {narrow, gain, shift}, function(x, g, s)
    tensor.call(C.oct_layer_norm, tensor.out, x, g, s, 1e-12)
    return tensor.take()
  end, 2 * narrow_bytes, 3 * narrow_bytes)
  local words = random(VOCABULARY, WIDTH)
  local ids = tensor.new({tokens}, "i32")
  for i = 0, tokens - 1 do ids:data()[i] = i * 7919 % VOCABULARY end
  pair("embedding of [30522 x 384]", {words}, function(t) return nn.embedding(t, ids) end,
    2 * narrow_bytes)

  for _, case in ipairs {{13, 12, 0}, {13, 12, 0.1}, {32, 12, 0}, {64, 12, 0}, {128, 12, 0},
    {128, 12, 0.1}, {128, 6, 0}, {512, 12, 0}} do
    local length, heads, p = unpack(case)
    local sequences = math.max(math.floor(tokens / length), 2)
    local offsets = tensor.new({sequences + 1}, "i32")
    for i = 0, sequences do offsets:data()[i] = i * length end
    local qkv = random(sequences * length, 3 * WIDTH):parameter_()
    local work = 4 * sequences * length ^ 2 * WIDTH
    pair(("attention, %d of %d tokens, %d heads, p %g"):format(sequences, length, heads, p), {qkv},
      function(x) return nn.attention(x, offsets, heads, {dropout = p}) end, work, 2.5 * work, peak,
      "GFLOP/s")
  end
end

cli.main("kernels", function()
  run(cli.parse(arg, {
    name = "kernels", command = "luajit bench/kernels.lua",
    about = "The CPU kernels against their limits.",
    options = {
      cli.common.threads(), cli.choice("isa", {"auto", "avx2", "avx512"}, {default = "auto"}),
      cli.integer("tokens", {default = 432, least = 1, most = 65536, help = "tokens in a batch"}),
      cli.text("only", {what = "text", help = "only what has this text in its name"}),
    },
  }))
end)
