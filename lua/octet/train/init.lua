--- Training: the loop, its metrics, its progress, the folder it leaves behind.
-- @module octet.train
local PARTS = {
  checkpoint = true, command = true, evaluate = true, group = true, metrics = true,
  model_folder = true, parallel = true, progress = true, result = true, run_folder = true,
  signals = true, tensorboard = true,
}

return setmetatable({}, {
  __index = function(train, name)
    local value
    if name == "fit" then
      value = require("octet.train.fit").fit
    elseif PARTS[name] then
      value = require("octet.train." .. name)
    end
    rawset(train, name, value)
    return value
  end,
})
