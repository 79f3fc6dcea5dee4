--- Octet: train neural networks from Lua, with 8-bit optimizers.
-- Parts are loaded when first named, so that `require "octet"` stays a matter of milliseconds.
-- Functions of octet.machine and octet.scope are reached without their module's name:
-- octet.seed, octet.memory, octet.no_grad.
-- @module octet
local PARTS = {
  tensor = true, nn = true, optim = true, data = true, text = true, train = true, hub = true,
  plot = true, safetensors = true,
}
local FUNCTIONS_OF = {"octet.machine", "octet.scope"}

return setmetatable({}, {
  __index = function(octet, name)
    local value
    if PARTS[name] then
      value = require("octet." .. name)
    else
      for _, module in ipairs(FUNCTIONS_OF) do value = value or require(module)[name] end
    end
    rawset(octet, name, value)
    return value
  end,
})
