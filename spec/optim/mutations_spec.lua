-- The program of mutations takes minutes; that it still fits the code is seen at once.
describe("the list of mutations", function()
  it("names texts that stand once in their files", function()
    local pipe = assert(io.popen "luajit spec/optim/mutations.lua --list 2>&1; echo $?")
    local said = pipe:read "*a"
    pipe:close()
    assert.matches("\n0\n$", said)
    assert.matches("a wrong bias correction\n", said)
  end)
end)
