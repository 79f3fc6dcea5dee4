--- JSON with its keys in order, so that the same values are the same bytes; reading is cjson's.
-- @module octet.json
local cjson = require "cjson"

local M = {}

--- Stands for null, as cjson has it.
M.null = cjson.null

--- Mark a table as an array, so that an empty one is [] and not {}.
-- @tparam table t
-- @treturn table t
function M.array(t) return setmetatable(t, cjson.array_mt or {__name = "array"}) end

--- Shortest decimal text that reads back as the same number; LuaJIT's own conversion, which knows
-- no locale.
local function number_text(n)
  if n ~= n or n == math.huge or n == -math.huge then return "null" end
  if n == math.floor(n) and math.abs(n) < 2^53 then return ("%d"):format(n) end
  for digits = 15, 17 do
    local text = ("%." .. digits .. "g"):format(n)
    if tonumber(text) == n then return text end
  end
end

local ESCAPES = {['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t",
  ["\b"] = "\\b", ["\f"] = "\\f"}

local function string_text(s)
  return '"' .. s:gsub('[%z\1-\31"\\\127]', function(c)
    return ESCAPES[c] or ("\\u%04x"):format(c:byte())
  end) .. '"'
end

local function is_array(t)
  return t[1] ~= nil or (next(t) == nil and getmetatable(t) ~= nil)
end

--- A table that says in which order its keys come has a field __order, a list; the keys it does
-- not name come after, sorted.
local function keys_of(t)
  local keys, named = {}, {__order = true}
  for _, key in ipairs(t.__order or {}) do
    if t[key] ~= nil and not named[key] then
      keys[#keys + 1], named[key] = key, true
    end
  end
  local rest = {}
  for key in pairs(t) do
    if type(key) ~= "string" then
      error("json: a key is a " .. type(key) .. ", expected a string", 0)
    end
    if not named[key] then rest[#rest + 1] = key end
  end
  table.sort(rest)
  for _, key in ipairs(rest) do keys[#keys + 1] = key end
  return keys
end

local encode
local function encode_table(t, indent, depth)
  if depth > 100 then error("json: tables nest more than 100 deep", 0) end
  local parts, open, close = {}, "{", "}"
  if is_array(t) then
    open, close = "[", "]"
    for i = 1, #t do parts[i] = encode(t[i], nil, depth + 1) end
    return open .. table.concat(parts, ", ") .. close
  end
  for i, key in ipairs(keys_of(t)) do
    parts[i] = string_text(key) .. ": " .. encode(t[key], indent, depth + 1)
  end
  if not indent or #parts == 0 then return open .. table.concat(parts, ", ") .. close end
  local margin = "\n" .. indent:rep(depth)
  return open .. margin .. table.concat(parts, "," .. margin) .. "\n" .. indent:rep(depth - 1)
    .. close
end

function encode(value, indent, depth)
  local kind = type(value)
  if value == cjson.null then return "null" end
  if kind == "table" then return encode_table(value, indent, depth) end
  if kind == "string" then return string_text(value) end
  if kind == "number" then return number_text(value) end
  if kind == "boolean" then return tostring(value) end
  error("json: a " .. kind .. " cannot be written", 0)
end

--- A value as JSON. Keys are sorted, or in the order of a field `__order`; a number that is not
-- finite is null.
-- @param value table, string, number, boolean or json.null
-- @tparam[opt] string indent what a level is indented by; one line where it is missing
-- @treturn string
function M.encode(value, indent) return encode(value, indent, 1) end

--- The value of a JSON text.
-- @tparam string text
-- @tparam[opt="json"] string what named in the error
-- @treturn value null is json.null
function M.decode(text, what)
  local ok, value = pcall(cjson.decode, text)
  if not ok then error(("%s: %s"):format(what or "json", tostring(value)), 0) end
  return value
end

return M
