local octet = require "octet"

describe("the clock", function()
  it("moves on in compiled loops too", function()
    local stood = 0
    for _ = 1, 2000 do
      local start = octet.clock()
      local stop = octet.clock()
      if stop - start <= 0 then stood = stood + 1 end
    end
    assert.is_true(stood < 20, stood .. " of 2000 times it stood still")
  end)
end)
