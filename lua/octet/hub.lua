--- Models in Hugging Face's layout: a folder with config.json, model.safetensors and vocab.txt or
-- tokenizer.json, found by name.
--
-- Looked for in this order: a folder of that name; Octet's cache ($XDG_CACHE_HOME/octet, else
-- ~/.cache/octet); the hub's own cache (HF_HUB_CACHE, HF_HOME/hub, ~/.cache/huggingface/hub); the
-- hub (HF_ENDPOINT, else https://huggingface.co), from which it is downloaded into Octet's cache,
-- whole or not at all. HF_HUB_OFFLINE=1 forbids that; HF_TOKEN is sent where it is set.
-- @module octet.hub
local ffi = require "ffi"
local file = require "octet.file"

ffi.cdef "int getpid(void); int kill(int pid, int signal);"

local M = {}

--- The model that recipes use where none is named.
M.DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"

local NEEDED = {"config.json", "model.safetensors"}
local TOKENIZERS = {"vocab.txt", "tokenizer.json"}

--- Files known by their SHA-256: whatever server they come from, they are these or none.
M.SHA256 = {
  [M.DEFAULT] = {
    ["config.json"] = "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    ["model.safetensors"] = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ["vocab.txt"] = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
  },
}

-- ---- places ------------------------------------------------------------------------------------

local function environment(name)
  local value = os.getenv(name)
  return value ~= "" and value or nil
end

--- Octet's cache folder; it need not exist.
-- @treturn string
function M.cache()
  local base = environment "XDG_CACHE_HOME"
  -- The XDG specification: a path that is not absolute is to be ignored.
  if base and base:sub(1, 1) == "/" then return base .. "/octet" end
  local home = environment "HOME"
  if not home then error("hub: neither HOME nor XDG_CACHE_HOME is set", 0) end
  return home .. "/.cache/octet"
end

local function hub_cache()
  local named = environment "HF_HUB_CACHE" or environment "HUGGINGFACE_HUB_CACHE"
  if named then return named end
  local home = environment "HF_HOME"
  if home then return home .. "/hub" end
  return (M.cache():gsub("octet$", "huggingface/hub"))
end

--- What a model's folder lacks; nil where it lacks nothing.
local function lacks(folder)
  for _, name in ipairs(NEEDED) do
    if not file.is_file(folder .. "/" .. name) then return name end
  end
  for _, name in ipairs(TOKENIZERS) do
    if file.is_file(folder .. "/" .. name) then return nil end
  end
  return table.concat(TOKENIZERS, " or ")
end

--- ORG/NAME or NAME, nothing that could lead out of a cache folder.
local function is_hub_name(name)
  local rest = name:gsub("^[%w_][%w._-]*/", "", 1)
  return rest:find "^[%w_][%w._-]*$" ~= nil and not name:find("..", 1, true)
end

local function in_octet_cache(name)
  return M.cache() .. "/models/" .. name
end

--- The snapshot that the hub's own cache holds of a model's main branch; else where that would
-- be.
local function in_hub_cache(name)
  local place = hub_cache() .. "/models--" .. name:gsub("/", "--")
  local reference = place .. "/refs/main"
  if not file.is_file(reference) then return place end
  local revision = file.read(reference, 1000):match "^%s*(%x+)%s*$"
  return revision and place .. "/snapshots/" .. revision or place
end

-- ---- download ----------------------------------------------------------------------------------

local YES = {["1"] = true, ON = true, YES = true, TRUE = true}

local function is_offline()
  return YES[(os.getenv "HF_HUB_OFFLINE" or ""):upper()] or false
end

local function endpoint()
  return ((environment "HF_ENDPOINT" or "https://huggingface.co"):gsub("/+$", ""))
end

--- Fetch one of a model's files. @treturn headers, or nil, why, HTTP status
local function fetch_file(name, revision, file_name, folder, options)
  local token = environment "HF_TOKEN"
  return require("octet.download").try(
    ("%s/%s/resolve/%s/%s"):format(endpoint(), name, revision, file_name), {
      path = folder .. "/" .. file_name, sha256 = (M.SHA256[name] or {})[file_name],
      headers = token and {"Authorization: Bearer " .. token}, quiet = options.quiet,
      connect_seconds = options.connect_seconds,
    })
end

--- Fetch all of a model's files into a folder. @treturn ?string why it failed
local function fetch_all(name, folder, options)
  -- The first answer names the commit; the others are asked for from that same commit.
  local headers, why = fetch_file(name, "main", "config.json", folder, options)
  if not headers then return why end
  local revision = (headers["x-repo-commit"] or ""):match "^%x+$" or "main"
  headers, why = fetch_file(name, revision, "model.safetensors", folder, options)
  if not headers then return why end
  for _, tokenizer in ipairs(TOKENIZERS) do
    local status
    headers, why, status = fetch_file(name, revision, tokenizer, folder, options)
    if headers then return nil end
    if status ~= 404 then return why end
  end
  return why
end

--- Remove what downloads of this model left that were killed.
local function remove_leftovers(folder)
  local parent, name = folder:match "^(.*)/([^/]*)$"
  if not file.is_folder(parent) then return end
  for _, entry in ipairs(file.list(parent)) do
    local of, pid = entry:match "^(.*)%.partial%-(%d+)$"
    if of == name and ffi.C.kill(tonumber(pid), 0) ~= 0 then
      file.remove_folder(parent .. "/" .. entry)
    end
  end
end

--- A folder of that name is one that was found incomplete, or another process was faster.
local function publish(partial, folder)
  if lacks(folder) then file.remove_folder(folder) end
  if not file.is_folder(folder) then file.rename(partial, folder) end
end

--- Put a model's folder into Octet's cache, whole or not at all.
-- @tparam string name the model's
-- @tparam function fill called with a new folder; returns why it failed, or nil
-- @treturn ?string the folder in the cache; nil where `fill` failed
-- @treturn ?string why
function M.install(name, fill)
  local folder = in_octet_cache(name)
  local partial = ("%s.partial-%d"):format(folder, ffi.C.getpid())
  remove_leftovers(folder)
  file.make_folder(partial)
  local _, why = pcall(function()
    local failure = fill(partial)
    if not failure then publish(partial, folder) end
    return failure
  end)
  file.remove_folder(partial)
  if why then return nil, why end
  return folder
end

--- Download a model into Octet's cache.
-- @tparam string name
-- @tparam[opt] table options quiet, connect_seconds
-- @treturn ?string the folder
-- @treturn ?string why it failed
function M.download_model(name, options)
  return M.install(name, function(folder) return fetch_all(name, folder, options or {}) end)
end

--- Download a URL into a file: octet.download's fetch.
function M.download(url, options)
  return require("octet.download").fetch(url, options)
end

-- ---- finding -----------------------------------------------------------------------------------

--- Find a model without the network.
-- @tparam string name a folder or a hub name
-- @treturn ?string its folder
-- @treturn {string,...} where it was looked for, and what was wrong there
function M.find(name)
  local tried = {}
  if file.is_folder(name) then
    local missing = lacks(name)
    if not missing then return name, tried end
    -- A folder that was named is not passed over for something of that name elsewhere.
    error(("model %s: the folder has no %s"):format(name, missing), 0)
  end
  tried[1] = "no folder of that name"
  if not is_hub_name(name) then return nil, tried end
  for _, look in ipairs {in_octet_cache, in_hub_cache} do
    -- Where the environment names no home there may still be the hub's cache, of another variable.
    local known, folder = pcall(look, name)
    local missing = known and lacks(folder)
    if known and not missing then return folder, tried end
    tried[#tried + 1] = not known and folder
      or file.is_folder(folder) and ("%s has no %s"):format(folder, missing) or "no " .. folder
  end
  return nil, tried
end

--- A model's folder: found, or else downloaded.
-- @tparam[opt] string name a folder or a hub name; M.DEFAULT where it is left out
-- @tparam[opt] table options quiet, connect_seconds
-- @treturn string the folder, which holds config.json, model.safetensors and vocab.txt or
-- tokenizer.json
function M.model(name, options)
  name = name or M.DEFAULT
  local folder, tried = M.find(name)
  if folder then return folder end
  if not is_hub_name(name) then
    tried[#tried + 1] = "no name of the hub either (ORGANISATION/NAME)"
  elseif is_offline() then
    tried[#tried + 1] = "HF_HUB_OFFLINE forbids the hub"
  else
    local why
    folder, why = M.download_model(name, options)
    if folder then return folder end
    tried[#tried + 1] = why
  end
  local advice = name == M.DEFAULT and "; ./setup fetches it by another way, too"
    or "; name a folder with config.json, model.safetensors and vocab.txt"
  error(("model %s was not found: %s%s"):format(name, table.concat(tried, "; "), advice), 0)
end

return M
