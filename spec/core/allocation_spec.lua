local bert = require "models.bert"
local octet = require "octet"
local sweep = require "spec.sweep"
local nn, tensor = octet.nn, octet.tensor

local CONFIG = bert.config({
  vocab_size = 11, hidden_size = 8, num_hidden_layers = 1, num_attention_heads = 2,
  intermediate_size = 16, max_position_embeddings = 8,
}, "config")

local function i32(values) return tensor.from(values, nil, "i32"):keep() end

-- After all the failures the next step gives what it gave before.
for _, precision in ipairs {"f32", "bf16"} do
  describe("an allocation that fails in a training step in " .. precision, function()
    local batch, model, loss_of_step

    setup(function()
      octet.set_precision(precision)
      octet.seed(1)
      batch = {ids = i32 {1, 2, 3, 4, 5}, types = i32 {0, 0, 0, 1, 1},
        positions = i32 {0, 1, 2, 0, 1}, offsets = i32 {0, 3, 5}, labels = i32 {0, 1}}
      model = bert.Classifier(CONFIG, {classes = 2, pooling = "cls"}):train()
    end)
    teardown(function()
      sweep.fail_allocation(0)
      octet.set_precision("f32")
    end)

    local function clear()
      for _, p in ipairs(model:parameters()) do p.tensor:zero_grad() end
    end

    local function step()
      octet.seed(1)
      octet.scope(function()
        local logits = model(batch)
        local extra = (tensor.cat {logits, logits * 2} / (logits:max() + 3)):narrow(2, 1, 1)
        local pairs_of = logits:reshape {1, 2, 2}:clone()
        extra = extra + pairs_of:matmul(pairs_of):maximum(0.1):sum()
        extra = logits:gt(0):where(logits, 0.5):mean() + extra:clamp(-9, 9)
        local loss = nn.cross_entropy(logits, batch.labels) + extra:transpose():log_softmax():mean()
        loss:backward()
        loss_of_step = loss:item()
      end)
      clear()
    end

    it("is one clear line, leaks nothing and breaks nothing", function()
      step()
      local expected = loss_of_step
      sweep.allocations(step, nil, clear)
      assert.equal(expected, loss_of_step)
    end)

    it("is made good by the garbage collector where that frees enough", function()
      sweep.fail_allocation(1)
      assert.has_no.errors(step)
    end)
  end)
end
