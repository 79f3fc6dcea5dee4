local file = require "octet.file"
local model_folder = require "octet.train.model_folder"

describe("a classifier's folder", function()
  local folder
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    file.make_folder(folder)
  end)
  after_each(function() file.remove_folder(folder) end)

  local function described(config)
    if type(config) == "string" then
      file.save(folder .. "/config.json", config)
    else
      file.save_json(folder .. "/config.json", config)
    end
    return model_folder.describe(folder)
  end

  it("says again what was put in", function()
    local config = model_folder.config({hidden_size = 32}, {"bad", "good"},
      {task = "sst2", pooling = "mean", max_length = 99, pair = false})
    assert.same({classes = 2, labels = {"bad", "good"}, pooling = "mean", max_length = 99,
      task = "sst2", pair = false}, described(config))
    assert.equal(32, config.hidden_size)
    config = model_folder.config({}, nil, {pair = true, pooling = "cls"})
    assert.same({classes = 1, pooling = "cls", pair = true}, described(config))
  end)

  it("from elsewhere is understood", function()
    assert.same({classes = 3, labels = {"a", "b", "c"}, pooling = "cls"},
      described {id2label = {["0"] = "a", ["1"] = "b", ["2"] = "c"}})
  end)

  it("that is no classifier's, or says nonsense, is refused in one line", function()
    for _, config in ipairs {"", "[", "[]", "3", "{}", '{"id2label": 3}', '{"id2label": {}}',
        '{"id2label": {"0": "a", "2": "b"}}', '{"id2label": {"0": 5}}',
        '{"id2label": {"x": "a"}}', '{"id2label": {"0": "a", "1": "b\\nc"}}',
        '{"id2label": {"0": "a", "1": "b\\tc"}}'} do
      local ok, err = pcall(described, config)
      assert.is_false(ok, config)
      assert.is_nil(err:find "\n")
      assert.matches("config.json", err)
    end
    local odd = described {id2label = {["0"] = "a", ["1"] = "b"},
      octet = {pooling = "max", max_length = -5, pair = 1, task = {}}}
    assert.same({classes = 2, labels = {"a", "b"}, pooling = "cls"}, odd)
  end)

  it("has settings for the tokenizer where the model had none", function()
    local from = folder .. "/from"
    file.make_folder(from)
    file.save(from .. "/vocab.txt", "[PAD]\n")
    model_folder.begin(folder, from, {})
    assert.is_true(file.read_json(folder .. "/tokenizer_config.json").do_lower_case)
    file.save(from .. "/tokenizer_config.json", '{"do_lower_case": false}')
    model_folder.begin(folder, from, {})
    assert.is_false(file.read_json(folder .. "/tokenizer_config.json").do_lower_case)
    assert.equal("[PAD]\n", file.read(folder .. "/vocab.txt"))
  end)
end)
