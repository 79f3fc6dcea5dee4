local message = require "octet.message"

describe("a text as a word of a command", function()
  it("is itself where a shell takes it as it is", function()
    assert.equal("runs/a-1_b.c@2", message.word "runs/a-1_b.c@2")
  end)

  it("is quoted where a shell would not, and comes through one", function()
    for _, path in ipairs {"", "my runs/1", "a'b", "$HOME", "a;b", "a\"b", "ü", "*"} do
      local pipe = io.popen("printf %s " .. message.word(path))
      assert.equal(path, pipe:read "*a")
      pipe:close()
    end
  end)
end)
