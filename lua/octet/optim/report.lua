--- What an optimizer's state holds: bytes, codes, and what was lost.
-- @module octet.optim.report
local ffi = require "ffi"
local binding = require "octet.binding"
local format_of = require "octet.optim.format"
local state = require "octet.optim.state"

local C, check = binding.C, binding.check

local M = {}

local BYTES = {f32 = 4, u8 = 1}

local sums = ffi.new "double[6]"
local zeros_out, saturated_out = ffi.new "int64_t[1]", ffi.new "int64_t[1]"

local function state_report(self, index, p, kind)
  check(C.oct_optim_code_counts(zeros_out, saturated_out, self.handle, index - 1, kind.place))
  local of = {
    name = kind.name, zeros = tonumber(zeros_out[0]) / p.elements,
    saturated = tonumber(saturated_out[0]) / p.elements,
  }
  if self.watched then
    check(C.oct_optim_error_sums(sums, self.handle, index - 1, kind.place))
    local not_zero = math.max(1, sums[4])
    of.absolute_error, of.relative_error = sums[0] / p.elements, sums[1] / not_zero
    of.lost = sums[3] / not_zero
  end
  return of
end

-- What is there whatever the bits of the states: adafactor's factors, further bits of bf16.
local EXTRAS = {row = true, column = true, correction = true}

-- Of a parameter; and the bytes that 32-bit state would take.
local function parameter_report(self, index, p)
  local of, whole = {name = p.name, elements = p.elements, bits = p.bits, bytes = 0, states = {},
    format = format_of.text(p.bits, p.format)}, 0
  for name, t in pairs(state.tensors_of(self, index)) do
    local bytes = t:size() * BYTES[t:dtype()]
    of.bytes = of.bytes + bytes
    if EXTRAS[name] then whole = whole + bytes end
  end
  for _, kind in ipairs(state.kinds_of(self, index)) do
    whole = whole + 4 * p.elements
    if p.bits ~= 32 then of.states[#of.states + 1] = state_report(self, index, p, kind) end
  end
  return of, whole
end

--- A report, as Optimizer:report gives it.
-- @tparam Optimizer self
-- @treturn table
function M.of(self)
  local all = {bytes = 0, bytes_32 = 0, bytes_8 = 0, bytes_4 = 0, elements = 0, elements_8 = 0,
    elements_4 = 0, bytes_if_32 = 0, kept_32 = {}, parameters = {}}
  for index, p in ipairs(self.parameters) do
    local of, whole = parameter_report(self, index, p)
    all.parameters[index] = of
    all.bytes, all.elements = all.bytes + of.bytes, all.elements + p.elements
    all["bytes_" .. p.bits] = all["bytes_" .. p.bits] + of.bytes
    all.bytes_if_32 = all.bytes_if_32 + whole
    if p.bits ~= 32 then
      all["elements_" .. p.bits] = all["elements_" .. p.bits] + p.elements
    elseif p.why then
      all.kept_32[#all.kept_32 + 1] = {name = p.name, elements = p.elements, why = p.why}
    end
  end
  return all
end

return M
