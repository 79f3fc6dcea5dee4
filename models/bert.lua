--- BERT (Devlin et al. 2019) with a head for sentences, on packed sequences.
--
-- Weights go by Hugging Face's names outside and by the tree's names inside; the only difference in
-- layout is that query, key and value are one product here, their weights on top of each other.
-- @module models.bert
local octet = require "octet"
local nn = octet.nn

local M = {}

-- ---- the network -------------------------------------------------------------------------------

local Layer = nn.module "BertLayer"

function Layer:init(c)
  self.heads, self.attention_dropout = c.num_attention_heads, c.attention_probs_dropout_prob
  self.qkv = nn.Linear(c.hidden_size, 3 * c.hidden_size)
  self.attention_out = nn.Linear(c.hidden_size, c.hidden_size)
  self.attention_norm = nn.LayerNorm(c.hidden_size, c.layer_norm_eps)
  self.up = nn.Linear(c.hidden_size, c.intermediate_size, {activation = c.hidden_act})
  self.down = nn.Linear(c.intermediate_size, c.hidden_size)
  self.norm = nn.LayerNorm(c.hidden_size, c.layer_norm_eps)
  self.dropout = nn.Dropout(c.hidden_dropout_prob)
end

function Layer:forward(h, offsets)
  local attended = nn.attention(self.qkv(h), offsets, self.heads,
    {dropout = self.training and self.attention_dropout or 0})
  h = self.attention_norm(h + self.dropout(self.attention_out(attended)))
  return self.norm(h + self.dropout(self.down(self.up(h))))
end

--- The encoder: ids to hidden states.
M.Encoder = nn.module "BertEncoder"

function M.Encoder:init(c)
  self.word = nn.Embedding(c.vocab_size, c.hidden_size)
  self.position = nn.Embedding(c.max_position_embeddings, c.hidden_size)
  self.type = nn.Embedding(c.type_vocab_size, c.hidden_size)
  self.norm = nn.LayerNorm(c.hidden_size, c.layer_norm_eps)
  self.dropout = nn.Dropout(c.hidden_dropout_prob)
  self.layers = nn.List()
  for _ = 1, c.num_hidden_layers do self.layers:add(Layer(c)) end
end

--- @tparam table batch ids, positions, types: i32 [tokens]; offsets: i32 [sequences + 1]
-- @treturn tensor [tokens x hidden]
function M.Encoder:forward(batch)
  local h = self.word(batch.ids) + self.position(batch.positions) + self.type(batch.types)
  h = self.dropout(self.norm(h))
  for i = 1, #self.layers do
    h = octet.tidy(self.layers[i].forward, self.layers[i], h, batch.offsets)
  end
  return h
end

--- The encoder with a pooled output and a linear head.
M.Classifier = nn.module "BertClassifier"

--- @tparam table c a checked configuration (M.config)
-- @tparam table options `classes` (1: a score), `pooling` "mean" or "cls"
function M.Classifier:init(c, options)
  self.config, self.pooling = c, options.pooling or "mean"
  if self.pooling ~= "mean" and self.pooling ~= "cls" then
    error(("bert: pooling '%s'; expected mean or cls"):format(tostring(self.pooling)), 2)
  end
  self.encoder = M.Encoder(c)
  if self.pooling == "cls" then
    self.pooler = nn.Linear(c.hidden_size, c.hidden_size, {activation = "tanh"})
  end
  self.dropout = nn.Dropout(c.hidden_dropout_prob)
  self.classifier = nn.Linear(c.hidden_size, options.classes)
  for _, layer in ipairs {self.pooler or self.classifier, self.classifier} do
    layer.weight:normal_(0, c.initializer_range)
    layer.bias:fill_(0)
  end
end

--- @tparam table batch as for the encoder
-- @treturn tensor [sequences x classes]
function M.Classifier:forward(batch)
  local h = self.encoder(batch)
  local pooled
  if self.pooling == "cls" then
    pooled = self.pooler(nn.segment_first(h, batch.offsets))
  else
    pooled = nn.segment_mean(h, batch.offsets)
  end
  return self.classifier(self.dropout(pooled))
end

-- ---- configuration -----------------------------------------------------------------------------

local POSITIVE = {
  "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
  "max_position_embeddings", "type_vocab_size",
}
local DEFAULTS = {
  type_vocab_size = 2, max_position_embeddings = 512, hidden_act = "gelu",
  hidden_dropout_prob = 0.1, attention_probs_dropout_prob = 0.1, layer_norm_eps = 1e-12,
  initializer_range = 0.02,
}
local LARGEST = 2 ^ 24

--- Check a config.json that has been read, and fill in BERT's defaults.
-- @tparam table raw
-- @tparam string where the file, for errors
-- @treturn table a new table
function M.config(raw, where)
  local function fail(...) error(where .. ": " .. string.format(...), 0) end
  if raw.model_type ~= nil and raw.model_type ~= "bert" then
    fail("model_type is '%s', expected bert", tostring(raw.model_type))
  end
  local c = {}
  for key, value in pairs(raw) do c[key] = value end
  for key, value in pairs(DEFAULTS) do
    if c[key] == nil then c[key] = value end
    if type(c[key]) ~= type(value) then
      fail("%s is a %s, expected a %s", key, type(c[key]), type(value))
    end
  end
  for _, key in ipairs(POSITIVE) do
    local n = c[key]
    if type(n) ~= "number" or n < 1 or n > LARGEST or n % 1 ~= 0 then
      fail("%s is %s, expected a whole number from 1 to %d", key, tostring(n), LARGEST)
    end
  end
  if c.hidden_size % c.num_attention_heads ~= 0 then
    fail("hidden_size %d is no multiple of num_attention_heads %d", c.hidden_size,
      c.num_attention_heads)
  end
  for _, key in ipairs {"hidden_dropout_prob", "attention_probs_dropout_prob"} do
    if not (c[key] >= 0 and c[key] < 1) then
      fail("%s is %s, expected 0 to below 1", key, c[key])
    end
  end
  if c.num_hidden_layers > 1000 then
    fail("%d layers, expected 1,000 at most", c.num_hidden_layers)
  end
  local position = c.position_embedding_type
  if position ~= nil and position ~= "absolute" then
    fail("position_embedding_type is '%s', expected absolute", tostring(position))
  end
  local acts = {gelu = true, relu = true, tanh = true, silu = true}
  if not acts[c.hidden_act] then
    fail("hidden_act is '%s', expected gelu, relu, tanh or silu", c.hidden_act)
  end
  return c
end

-- ---- weights under Hugging Face's names --------------------------------------------------------

local EMBEDDINGS = {
  {"word", "word_embeddings"}, {"position", "position_embeddings"},
  {"type", "token_type_embeddings"},
}
local LAYER_PARTS = {
  {"attention_out", "attention.output.dense"}, {"attention_norm", "attention.output.LayerNorm"},
  {"up", "intermediate.dense"}, {"down", "output.dense"}, {"norm", "output.LayerNorm"},
}

--- The weights under Hugging Face's names ("bert.encoder.layer.0...", "classifier.weight"). They
-- share memory with the model: copying into them loads it.
-- @tparam[opt] function pick tensor to list for a parameter in its place, e.g. its gradient
-- @treturn {{name=string, tensor=tensor},...}
function M.Classifier:hugging_face_state(pick)
  pick = pick or function(parameter) return parameter end
  local list = {}
  local function add(name, t) list[#list + 1] = {name = name, tensor = t} end
  local function add_layer(name, layer)
    add(name .. ".weight", pick(layer.weight))
    add(name .. ".bias", pick(layer.bias))
  end
  local encoder = self.encoder
  for _, pair in ipairs(EMBEDDINGS) do
    add("bert.embeddings." .. pair[2] .. ".weight", pick(encoder[pair[1]].weight))
  end
  add_layer("bert.embeddings.LayerNorm", encoder.norm)
  local width = self.config.hidden_size
  for i = 1, #encoder.layers do
    local layer, prefix = encoder.layers[i], ("bert.encoder.layer.%d."):format(i - 1)
    local qkv_weight, qkv_bias = pick(layer.qkv.weight), pick(layer.qkv.bias)
    for j, name in ipairs {"query", "key", "value"} do
      local first = (j - 1) * width + 1
      add(prefix .. "attention.self." .. name .. ".weight", qkv_weight:rows(first, width))
      add(prefix .. "attention.self." .. name .. ".bias", qkv_bias:rows(first, width))
    end
    for _, pair in ipairs(LAYER_PARTS) do add_layer(prefix .. pair[2], layer[pair[1]]) end
  end
  if self.pooler then add_layer("bert.pooler.dense", self.pooler) end
  add_layer("classifier", self.classifier)
  return list
end

--- What Hugging Face's names are for each parameter here: `names` of an optimizer's import.
-- @treturn table by name here a list of theirs, which are the parameter's rows in this order
function M.Classifier:hugging_face_names()
  local own, names = {}, {}
  for _, p in ipairs(self:parameters()) do own[p.tensor] = p.name end
  local function whole(parameter)
    local stands_for = {name = own[parameter]}
    function stands_for.rows() return stands_for end
    return stands_for
  end
  for _, entry in ipairs(self:hugging_face_state(whole)) do
    local name = entry.tensor.name
    names[name] = names[name] or {}
    table.insert(names[name], entry.name)
  end
  return names
end

--- One name for each tensor: without "bert.", and with today's names for the norms' two vectors.
local function plain_name(name)
  return (name:gsub("^bert%.", ""):gsub("LayerNorm%.gamma$", "LayerNorm.weight")
    :gsub("LayerNorm%.beta$", "LayerNorm.bias"))
end

--- Tensors of a checkpoint that a classifier has no use for: heads of the pre-training, a buffer.
local function is_of_no_use(name)
  return name:find("^cls%.") or name == "embeddings.position_ids"
end

local function shape_text(shape) return "[" .. table.concat(shape, " x ") .. "]" end

--- Copy a checkpoint's weights into the model.
-- @tparam table file an open octet.safetensors file
-- @treturn {string,...} parts that the checkpoint lacks and that keep their random start: the head,
-- the pooler. Anything else that lacks is an error.
function M.Classifier:load_weights(file)
  local path, stored = file.path, {}
  for _, name in ipairs(file:names()) do stored[plain_name(name)] = name end
  local fresh = {}
  for _, own in ipairs(self:hugging_face_state()) do
    local name = plain_name(own.name)
    local source = stored[name]
    stored[name] = nil
    local may_lack = name:match("^(classifier)%.") or name:match("^(pooler)%.")
    if source then
      local shape = file:info(source).shape
      if shape_text(shape) ~= shape_text(own.tensor:shape()) then
        error(("%s: tensor '%s' is %s, expected %s"):format(path, source, shape_text(shape),
          shape_text(own.tensor:shape())), 0)
      end
      file:read(source, own.tensor)
    elseif may_lack then
      fresh[may_lack] = true
    else
      error(("%s: tensor '%s' %s is missing"):format(path, name, shape_text(own.tensor:shape())), 0)
    end
  end
  for name, source in pairs(stored) do
    local unused_pooler = not self.pooler and name:find("^pooler%.")
    if not (unused_pooler or is_of_no_use(name)) then
      error(("%s: tensor '%s' %s is left over: this model has no place for it"):format(path, source,
        shape_text(file:info(source).shape)), 0)
    end
  end
  local names = {}
  for name in pairs(fresh) do names[#names + 1] = name end
  table.sort(names)
  return names
end

--- A classifier from a folder in Hugging Face's layout: config.json and model.safetensors.
-- @tparam string folder
-- @tparam table options `classes`, `pooling` ("mean" or "cls")
-- @treturn table the model
-- @treturn {string,...} parts that start at random, for want of weights
function M.load(folder, options)
  local path = folder .. "/config.json"
  local model = M.Classifier(M.config(require("octet.file").read_json(path), path), options)
  local file = octet.safetensors.open(folder .. "/model.safetensors")
  local fresh = model:load_weights(file)
  file:close()
  return model, fresh
end

return M
