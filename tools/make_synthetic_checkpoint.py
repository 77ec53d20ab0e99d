"""A random FP8 checkpoint with DeepSeek-V3's own tensor shapes and fewer layers, to measure conversions of models that don't fit into memory.

    python make_synthetic_checkpoint.py OUT [--dense-layers 2] [--moe-layers 1] [--shard-gb 4.3]

The defaults make 16.3 GB. Needs numpy. Matrices hold any finite FP8 code, scales as a trained model has them; the values are slices of one random
pool, which makes it as fast as the disk and which no compressor with a window of some MB notices.
"""
import argparse
import json
import os

import numpy as np

BLOCK = 128
CONFIG = dict(
  architectures=["DeepseekV3ForCausalLM"], model_type="deepseek_v3", vocab_size=129280, hidden_size=7168, intermediate_size=18432,
  moe_intermediate_size=2048, num_attention_heads=128, num_key_value_heads=128, n_shared_experts=1, n_routed_experts=256, num_experts_per_tok=8,
  n_group=8, topk_group=4, routed_scaling_factor=2.5, scoring_func="sigmoid", topk_method="noaux_tc", norm_topk_prob=True, q_lora_rank=1536,
  kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, num_nextn_predict_layers=0, moe_layer_freq=1, rms_norm_eps=1e-6,
  rope_theta=10000, max_position_embeddings=163840, torch_dtype="bfloat16",
  rope_scaling=dict(type="yarn", factor=40, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0, original_max_position_embeddings=4096),
  quantization_config=dict(quant_method="fp8", fmt="e4m3", activation_scheme="dynamic", weight_block_size=[BLOCK, BLOCK]))


def mlp(prefix, width):
  hidden = CONFIG["hidden_size"]
  return {f"{prefix}.gate_proj.weight": (width, hidden), f"{prefix}.up_proj.weight": (width, hidden), f"{prefix}.down_proj.weight": (hidden, width)}


def layer(i, moe):
  """{name: shape} of layer i."""
  c, p = CONFIG, f"model.layers.{i}."
  hidden, heads, q, kv = c["hidden_size"], c["num_attention_heads"], c["q_lora_rank"], c["kv_lora_rank"]
  nope, rope, v = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
  out = {p + "input_layernorm.weight": (hidden,), p + "self_attn.q_a_proj.weight": (q, hidden), p + "self_attn.q_a_layernorm.weight": (q,),
           p + "self_attn.q_b_proj.weight": (heads * (nope + rope), q), p + "self_attn.kv_a_proj_with_mqa.weight": (kv + rope, hidden),
           p + "self_attn.kv_a_layernorm.weight": (kv,), p + "self_attn.kv_b_proj.weight": (heads * (nope + v), kv),
           p + "self_attn.o_proj.weight": (hidden, heads * v), p + "post_attention_layernorm.weight": (hidden,)}
  if not moe:
    return out | mlp(p + "mlp", c["intermediate_size"])
  out |= {p + "mlp.gate.weight": (c["n_routed_experts"], hidden), p + "mlp.gate.e_score_correction_bias": (c["n_routed_experts"],)}
  for e in range(c["n_routed_experts"]):
    out |= mlp(f"{p}mlp.experts.{e}", c["moe_intermediate_size"])
  return out | mlp(p + "mlp.shared_experts", c["moe_intermediate_size"] * c["n_shared_experts"])


def stored(name, shape):
  """[(name, dtype, shape)] as the hub stores it."""
  if name.endswith("e_score_correction_bias"):
    return [(name, "F32", shape)]
  if len(shape) == 1 or any(part in name for part in ("embed_tokens", "lm_head", "mlp.gate.")):
    return [(name, "BF16", shape)]
  return [(name, "F8_E4M3", shape), (name + "_scale_inv", "F32", tuple(-(-n // BLOCK) for n in shape))]


class Pool:
  """Random values of each dtype; a tensor is a slice that begins anywhere."""

  def __init__(self, size=1 << 28):
    self.rng = np.random.default_rng(0)
    codes = self.rng.integers(0, 256, size, dtype=np.uint8)
    codes[codes & 0x7F == 0x7F] = 1  # NaN
    normal = (0.02 * self.rng.standard_normal(size // 16, dtype=np.float32)).view(np.uint32)
    self.values = {"F8_E4M3": codes, "BF16": (normal >> 16).astype(np.uint16), "F32": self.rng.uniform(1e-4, 1e-3, size // 64).astype(np.float32)}

  def write(self, file, dtype, count):
    values = self.values[dtype]
    while count > 0:
      begin = int(self.rng.integers(0, len(values)))
      n = min(count, len(values) - begin)
      file.write(values[begin : begin + n].data)
      count -= n


WIDTH = {"F8_E4M3": 1, "BF16": 2, "F32": 4}


def nbytes(tensor):
  return WIDTH[tensor[1]] * int(np.prod(tensor[2]))


def shards(tensors, limit):
  out, size = [[]], 0
  for t in tensors:
    if out[-1] and size + nbytes(t) > limit:
      out.append([])
      size = 0
    out[-1].append(t)
    size += nbytes(t)
  return out


def write_shard(path, tensors, pool):
  tensors = sorted(tensors, key=lambda t: -WIDTH[t[1]])  # wide ones first, so that every address suits its dtype
  header, at = {}, 0
  for t in tensors:
    header[t[0]] = dict(dtype=t[1], shape=t[2], data_offsets=[at, at + nbytes(t)])
    at += nbytes(t)
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)
  with open(path, "wb") as f:
    f.write(len(text).to_bytes(8, "little") + text)
    for t in tensors:
      pool.write(f, t[1], int(np.prod(t[2])))


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("out")
  parser.add_argument("--dense-layers", type=int, default=2)
  parser.add_argument("--moe-layers", type=int, default=1)
  parser.add_argument("--shard-gb", type=float, default=4.3)
  args = parser.parse_args()
  layers = args.dense_layers + args.moe_layers
  shapes = {"model.embed_tokens.weight": (CONFIG["vocab_size"], CONFIG["hidden_size"])}
  for i in range(layers):
    shapes |= layer(i, i >= args.dense_layers)
  shapes |= {"model.norm.weight": (CONFIG["hidden_size"],), "lm_head.weight": (CONFIG["vocab_size"], CONFIG["hidden_size"])}
  files = shards([t for name, shape in shapes.items() for t in stored(name, shape)], args.shard_gb * 1e9)
  os.makedirs(args.out)
  pool, index = Pool(), {}
  for i, tensors in enumerate(files):
    name = f"model-{i + 1:05d}-of-{len(files):05d}.safetensors"
    write_shard(os.path.join(args.out, name), tensors, pool)
    index |= {t[0]: name for t in tensors}
  total = sum(nbytes(t) for tensors in files for t in tensors)
  with open(os.path.join(args.out, "model.safetensors.index.json"), "w") as f:
    json.dump(dict(metadata=dict(total_size=total), weight_map=index), f)
  with open(os.path.join(args.out, "config.json"), "w") as f:
    json.dump(CONFIG | dict(num_hidden_layers=layers, first_k_dense_replace=args.dense_layers), f, indent=1)
  print(f"{args.out}: {len(index)} tensors, {total / 1e9:.1f} GB in {len(files)} files")


if __name__ == "__main__":
  main()
