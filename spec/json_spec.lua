local json = require "octet.json"

describe("json", function()
  it("sorts keys, or keeps the order that is asked for", function()
    assert.equal('{"a": 1, "b": 2, "c": 3}', json.encode {c = 3, a = 1, b = 2})
    assert.equal('{"c": 3, "b": 2, "a": 1}',
      json.encode {a = 1, b = 2, c = 3, __order = {"c", "b"}})
  end)

  it("writes the shortest number that reads back as the same", function()
    for _, n in ipairs {0, 1, -3, 0.1, 5e-5, 1 / 3, 2^52, 1e300, -2.5e-10, 0.1 + 0.2, 123456.789} do
      assert.equal(n, json.decode(json.encode {n})[1])
    end
    assert.equal("[0.1, 5e-05, 2105]", json.encode {0.1, 5e-5, 2105})
    assert.equal('{"x": null}', json.encode {x = 0 / 0})
  end)

  it("escapes what JSON cannot hold", function()
    local text = 'a"b\\c\n\t\0\31\127é'
    assert.equal(text, json.decode(json.encode {text})[1])
    assert.equal('["\\u0000\\u001f"]', json.encode {"\0\31"})
  end)

  it("tells an empty array from an empty object", function()
    assert.equal('{"a": [], "b": {}}', json.encode {a = json.array {}, b = {}})
  end)

  it("indents", function()
    assert.equal('{\n  "a": {\n    "b": 1\n  },\n  "c": [1, 2]\n}',
      json.encode({a = {b = 1}, c = {1, 2}}, "  "))
  end)

  it("says where text is no JSON, and ends with tables that hold themselves", function()
    assert.error_matches(function() json.decode("{", "config.json") end, "config.json: ")
    local t = {}
    t.t = t
    assert.error_matches(function() json.encode(t) end, "nest more than 100 deep")
  end)
end)
