"""The values of a golden folder (tests/data/golden/v3-bf16, v32-fp8) from its checkpoint, in double precision, with numpy alone.

    python make_goldens.py FOLDER --check           compares golden.safetensors with values computed anew; exit 1 where one differs
    python make_goldens.py FOLDER                   writes golden.safetensors and golden.json for the weights and ids that lie there
    python make_goldens.py FOLDER --seed 7          draws weights and ids for FOLDER/config.json first: a new golden model
    ... --transformers                              also what transformers gives in float32 and bfloat16 (needs torch and transformers)

The forward below is written from the DeepSeek-V3 and V3.2 reports and their official inference code: every operation in float64, the plainest way,
no batching of experts, no cache. It covers models with a query latent, sigmoid routing (noaux_tc), with or without MTP and indexer; BF16 and FP8.
Without --transformers, what an earlier golden.json and golden.safetensors say of transformers is kept.
"""
import argparse
import json
import math
import os
import sys
import tempfile

import numpy as np

BLOCK = 128
DTYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "u1", "BF16": "<u2", "F8_E4M3": "u1"}


# ---------------------------------------------------------------------------------------------- numbers and files
def to_bf16(x):
  """float -> the bits of the nearest BF16."""
  bits = np.asarray(x, np.float32).view(np.uint32)
  return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits):
  return (np.asarray(bits).astype(np.uint32) << 16).view(np.float32)


def e4m3_values():
  """What the 256 codes mean."""
  code = np.arange(256)
  exponent, mantissa = (code >> 3) & 15, code & 7
  value = np.where(exponent == 0, mantissa * 2.0**-9, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))
  value[(code & 127) == 127] = np.nan
  return np.where(code & 128, -value, value)


def to_e4m3(x):
  """The nearest code, ties to the even one."""
  values = e4m3_values()[:127]
  magnitude = np.abs(x)
  at = np.clip(np.searchsorted(values, magnitude), 1, 126)
  below, above = magnitude - values[at - 1], values[at] - magnitude
  code = np.where((below < above) | ((below == above) & (at % 2 == 1)), at - 1, at)
  return (code | np.where(np.signbit(x), 128, 0)).astype(np.uint8)


def spread(scale, shape):
  """A scale per block, for every element."""
  return np.repeat(np.repeat(scale, BLOCK, 0), BLOCK, 1)[: shape[0], : shape[1]]


def read_safetensors(path):
  """{name: (dtype, array)}"""
  with open(path, "rb") as file:
    header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    data = file.read()
  header.pop("__metadata__", None)
  return {n: (e["dtype"], np.frombuffer(data[slice(*e["data_offsets"])], DTYPES[e["dtype"]]).reshape(e["shape"])) for n, e in header.items()}


def write_safetensors(path, tensors):
  header, at = {}, 0
  for name, (dtype, array) in tensors.items():
    header[name] = dict(dtype=dtype, shape=list(array.shape), data_offsets=[at, at + array.nbytes])
    at += array.nbytes
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)
  with open(path, "wb") as file:
    file.write(len(text).to_bytes(8, "little") + text)
    for _, array in tensors.values():
      file.write(np.ascontiguousarray(array).tobytes())


def read_checkpoint(folder):
  stored = {}
  for file in sorted(os.listdir(folder)):
    if file.startswith("model") and file.endswith(".safetensors"):
      stored |= read_safetensors(os.path.join(folder, file))
  return stored


def weights_of(stored, rounded):
  """{name: float64}. rounded: FP8 weights pass through BF16, as in a converted checkpoint."""
  out = {}
  for name, (dtype, array) in stored.items():
    if name.endswith("_scale_inv"):
      continue
    if dtype == "F8_E4M3":
      scale = spread(stored[name + "_scale_inv"][1], array.shape)
      if rounded:
        with np.errstate(over="ignore"):
          out[name] = from_bf16(to_bf16(e4m3_values().astype(np.float32)[array] * scale)).astype(np.float64)
      else:
        out[name] = e4m3_values()[array] * scale.astype(np.float64)
    else:
      out[name] = (from_bf16(array) if dtype == "BF16" else array).astype(np.float64)
  return out


# ---------------------------------------------------------------------------------------------- the model
def rms_norm(x, weight, eps):
  return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def silu(x):
  return x / (1 + np.exp(-x))


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def log_softmax(x):
  x = x - x.max(-1, keepdims=True)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def cross_entropy(logits, targets):
  return -np.take_along_axis(log_softmax(logits), targets[..., None], -1).mean()


def turn(x, angle, interleaved):
  """Rotates pairs of the last axis: neighbours, or element i and i + half."""
  half = x.shape[-1] // 2
  a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
  turned = a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)
  return np.stack(turned, -1).reshape(x.shape) if interleaved else np.concatenate(turned, -1)


def yarn(config):
  """Frequencies of the rotated pairs, and the factor on scores that YaRN asks for."""
  dim, base, rope = config["qk_rope_head_dim"], config["rope_theta"], config.get("rope_scaling")
  frequency = base ** (-np.arange(0, dim, 2) / dim)
  scale = (config["qk_nope_head_dim"] + dim) ** -0.5
  if not rope:
    return frequency, scale
  assert rope["mscale"] == rope["mscale_all_dim"], "cos and sin are left unscaled"
  place = lambda turns: dim * math.log(rope["original_max_position_embeddings"] / (turns * 2 * math.pi)) / (2 * math.log(base))
  low, high = max(math.floor(place(rope["beta_fast"])), 0), min(math.ceil(place(rope["beta_slow"])), dim - 1)
  keep = 1 - np.clip((np.arange(dim // 2) - low) / max(high - low, 0.001), 0, 1)
  return frequency * keep + frequency / rope["factor"] * (1 - keep), scale * (0.1 * rope["mscale"] * math.log(rope["factor"]) + 1) ** 2


class Model:
  """One sequence at a time. `margins` collects how close each kind of choice came to going the other way."""

  def __init__(self, config, weights):
    self.c, self.w, self.eps = config, weights, config["rms_norm_eps"]
    self.frequency, self.scale = yarn(config)
    self.margins = {}

  def note(self, kind, margin):
    if margin.size:
      self.margins[kind] = min(self.margins.get(kind, math.inf), float(margin.min()))

  def linear(self, name, x):
    return x @ self.w[name + ".weight"].T

  def mlp(self, name, x):
    return self.linear(name + ".down_proj", silu(self.linear(name + ".gate_proj", x)) * self.linear(name + ".up_proj", x))

  def chosen_keys(self, name, x, q_low, angle, seen):
    """The indexer's choice: a mask [T,T], and per query by how much its last key won."""
    heads, dim, rope, count = self.c["index_n_heads"], self.c["index_head_dim"], self.c["qk_rope_head_dim"], self.c["index_topk"]
    tokens = len(x)
    q = self.linear(name + ".wq_b", q_low).reshape(tokens, heads, dim)
    k = self.linear(name + ".wk", x)
    k = (k - k.mean(-1, keepdims=True)) / np.sqrt(k.var(-1, keepdims=True) + 1e-6) * self.w[name + ".k_norm.weight"] + self.w[name + ".k_norm.bias"]
    q = np.concatenate((turn(q[..., :rope], angle[:, None], False), q[..., rope:]), -1)
    k = np.concatenate((turn(k[..., :rope], angle, False), k[..., rope:]), -1)
    weight = self.linear(name + ".weights_proj", x) / math.sqrt(heads * dim)
    score = np.where(seen, np.einsum("th,hts->ts", weight, np.maximum(np.einsum("thd,sd->hts", q, k), 0)), -np.inf)
    mask, margin = seen.copy(), np.full(tokens, 1e9)
    for t in range(count, tokens):
      order = np.argsort(-score[t], kind="stable")
      mask[t] = False
      mask[t, order[:count]] = True
      margin[t] = score[t, order[count - 1]] - score[t, order[count]]
    self.note("indexer", margin[count:])
    return mask, margin

  def attention(self, name, x, angle, record):
    c = self.c
    heads, nope, rope, v, rank = (c[k] for k in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank"))
    tokens = len(x)
    q_low = rms_norm(self.linear(name + ".q_a_proj", x), self.w[name + ".q_a_layernorm.weight"], 1e-6)
    q = self.linear(name + ".q_b_proj", q_low).reshape(tokens, heads, nope + rope)
    low = self.linear(name + ".kv_a_proj_with_mqa", x)
    kv = self.linear(name + ".kv_b_proj", rms_norm(low[:, :rank], self.w[name + ".kv_a_layernorm.weight"], 1e-6)).reshape(tokens, heads, nope + v)
    q_rope, k_rope = turn(q[..., nope:], angle[:, None], True), turn(low[:, rank:], angle, True)
    score = self.scale * (np.einsum("thd,shd->hts", q[..., :nope], kv[..., :nope]) + np.einsum("thd,sd->hts", q_rope, k_rope))
    mask = np.tril(np.ones((tokens, tokens), bool))
    if "index_topk" in c:
      mask, record["top_margin"] = self.chosen_keys(name + ".indexer", x, q_low, angle, mask)
      record["top_mask"] = mask
    o = np.einsum("hts,shd->thd", softmax(np.where(mask, score, -np.inf)), kv[..., nope:])
    return self.linear(name + ".o_proj", o.reshape(tokens, heads * v))

  def experts(self, name, x, record):
    c = self.c
    groups, kept, count = c["n_group"], c["topk_group"], c["num_experts_per_tok"]
    score = 1 / (1 + np.exp(-self.linear(name + ".gate", x)))
    choice = (score + self.w[name + ".gate.e_score_correction_bias"]).reshape(len(x), groups, -1)
    best_two = np.sort(choice, -1)[..., -2:].sum(-1)
    order = np.argsort(-best_two, -1, kind="stable")
    if kept < groups:
      ranked = np.take_along_axis(best_two, order, -1)
      self.note("group", ranked[:, kept - 1] - ranked[:, kept])
    open_group = np.zeros_like(best_two, bool)
    np.put_along_axis(open_group, order[:, :kept], True, -1)
    choice = np.where(open_group[..., None], choice, -np.inf).reshape(len(x), -1)
    order = np.argsort(-choice, -1, kind="stable")
    ranked = np.take_along_axis(choice, order, -1)
    self.note("router", ranked[:, count - 1] - ranked[:, count])
    ids = order[:, :count]
    weight = np.take_along_axis(score, ids, -1)
    weight = weight / (weight.sum(-1, keepdims=True) + 1e-20) * c["routed_scaling_factor"]
    record["router_ids"], record["router_weights"] = ids, weight
    y = self.mlp(name + ".shared_experts", x)
    for t in range(len(x)):
      for expert, factor in zip(ids[t], weight[t]):
        y[t] += factor * self.mlp(f"{name}.experts.{expert}", x[t])
    return y

  def layer(self, i, h, record):
    name = f"model.layers.{i}"
    angle = np.arange(len(h))[:, None] * self.frequency
    h = h + self.attention(name + ".self_attn", rms_norm(h, self.w[name + ".input_layernorm.weight"], self.eps), angle, record)
    x = rms_norm(h, self.w[name + ".post_attention_layernorm.weight"], self.eps)
    return h + (self.mlp(name + ".mlp", x) if i < self.c["first_k_dense_replace"] else self.experts(name + ".mlp", x, record))

  def run(self, ids):
    """logits [T,V], the residual stream before each layer and behind the last, what each layer recorded."""
    hidden, records = [self.w["model.embed_tokens.weight"][ids]], []
    for i in range(self.c["num_hidden_layers"]):
      records.append({})
      hidden.append(self.layer(i, hidden[-1], records[-1]))
    return self.linear("lm_head", self.final(hidden[-1])), hidden, records

  def final(self, h):
    return rms_norm(h, self.w["model.norm.weight"], self.eps)

  def mtp(self, ids, state):
    """Logits of the module: row t joins the state at t with token t+1 and predicts token t+2."""
    i = self.c["num_hidden_layers"]
    name = f"model.layers.{i}"
    embedding = rms_norm(self.w[name + ".embed_tokens.weight"][ids[1:]], self.w[name + ".enorm.weight"], self.eps)
    h = self.linear(name + ".eh_proj", np.concatenate((embedding, rms_norm(state[:-1], self.w[name + ".hnorm.weight"], self.eps)), -1))
    return self.linear(name + ".shared_head.head", rms_norm(self.layer(i, h, {}), self.w[name + ".shared_head.norm.weight"], self.eps))


# ---------------------------------------------------------------------------------------------- weights and ids from a seed
def shapes(c):
  hidden, heads, q, kv = c["hidden_size"], c["num_attention_heads"], c["q_lora_rank"], c["kv_lora_rank"]
  nope, rope, v = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
  out = {"model.embed_tokens.weight": (c["vocab_size"], hidden), "model.norm.weight": (hidden,), "lm_head.weight": (c["vocab_size"], hidden)}

  def mlp(name, width):
    out.update({name + ".gate_proj.weight": (width, hidden), name + ".up_proj.weight": (width, hidden), name + ".down_proj.weight": (hidden, width)})

  for i in range(c["num_hidden_layers"] + c["num_nextn_predict_layers"]):
    name = f"model.layers.{i}."
    if i >= c["num_hidden_layers"]:
      out |= {name + n: (hidden,) for n in ("enorm.weight", "hnorm.weight", "shared_head.norm.weight")}
      out |= {name + "eh_proj.weight": (hidden, 2 * hidden)}
      out |= {name + n: (c["vocab_size"], hidden) for n in ("embed_tokens.weight", "shared_head.head.weight")}
    a = name + "self_attn."
    out |= {a + "q_a_proj.weight": (q, hidden), a + "q_a_layernorm.weight": (q,), a + "q_b_proj.weight": (heads * (nope + rope), q),
            a + "kv_a_proj_with_mqa.weight": (kv + rope, hidden), a + "kv_a_layernorm.weight": (kv,),
            a + "kv_b_proj.weight": (heads * (nope + v), kv), a + "o_proj.weight": (hidden, heads * v)}
    if "index_topk" in c:
      n, d = c["index_n_heads"], c["index_head_dim"]
      out |= {a + "indexer.wq_b.weight": (n * d, q), a + "indexer.wk.weight": (d, hidden), a + "indexer.weights_proj.weight": (n, hidden),
              a + "indexer.k_norm.weight": (d,), a + "indexer.k_norm.bias": (d,)}
    out |= {name + "input_layernorm.weight": (hidden,), name + "post_attention_layernorm.weight": (hidden,)}
    if i < c["first_k_dense_replace"]:
      mlp(name + "mlp", c["intermediate_size"])
      continue
    out |= {name + "mlp.gate.weight": (c["n_routed_experts"], hidden), name + "mlp.gate.e_score_correction_bias": (c["n_routed_experts"],)}
    for e in range(c["n_routed_experts"]):
      mlp(f"{name}mlp.experts.{e}", c["moe_intermediate_size"])
    mlp(name + "mlp.shared_experts", c["moe_intermediate_size"] * c["n_shared_experts"])
  return out


def draw(name, shape, rng):
  x = rng.standard_normal(shape)
  if name.endswith("bias"):
    return 0.1 * x
  if len(shape) == 1:
    return 1 + 0.1 * x
  if "embed_tokens" in name:
    return x
  return x / math.sqrt(shape[1]) * (2 if any(part in name for part in ("mlp.gate.", "lm_head", "indexer")) else 1)


def store(name, x, fp8, power_of_two):
  """[(name, dtype, array)] as the hub ships it."""
  if name.endswith("e_score_correction_bias") or "k_norm" in name:
    return [(name, "F32", x.astype(np.float32))]
  plain = x.ndim == 1 or any(part in name for part in ("embed_tokens", "lm_head", "head.head", "mlp.gate.", "eh_proj", "weights_proj"))
  if plain or not fp8:
    return [(name, "BF16", to_bf16(x))]
  blocks = tuple(-(-n // BLOCK) for n in x.shape)
  largest = np.array([[np.abs(x[r * BLOCK:(r + 1) * BLOCK, s * BLOCK:(s + 1) * BLOCK]).max() for s in range(blocks[1])] for r in range(blocks[0])])
  scale = (2.0 ** np.ceil(np.log2(largest / 448)) if power_of_two else largest / 448).astype(np.float32)
  return [(name, "F8_E4M3", to_e4m3(x / spread(scale, x.shape))), (name + "_scale_inv", "F32", scale)]


def draw_checkpoint(config, seed):
  rng, stored = np.random.default_rng(seed), {}
  quantization = config.get("quantization_config", {})
  for name, shape in shapes(config).items():
    for key, dtype, array in store(name, draw(name, shape, rng), bool(quantization), quantization.get("scale_fmt") == "ue8m0"):
      stored[key] = (dtype, array)
  module = f"model.layers.{config['num_hidden_layers']}."
  if config["num_nextn_predict_layers"]:  # copies, as on the hub
    stored[module + "embed_tokens.weight"] = stored["model.embed_tokens.weight"]
    stored[module + "shared_head.head.weight"] = stored["lm_head.weight"]
  return stored


def draw_ids(config, stored, seed):
  """Drawn again while a choice is so close that float32 might make it otherwise."""
  model, ids = Model(config, weights_of(stored, False)), {}
  for name, shape in (("short", (2, 8)), ("mid", (1, 97)), ("long", (1, 620))):
    for attempt in range(20):
      ids[name], model.margins = np.random.default_rng([seed, attempt]).integers(0, config["vocab_size"], shape), {}
      for row in ids[name]:
        model.run(row)
      if min(model.margins.values()) > 2e-5:
        break
  return ids


# ---------------------------------------------------------------------------------------------- the folder's values
def sequence_values(model, ids):
  """{name: (what, array)} and the margins of each set of ids."""
  out, margins = {}, {}

  def start():
    model.margins = {}

  start()
  short = [model.run(row) for row in ids["short"]]
  out["short_logits"] = ("logits [B,T,V]", np.stack([r[0] for r in short]))
  for i in range(len(short[0][1])):
    out[f"short_hidden.{i}"] = ("after layer i (0: embedding), before the final norm", np.stack([r[1][i] for r in short]))
  for i in range(model.c["first_k_dense_replace"], model.c["num_hidden_layers"]):
    record = [r[2][i] for r in short]
    out[f"short_router_ids.{i}"] = ("chosen experts [B*T,K] by falling choice score", np.concatenate([r["router_ids"] for r in record]))
    out[f"short_router_weights.{i}"] = ("their weights, scaled", np.concatenate([r["router_weights"] for r in record]))
  margins["short"] = model.margins
  start()
  logits, hidden, records = model.run(ids["mid"][0, :-1])
  margins["mid"] = model.margins
  out["mid_logits"] = ("logits [1,96,V]", logits[None])
  for i, record in enumerate(records):
    if "top_mask" in record:
      out[f"mid_top_mask.{i}"] = ("1: chosen [1,96,96]", record["top_mask"][None].astype(np.uint8))
      out[f"mid_top_margin.{i}"] = ("score of the last chosen minus the first left out (1e9: all chosen)", record["top_margin"][None])
  start()
  out["long_logits_last16"] = ("logits of the last 16 positions", model.run(ids["long"][0])[0][None, -16:])
  margins["long"] = model.margins
  if model.c["num_nextn_predict_layers"]:
    out |= mtp_values(model, ids["mid"][0], hidden[-1])
  return out, margins


def mtp_values(model, ids, h):
  inputs, targets = ids[:-1], ids[2:]
  after, before = model.mtp(inputs, model.final(h)), model.mtp(inputs, h)
  return {
    "mid_mtp_logits": ("MTP logits [1,95,V]: position t predicts token t+2; fed the hidden state AFTER the main model's final norm", after[None]),
    "mid_mtp_loss": ("0.1 * mean CE", np.array(0.1 * cross_entropy(after, targets))),
    "mtp_before_norm.mid_logits_last16": ("the last 16 rows, fed the hidden state BEFORE that norm (MaxText)", before[None, -16:]),
    "mtp_before_norm.mid_loss": ("0.1 * mean CE of it", np.array(0.1 * cross_entropy(before, targets)))}


def golden_values(config, stored, ids):
  values, margins = sequence_values(Model(config, weights_of(stored, False)), ids)
  if "quantization_config" in config:
    values = {"exact." + n: (what + "; every weight is its code times its scale", x) for n, (what, x) in values.items()}
  what = {"short": "token ids [2,8]", "mid": "97 ids: inputs [:, :-1], targets [:, 1:]", "long": "620 token ids"}
  return {n + "_ids": (what[n], x) for n, x in ids.items()} | values, margins


def compare(old, values):
  """Prints a line per array; whether all agree. Double sums in another order leave 1e-11."""
  good = True
  for name, (_, x) in values.items():
    if name not in old:
      print(f"{name}: not in golden.safetensors")
      good = False
      continue
    y = old[name][1]
    error = float(np.abs(x.astype(np.float64) - y).max() / max(1.0, np.abs(y).max())) if x.shape == y.shape else math.inf
    fine = error <= (0 if x.dtype.kind in "iu" else 1e-10)
    print(f"{name}: {error:.1e}{'' if fine else '  DIFFERS'}")
    good = good and fine
  return good


# ---------------------------------------------------------------------------------------------- transformers, beside it
def transformers_values(config, stored, values):
  """Its errors in float32 and bfloat16, and its bfloat16 logits. It is given an FP8 model as converted to BF16, and measured against that."""
  import torch
  import transformers
  if "quantization_config" in config:
    ids = {n: values[n + "_ids"][1] for n in ("short", "mid", "long")}
    values = values | sequence_values(Model(config, weights_of(stored, True)), ids)[0]
  plain = {n: ("F32", x.astype(np.float32)) for n, x in weights_of(stored, True).items()}
  errors, rms, logits = {}, {}, {}
  with tempfile.TemporaryDirectory() as folder:
    write_safetensors(os.path.join(folder, "model.safetensors"), plain)
    with open(os.path.join(folder, "config.json"), "w") as file:
      json.dump({k: v for k, v in config.items() if k != "quantization_config"}, file)
    for dtype, name in ((torch.float32, "f32"), (torch.bfloat16, "bf16")):
      model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager", experts_implementation="eager")
      for part, last in (("short", None), ("mid", None), ("long", 16)):
        ids = values[part + "_ids"][1]
        with torch.no_grad():
          got = model(torch.tensor(ids[:, :-1] if part == "mid" else ids)).logits.float().numpy()
        key = part + "_logits" + ("_last16" if last else "")
        got, want = (got[:, -16:] if last else got), values[key][1]
        p = log_softmax(want)
        errors[f"{name}_{part}"] = dict(max_abs=float(np.abs(got - want).max()),
                                        max_kl=float((np.exp(p) * (p - log_softmax(got.astype(np.float64)))).sum(-1).max()))
        if name == "bf16":
          logits["hf_bf16." + part + "_logits" + ("" if part == "short" else "_last16")] = (
            "what transformers' own BF16 run gives; for comparison only, not a truth", got if part == "short" else got[:, -16:])
          if part != "long":
            rms[key] = float(np.sqrt(((got - want) ** 2).mean()))
  versions = dict(torch=torch.__version__, transformers=transformers.__version__)
  return dict(transformers_error=errors, transformers_bf16_rms=rms, versions=versions), logits


def dtype_of(x):
  return {"i": "I64", "u": "U8"}.get(x.dtype.kind, "F32" if x.dtype == np.float32 else "F64")


def write(folder, config, stored, ids, args, old, old_info):
  values, margins = golden_values(config, stored, ids)
  info = dict(case=os.path.basename(os.path.normpath(folder)), config=config, seed=args.seed if args.seed is not None else old_info.get("seed"),
              truth="float64", arrays={}, min_margins=margins, long_head="positions 604..619")
  if args.transformers:
    found, logits = transformers_values(config, stored, values)
    info |= found
    values |= logits
  else:
    info |= {k: v for k, v in old_info.items() if k not in info}
    values |= {n: (old_info["arrays"][n]["what"], x) for n, (_, x) in old.items() if n.startswith("hf_")}
  for name, (what, x) in values.items():
    info["arrays"][name] = dict(shape=list(x.shape), dtype=str(x.dtype), what=what)
  write_safetensors(os.path.join(folder, "golden.safetensors"), {n: (dtype_of(x), x) for n, (_, x) in values.items()})
  with open(os.path.join(folder, "golden.json"), "w") as file:
    json.dump(info, file, indent=1)
  print(f"{folder}: {len(values)} arrays; smallest margins {json.dumps(margins)}")


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("folder")
  parser.add_argument("--check", action="store_true")
  parser.add_argument("--seed", type=int)
  parser.add_argument("--transformers", action="store_true")
  args = parser.parse_args()
  with open(os.path.join(args.folder, "config.json")) as file:
    config = json.load(file)
  golden, info = os.path.join(args.folder, "golden.safetensors"), os.path.join(args.folder, "golden.json")
  fresh = args.seed is not None
  old = {} if fresh or not os.path.exists(golden) else read_safetensors(golden)
  old_info = json.load(open(info)) if old else {}
  if fresh:
    stored = draw_checkpoint(config, args.seed)
    ids = draw_ids(config, stored, args.seed)
    write_safetensors(os.path.join(args.folder, "model.safetensors"), stored)
  else:
    stored, ids = read_checkpoint(args.folder), {n: old[n + "_ids"][1] for n in ("short", "mid", "long")}
  if args.check:
    sys.exit(0 if compare(old, golden_values(config, stored, ids)[0]) else 1)
  write(args.folder, config, stored, ids, args, old, old_info)


if __name__ == "__main__":
  main()
