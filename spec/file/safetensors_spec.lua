local bit = require "bit"
local ffi = require "ffi"
local file = require "octet.file"
local nn = require "octet".nn
local safetensors = require "octet.safetensors"
local tensor = require "octet.tensor"

local path

local function u64(n)
  return ffi.string(ffi.new("uint64_t[1]", n), 8)
end

--- A file with this header and these data.
local function write(header, data)
  file.save(path, u64(#header) .. header .. (data or ""))
end

local function refused(header, data)
  write(header, data)
  local ok, message = pcall(safetensors.open, path)
  assert.is_false(ok, header)
  assert.is_nil(message:find("\n", 1, true))
  assert.is_truthy(message:find(path, 1, true), message)
  return message
end

local function assert_refused(reason, header, data)
  local message = refused(header, data)
  assert.is_truthy(message:find(reason, 1, true), message)
end

local function entry(dtype, shape, first, last)
  return ('{"dtype":"%s","shape":[%s],"data_offsets":[%s,%s]}'):format(dtype, shape, first, last)
end

--- Everything a file says, as one text; an error where anything of it is damaged.
local function content()
  local opened = safetensors.open(path)
  local parts = {}
  for _, name in ipairs(opened:names()) do
    local info, t = opened:info(name), opened:read(name)
    parts[#parts + 1] = ("%s %s %s %s"):format(name, info.type, table.concat(info.shape, "x"),
      file.bytes_sha256(ffi.string(t:data(), info.bytes)))
  end
  local keys = opened:metadata()
  for key, value in pairs(keys) do parts[#parts + 1] = key .. "=" .. value end
  opened:close()
  table.sort(parts)
  return table.concat(parts, "\n")
end

local function sample()
  return {
    weight = tensor.from({1, -2.5, 3, 1e-30, 5, 6}, {2, 3}),
    ["bias\n\"quoted\" \195\164"] = tensor.from({7}, {1}),
    ids = tensor.from({1, -2, 2147483647}, {3}, "i32"),
    codes = tensor.from({0, 128, 255}, {3, 1}, "u8"),
    half = tensor.from({1, 2}, {2}):to "f16",
    brain = tensor.from({1, 2}, {2}):to "bf16",
    scalar = tensor.from({4}, {}),
  }
end

before_each(function() path = os.tmpname() end)
after_each(function() os.remove(path) end)

describe("safetensors", function()
  it("gives back what was saved: values, shapes, types, metadata", function()
    local saved = sample()
    safetensors.save(path, saved, {step = "100", note = "tab\tquote\" \226\130\172"})
    local opened = safetensors.open(path)
    for name, t in pairs(saved) do
      local read = opened:read(name)
      assert.same(t:shape(), read:shape())
      assert.equal(t:dtype(), read:dtype())
      assert.equal(ffi.string(t:data(), opened:info(name).bytes),
        ffi.string(read:data(), opened:info(name).bytes))
    end
    assert.equal(7, #opened:names())
    assert.same({step = "100", note = "tab\tquote\" \226\130\172", format = "pt"},
      opened:metadata())
  end)

  it("loads all tensors as they were saved", function()
    local layer, other = nn.Linear(3, 2), nn.Linear(3, 2)
    safetensors.save(path, layer:state())
    other:load(safetensors.load(path))
    assert.same(layer.weight:totable(), other.weight:totable())
    assert.error_matches(function() other:load(path) end, "expected a table of tensors by name")
    assert.error_matches(function() other:load(safetensors.open(path)) end,
      "expected a table of tensors by name")
  end)

  it("saves nothing but tensors", function()
    assert.error_matches(function() safetensors.save(path, {step = 1}) end,
      "'step' is a number, expected a tensor")
    assert.equal("", file.read(path))
  end)

  it("saves the same bytes for the same tensors, the widest type first, each aligned", function()
    safetensors.save(path, sample(), {a = "1", b = "2"})
    local first = file.read(path)
    safetensors.save(path, sample(), {b = "2", a = "1"})
    assert.equal(first, file.read(path))
    local places = {}
    for first_byte in first:gmatch '"data_offsets":%[(%d+)' do
      places[#places + 1] = tonumber(first_byte)
    end
    -- bias, ids, scalar, weight: 4 bytes each element; brain, half: 2; codes: 1.
    assert.same({0, 4, 16, 20, 44, 48, 52}, places)
    local length = ffi.cast("const uint64_t *", ffi.cast("const char *", first))[0]
    assert.equal(0, tonumber(length + 8) % 64)
  end)

  it("reads into a tensor of the same shape, as f32 where the file has f16, bf16 or f64", function()
    local doubles = ffi.string(ffi.new("double[4]", 1, -0.5, 65504, 2 ^ -24), 32)
    -- 1, -0.5, 65504, 2^-24 (subnormal in f16)
    local halves = ffi.string(ffi.new("uint16_t[4]", 0x3c00, 0xb800, 0x7bff, 0x0001), 8)
    local brains = ffi.string(ffi.new("uint16_t[4]", 0x3f80, 0xbf00, 0x4780, 0x3380), 8)
    write(('{"d":%s,"h":%s,"b":%s}'):format(entry("F64", "4", 0, 32), entry("F16", "4", 32, 40),
      entry("BF16", "4", 40, 48)), doubles .. halves .. brains)
    local opened = safetensors.open(path)
    local into = tensor.zeros {4}
    for name, third in pairs {d = 65504, h = 65504, b = 65536} do
      assert.equal(into, opened:read(name, into))
      assert.same({1, -0.5, third, 2 ^ -24}, into:totable())
    end
    assert.equal("f16", opened:read("h"):dtype())
    assert.equal("f32", opened:read("h", {dtype = "f32"}):dtype())
    assert.has_error(function() opened:read("h", tensor.zeros {2, 2}) end)
    assert.has_error(function() opened:read("h", tensor.zeros({4}, "i32")) end)
    assert.has_error(function() opened:read("none") end)
  end)

  it("reads every f16 as the arithmetic of the standard has it", function()
    local all = ffi.new "uint16_t[65536]"
    for i = 0, 65535 do all[i] = i end
    write('{"h":' .. entry("F16", "65536", 0, 131072) .. "}", ffi.string(all, 131072))
    local read = safetensors.open(path):read("h", {dtype = "f32"}):data()
    for i = 0, 65535 do
      local sign, fraction = i < 32768 and 1 or -1, i % 1024
      local exponent = bit.band(bit.rshift(i, 10), 31)
      local expected
      if exponent == 31 then
        expected = fraction == 0 and sign / 0 or 0 / 0
      else
        expected = exponent == 0 and sign * fraction * 2 ^ -24
          or sign * (1 + fraction / 1024) * 2 ^ (exponent - 15)
      end
      if read[i] ~= expected and (expected == expected or read[i] == read[i]) then
        error(("half 0x%04x: got %g, expected %g"):format(i, read[i], expected))
      end
    end
  end)

  it("reads i64 as i32 where it fits, and names the value that does not", function()
    local ints = ffi.string(ffi.new("int64_t[2]", -3, 2 ^ 31 - 1), 16)
    write('{"i":' .. entry("I64", "2", 0, 16) .. "}", ints)
    assert.same({-3, 2 ^ 31 - 1}, safetensors.open(path):read("i"):totable())
    write('{"i":' .. entry("I64", "1", 0, 8) .. "}", ffi.string(ffi.new("int64_t[1]", 2 ^ 31), 8))
    local ok, message = pcall(function() safetensors.open(path):read "i" end)
    assert.is_false(ok)
    assert.is_truthy(message:find("2147483648", 1, true))
  end)

  it("lists types that it cannot read, and says so when they are read", function()
    write('{"f":' .. entry("F8_E4M3", "2", 0, 2) .. "}", "ab")
    local opened = safetensors.open(path)
    assert.same({type = "F8_E4M3", shape = {2}, bytes = 2}, opened:info "f")
    local ok, message = pcall(opened.read, opened, "f")
    assert.is_false(ok)
    assert.is_truthy(message:find("F8_E4M3 cannot be read", 1, true))
  end)

  it("accepts what the format allows: other fields, spaces, any order, no tensors", function()
    write(' { "a" : { "extra" : [1, {"x": null}, -2.5e+3, true], "shape" : [ ] ,'
      .. ' "data_offsets":[0, 4],"dtype":"F32"}, "\\u00e4\\ud83d\\ude00":'
      .. entry("U8", "0,3", 4, 4) .. ' }  ', "abcd")
    local opened = safetensors.open(path)
    assert.same({"a", "\195\164\240\159\152\128"}, opened:names())
    write("{}")
    assert.same({}, safetensors.open(path):names())
  end)
end)

describe("a lying safetensors file", function()
  it("is refused for its length", function()
    file.save(path, "")
    assert.has_error(function() safetensors.open(path) end)
    file.save(path, "1234567")
    assert.has_error(function() safetensors.open(path) end)
    for _, length in ipairs {2, 100, 2 ^ 31, 2 ^ 53, 2 ^ 63} do
      file.save(path, u64(length) .. "{")
      assert.has_error(function() safetensors.open(path) end)
    end
    file.save(path, u64(-1ULL) .. "{}")
    assert.has_error(function() safetensors.open(path) end)
    assert_refused("belong to no tensor", '{"a":' .. entry("U8", "1", 1, 2) .. "}", "ab")
  end)

  it("is refused for offsets that overlap, leave holes or leave the file", function()
    local function two(a, b) return ('{"a":%s,"b":%s}'):format(a, b) end
    local four = entry("F32", "1", 0, 4)
    assert_refused("overlaps", two(four, entry("F32", "1", 2, 6)), "123456")
    assert_refused("overlaps", two(four, four), "1234")
    assert_refused("belong to no tensor", two(four, entry("F32", "1", 5, 9)), "123456789")
    assert_refused("leave the file", two(four, entry("F32", "1", 4, 8)), "1234567")
    assert_refused("leave the file", '{"a":' .. entry("U8", "3", 4, 1) .. "}", "1234")
    assert_refused("the file at 5", '{"a":' .. four .. "}", "12345")
    assert_refused("the file at 4", "{}", "1234")
    assert_refused("span 4 bytes", '{"a":' .. entry("F32", "2", 0, 4) .. "}", "1234")
    assert_refused("span 4 bytes", '{"a":' .. entry("F64", "1", 0, 4) .. "}", "1234")
  end)

  it("is refused for sizes that overflow", function()
    for _, shape in ipairs {"4294967296,4294967296", "4611686018427387905,4",
      "9223372036854775807,2,0", "2305843009213693953"} do
      assert_refused("multiply to more", '{"a":' .. entry("F64", shape, 0, 8) .. "}", "12345678")
    end
    for _, number in ipairs {"-1", "9223372036854775808", "99999999999999999999999", "1.0", "1e3",
      "01", '"1"', "null", "[1]", "0x10", ","} do
      refused('{"a":' .. entry("U8", number, 0, 1) .. "}", "1")
      refused('{"a":' .. entry("U8", "1", 0, number) .. "}", "1")
    end
    local seven = entry("U8", "1,1,1,1,1,1,1", 0, 1)
    assert_refused("more than 6 dimensions", '{"a":' .. seven .. "}", "1")
  end)

  it("is refused for names and fields that come twice or are missing", function()
    local zero = entry("U8", "0", 0, 0)
    assert_refused('"a" comes twice', ('{"a":%s,"b":%s,"\\u0061":%s}'):format(zero, zero, zero))
    assert_refused("__metadata__ comes twice", '{"__metadata__":{},"__metadata__":{}}')
    assert_refused('"k" comes twice', '{"__metadata__":{"k":"1","l":"2","k":"3"}}')
    assert_refused("dtype comes twice",
      '{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}')
    assert_refused("shape is missing", '{"a":{"dtype":"U8","data_offsets":[0,0]}}')
    assert_refused("dtype is missing", '{"a":{"shape":[0],"data_offsets":[0,0]}}')
    assert_refused("data_offsets is missing", '{"a":{"dtype":"U8","shape":[0]}}')
    assert_refused("has 1 numbers", '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0]}}')
    assert_refused("more than 2", '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0,0]}}')
    assert_refused("not known", '{"a":' .. entry("F33", "0", 0, 0) .. "}")
  end)

  it("is refused for text that is not JSON of the right kind", function()
    for _, header in ipairs {"", " ", "[]", "3", "null", "{", "{}x", "{} {}", "{,}", '{"a"}',
      '{"a":}',
      '{"a":3}', '{"a":[]}', '{"__metadata__":3}', '{"__metadata__":{"a":3}}',
      '{"__metadata__":{"a":null}}', '{"__metadata__":{},}', '{"__metadata__":{}"a":{}}',
      "{'a':{}}", '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},}', "\0",
      "{}\0"} do
      refused(header)
    end
  end)

  it("is refused for strings that JSON does not allow", function()
    local zero = entry("U8", "0", 0, 0)
    for _, name in ipairs {"a\\u0000", "a\\ud800", "a\\ud800\\u0041", "a\\udc00", "a\\x", "a\\u12",
      "a\255", "a\192\128", "a\224\128\128", "a\237\160\128", "a\240\128\128\128",
      "a\244\144\128\128", "a\195", "a\n", "a\0", "a\\"} do
      refused(('{"%s":%s}'):format(name, zero))
    end
    local good = "\\u0001\\\"\\/\\u00e4\\ud83d\\ude00\237\159\191\244\143\191\191\127"
    write('{"' .. good .. '":' .. zero .. "}")
    assert.same({'\1"/\195\164\240\159\152\128\237\159\191\244\143\191\191\127'},
      safetensors.open(path):names())
  end)

  it("is refused for nesting without end, in no time", function()
    local deep = '{"a":{"x":' .. ("["):rep(1000000)
    local started = os.clock()
    assert_refused("nest more than 64 deep", deep)
    assert_refused("nest more than 64 deep", '{"a":{"x":' .. ('{"x":'):rep(100000))
    assert.is_true(os.clock() - started < 1)
  end)

  it("is refused in proportion to its size, however many tensors it names", function()
    local names = {}
    for i = 1, 100000 do names[i] = ('"%d":%s'):format(i, entry("U8", "0", 0, 0)) end
    local started = os.clock()
    write("{" .. table.concat(names, ",") .. "}")
    local opened = safetensors.open(path)
    assert.equal(100000, #opened:names())
    names[#names + 1] = names[1]
    refused("{" .. table.concat(names, ",") .. "}")
    assert.is_true(os.clock() - started < 5)
  end)

  it("cannot put control characters into an error", function()
    local message = refused('{"\\u001b[2J\\n":{"dtype":"U8"}}')
    assert.is_nil(message:find("[%z\1-\31]"))
  end)
end)

describe("a damaged safetensors file", function()
  local whole, said

  before_each(function()
    local saved = sample()
    safetensors.save(path, {weight = saved.weight, codes = saved.codes}, {step = "7"})
    whole, said = file.read(path), content()
  end)

  local function put(text)
    os.remove(path)                -- a file that is cut to nothing first is slow on ext4
    local f = assert(io.open(path, "wb"))
    f:write(text)
    f:close()
  end

  it("is refused at every length to which it can be cut, and with more behind it", function()
    for length = 0, #whole - 1 do
      put(whole:sub(1, length))
      assert.is_false((pcall(safetensors.open, path)), "cut to " .. length)
    end
    put(whole .. "\0")
    assert.is_false((pcall(safetensors.open, path)))
  end)

  it("is found out for every byte of the header that becomes 00, 01, 7F, 80 or FF", function()
    local plain = whole:gsub('"sha256', '"sha999')     -- the parser alone, no checksum to help it
    put(plain)
    local header_end = #whole - 27
    local accepted = 0
    for at = 1, header_end do
      for _, byte in ipairs {0, 1, 0x7f, 0x80, 0xff} do
        put(plain:sub(1, at - 1) .. string.char(byte) .. plain:sub(at + 1))
        local ok, message = pcall(content)
        if ok then accepted = accepted + 1 end
        assert.is_true(ok or message:find("safetensors", 1, true) ~= nil, message)
      end
    end
    -- Only bytes within names and texts (0x7f) may change unnoticed.
    assert.is_true(accepted <= header_end, accepted)
  end)

  it("is found out for every single bit that flips", function()
    local noticed = 0
    for at = 1, #whole do
      for power = 0, 7 do
        put(whole:sub(1, at - 1) .. string.char(bit.bxor(whole:byte(at), 2 ^ power))
          .. whole:sub(at + 1))
        local ok, now = pcall(content)
        if not ok then noticed = noticed + 1 end
        -- In the letters of "sha256" and "__metadata__" a flip may only take the seal off.
        assert.is_true(not ok or now == said or at <= 8 + 27,
          ("byte %d, bit %d: %s"):format(at, power, ok and now or ""))
      end
    end
    assert.is_true(noticed > 0.97 * 8 * #whole, noticed / #whole / 8)
  end)
end)
