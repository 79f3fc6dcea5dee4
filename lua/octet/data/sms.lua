--- The SMS Spam Collection (Almeida, Hidalgo and Yamakami, DocEng 2011): messages, spam or not.
--
-- Looked for as sms-spam/sms_spam.csv: a CSV with the columns type (ham, spam) and text. A quarter
-- is held back; words and marks seen five times or more in the rest are known.
-- @module octet.data.sms
local places = require "octet.data.places"
local tables = require "octet.data.table"
local words = require "octet.data.words"

local M = {}

M.FILE = "sms_spam.csv"
M.TASK = {name = "sms", title = "SMS spam", classes = 2, metrics = {"accuracy", "f1"},
  label_names = {"ham", "spam"}}

M.READING = {words_of = words.words_and_marks}

--- Find, read and encode the messages.
-- @tparam table options `data`: a folder to look in first
-- @treturn table as of octet.data.words.load
function M.load(options)
  local folder, looked = places.find(options.data, {"sms-spam", ""}, {M.FILE})
  if not folder then
    error(("sms: %s was not found in %s; the SMS Spam Collection is at "
      .. "https://archive.ics.uci.edu/dataset/228"):format(M.FILE, #looked > 0
      and table.concat(looked, ", ") or "any place (--data, OCTET_DATA, the cache)"), 0)
  end
  local rows = tables.read(folder .. "/" .. M.FILE, {format = "csv", header = true,
    columns = {"type", "text"}, encoding = "windows-1252"})
  return words.load {
    task = M.TASK, folder = folder, rows = rows.rows,
    text_of = function(row) return (rows:cell(row, "text")) end,
    reading = M.READING, labels = rows:labels("type", M.TASK.label_names),
    names = M.TASK.label_names, dev = 0.25, least = 5,
  }
end

return M
