--- Where data sets are looked for: the folder given, OCTET_DATA, the cache.
-- @module octet.data.places
local file = require "octet.file"

local M = {}

--- The cache's folder; nil where the environment names no home.
-- @treturn ?string
function M.cache()
  local ok, cache = pcall(function() return require("octet.hub").cache() end)
  return ok and cache or nil
end

--- The first folder that holds all of the files.
-- @tparam ?string given what --data says
-- @tparam {string,...} names of the folder, as below one of the places; "" is the place itself
-- @tparam {string,...} files that must be there
-- @tparam[opt] boolean alone look nowhere else where a folder is given
-- @treturn ?string the folder, nil where there is none
-- @treturn {string,...} the places that were looked in
function M.find(given, names, files, alone)
  if given and not file.is_folder(given) then
    error(("--data: there is no folder %s"):format(given), 0)
  end
  local cache = M.cache()
  local roots, all_roots = {}, {given or false, os.getenv "OCTET_DATA" or false, cache or false,
    cache and cache .. "/data" or false}
  for _, root in ipairs(given and alone and {given} or all_roots) do
    if root and root ~= "" then roots[#roots + 1] = (root:gsub("(.)/+$", "%1")) end
  end
  for _, root in ipairs(roots) do
    for _, name in ipairs(names) do
      local folder = name == "" and root or root .. "/" .. name
      local all = true
      for _, wanted in ipairs(files) do all = all and file.is_file(folder .. "/" .. wanted) end
      if all then return folder, roots end
    end
  end
  return nil, roots
end

return M
