--- The movie-review snippets that SST-2 was drawn from, each with the mean of human ratings from -4
-- to 4 (Hutto and Gilbert, "VADER", ICWSM 2014; MIT licence). Positive is above 0.
--
-- They come in the source package vaderSentiment 2.5 of the Python package index, file
-- additional_resources/hutto_ICWSM_2014.tar.gz; ./setup fetches it.
--
-- They have no split of their own. A snippet belongs to the development set where the SHA-256 of
-- its text, taken as a number, is a multiple of 10: the same ones everywhere, and two snippets of
-- the same text are on the same side.
-- @module octet.data.snippets
local ffi = require "ffi"
local file = require "octet.file"
local Dataset = require "octet.data.dataset"
local places = require "octet.data.places"
local tables = require "octet.data.table"

local M = {}

M.FILE = "movieReviewSnippets_GroundTruth.txt"
M.TASK = {
  name = "snippets", title = "movie-review snippets", classes = 2, metrics = {"accuracy"},
  label_names = {"negative", "positive"},
}

--- Does a text belong to the development set?
-- @tparam string text UTF-8
-- @treturn boolean
function M.is_dev(text)
  -- A number is divisible by 10 where its last digit is even and it is divisible by 5; and 16^k
  -- leaves 1 divided by 5, so that the sum of the hexadecimal digits tells the latter.
  local digest, sum = file.bytes_sha256(text), 0
  for digit in digest:gmatch "%x" do sum = sum + tonumber(digit, 16) end
  return sum % 5 == 0 and tonumber(digest:sub(-1), 16) % 2 == 0
end

--- Find, read and encode the snippets.
-- @tparam table _ the task
-- @tparam table options as for octet.data.load
-- @treturn table task, train, dev, folder
function M.load(_, options)
  local folder, looked = places.find(options.data, {"snippets", "hutto_ICWSM_2014", ""}, {M.FILE})
  if not folder then
    error(("snippets: %s was not found in %s; ./setup fetches it"):format(M.FILE,
      #looked > 0 and table.concat(looked, ", ") or "any place (--data, OCTET_DATA, the cache)"), 0)
  end
  local rows = tables.read(folder .. "/" .. M.FILE, {
    header = false, columns = {rating = 2, text = 3}, encoding = "windows-1252",
  })
  local ratings = rows:numbers("rating", -4, 4)
  local encoding = options.tokenizer:encode_table(rows, "text", nil, options.max_length)
  local labels = ffi.new("int32_t[?]", rows.rows)
  local sides = {train = ffi.new("int32_t[?]", rows.rows), dev = ffi.new("int32_t[?]", rows.rows)}
  local sizes = {train = 0, dev = 0}
  for i = 0, rows.rows - 1 do
    labels[i] = ratings[i] > 0 and 1 or 0
    local side = M.is_dev((rows:cell(i + 1, "text"))) and "dev" or "train"
    sides[side][sizes[side]] = i
    sizes[side] = sizes[side] + 1
  end
  rows:close()
  local set = {task = M.TASK, folder = folder}
  for side, selection in pairs(sides) do
    if sizes[side] == 0 then error(("snippets: %s: no %s rows"):format(folder, side), 0) end
    set[side] = Dataset.new {encoding = encoding, labels = labels, classes = 2,
      selection = selection, rows = sizes[side]}
  end
  return set
end

return M
