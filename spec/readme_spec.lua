local file = require "octet.file"

describe("the README", function()
  it("has an example that runs and learns", function()
    local example = file.read("README.md"):match "```lua\n(.-)```"
    local saved = os.tmpname()
    example = example:gsub("circle%.safetensors", saved)
    local losses = {}
    local environment = setmetatable({print = function(_, loss) losses[#losses + 1] = loss end},
      {__index = _G})
    setfenv(assert(loadstring(example, "README")), environment)()
    assert.equal(4, #losses)
    assert.is_true(losses[4] < 0.15, losses[4])
    local opened = require("octet.safetensors").open(saved)
    assert.same({"hidden.bias", "hidden.weight", "out.bias", "out.weight"}, opened:names())
    os.remove(saved)
  end)

  it("names only files and folders that there are", function()
    local text = file.read "README.md"
    for name in text:gmatch "`([%w_]+/[%w_./]*)`" do
      if not name:find "^runs/" and not name:find "^doc/" then
        assert.is_truthy(file.kind(name), name)
      end
    end
    for name in text:gmatch "%]%(([%w_./]+)%)" do assert.is_true(file.is_file(name), name) end
  end)
end)
