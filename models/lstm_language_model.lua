--- A language model of words: embedding, LSTM, and a linear layer that tells the next word.
--
-- With 200 units in each of 2 layers it is the small model of Zaremba, Sutskever and Vinyals,
-- "Recurrent Neural Network Regularization" (2014, arXiv 1409.2329). Dropout, where there is any,
-- is where they put it: on what goes up, not on what goes from word to word.
-- @module models.lstm_language_model
local octet = require "octet"

local nn, tensor = octet.nn, octet.tensor
local M = {}

--- @function Model
-- @tparam table o `words`: how many there are; `embedding`: numbers that stand for one; `hidden`,
-- `layers`: of the LSTM; `dropout`; `scale`: all weights start uniform in +-scale
M.Model = nn.module "LstmLanguageModel"

function M.Model:init(o)
  self.embed = nn.Embedding(o.words, o.embedding)
  self.drop = nn.Dropout(o.dropout)
  self.lstm = nn.LSTM(o.embedding, o.hidden, {layers = o.layers, dropout = o.dropout})
  self.out = nn.Linear(o.hidden, o.words)
  for _, p in ipairs(self:parameters()) do p.tensor:uniform_(-o.scale, o.scale) end
end

--- @tparam tensor ids i32 [columns x length]
-- @tparam table memory of what stands before them in their columns (see memory); it moves on
-- @treturn tensor logits of the words that follow, [columns * length x words]
function M.Model:forward(ids, memory)
  local y, _, state = self.lstm(self.drop(self.embed(ids)), nil, memory.now)
  memory:move(state)
  return self.out(self.drop(y:reshape(-1, self.lstm.hidden)))
end

-- ---- what is carried from stretch to stretch ---------------------------------------------------

local Memory = {}
Memory.__index = Memory

local function empty_state(model, columns)
  local shape = {model.lstm.layers, columns, model.lstm.hidden}
  return {h = tensor.zeros(shape):keep(), c = tensor.zeros(shape):keep()}
end

--- The LSTM's state behind the words read so far, of each column. No gradient passes from stretch
-- to stretch: back-propagation is truncated. It can be a part of a run's checkpoints.
-- @tparam table model
-- @tparam number columns
-- @treturn Memory it begins empty
function M.memory(model, columns)
  return setmetatable({now = empty_state(model, columns), spare = empty_state(model, columns)},
    Memory)
end

--- Forget what was read.
function Memory:clear()
  for _, t in pairs(self.now) do t:fill_(0) end
end

--- Go on behind a stretch. The way back through it still needs the state that it began with, so
-- that stays as it is until the next stretch is behind it.
-- @tparam table state as the LSTM gave it
function Memory:move(state)
  for name, t in pairs(self.spare) do t:copy_(state[name]) end
  self.now, self.spare = self.spare, self.now
end

--- As checkpoints want it, which read back into these tensors.
function Memory:state() return {tensors = self.now, numbers = {}} end
function Memory:load() return self end

return M
