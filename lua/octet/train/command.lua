--- A recipe's command: its options are read, a run is begun or gone on with, and where a signal
-- ends it, the line that goes on is printed.
-- @module octet.train.command
local cli = require "octet.cli"
local message = require "octet.message"
local progress = require "octet.train.progress"
local run_folder = require "octet.train.run_folder"
local signals = require "octet.train.signals"

local M = {}

--- Carry out the command that `arg` holds.
-- @tparam table program as for cli.parse
-- @tparam table free names of the options that a resumed run may be given anew, each true
-- @tparam function run run(options, folder), where `folder` is that of a run to go on with; gives
-- its result, or nil, the signal that ended it, and its folder
function M.main(program, free, run)
  cli.main(program.name, function()
    local options, given = cli.parse(arg, program)
    local folder
    if options.resume then
      options, folder = run_folder.resumed(program, options, given, free)
    end
    local _, signal, stopped = signals.caught(run, options, folder)
    if stopped then stopped:leave() end
    if signal then
      progress.write(("stopped by %s; go on with:\n  luajit %s --resume %s\n"):format(
        signals.name(signal), message.word(arg[0]), message.word(stopped.folder)))
      return 128 + signal
    end
  end)
end

return M
