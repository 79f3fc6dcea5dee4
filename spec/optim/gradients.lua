--- Parameters with gradients of the spec's choosing, and numbers that any language draws alike.
local ffi = require "ffi"
local tensor = require "octet.tensor"

local M = {}

--- Numbers in (-0.5, 0.5): Park and Miller's generator, exact in double precision.
function M.draws(seed)
  local x = seed
  return function()
    x = x * 16807 % 2147483647
    return x / 2147483647 - 0.5
  end
end

--- A parameter; `values` is a table, or a function of the 1-based place.
function M.parameter(values, size)
  local list = values
  if type(values) == "function" then
    list = {}
    for i = 1, size do list[i] = values(i) end
  end
  return tensor.from(list):parameter_()
end

--- Let the gradient of w, f32 or bf16, be exactly `g`, a tensor or a table.
function M.set(w, g)
  if type(g) == "table" then g = tensor.from(g, w:shape()) end
  w:zero_grad()
  local loss = (w:dtype() == "f32" and w * g or w:to "f32" * g):sum()
  loss:backward()
end

--- Largest |a - b| / max(|b|, least).
function M.difference(a, b, least)
  local most = 0
  for i = 1, #b do
    local d = math.abs(a[i] - b[i]) / math.max(math.abs(b[i]), least)
    if d ~= d then return math.huge end
    most = math.max(most, d)
  end
  return most
end

--- The bytes of a tensor, as a text.
function M.bytes(t)
  local each = ({f32 = 4, i32 = 4, u8 = 1, bf16 = 2})[t:dtype()]
  t = t:to "cpu"
  return ffi.string(ffi.cast("const char *", t:data()), t:size() * each)
end

--- The bytes of an optimizer's whole state and of its parameters, by name.
function M.everything(opt, parameters)
  local all = {}
  for name, t in pairs(opt:state().tensors) do all[name] = M.bytes(t) end
  for i, w in ipairs(parameters) do all["parameter " .. i] = M.bytes(w) end
  return all
end

return M
