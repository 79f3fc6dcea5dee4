-- Options by patterns of names.
local resolve = require "octet.optim.patterns".resolve

local NAMES = {"embed.weight", "encoder.1.attention.weight", "encoder.1.attention.bias",
  "encoder.2.attention.weight", "encoder.2.attention.bias", "encoder.10.out.weight",
  "head.weight", "head.bias"}

local function failure(patterns)
  local ok, message = pcall(resolve, "optim.adam8", patterns, NAMES)
  assert.is_false(ok)
  assert.is_nil(message:find("\n", 1, true))
  return message
end

describe("patterns of names", function()
  it("give options to what they match, and to nothing else", function()
    local resolved = resolve("who", {["%.bias$"] = {bits = 32}, ["^embed%."] = {block_size = 64}},
      NAMES)
    assert.same({
      ["embed.weight"] = {block_size = 64}, ["encoder.1.attention.bias"] = {bits = 32},
      ["encoder.2.attention.bias"] = {bits = 32}, ["head.bias"] = {bits = 32},
    }, resolved)
    assert.same({}, resolve("who", {}, NAMES))
  end)

  it("hold in the order of a list, the first one that matches", function()
    local resolved = resolve("who", {
      {pattern = "^encoder%.1%.", bits = 32}, {pattern = "bias", bits = 4, format = "paper"},
      {pattern = ".", bits = 8},
    }, NAMES)
    assert.same({bits = 32}, resolved["encoder.1.attention.bias"])
    assert.same({bits = 4, format = "paper"}, resolved["encoder.2.attention.bias"])
    assert.same({bits = 8}, resolved["encoder.10.out.weight"])
    local count = 0
    for _ in pairs(resolved) do count = count + 1 end
    assert.equal(#NAMES, count)
  end)

  it("give each name a table of its own", function()
    local patterns = {{pattern = "bias", bits = 32}}
    local resolved = resolve("who", patterns, NAMES)
    resolved["head.bias"].bits = 8
    assert.equal(32, resolved["encoder.1.attention.bias"].bits)
    assert.equal(32, patterns[1].bits)
  end)

  it("that match nothing are an error with the nearest names", function()
    assert.equal('optim.adam8: pattern "^embd%.weight$" matches no parameter; nearest names: '
      .. "embed.weight, head.weight, head.bias, encoder.10.out.weight, encoder.1.attention.weight, "
      .. "... (8 in all)", failure {["^embd%.weight$"] = {bits = 32}})
    assert.matches('pattern "%^head$" matches no parameter; nearest names: head',
      failure {{pattern = "bias", bits = 32}, {pattern = "^head$", bits = 32}})
  end)

  it("of a table that match one name twice are an error that names both", function()
    assert.matches('patterns "attention" and "bias" both match encoder.1.attention.bias; in a list',
      failure {attention = {bits = 8}, bias = {bits = 32}})
  end)

  it("are refused in one line where they are none", function()
    assert.matches('^optim.adam8: pattern "%[x" is malformed: malformed pattern',
      failure {["[x"] = {bits = 32}})
    assert.matches('pattern "bias" says nothing of what it matches', failure {bias = {}})
    assert.matches('pattern "bias" says nothing', failure {{pattern = "bias"}})
    assert.matches("pattern bias has a number, expected a table of options", failure {bias = 32})
    assert.matches("entry 1 of the patterns has no field 'pattern'", failure {{bits = 32}})
    assert.matches("entry bias of the patterns has no field 'pattern'",
      failure {{pattern = "head", bits = 8}, bias = {bits = 32}})
    assert.matches("patterns are a string, expected a table", failure "bias")
  end)
end)
