-- A save is killed at each of its system calls, before the call and after it: whoever looks then
-- finds the former file or the new one, whole.
local file = require "octet.file"
local safetensors = require "octet.safetensors"
local tensor = require "octet.tensor"

local CALLS = {"flock", "ftruncate", "fchmod", "write", "fsync", "rename"}

local SAVE = [[
local safetensors, tensor = require "octet.safetensors", require "octet.tensor"
local tensors = {}
for i = 1, 3 do tensors["t" .. i] = tensor.full({1000}, tonumber(arg[2])) end
safetensors.save(arg[1], tensors)
]]

--- Run the save under strace with this injection. @treturn boolean whether it was killed
local function save_killed(folder, script, inject)
  local traced = table.concat(CALLS, ",")
  local command = ("LUA_PATH='%s' strace -qq -f -o /dev/null -e trace=%s %s luajit %s %s/model 2")
    :format(package.path, traced, inject, script, folder)
  local pipe = io.popen(command .. " 2>&1; echo status $?")
  local output = pipe:read "*a"
  pipe:close()
  return tonumber(output:match "status (%d+)") ~= 0
end

local function has_strace()
  local pipe = io.popen "strace -qq -o /dev/null -e inject=getpid:retval=1 true 2>&1; echo $?"
  local output = pipe:read "*a"
  pipe:close()
  return output == "0\n"
end

--- Kill a save at the nth call of a name, and look at what is there.
local function kill_at(folder, script, call, nth, how)
  local path, tensors = folder .. "/model", {}
  for i = 1, 3 do tensors["t" .. i] = tensor.full({1000}, 1) end
  safetensors.save(path, tensors)
  local killed = save_killed(folder, script, ("-e inject=%s:%s:when=%d"):format(call, how, nth))
  local opened = safetensors.open(path)
  local value = opened:read("t1"):data()[0]
  for _, name in ipairs {"t1", "t2", "t3"} do
    assert.equal(value, opened:read(name):data()[999])
  end
  opened:close()
  local may_be_new = not killed or call == "rename" or call == "fsync"
  assert.is_true(value == 1 or (value == 2 and may_be_new), ("%s %d: %g"):format(call, nth, value))
  return killed
end

describe("a save that is killed", function()
  if not has_strace() then
    pending "is not tried: there is no strace that may trace here"
    return
  end

  it("would have synced the file before it got its name, and the folder after", function()
    local folder = os.tmpname()
    os.remove(folder)
    file.make_folder(folder)
    file.save(folder .. "/save.lua", SAVE)
    save_killed(folder, folder .. "/save.lua", "-o " .. folder .. "/trace")
    local order = {}
    for call in file.read(folder .. "/trace"):gmatch "(%l+)%(" do order[#order + 1] = call end
    assert.is_truthy(table.concat(order, " "):find("write fsync rename fsync$"))
    file.remove_folder(folder)
  end)

  it("leaves the former file or the new one at every system call", function()
    local folder = os.tmpname()
    os.remove(folder)
    file.make_folder(folder)
    local path, script = folder .. "/model", folder .. "/save.lua"
    file.save(script, SAVE)
    local kills = 0
    for _, call in ipairs(CALLS) do
      for nth = 1, 10 do
        local killed_before = kill_at(folder, script, call, nth, "error=EIO:signal=KILL")
        local killed_after = kill_at(folder, script, call, nth, "signal=KILL")
        if not killed_before then break end
        kills = kills + (killed_after and 2 or 1)
      end
    end
    assert.is_true(kills >= 2 * #CALLS, kills)
    -- What the killed left is in nobody's way.
    assert.is_false((save_killed(folder, script, "")))
    assert.equal(2, safetensors.open(path):read("t1"):data()[0])
    assert.same({"model", "save.lua"}, file.list(folder))
    file.remove_folder(folder)
  end)
end)
