--- Standard input and output by lines: what has arrived is handed on at once, and what is written
-- is known to have been written.
-- @module octet.lines
local ffi = require "ffi"
local binding = require "octet.binding"

local C, check = binding.C, binding.check
local M = {}

local CAPACITY = 65536
-- A line without an end would otherwise take all memory there is.
local LONGEST = 2^24

--- Iterate over what standard input has to give: each time a list of the lines that have arrived,
-- waiting for one at least. CR LF ends a line too; the last one needs no end.
-- @tparam[opt=0] number descriptor
-- @treturn function iterator over {string,...}
function M.arriving(descriptor)
  local buffer, bytes = ffi.new("char[?]", CAPACITY), ffi.new "int64_t[1]"
  local rest, ended, count = "", false, 0
  local function cut()
    local lines, from = {}, 1
    while true do
      local stop = rest:find("\n", from, true)
      if not stop then break end
      lines[#lines + 1] = (rest:sub(from, stop - 1):gsub("\r$", ""))
      from = stop + 1
    end
    rest = rest:sub(from)
    return lines
  end
  return function()
    while not ended do
      check(C.oct_read_available(bytes, buffer, CAPACITY, descriptor or 0))
      local got = tonumber(bytes[0])
      ended = got == 0
      rest = rest .. ffi.string(buffer, got)
      if ended and rest ~= "" then rest = rest .. "\n" end
      if #rest > LONGEST then
        error(("line %d of standard input is longer than %d bytes"):format(count + 1, LONGEST), 0)
      end
      local lines = cut()
      count = count + #lines
      if #lines > 0 then return lines end
    end
  end
end

--- Write to standard output; what did not get there, as on a full disk, is an error.
-- @tparam string text
function M.write(text)
  local ok, reason = io.stdout:write(text)
  if not ok then error("standard output: " .. tostring(reason), 0) end
end

--- Let all that was written be seen.
function M.flush()
  local ok, reason = io.stdout:flush()
  if not ok then error("standard output: " .. tostring(reason), 0) end
end

return M
