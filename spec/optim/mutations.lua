-- Break the optimizers on purpose, one way after the other, and see that a spec fails each time.
--
--     luajit spec/optim/mutations.lua                        all of them: some minutes
--     luajit spec/optim/mutations.lua "swapped maps"         those whose name has this in it
--     luajit spec/optim/mutations.lua --list           their names; are their texts there?
--
-- Each is made in a copy of the tree in a scratch folder, which is built and whose specs under
-- spec/optim, or spec/cuda, are run: first the one that ought to notice, then all. Exit status 1
-- where one survives, 2 where a mutation's text is not found, or does not build. --with COMMAND:
-- run builds and specs by it.
--
-- Where a kernel has a scalar twin the twin is broken alike, so that comparing the two is not
-- enough.

local OPTIM, REF = "kernels/cpu/optim.c", "kernels/cpu/optim_ref.c"
local STEP, MAP = "core/optim_step.c", "core/map.c"
local DEVICE = "core/optim_device.c"

-- {name, spec that ought to notice (under spec/optim, or FOLDER/NAME), {file, text that occurs
-- once, what stands in its place}, ...}
local MUTATIONS = {
  {"a wrong bias correction", "adam",
    {"kernels/rules/adam.h", "(float)(1 / sqrt(1 - oct_power(beta2, in->step)))",
      "(float)(1 / sqrt(1 - oct_power(beta2, in->step + 1)))"}},
  {"no bias correction of m", "adam",
    {"kernels/rules/adam.h", "(float)(in->lr / (1 - oct_power(beta1, in->step)))",
      "(float)in->lr"}},
  {"absmax of the old state", "faithful",
    {OPTIM, "s->next_absmax[j] : b->most[j]",
      "s->next_absmax[j] : scale[j] > 0 ? scale[j] : b->most[j]"},
    {REF, "s->next_absmax[j] : largest(x, count)",
      "s->next_absmax[j] : state->absmax[at / s->block] > 0 ? state->absmax[at / s->block] "
      .. ": largest(x, count)"}},
  {"swapped maps", "faithful",
    {"core/optim.c", "kind == OCT_STATE_SIGNED ? signed_map",
      "kind != OCT_STATE_SIGNED ? signed_map"}},
  {"the 0.36 map in place of the dynamic one", "faithful",
    {MAP, 'if (strcmp(name, "dynamic") == 0) fill_dynamic(&s, levels, is_signed, 0);',
      'if (strcmp(name, "dynamic") == 0 && !is_signed && levels == OCT_CODES) fill_bnb_036(&s);\n'
      .. '    else if (strcmp(name, "dynamic") == 0) fill_dynamic(&s, levels, is_signed, 0);'}},
  {"nearest in place of stochastic", "state8",
    {STEP, ".stochastic = narrow && (m->flags & OCT_FORMAT_STOCHASTIC)", ".stochastic = 0"}},
  {"v in place of sqrt(v)", "faithful",
    {STEP, ".root = narrow && (m->flags & OCT_FORMAT_ROOT)", ".root = 0"}},
  {"one draw for all groups of a block", "rounding",
    {OPTIM, "s->random_offset + (uint64_t)element / GROUP * 4);\n    for",
      "s->random_offset);\n    if (s->stochastic)\n"
      .. "        for (int64_t i = 1; i < count / GROUP; i++) b->draws[i] = b->draws[0];\n"
      .. "    for"},
    {REF, "random_offset + (uint64_t)element / 64 * 4 + number / 4", "random_offset + number / 4"}},
  {"the same draws at every step", "rounding",
    {STEP, "slot->random_offset = random_offset + m->random_base",
      "slot->random_offset = m->random_base"}},
  {"the same draws for every parameter", "rounding",
    {STEP, "slot->random_offset = random_offset + m->random_base",
      "slot->random_offset = random_offset"}},
  {"draws with a bias", "rounding",
    {"kernels/cpu/draws.h", "(vu)_mm512_maskz_loadu_epi16(0x55555555, at)",
      "(vu)_mm512_maskz_loadu_epi16(0x55555555, at) & 0xFE00"},
    {"kernels/cpu/draws.h", "return words & 0xFFFF", "return words & 0xFE00"},
    {REF, ">> 8 * byte & 0xFFFF", ">> 8 * byte & 0xFE00"}},
  {"draws that depend on the thread", "left_out",
    {OPTIM, "typedef void (*block_loop)",
      "int omp_get_thread_num(void);\ntypedef void (*block_loop)"},
    {OPTIM, "prepare_keys(&b.keys, s->seed);",
      "prepare_keys(&b.keys, s->seed + (uint64_t)omp_get_thread_num());"}},
  {"weight decay coupled in place of decoupled", "adam",
    {STEP, ".coupled_decay = g->decay == OCT_DECAY_COUPLED ?",
      ".coupled_decay = g->decay != OCT_DECAY_OWN ?"},
    {STEP, "g->decay == OCT_DECAY_DECOUPLED ? (float)(1 - g->lr * g->weight_decay) : 1", "1"}},
  {"the state of left-out elements changed", "left_out",
    {OPTIM, "vf_store(b->values[j] + e, vf_select(bad, old[j][v], state[j]));",
      "vf_store(b->values[j] + e, vf_select(bad, vf_all(0), state[j]));"},
    {REF, "OCT_STATE_LIMIT)) return 0;",
      "OCT_STATE_LIMIT)) {\n"
      .. "        for (int j = 0; slot->bits != 32 && j < OCT_STATES; j++) state[j] = 0;\n"
      .. "        return 0;\n    }"}},
  {"left-out elements not counted", "left_out",
    {OPTIM, "b->left_out += vm_count(bad);", ""}, {REF, "            left_out++;\n", ""}},
  {"an infinite gradient clipped to a finite one", "left_out",
    {OPTIM, "vm finite = vf_less(vf_abs(g), vf_all(INFINITY))", "vm finite = vm_first(LANES)"},
    {REF, "n->grad_limit < INFINITY && fabsf(g) < INFINITY", "n->grad_limit < INFINITY"}},
  {"the tail of 32-bit state skipped", "adam",
    {OPTIM, "if (n == 0) return left_out;", "if (n >= 0) return left_out;"}},
  {"the tail of 8-bit state skipped", "state8",
    {OPTIM, "whole = (before + count + GROUP - 1) / GROUP * GROUP;",
      "whole = (before + count) / GROUP * GROUP;"}},
  {"v may become 0 under a living m", "state8",
    {OPTIM, "encode_lines_chance(codes, x, count, inverse, draws, map, 0);",
      "encode_lines_nearest(codes, x, count, inverse, map, 0);"},
    {OPTIM, "encode_bytes_chance(codes, x, count, inverse, draws, map, 0);",
      "encode_lines_nearest(codes, x, count, inverse, map, 0);"},
    {REF, "if (!map->is_signed) {\n        if (bits > OCT_PLACE_LAST)",
      "if (!map->is_signed) {\n        return code_nearest(x * factor / map->chance.scale, map);\n"
      .. "        if (bits > OCT_PLACE_LAST)"}},
  {"centered RMSprop without its mean", "rmsprop",
    {"kernels/rules/rmsprop.h", "in->options[3] != 0 ? in->options[0] : 1", "1"},
    {"kernels/rules/rmsprop.h", "vf away = g - s[1]; ", "vf away = g;"}},
  {"muon moves elements without a finite gradient", "left_out",
    {"core/muon.c", "direction[i] = NAN", "direction[i] = 1"}},
  {"errors of all steps together", "report",
    {STEP, "if (o->errors) memset(o->errors, 0,", "if (0) memset(o->errors, 0,"}},
  {"saturated codes of one side alone", "report",
    {"core/optim_state.c", "counts[map->levels - 1] + (map->is_signed ? counts[0] : 0)",
      "counts[map->levels - 1]"}},
  {"a block's scale beyond the block", "faithful",
    {OPTIM, "block = s->whole ? 0 : at / s->block;", "block = s->whole ? 0 : from / s->block;"},
    {REF, "s->whole ? 0 : at / s->block]", "s->whole ? 0 : at / OCT_OPTIM_PIECE]"},
    {REF, "state->absmax[at / s->block] = inverse",
      "state->absmax[at / OCT_OPTIM_PIECE] = inverse"}},
  {"options of a group forgotten", "options",
    {"lua/octet/optim/options.lua", "group[name] = own[name]\n", "group[name] = nil\n"}},
  {"state restored without squaring its roots", "state",
    {"lua/octet/optim/convert.lua",
      'if kind.kind == "square" and layout.sqrt_v then t = t * t end', ""}},
  {"a device's state not copied back", "cuda/optimizer",
    {DEVICE, "back && s->writes}", "0}"}},
  {"one map for all on a device", "cuda/optimizer",
    {DEVICE, "if (s->maps[i].here == map)", "if (s->maps[i].here)"}},
  {"room on a device too small", "cuda/optimizer",
    {DEVICE, "if (s->used > most) most = s->used;", "if (s->used > most) most = s->used / 2;"}},
  {"state on a device all at once", "cuda/optimizer",
    {DEVICE, "if (s->used > 0 && fit > room / s->used) fit = room / s->used;", ""}},
  {"results of a device's parts in one place", "cuda/optimizer",
    {DEVICE, "by_piece + p.first * result_bytes(r)", "by_piece"}},
  {"elements left out of a device's last part alone", "cuda/optimizer",
    {DEVICE, "OCT_TRY(put_part(&there, s, work, p));",
      "OCT_TRY(put_part(&there, s, work, p));\n"
      .. "        s->device->fill(there.left_out, 0, sizeof(uint64_t));"}},
  {"a device's matrix without its step", "cuda/optim",
    {DEVICE, "OCT_TRY(oct_copy(m->parameter, here->parameter));", ""}},
  {"a tensor's scale not kept on a device", "cuda/optim",
    {STEP, "OCT_TRY(oct_device_copy(s->state[j].absmax",
      "if (!s->states_there)\n"
      .. "                OCT_TRY(oct_device_copy(s->state[j].absmax"}},
  {"results of a device's work not cleared", "cuda/optim",
    {DEVICE, "s.device->fill(left_out, 0, sizeof(uint64_t)) != 0", "0"}},
  {"a device's usual elements stepped twice", "cuda/optim",
    {"kernels/cuda/optim.cu",
      "int64_t usual = is_usual ? size / OCT_USUAL_TILE * OCT_USUAL_TILE : 0;",
      "int64_t usual = 0;"}},
  {"maps without lines among a device's usual ones", "cuda/optim",
    {DEVICE, "state->map->has_lines && is_even", "is_even"}},
  {"one room for all lanes of a device", "cuda/optimizer",
    {DEVICE, "room + i % lanes * s->room_bytes", "room"}},
  {"draws of a part of a parameter from its beginning", "cuda/optimizer",
    {DEVICE, "to->random_offset += (uint64_t)(first / 16);", ""}},
  {"memory pinned for ever", "cuda/optimizer",
    {"core/tensor.c", "if (s->pinned_for) oct_device_unpin(s->data, s->pinned_for);", ""}},
  {"a slot's gradient as it lay at first", "release",
    {STEP, "    slot->grad = oct_data(p->grad);",
      "    if (!slot->grad) slot->grad = oct_data(p->grad);"}},
  {"numbers of another step", "adam",
    {STEP, "|| m->steps != last->steps", ""}},
  {"a parameter moved from under its optimizer", "cuda/optimizer",
    {STEP, "if (p->storage->device != o->device)", "if (0)"}},
}

local function read(path)
  local f = assert(io.open(path, "rb"))
  local text = f:read "*a"
  f:close()
  return text
end

local function write(path, text)
  local f = assert(io.open(path, "wb"))
  f:write(text)
  assert(f:close())
end

local function quoted(text) return "'" .. text:gsub("'", "'\\''") .. "'" end
local function run(command) return os.execute(command) == 0 end

local function fail(text)
  io.stderr:write("mutations: ", text, "\n")
  os.exit(2)
end

-- The text with the mutation's edits; an error where one's text does not occur exactly once.
local function mutated(text, from, to, name, file)
  local first, last = text:find(from, 1, true)
  if not first then fail(("%s: %s has no text \"%s\""):format(name, file, from)) end
  if text:find(from, last + 1, true) then
    fail(("%s: %s has the text \"%s\" more than once"):format(name, file, from))
  end
  return text:sub(1, first - 1) .. to .. text:sub(last + 1)
end

-- The files of a mutation under a folder, by path: as they are, and as they are to be.
local function files_of(m, folder)
  local originals, texts = {}, {}
  for i = 3, #m do
    local path = folder .. "/" .. m[i][1]
    originals[path] = originals[path] or read(path)
    texts[path] = mutated(texts[path] or originals[path], m[i][2], m[i][3], m[1], m[i][1])
  end
  return originals, texts
end

local root = (arg[0]:match "^(.*)/[^/]*$" or ".") .. "/../.."
for _, m in ipairs(MUTATIONS) do files_of(m, root) end

local wanted, prefix = {}, ""
for i = 1, #arg do
  if arg[i] == "--list" then
    for _, m in ipairs(MUTATIONS) do print(m[1]) end
    os.exit(0)
  elseif arg[i - 1] == "--with" then
    prefix = arg[i] .. " "
  elseif arg[i] ~= "--with" then
    wanted[#wanted + 1] = arg[i]
  end
end

local function is_wanted(name)
  for _, part in ipairs(wanted) do
    if name:find(part, 1, true) then return true end
  end
  return #wanted == 0
end

local pipe = assert(io.popen "mktemp -d")
local scratch = pipe:read "*l"
pipe:close()

local function in_scratch(command, log)
  return run(("cd %s && %s%s > %s 2>&1"):format(quoted(scratch), prefix, command, log))
end

local function build() return in_scratch("cmake --build build", "build.log") end
local function specs(path)
  return in_scratch("busted --no-keep-going " .. path, "specs.log")
end

-- The first spec that failed.
local function what_failed()
  return read(scratch .. "/specs.log"):match "\n%a+ %-> (%S+)" or "a crash"
end

-- Names texts of the tree as it is, and so would fail for every mutation.
local OWN_SPEC = "spec/optim/mutations_spec.lua"

io.stdout:setvbuf "line"
if not run(("tar -C %s --exclude=./.git --exclude='./build*' --exclude=./runs --exclude=./%s "
    .. "-cf - . | tar -C %s -xf -"):format(quoted(root), OWN_SPEC, quoted(scratch)))
  or not in_scratch("cmake -G Ninja -B build -DCMAKE_BUILD_TYPE=Release "
    .. "-DCMAKE_C_FLAGS_RELEASE=-O1 -DOCTET_CUDA_EMU=ON", "configure.log") or not build() then
  fail("the tree does not build; see " .. scratch)
end
if not specs "spec/optim spec/cuda" then
  fail(("%s fails without any mutation; see %s"):format(what_failed(), scratch))
end

local survived, count = 0, 0
for _, m in ipairs(MUTATIONS) do
  if is_wanted(m[1]) then
    local originals, texts = files_of(m, scratch)
    for path, text in pairs(texts) do write(path, text) end
    if not build() then fail(("%s: does not build; see %s"):format(m[1], scratch)) end
    local folder = "spec/" .. (m[2]:match "^(.*)/" or "optim")
    local first = ("%s/%s_spec.lua"):format(folder, m[2]:match "[^/]*$")
    local f = io.open(scratch .. "/" .. first)
    if f then f:close() end
    local killed = f and not specs(first) or not specs(folder)
    count, survived = count + 1, survived + (killed and 0 or 1)
    print(("%-50s %s"):format(m[1], killed and "killed by " .. what_failed() or "SURVIVED"))
    for path, text in pairs(originals) do write(path, text) end
  end
end
print(("%d mutations, %d survived"):format(count, survived))
run("rm -rf " .. quoted(scratch))
os.exit(survived == 0 and 0 or 1)
