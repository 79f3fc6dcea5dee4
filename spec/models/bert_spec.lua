-- Figures of PyTorch 2 and transformers' BertForSequenceClassification in f32: the parameters in
-- the order of their names, element i (from 0) of parameter k (from 1) being 0.3 sin(1.3 i + k),
-- plus 1 in a norm's weight; four sequences without padding here, padded there.
local bert = require "models.bert"
local octet = require "octet"
local nn, tensor = octet.nn, octet.tensor

local CONFIG = {
  vocab_size = 50, hidden_size = 32, num_hidden_layers = 2, num_attention_heads = 4,
  intermediate_size = 64, max_position_embeddings = 16, type_vocab_size = 2,
}
local LENGTHS = {5, 1, 9, 3}
local LABELS = {0, 2, 1, 1}
local LOSS = 1.0807905197143555
local LOGITS = {
  -0.5650466, 0.2692713, -0.0896499, -0.3118400, -0.0862724, 0.1729103,
  -0.4662897, 0.1928283, -0.0775154, -0.2728860, -0.0153300, 0.0310442,
}
local LOGITS_OF_MEAN = {
  0.7736449, -0.5253860, -0.2755781, 2.5781050, -2.5316076, 0.8302718,
  1.1579337, -0.5770728, -0.5848879, 1.1044457, -1.0301284, 0.1258218,
}
-- Of each gradient: its norm, and its product with cos 0, cos 1, cos 2 ...
local GRADIENTS = {
  ["bert.embeddings.LayerNorm.bias"] = {0.0248368, -0.00666407},
  ["bert.embeddings.LayerNorm.weight"] = {0.0217812, 0.0250224},
  ["bert.embeddings.position_embeddings.weight"] = {0.0743553, -0.0176622},
  ["bert.embeddings.token_type_embeddings.weight"] = {0.0804901, 0.0144491},
  ["bert.embeddings.word_embeddings.weight"] = {0.0789751, -0.0273717},
  ["bert.encoder.layer.0.attention.output.LayerNorm.bias"] = {0.0363804, 0.000840775},
  ["bert.encoder.layer.0.attention.output.LayerNorm.weight"] = {0.0500363, -0.132641},
  ["bert.encoder.layer.0.attention.output.dense.bias"] = {0.0181823, 0.000870194},
  ["bert.encoder.layer.0.attention.output.dense.weight"] = {0.713072, 0.0201712},
  ["bert.encoder.layer.0.attention.self.key.bias"] = {5.91859e-08, -2.47708e-08},
  ["bert.encoder.layer.0.attention.self.key.weight"] = {0.00448085, 0.000402462},
  ["bert.encoder.layer.0.attention.self.query.bias"] = {0.000931122, -1.80974e-05},
  ["bert.encoder.layer.0.attention.self.query.weight"] = {0.00443076, 0.00164222},
  ["bert.encoder.layer.0.attention.self.value.bias"] = {0.0386465, -0.0318018},
  ["bert.encoder.layer.0.attention.self.value.weight"] = {0.280566, -0.115908},
  ["bert.encoder.layer.0.intermediate.dense.bias"] = {0.0248644, -0.00792134},
  ["bert.encoder.layer.0.intermediate.dense.weight"] = {0.189682, -0.0200721},
  ["bert.encoder.layer.0.output.LayerNorm.bias"] = {0.0726845, -0.00870724},
  ["bert.encoder.layer.0.output.LayerNorm.weight"] = {0.0735017, -0.137295},
  ["bert.encoder.layer.0.output.dense.bias"] = {0.0476353, -0.00276794},
  ["bert.encoder.layer.0.output.dense.weight"] = {0.358229, 0.0172554},
  ["bert.encoder.layer.1.attention.output.LayerNorm.bias"] = {0.0829509, -0.0483893},
  ["bert.encoder.layer.1.attention.output.LayerNorm.weight"] = {0.0861543, -0.18635},
  ["bert.encoder.layer.1.attention.output.dense.bias"] = {0.0496313, -0.0141973},
  ["bert.encoder.layer.1.attention.output.dense.weight"] = {0.991955, -0.0388968},
  ["bert.encoder.layer.1.attention.self.key.bias"] = {9.61161e-09, -1.51462e-09},
  ["bert.encoder.layer.1.attention.self.key.weight"] = {0.0319428, 0.00276093},
  ["bert.encoder.layer.1.attention.self.query.bias"] = {0.00855733, -0.00029875},
  ["bert.encoder.layer.1.attention.self.query.weight"] = {0.0579196, -0.00020232},
  ["bert.encoder.layer.1.attention.self.value.bias"] = {0.0323623, -0.0014608},
  ["bert.encoder.layer.1.attention.self.value.weight"] = {0.271488, -0.0264338},
  ["bert.encoder.layer.1.intermediate.dense.bias"] = {0.0674541, -0.0188755},
  ["bert.encoder.layer.1.intermediate.dense.weight"] = {0.359137, 0.00278638},
  ["bert.encoder.layer.1.output.LayerNorm.bias"] = {0.106071, -0.0670084},
  ["bert.encoder.layer.1.output.LayerNorm.weight"] = {0.116251, -0.170862},
  ["bert.encoder.layer.1.output.dense.bias"] = {0.0654875, -0.0462744},
  ["bert.encoder.layer.1.output.dense.weight"] = {0.282835, -0.102476},
  ["bert.pooler.dense.bias"] = {0.212985, 0.010465},
  ["bert.pooler.dense.weight"] = {1.26243, 0.144345},
  ["classifier.bias"] = {0.153727, -0.112485},
  ["classifier.weight"] = {0.812427, -0.246256},
}

local function batch()
  local ids, types, positions, offsets = {}, {}, {}, {0}
  for s, length in ipairs(LENGTHS) do
    for i = 0, length - 1 do
      ids[#ids + 1] = (7 * (s - 1) + 3 * i * i + i) % 49 + 1
      types[#types + 1] = i >= 3 and 1 or 0
      positions[#positions + 1] = i
    end
    offsets[#offsets + 1] = #ids
  end
  local function i32(values) return tensor.from(values, nil, "i32") end
  return {ids = i32(ids), types = i32(types), positions = i32(positions), offsets = i32(offsets),
    labels = i32(LABELS)}
end

local function model(pooling)
  local m = bert.Classifier(bert.config(CONFIG, "config"), {classes = 3, pooling = pooling})
  local order = {}
  for name in pairs(GRADIENTS) do order[#order + 1] = name end
  table.sort(order)
  local place = {}
  for k, name in ipairs(order) do place[name] = k end
  for _, p in ipairs(m:hugging_face_state()) do
    local data, k = p.tensor:data(), place[p.name]
    local shift = p.name:find("LayerNorm.weight", 1, true) and 1 or 0
    for i = 0, p.tensor:size() - 1 do data[i] = shift + 0.3 * math.sin(1.3 * i + k) end
  end
  return m:eval()
end

local function assert_near(expected, values, tolerance)
  for i, v in ipairs(expected) do assert.near(v, values[i], tolerance) end
end

for _, isa in ipairs {"avx2", "avx512"} do
  local has = pcall(octet.set_isa, isa)
  octet.set_isa("auto")
  if has then
    describe("BERT with kernels for " .. isa, function()
      setup(function() octet.set_isa(isa) end)
      teardown(function() octet.set_isa("auto") end)

      it("gives PyTorch's logits, from the first token and from the mean", function()
        octet.no_grad(function()
          assert_near(LOGITS, model("cls")(batch()):totable(), 2e-6)
          assert_near(LOGITS_OF_MEAN, model("mean")(batch()):totable(), 2e-6)
        end)
      end)

      it("gives PyTorch's loss and every parameter's gradient", function()
        local m, b = model("cls"), batch()
        local loss = nn.cross_entropy(m(b), b.labels)
        assert.near(LOSS, loss:item(), 1e-6)
        loss:backward()
        local seen = 0
        for _, p in ipairs(m:hugging_face_state(function(t) return t:grad() end)) do
          local norm, product = 0, 0
          for i, g in ipairs(p.tensor:totable()) do
            norm = norm + g * g
            product = product + g * math.cos(i - 1)
          end
          norm = math.sqrt(norm)
          local expected = GRADIENTS[p.name]
          local tolerance = 3e-5 * expected[1] + 4e-7
          assert.near(expected[1], norm, tolerance, p.name)
          assert.near(expected[2], product, tolerance, p.name)
          seen = seen + 1
        end
        assert.equal(41, seen)
      end)
    end)
  end
end

describe("BERT in training", function()
  local function loss_after_steps(threads, precision)
    octet.set_threads(threads)
    octet.set_precision(precision)
    octet.seed(3)
    local m, b, value = model("mean"):train(), batch(), nil
    for _ = 1, 3 do
      octet.scope(function()
        local loss = nn.cross_entropy(m(b), b.labels)
        loss:backward()
        value = loss:item()
        for _, p in ipairs(m:parameters()) do
          local data, gradient = p.tensor:data(), p.tensor:grad():data()
          for i = 0, p.tensor:size() - 1 do data[i] = data[i] - 0.1 * gradient[i] end
          p.tensor:zero_grad()
        end
      end)
    end
    octet.set_precision("f32")
    return value
  end

  it("draws dropout from the seed, and gives the same bits for any number of threads", function()
    local threads = octet.threads()
    for _, precision in ipairs {"f32", "bf16"} do
      local one = loss_after_steps(1, precision)
      assert.equal(one, loss_after_steps(2, precision))
      assert.equal(one, loss_after_steps(3, precision))
    end
    octet.set_threads(threads)
  end)

  it("comes near to f32 in bf16", function()
    local f32, bf16 = loss_after_steps(2, "f32"), loss_after_steps(2, "bf16")
    assert.near(f32, bf16, 0.1)
    assert.are_not.equal(f32, bf16)
  end)
end)

describe("a BERT configuration", function()
  local function refuse(changes, message)
    local c = {}
    for k, v in pairs(CONFIG) do c[k] = v end
    for k, v in pairs(changes) do c[k] = v end
    local ok, text = pcall(bert.config, c, "folder/config.json")
    assert.is_false(ok)
    assert.matches("^folder/config.json: " .. message, text)
  end

  it("is refused with the file and the field named", function()
    refuse({model_type = "gpt2"}, "model_type is 'gpt2', expected bert")
    refuse({hidden_size = 33}, "hidden_size 33 is no multiple of num_attention_heads 4")
    refuse({vocab_size = "many"}, "vocab_size is many, expected a whole number")
    refuse({vocab_size = 1e12}, "vocab_size is 1000000000000, expected a whole number")
    refuse({hidden_dropout_prob = 1}, "hidden_dropout_prob is 1, expected 0 to below 1")
    refuse({hidden_act = "gelu_new"}, "hidden_act is 'gelu_new'")
    refuse({layer_norm_eps = "x"}, "layer_norm_eps is a string, expected a number")
    refuse({position_embedding_type = "relative_key"}, "position_embedding_type is 'relative_key'")
  end)
end)
