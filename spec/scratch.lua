-- Files and folders that last as long as a spec.
local file = require "octet.file"

local M = {}
local made = {}

--- A new folder holding files: {["SST-2/dev.tsv"] = text, ...}.
function M.folder(files)
  local name = os.tmpname()
  os.remove(name)
  file.make_folder(name)
  made[#made + 1] = name
  for path, text in pairs(files or {}) do
    local parent = path:match "^(.*)/"
    if parent then file.make_folder(name .. "/" .. parent) end
    file.save(name .. "/" .. path, text)
  end
  return name
end

--- A new file with this content; returns its path.
function M.file(text, name)
  name = name or "file"
  return M.folder {[name] = text} .. "/" .. name
end

--- Remove what was made.
function M.clean()
  for _, folder in ipairs(made) do file.remove_folder(folder) end
  made = {}
end

return M
