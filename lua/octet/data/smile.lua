--- The SMILE annotations (Wang et al., "SMILE: Twitter emotion classification using domain
-- adaptation", SAAIP 2016): tweets to British museums, and the emotion that annotators saw in each.
--
-- Looked for as smile/smile-annotations-final.csv without a header: id, text, label. Tweets without
-- a code and with two emotions at once are left out, which leaves 1,481 of 3,085; of each emotion
-- 15 % are held back.
-- @module octet.data.smile
local ffi = require "ffi"
local Dataset = require "octet.data.dataset"
local places = require "octet.data.places"
local split = require "octet.data.split"
local tables = require "octet.data.table"

local M = {}

M.FILE = "smile-annotations-final.csv"
M.TASK = {
  name = "smile", title = "SMILE emotions", classes = 6, metrics = {"weighted_f1", "accuracy"},
  label_names = {"happy", "not-relevant", "angry", "disgust", "sad", "surprise"},
}

-- Of tweets that annotators found nothing in.
local NO_CODE = "nocode"

local class_of = {}
for i, name in ipairs(M.TASK.label_names) do class_of[name] = i - 1 end

--- The class of each row, -1 where it is left out.
local function classes(rows)
  local labels = ffi.new("int32_t[?]", math.max(rows.rows, 1))
  for row = 1, rows.rows do
    local label, line = rows:cell(row, "label")
    -- Every part of a double label is checked, so that nothing passes for one by a slip.
    for part in (label .. "|"):gmatch "([^|]*)|" do
      if not class_of[part] and part ~= NO_CODE then
        error(("%s line %d: label \"%s\", expected one of %s, %s, or several with | between")
          :format(rows.path, line, label:sub(1, 64), table.concat(M.TASK.label_names, ", "),
          NO_CODE), 0)
      end
    end
    labels[row - 1] = class_of[label] or -1
  end
  return labels
end

--- Find, read and encode the tweets.
-- @tparam table _ the task
-- @tparam table options as for octet.data.load
-- @treturn table task, train, dev, folder
function M.load(_, options)
  local folder, looked = places.find(options.data, {"smile", ""}, {M.FILE})
  if not folder then
    error(("smile: %s was not found in %s; the annotations are at "
      .. "https://doi.org/10.6084/m9.figshare.3187909"):format(M.FILE, #looked > 0
      and table.concat(looked, ", ") or "any place (--data, OCTET_DATA, the cache)"), 0)
  end
  local rows = tables.read(folder .. "/" .. M.FILE, {format = "csv", header = false,
    columns = {text = 2, label = 3}})
  local labels = classes(rows)
  local encoding = options.tokenizer:encode_table(rows, "text", nil, options.max_length)
  local count = rows.rows
  rows:close()
  local set = {task = M.TASK, folder = folder}
  for side, half in pairs(split.stratified(labels, count, M.TASK.label_names, 0.15)) do
    set[side] = Dataset.new {encoding = encoding, labels = labels, classes = M.TASK.classes,
      selection = half.selection, rows = half.rows}
  end
  return set
end

return M
