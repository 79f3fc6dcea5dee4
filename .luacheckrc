std = "luajit"
max_line_length = 100
cache = false
exclude_files = {"build*/**", "runs/**"}
files["spec"].std = "+busted"
files["recipes"].globals = {"package.path"}
