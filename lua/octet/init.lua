--- Octet: train neural networks from Lua, with 8-bit optimizers.
-- Parts are loaded when first named, so that `require "octet"` stays a matter of milliseconds.
-- @module octet
local PARTS = {
  tensor = true, nn = true, optim = true, data = true, text = true, train = true, hub = true,
  plot = true, safetensors = true,
}

return setmetatable({}, {
  __index = function(octet, name)
    if not PARTS[name] then return nil end
    local part = require("octet." .. name)
    rawset(octet, name, part)
    return part
  end,
})
