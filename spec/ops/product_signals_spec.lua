-- Signals that come while a product runs. oneDNN's stack pointer then stands in memory of the heap,
-- and a handler on that thread would write below it. Each spec is a process of its own, since what
-- it tries is what would break one.
local scratch = require "spec.scratch"

local PRELUDE = [[
jit.off()
local ffi = require "ffi"
local file, octet = require "octet.file", require "octet"
local tensor = octet.tensor
]]

--- What a process prints, errors too, and its exit status behind it.
local function run(body)
  local pipe = io.popen(("LUA_PATH='%s' luajit %s 2>&1; echo status $?"):format(package.path,
    scratch.file(PRELUDE .. body)))
  local output = pipe:read "*a"
  pipe:close()
  return output
end

-- With k above 84 oneDNN uses a workspace; the sizes are some of a small encoder's.
local PRODUCTS = [[
local function matrix(rows, columns) return tensor.new({rows, columns}):normal_(0, 1):keep() end
local factors = {}
for i, s in ipairs {{64, 384, 384}, {33, 100, 200}, {128, 512, 96}, {5, 90, 7}} do
  factors[i] = {matrix(s[1], s[2]), matrix(s[2], s[3])}
end
local function products()
  local bits = {}
  octet.scope(function()
    for i, ab in ipairs(factors) do
      local y = ab[1]:matmul(ab[2])
      bits[i] = ffi.string(y:data(), 4 * y:size())
    end
  end)
  return table.concat(bits)
end
]]

describe("a product", function()
  teardown(scratch.clean)

  it("gives the same bits while a handler is called all the time", function()
    -- umask is the handler: a function that a handler may call, and its effect shows that it was.
    assert.equal("umask 14, the same bits\nstatus 0\n", run(PRODUCTS .. [[
      ffi.cdef "typedef void (*handler)(int); handler signal(int number, handler); int umask(int);"
      ffi.cdef "int setitimer(int which, const long *interval_and_first, void *);"
      local expected, same = products(), true
      ffi.C.signal(14, ffi.cast("handler", ffi.C.umask))
      ffi.C.setitimer(0, ffi.new("long[4]", 0, 50, 0, 50), nil)
      for threads = 1, 3 do
        octet.set_threads(threads)
        for _ = 1, 100 do same = same and products() == expected end
      end
      ffi.C.setitimer(0, ffi.new "long[4]", nil)
      print(("umask %d, %s bits"):format(ffi.C.umask(0), same and "the same" or "other"))]]))
  end)

  it("runs on threads that take no signals, whoever started them, but for faults", function()
    assert.equal("1 deaf, 0 not\n2 deaf, 0 not\n1 deaf, 0 not\n2 deaf, 0 not\n"
      .. "main hears\nstatus 0\n", run(PRODUCTS .. [[
      local bit = require "bit"
      local SIGNALS = {2, 14, 15, 27}
      local function mask_of(thread)
        local status = io.open("/proc/self/task/" .. thread .. "/status")
        local mask = status and status:read "*a":match "SigBlk:%s*(%x+)"
        if status then status:close() end
        return mask and tonumber(mask:sub(-8), 16)
      end
      local function blocks(mask, number) return bit.band(mask, bit.lshift(1, number - 1)) ~= 0 end
      local main = file.list "/proc/self/task"[1]
      local function count()
        local deaf, others = 0, 0
        for _, thread in ipairs(file.list "/proc/self/task") do
          local mask = thread ~= main and mask_of(thread)
          if mask then
            local all = not blocks(mask, 11)
            for _, number in ipairs(SIGNALS) do all = all and blocks(mask, number) end
            if all then deaf = deaf + 1 else others = others + 1 end
          end
        end
        return deaf, others
      end
      local x = tensor.ones{100000}:keep()
      local a = matrix(400, 300)
      for _, threads in ipairs {2, 3, 2, 3} do
        octet.set_threads(threads)
        -- An op that starts the workers itself, then one of oneDNN's that needs them all.
        octet.scope(function()
          local _ = x + x, a:matmul(a, {transpose_b = true})
        end)
        local deaf, others
        for _ = 1, 1000 do
          deaf, others = count()
          if deaf + others == threads - 1 then break end
        end
        print(("%d deaf, %d not"):format(deaf, others))
      end
      print(mask_of(main) == 0 and "main hears" or "main is deaf")]]))
  end)

  it("leaves a Ctrl-C to the handler of luajit", function()
    assert.matches("interrupted!.*status 1\n$", run(PRODUCTS .. [[
      io.popen "{ sleep 0.1; kill -INT $PPID; } >/dev/null 2>&1 &":close()
      while true do products() end]]))
  end)
end)
