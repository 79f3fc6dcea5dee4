local octet = require "octet"
local check = require "spec.ops.check"
local philox = require "spec.ops.philox"

local tensor, nn = octet.tensor, octet.nn

local function sigmoid(x) return 1 / (1 + math.exp(-x)) end

--- One direction of one layer, token by token in double precision: x a list of rows; weights, h and
-- c flat; biases may be nil. Returns rows of h, and the last h and c.
local function walk(cell, x, w_ih, w_hh, b_ih, b_hh, h, c, hidden, reverse, round)
  local rows, inputs = {}, #x[1]
  local first, last, step = 1, #x, 1
  if reverse then first, last, step = #x, 1, -1 end
  for t = first, last, step do
    local from_x, from_h, next_h, next_c = {}, {}, {}, {}
    for row = 1, #w_hh / hidden do
      local sum = b_ih and b_ih[row] or 0
      for i = 1, inputs do
        sum = sum + round(x[t][i]) * round(w_ih[(row - 1) * inputs + i])
      end
      from_x[row], sum = sum, b_hh and b_hh[row] or 0
      for i = 1, hidden do sum = sum + round(h[i]) * round(w_hh[(row - 1) * hidden + i]) end
      from_h[row] = sum
    end
    for u = 1, hidden do
      local function gate(k) return from_x[k * hidden + u] + from_h[k * hidden + u] end
      if cell == "LSTM" then
        next_c[u] = sigmoid(gate(1)) * c[u] + sigmoid(gate(0)) * math.tanh(gate(2))
        next_h[u] = sigmoid(gate(3)) * math.tanh(next_c[u])
      else
        local r, z, place = sigmoid(gate(0)), sigmoid(gate(1)), 2 * hidden + u
        local n = math.tanh(from_x[place] + r * from_h[place])
        next_h[u] = (1 - z) * n + z * h[u]
      end
    end
    h, c, rows[t] = next_h, next_c, next_h
  end
  return rows, h, c
end

local function part_of(values, number, size)
  local part = {}
  for i = 1, size do part[i] = values and values[(number - 1) * size + i] or 0 end
  return part
end

local function append(list, values)
  for i = 1, #values do list[#list + 1] = values[i] end
end

--- y, h_n and, for an LSTM, c_n, one behind the other. The arguments: x, h_0, c_0 (an LSTM's), and
-- the weights in the order of the layer's parameters.
local function formula(o)
  local round = o.round or function(x) return x end
  return function(x, h_0, ...)
    local arguments, c_0 = {...}, nil
    if o.cell == "LSTM" then c_0 = table.remove(arguments, 1) end
    local sequences, tokens, width = {}, 0, o.inputs
    for s, length in ipairs(o.lengths) do
      sequences[s] = {}
      for t = 1, length do
        tokens = tokens + 1
        sequences[s][t] = part_of(x, tokens, width)
      end
    end
    local h_n, c_n, at = {}, {}, 0
    for layer = 1, o.layers do
      local outputs = {}
      for d = 1, o.directions do
        local w = {}
        for i = 1, o.bias == false and 2 or 4 do w[i] = arguments[at + i] end
        at = at + #w
        for s, rows in ipairs(sequences) do
          local number = ((layer - 1) * o.directions + d - 1) * #sequences + s
          local out, h, c = walk(o.cell, rows, w[1], w[2], w[3], w[4],
            part_of(h_0, number, o.hidden), part_of(c_0, number, o.hidden), o.hidden, d == 2, round)
          outputs[s] = outputs[s] or {}
          for t = 1, #rows do
            outputs[s][t] = outputs[s][t] or {}
            append(outputs[s][t], out[t])
          end
          append(h_n, h)
          append(c_n, c)
        end
      end
      sequences, width = outputs, o.directions * o.hidden
      if o.dropout and layer < o.layers then
        local token, stride = 0, math.ceil(width / 8) * 8
        for _, rows in ipairs(sequences) do
          for _, row in ipairs(rows) do
            for i = 1, width do
              local draw = philox.half_word(5, philox.DROPOUT, token * stride + i - 1)
              row[i] = draw < math.floor(o.dropout * 65536 + 0.5) and 0
                or row[i] / (1 - o.dropout)
            end
            token = token + 1
          end
        end
      end
    end
    local result = {}
    for _, rows in ipairs(sequences) do
      for _, row in ipairs(rows) do append(result, row) end
    end
    append(result, h_n)
    if o.cell == "LSTM" then append(result, c_n) end
    return result
  end
end

local function defaults(o)
  for key, value in pairs {cell = "LSTM", layers = 1, directions = 1, inputs = 3} do
    if o[key] == nil then o[key] = value end
  end
  return o
end

--- The layer, its parameters' names and what check.op wants to know of inputs.
local function build(o)
  local layer = nn[o.cell](o.inputs, o.hidden, {layers = o.layers, dropout = o.dropout,
    bidirectional = o.directions == 2, bias = o.bias})
  local tokens, states = 0, {o.layers * o.directions, #o.lengths, o.hidden}
  for _, length in ipairs(o.lengths) do tokens = tokens + length end
  local inputs = {{check.values(tokens * o.inputs, -1.5, 1.5, tokens), {tokens, o.inputs}}}
  for i = 1, o.cell == "LSTM" and 2 or 1 do
    inputs[#inputs + 1] = {check.values(states[1] * states[2] * states[3], -1, 1, i), states}
  end
  local parameters = layer:named_parameters()
  for i, p in ipairs(parameters) do
    inputs[#inputs + 1] = {check.values(p.tensor:size(), -0.7, 0.7, 10 + i), p.tensor:shape()}
  end
  return layer, parameters, inputs
end

--- Runs the layer with these weights: y, h_n, c_n in one row.
local function run(o, layer, parameters, x, h_0, ...)
  local weights = {...}
  local c_0 = o.cell == "LSTM" and table.remove(weights, 1) or nil
  for i, p in ipairs(parameters) do layer[p.name] = weights[i] end
  if o.dropout then octet.seed(5) end
  local y, _, state = layer(x, o.lengths, {h = h_0, c = c_0})
  local all = {y:reshape(-1), state.h:reshape(-1)}
  if state.c then all[3] = state.c:reshape(-1) end
  return tensor.cat(all)
end

local function case(o)
  defaults(o)
  local layer, parameters, inputs = build(o)
  check.op{inputs = inputs, formula = formula(o), probes = o.probes or 10, forward = 2e-6,
    backward = 2e-5, op = function(...) return run(o, layer, parameters, ...) end}
end

for _, cell in ipairs {"LSTM", "GRU"} do
  describe("a layer of " .. cell, function()
    it("is its formula, and its gradient the formula's, with states before and behind", function()
      case{cell = cell, hidden = 5, lengths = {3}}
      case{cell = cell, hidden = 1, inputs = 1, lengths = {1}}
      case{cell = cell, hidden = 17, lengths = {2, 2}}
      case{cell = cell, hidden = 40, lengths = {3}, probes = 6}
    end)

    it("is so for sequences of mixed length, of one token too", function()
      case{cell = cell, hidden = 5, lengths = {3, 1, 4, 4, 1}}
      case{cell = cell, hidden = 3, lengths = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 9, 1, 2, 3}}
    end)

    it("is so in both directions", function()
      case{cell = cell, hidden = 6, directions = 2, lengths = {2, 5, 1}}
    end)

    it("is so without biases", function()
      case{cell = cell, hidden = 4, directions = 2, bias = false, lengths = {3, 2}}
    end)

    it("is so one upon the other", function()
      case{cell = cell, hidden = 4, layers = 3, lengths = {3, 1}, probes = 5}
      case{cell = cell, hidden = 4, layers = 2, directions = 2, lengths = {1, 4}, probes = 5}
    end)

    it("is so with dropout between, with the mask's draws", function()
      case{cell = cell, hidden = 5, layers = 2, directions = 2, dropout = 0.4, lengths = {4, 2},
        probes = 5}
    end)

    -- Large enough for the threads to share: many sequences, two directions, one sequence.
    it("is so where the threads part the sequences", function()
      case{cell = cell, hidden = 20, lengths = {9, 2, 14, 14, 1, 5, 14, 12}, probes = 4}
    end)
    it("is so where each direction has a thread", function()
      case{cell = cell, hidden = 20, directions = 2, lengths = {9, 2, 14}, probes = 4}
    end)
    it("is so where the threads part the units", function()
      case{cell = cell, hidden = 40, lengths = {16}, probes = 4}
    end)
  end)

  describe("in bf16 a layer of " .. cell, function()
    local function round(x)
      return tensor.from({x}):to("bf16"):to("f32"):item()
    end
    local function in_bf16(f)
      if not octet.has_bf16() then pending "this processor does not multiply bf16" end
      check.everywhere(function(isa)
        octet.set_precision "bf16"
        local ok, message = pcall(f, isa)
        octet.set_precision "f32"
        if not ok then error(message, 0) end
      end)
    end

    it("multiplies rounded factors and sums in f32", function()
      local o = defaults{cell = cell, hidden = 9, directions = 2, lengths = {4, 2}, round = round}
      local layer, parameters, inputs = build(o)
      local flat, tensors = {}, {}
      for i, input in ipairs(inputs) do
        tensors[i] = tensor.from(input[1], input[2])
        flat[i] = tensors[i]:totable()
      end
      local expected = formula(o)(unpack(flat))
      in_bf16(function(isa)
        check.near(run(o, layer, parameters, unpack(tensors)):totable(), expected, 2e-6, isa)
      end)
    end)

    it("has gradients that are f32's but for rounding", function()
      local o = defaults{cell = cell, hidden = 18, directions = 2, layers = 2, lengths = {6, 2, 5}}
      local layer, parameters, inputs = build(o)
      local function gradients()
        local leaves, found = {}, {}
        for i, input in ipairs(inputs) do
          leaves[i] = tensor.from(input[1], input[2]):parameter_()
        end
        octet.scope(function() run(o, layer, parameters, unpack(leaves)):sum():backward() end)
        for i, leaf in ipairs(leaves) do found[i] = leaf:grad():totable() end
        return found
      end
      local expected = gradients()
      in_bf16(function(isa)
        for i, found in ipairs(gradients()) do
          local square, off = 0, 0
          for k, v in ipairs(expected[i]) do
            square, off = square + v * v, off + (found[k] - v) ^ 2
          end
          assert.is_true(off > 0 and off < 2e-4 * square,
            ("%s input %d: %g of %g"):format(isa, i, off, square))
        end
      end)
    end)
  end)
end
