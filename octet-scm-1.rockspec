rockspec_format = "3.0"
package = "octet"
version = "scm-1"
source = {url = "git+file://."}
description = {
  summary = "Train neural networks from Lua, with 8-bit optimizers",
  detailed = [[A training framework: tensors, gradients and layers over a core in C, with optimizers
whose state is block-wise quantized to 8 bits a value.]],
  license = "MIT",
}
-- LuaJIT, for its FFI.
dependencies = {"lua == 5.1", "lua-cjson >= 2.1", "argparse >= 0.7"}
test_dependencies = {"busted >= 2.1"}
external_dependencies = {
  DNNL = {header = "dnnl.h"},
  UTF8PROC = {header = "utf8proc.h"},
  OPENSSL = {header = "openssl/evp.h"},
}
build = {
  type = "command",
  build_command = "cmake -G Ninja -B build -DCMAKE_BUILD_TYPE=Release && cmake --build build",
  install_command = "cmake --install build --prefix $(PREFIX)",
}
test = {type = "busted"}
