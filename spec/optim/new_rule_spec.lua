-- A rule is added by a file, and by nothing else: here Signum, to a library of its own. Only what
-- reads the list of rules is compiled; everything else is taken from the build at hand.
local file = require "octet.file"
local scratch = require "spec.scratch"

-- Bernstein, Wang, Azizzadenesheli, Anandkumar: "signSGD: Compressed Optimisation for Non-Convex
-- Problems", ICML 2018, algorithm 2.
local SIGNUM = [[
enum { SIGNUM_REST };
enum { signum_states = 1 };

#ifdef OCT_RULE_ARITHMETIC

INLINE vf signum_rule(vf *bound, vf s[OCT_STATES], vf p, vf g, const float *c, int root)
{
    s[0] = vf_fma(vf_all(c[SIGNUM_REST]), g - s[0], s[0]);
    *bound = vf_abs(s[0]);
    return vf_sign(s[0]);
}

#else

static void signum_numbers(oct_numbers *n, const oct_rule_input *in)
{
    n->c[SIGNUM_REST] = (float)(1 - in->options[0]);
}

static const oct_rule signum_optimizers[] = {
    {.name = "signum", .title = "Signum (Bernstein et al., 2018)",
     .state = {{"m", OCT_STATE_SIGNED}},
     .option = {{"momentum", 0.9, 0, 1, OCT_OPTION_BELOW}},
     .lr = 1e-4, .decay = OCT_DECAY_COUPLED, .numbers = signum_numbers},
    {0},
};

#endif
]]

-- A command's output and whether it succeeded.
local function run(command)
  local pipe = io.popen(command .. " 2>&1; echo status $?")
  local text = pipe:read "*a"
  pipe:close()
  return text:match "status 0\n$" ~= nil, text
end

local function must(command)
  local ok, text = run(command)
  if not ok then error(command .. "\n" .. text, 0) end
  return text
end

local function lines_of(command)
  local list = {}
  for line in must(command):gmatch "[^\n]+" do
    if not line:find "^status " then list[#list + 1] = line end
  end
  return list
end

-- The folder of a build that can lend its objects; nil and why not.
local function build_at_hand()
  local library = os.getenv "OCTET_LIBRARY" or "build/liboctet.so"
  local folder = library:match "^(.*)/[^/]*$" or "."
  if not run(("test -f %s/build.ninja && command -v cmake ninja"):format(folder)) then
    return nil, "needs cmake, ninja, and a build whose objects are there"
  end
  if run(("grep -q fsanitize %s/build.ninja"):format(folder)) then
    return nil, "needs a build without sanitizers"
  end
  return folder
end

-- Compile, two at a time, what reads the list of rules. Not by ninja, which would build all that
-- stands before it too. Returns the objects, relative to the build's folder.
local function compile(folder)
  local reads, objects, scripts = {}, {}, {}
  for _, source in ipairs(lines_of [[grep -rl '"rules_list.h"' core kernels --include='*.c']]) do
    reads[source] = true
  end
  for _, entry in ipairs(file.read_json(folder .. "/compile_commands.json")) do
    local source = entry.file:match "core/[^/]+$" or entry.file:match "kernels/cpu/[^/]+$"
    if reads[source or ""] then
      local object = entry.command:match " %-o (%S+)"
      objects[#objects + 1] = object
      scripts[#scripts + 1] = ("%s/%d.sh"):format(folder, #objects)
      file.save(scripts[#scripts], ("cd %s && mkdir -p $(dirname %s) && %s\n"):format(
        entry.directory, object, entry.command))
    end
  end
  must(("printf '%%s\\n' %s | xargs -n 1 -P 2 sh"):format(table.concat(scripts, " ")))
  return objects
end

-- Build a library with one rule more, and CUDA's emulation where the build at hand has it.
local function build(folder, from, rule)
  local emulation = run(("test -f %s/liboctet-cuda-emu.so"):format(from))
  must(("cmake -S . -B %s -G Ninja -DCMAKE_BUILD_TYPE=None -DCMAKE_C_FLAGS=-O0 -DOCTET_RULES=%s%s")
    :format(folder, rule, emulation and " -DOCTET_CUDA_EMU=ON -DCMAKE_CXX_FLAGS=-O0" or ""))
  if emulation then must(("ninja -C %s liboctet-cuda-emu.so"):format(folder)) end
  local objects, list = {}, {}
  for _, object in ipairs(lines_of(("cd %s && find CMakeFiles -name '*.c.o'"):format(from))) do
    objects[object] = from .. "/" .. object
  end
  for _, object in ipairs(compile(folder)) do
    assert(objects[object], object .. " has no like in the build at hand")
    objects[object] = folder .. "/" .. object
  end
  for _, path in pairs(objects) do list[#list + 1] = path end
  must(("cc -shared -fopenmp -Wl,-z,nodelete -o %s/liboctet.so %s -ldnnl -lutf8proc -lcrypto -lm")
    :format(folder, table.concat(list, " ")))
  return folder .. "/liboctet.so"
end

describe("a rule in a file that the build is told of", function()
  teardown(scratch.clean)

  it("becomes an optimizer of 32, 8 and 4 bits, on every instruction set and CUDA", function()
    local from, why = build_at_hand()
    if not from then
      pending(why)
      return
    end
    local folder = scratch.folder {["signum.h"] = SIGNUM}
    local library = build(folder .. "/build", from, folder .. "/signum.h")
    local ok, text = run(("OCTET_LIBRARY=%s busted spec/optim/new_rule_case.lua"):format(library))
    assert.is_true(ok, text)
  end)

  it("is missed where it does not exist", function()
    local folder = scratch.folder {}
    local ok, text = run(("cmake -S . -B %s -G Ninja -DOCTET_RULES=/nowhere/signum.h")
      :format(folder))
    if text:find "not found" then
      pending "needs cmake"
      return
    end
    assert.is_false(ok)
    assert.matches("OCTET_RULES: /nowhere/signum.h does not exist", text)
  end)
end)
