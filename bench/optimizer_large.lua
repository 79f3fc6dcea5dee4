--- One tensor of 2^31 + 1000 elements in bf16, stepped with 8-bit state: no index, size or offset
-- of random numbers may be kept in 32 bits.
--
--     luajit bench/optimizer_large.lua [--elements 2147484648] [--steps 2]
--
-- It takes 6 bytes an element (parameter, gradient, state), some 12.1 GiB, and a C compiler, for
-- bench/bf16_gradient.c. Parameter and gradient repeat a pattern. Before each step, windows at both
-- ends and around the powers of two are copied into small tensors, values and state, which are
-- stepped with the random numbers of their place; afterwards every bit must be the same. The last
-- gradient is not a number: one element is left out, and only that one.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = ("%s/../lua/?.lua;%s/../lua/?/init.lua;"):format(here, here) .. package.path
local ffi = require "ffi"
local cli = require "octet.cli"

local PATTERN = 2 ^ 20 + 192                -- elements; no power of two, so that windows differ
local WINDOW = 4096
local BLOCK = 256                           -- of state; windows begin with one
local DRAW = 64                             -- elements that share 4 blocks of random numbers
local NAN = 0x7FC0

local octet                                 -- loaded once the options are right

local function compile()
  ffi.cdef [[
    void bf16_gradient_set(oct_tensor *parameter, oct_tensor *gradient);
    int memcmp(const void *a, const void *b, size_t n);
  ]]
  local library = os.tmpname()
  local command = ("cc -std=gnu11 -O1 -shared -fPIC -I '%s/..' -o '%s' '%s/bf16_gradient.c'")
    :format(here, library, here)
  assert(os.execute(command) == 0, "no C compiler: " .. command)
  local loaded = ffi.load(library)
  os.remove(library)
  return loaded
end

--- Bits of normal numbers of a deviation, rounded to bf16.
local function pattern_of(deviation)
  return octet.tensor.new({PATTERN}):normal_(0, deviation):to "bf16":keep()
end

local function repeated(pattern, elements, purpose)
  local t = octet.tensor.new({elements}, "bf16", purpose)
  local from, to = pattern:data(), t:data()
  for at = 0, elements - 1, PATTERN do
    ffi.copy(to + at, from, 2 * math.min(PATTERN, elements - at))
  end
  return t
end

--- The parts of state and parameter that are compared, from element `first` on. Of the small
-- optimizer first is 0.
local function parts_of(w, opt, first)
  local tensors = opt:state().tensors
  return {
    w = w:data() + first, m = tensors["w.m"]:data() + first, v = tensors["w.v"]:data() + first,
    m_absmax = tensors["w.m.absmax"]:data() + first / BLOCK,
    v_absmax = tensors["w.v.absmax"]:data() + first / BLOCK,
  }
end

local BYTES = {w = 2, m = 1, v = 1, m_absmax = 4, v_absmax = 4}

local function bytes_of(part, count)
  return BYTES[part] * (part:find "absmax" and math.ceil(count / BLOCK) or count)
end

local function copy_parts(to, from, count)
  for part in pairs(BYTES) do ffi.copy(to[part], from[part], bytes_of(part, count)) end
end

--- A window's own optimizer, twice: random numbers are drawn for the state from the offset on, and
-- for the parameter behind all that the state draws, which is further on in the large tensor. One
-- twin stands where the state's are, the other where the parameter's are.
local function small_of(library, large, first, count)
  local small = {first = first, count = count, twins = {}}
  for i = 1, 2 do
    local w = octet.tensor.new({count}, "bf16"):parameter_()
    local g = octet.tensor.new({count}, "bf16", "gradients")
    ffi.copy(g:data(), large.gradient:data() + first, 2 * count)
    library.bf16_gradient_set(w, g)
    small.twins[i] = {w = w, opt = octet.optim.adam8({{name = "w", tensor = w}},
      {min_8bit_size = 0, block_size = BLOCK})}
  end
  return small
end

local function set_offset(offset)
  local state = octet.random_state()
  state.optimizer = offset
  octet.set_random_state(state)
end

local function draws(elements) return 4 * math.ceil(elements / DRAW) end

--- Step the window's twins from the large tensor's state of before, at its offset.
local function step_small(small, large, offset)
  local left_out
  for i, twin in ipairs(small.twins) do
    copy_parts(parts_of(twin.w, twin.opt, 0), parts_of(large.w, large.opt, small.first),
      small.count)
    local at = offset + draws(small.first)
    if i == 2 then at = at + draws(large.elements) - draws(small.count) end
    set_offset(at)
    left_out = twin.opt:step()
  end
  return left_out
end

local function compare(small, large, step)
  local whole = parts_of(large.w, large.opt, small.first)
  for part in pairs(BYTES) do
    local twin = small.twins[part == "w" and 2 or 1]
    local own, bytes = parts_of(twin.w, twin.opt, 0), bytes_of(part, small.count)
    if ffi.C.memcmp(own[part], whole[part], bytes) ~= 0 then
      error(("step %d: %s differs in the window from element %.0f on"):format(step, part,
        small.first), 0)
    end
  end
end

local function windows_of(elements)
  local firsts = {0}
  for power = 28, 31 do
    if 2 ^ power + WINDOW / 2 < elements then firsts[#firsts + 1] = 2 ^ power - WINDOW / 2 end
  end
  firsts[#firsts + 1] = math.floor(elements / 3 / BLOCK) * BLOCK
  firsts[#firsts + 1] = math.floor((elements - WINDOW / 2) / BLOCK) * BLOCK
  return firsts
end

local function run(o)
  octet = require "octet"
  require "octet.binding"
  local library = compile()
  octet.set_threads(o.threads)
  octet.seed(1)
  local large = {elements = o.elements}
  large.w = repeated(pattern_of(0.02), o.elements, "parameters"):parameter_()
  large.gradient = repeated(pattern_of(1e-3), o.elements, "gradients")
  large.gradient:data()[o.elements - 1] = NAN
  library.bf16_gradient_set(large.w, large.gradient)
  large.opt = octet.optim.adam8({{name = "w", tensor = large.w}}, {block_size = BLOCK})
  local smalls = {}
  for i, first in ipairs(windows_of(o.elements)) do
    smalls[i] = small_of(library, large, first, math.min(first + WINDOW, o.elements) - first)
  end
  local last = large.w:data()[o.elements - 1]
  for step = 1, o.steps do
    local offset, left_out_small = octet.random_state().optimizer, nil
    for _, small in ipairs(smalls) do left_out_small = step_small(small, large, offset) end
    set_offset(offset)
    local begun = octet.clock()
    local left_out = large.opt:step()
    local seconds = octet.clock() - begun
    assert(left_out == 1 and left_out_small == 1, "not the one element that is no number")
    assert(large.w:data()[o.elements - 1] == last, "the element that is left out has moved")
    for _, small in ipairs(smalls) do compare(small, large, step) end
    print(("step %d: %.0f elements in %.1f s; %d windows are the same, bit for bit; 1 left out")
      :format(step, o.elements, seconds, #smalls))
    io.flush()
  end
  local memory = octet.memory()
  print(("bytes: parameter %.0f, gradient %.0f, state %.0f"):format(memory.parameters.now,
    memory.gradients.now, memory.optimizer_state.now))
end

cli.main("optimizer_large", function()
  run(cli.parse(arg, {
    name = "optimizer_large", command = "luajit bench/optimizer_large.lua",
    about = "One tensor of more than 2^31 elements, stepped with 8-bit state.",
    options = {
      cli.integer("elements", {default = 2 ^ 31 + 1000, least = 2 ^ 14, most = 2 ^ 36}),
      cli.integer("steps", {default = 2, least = 1, most = 100}),
      cli.common.threads{default = 2},
    },
  }))
end)
