--- Neural networks: modules, layers, functions.
-- @module octet.nn
local M = {module = require("octet.nn.module").class}

for _, part in ipairs {"octet.nn.layers", "octet.nn.recurrent", "octet.nn.functional"} do
  for name, value in pairs(require(part)) do M[name] = value end
end

return M
