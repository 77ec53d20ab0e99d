"""Restores what `fathom convert to=orbax` wrote with Orbax itself, and with MaxText, and compares every value with the Hugging Face checkpoint.

    fathom convert input=HUB output=OUT to=orbax
    python3.12 tools/restore_with_orbax.py OUT/0 --hub HUB             # plain Orbax
    python3.12 tools/restore_with_orbax.py OUT/0 --hub HUB --maxtext   # as MaxText's load_parameters_path, into MaxText's own model

If HUB has a train_state, step, counts and moments are compared, too; MaxText then restores all of OUT as a run that it resumes.
Needs orbax-checkpoint >= 0.12 (which brings JAX) and ml_dtypes; with --maxtext also maxtext 0.2.5. HUB holds BF16, F16 or F32, not FP8.
"""
import argparse
import json
import os
import pathlib
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import ml_dtypes
import numpy as np

DTYPES = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "F16": np.float16}
ATTENTION = {"query.kernel": "q_proj", "wq_a.kernel": "q_a_proj", "q_norm.scale": "q_a_layernorm", "wq_b.kernel": "q_b_proj", "wkv_a.kernel": "kv_a_proj_with_mqa",
             "kv_norm.scale": "kv_a_layernorm", "wkv_b.kernel": "kv_b_proj", "out.kernel": "o_proj", "indexer.wq_b.kernel": "indexer.wq_b", "indexer.wk.kernel": "indexer.wk",
             "indexer.k_norm.scale": "indexer.k_norm", "indexer.weights_proj.kernel": "indexer.weights_proj"}
MLP = {"wi_0": "gate_proj", "wi_1": "up_proj", "wo": "down_proj"}
MOE = "DeepSeekMoeBlock_0."
# Below a layer: MaxText's name to the hub's; {e} stands for the expert.
LAYER = {"pre_self_attention_layer_norm.scale": "input_layernorm.weight", "post_self_attention_layer_norm.scale": "post_attention_layernorm.weight",
         "self_attention.indexer.k_norm.bias": "self_attn.indexer.k_norm.bias", MOE + "MoeBlock_0.gate.kernel": "mlp.gate.weight",
         MOE + "MoeBlock_0.gate.bias": "mlp.gate.e_score_correction_bias"}
LAYER |= {"self_attention." + k: f"self_attn.{v}.weight" for k, v in ATTENTION.items()}
for ours, hubs in MLP.items():
  LAYER |= {f"mlp.{ours}.kernel": f"mlp.{hubs}.weight", f"{MOE}shared_experts.{ours}.kernel": f"mlp.shared_experts.{hubs}.weight",
            f"{MOE}MoeBlock_0.{ours}": f"mlp.experts.{{e}}.{hubs}.weight"}
ROOT = {"token_embedder.embedding": "model.embed_tokens.weight", "decoder.decoder_norm.scale": "model.norm.weight", "decoder.logits_dense.kernel": "lm_head.weight"}
MTP = {"embedding_norm.scale": "enorm.weight", "hidden_state_norm.scale": "hnorm.weight", "projection.kernel": "eh_proj.weight", "final_norm.scale": "shared_head.norm.weight"}


def read_hub(folder, files="model*.safetensors"):
  """{name: array} of the safetensors files."""
  out = {}
  for path in sorted(pathlib.Path(folder).glob(files)):
    raw = np.memmap(path, np.uint8, "r")
    size = int(raw[:8].view("<u8")[0])
    for name, t in json.loads(bytes(raw[8 : 8 + size])).items():
      if name != "__metadata__":
        begin, end = t["data_offsets"]
        out[name] = np.frombuffer(raw[8 + size + begin : 8 + size + end].tobytes(), DTYPES[t["dtype"]]).reshape(t["shape"])
  return out


def one_layer(array, below, index):
  """Yields (hub name, array) for the layer `index`; experts are on axis 0."""
  name = LAYER[below]
  if "{e}" not in name:
    yield f"model.layers.{index}.{name}", array
  else:
    for e in range(array.shape[0]):
      yield f"model.layers.{index}." + name.format(e=e), array[e]


def hub_tensors(name, array, config):
  """Yields (hub name, part of the array) for a MaxText array."""
  dense = config["first_k_dense_replace"]
  if name in ROOT:
    yield ROOT[name], array
  elif name.startswith("mtp_block."):
    module, rest = name.removeprefix("mtp_block.mtp_layer_").split(".", 1)
    index, rest = config["num_hidden_layers"] + int(module) - 1, rest.removeprefix(f"mtp_{module}_")
    if rest in MTP:
      yield f"model.layers.{index}.{MTP[rest]}", array
    else:
      yield from one_layer(array, rest.removeprefix("transformer_layer."), index)
  else:
    group, below = name.removeprefix("decoder.").split(".", 1)
    first = 0 if group.startswith("dense") else dense
    number = group.rsplit("_", 1)[1]
    if number != "layers":
      yield from one_layer(array, below, first + int(number))
    else:  # scanned: layers on axis 1, of the router bias on axis 0
      axis = 0 if below.endswith("gate.bias") else 1
      for l in range(array.shape[axis]):
        yield from one_layer(np.take(array, l, axis), below, first + l)


def as_hub_stores(array, shape, name):
  """MaxText's matrices are the hub's transposed, with heads on an axis of their own."""
  if len(shape) == 2 and name != "model.embed_tokens.weight":
    return array.reshape(shape[1], shape[0]).T
  return array.reshape(shape)


def flatten(tree, prefix=""):
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from flatten(value, f"{prefix}{key}.")
    else:
      yield prefix + str(key), value if "rngs." in prefix else np.asarray(value)  # JAX's random keys are no numbers


def restore_with_orbax(step):
  import jax
  import orbax.checkpoint as ocp
  checkpointer = ocp.PyTreeCheckpointer()
  leaves = checkpointer.metadata(step / "items").item_metadata.tree
  as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), leaves)
  return checkpointer.restore(step / "items", restore_args=as_numpy)


def maxtext_flags(config, dtype):
  """The model of config.json as MaxText's flags, and what MaxText needs on a CPU."""
  name = {"deepseek_v2": "deepseek2-16b", "deepseek_v3": "deepseek3-671b", "deepseek_v32": "deepseek3.2-671b"}[config["model_type"]]
  sizes = {"base_emb_dim": "hidden_size", "base_num_query_heads": "num_attention_heads", "base_num_kv_heads": "num_attention_heads", "base_mlp_dim": "intermediate_size",
           "base_moe_mlp_dim": "moe_intermediate_size", "base_num_decoder_layers": "num_hidden_layers", "first_num_dense_layers": "first_k_dense_replace",
           "vocab_size": "vocab_size", "num_experts": "n_routed_experts", "num_experts_per_tok": "num_experts_per_tok", "shared_experts": "n_shared_experts",
           "kv_lora_rank": "kv_lora_rank", "qk_nope_head_dim": "qk_nope_head_dim", "qk_rope_head_dim": "qk_rope_head_dim", "v_head_dim": "v_head_dim"}
  flags = {flag: config[field] for flag, field in sizes.items()}
  flags |= {"model_name": name, "q_lora_rank": config.get("q_lora_rank") or 0, "mtp_num_layers": config.get("num_nextn_predict_layers") or 0}
  if (config.get("n_group") or 1) > 1 and config["model_type"] != "deepseek_v2":
    flags |= {"n_routing_groups": config["n_group"], "topk_routing_group": config["topk_group"]}
  if config["model_type"] == "deepseek_v32":
    flags |= {"indexer_head_dim": config["index_head_dim"], "indexer_n_heads": config["index_n_heads"], "indexer_topk": config["index_topk"], "indexer_sparse_training": True}
  return flags | {"override_model_config": True, "hardware": "cpu", "skip_jax_distributed_system": True, "megablox": False, "attention": "dot_product",
                  "dataset_type": "synthetic", "enable_checkpointing": False, "weight_dtype": dtype, "dtype": dtype, "mla_naive_kvcache": False,
                  "max_target_length": 32, "per_device_batch_size": 1, "enable_goodput_recording": False, "log_config": False, "run_name": "restore"}


def restore_with_maxtext(step, config, scanned, dtype, resume):
  import jax
  import maxtext
  from flax import nnx
  from maxtext.common import checkpointing, train_state_nnx
  from maxtext.configs import pyconfig
  from maxtext.utils import train_utils
  flags = maxtext_flags(config, dtype) | {"scan_layers": scanned, "base_output_directory": "/tmp"}
  base = pathlib.Path(maxtext.__file__).parent / "configs" / "base.yml"
  text = lambda v: str(v).lower() if isinstance(v, bool) else str(v)
  jax.config.update("jax_default_prng_impl", "unsafe_rbg")
  setup_config = pyconfig.initialize(["", str(base)] + [f"{k}={text(v)}" for k, v in flags.items()])
  setup = train_utils.setup_train_loop(setup_config, None)
  _, state = nnx.split(setup[-1])
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
  if resume:
    manager = checkpointing.create_orbax_checkpoint_manager(str(step.parent), True, False, 1, "synthetic", None, True, True)
    restored, _ = checkpointing.load_state_if_possible(manager, None, "", "", 8, shapes, maxtext_config=setup_config)
    return train_state_nnx.to_checkpoint_dict(restored["items"])
  params = checkpointing.load_params_from_path(str(step / "items"), checkpointing._abstract_params(shapes), 8)
  return {"params": {"params": params.to_pure_dict()}}


def compare(arrays, want, config, rounded):
  """Names of tensors that differ, and of those that are missing."""
  left, wrong = set(want), []
  for name, array in arrays.items():
    for tensor, part in hub_tensors(name, array, config):
      hub = want[tensor].astype(array.dtype) if rounded else want[tensor]
      left.discard(tensor)
      if as_hub_stores(part, hub.shape, tensor).astype(hub.dtype).tobytes() != hub.tobytes():
        wrong.append(tensor)
  shared = ("embed_tokens.weight", "shared_head.head.weight")  # an MTP module's copies, which MaxText shares
  return wrong, [name for name in left if not (name.startswith("model.layers.") and name.endswith(shared))]


def compare_state(tree, folder, config):
  """The same for the moments, as "mu NAME" and "nu NAME", and for the counts."""
  values = json.loads((folder / "state.json").read_text())
  optimizer = tree["opt_state"]  # a list, or a dict of its indices
  first, last = (optimizer[i] if isinstance(optimizer, (list, tuple)) else optimizer.get(i, optimizer.get(str(i))) for i in (0, 2))
  counts = {"step": (tree["step"], values["step"] + 1), "count": (first["count"], values["optimizer_steps"]), "schedule": (last["count"], values["step"] + 1)}
  wrong, left = [name for name, (got, want) in counts.items() if int(got) != want], []
  for slot in ("mu", "nu"):
    bad, missing = compare(dict(flatten(first[slot]["params"])), read_hub(folder, slot + ".safetensors"), config, False)
    wrong += [f"{slot} {name}" for name in bad]
    left += [f"{slot} {name}" for name in missing]
  return wrong, left


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("step", type=pathlib.Path, help="the folder that holds items/")
  parser.add_argument("--hub", required=True, help="the Hugging Face checkpoint with the same values")
  parser.add_argument("--maxtext", action="store_true", help="restore through MaxText")
  args = parser.parse_args()
  step = args.step.absolute()
  config, hub = json.loads((step / "config.json").read_text()), read_hub(args.hub)
  scanned = json.loads((step / "_CHECKPOINT_METADATA").read_text())["custom_metadata"]["scan_layers"]
  dtype = {"float32": "float32", "bfloat16": "bfloat16"}[str(hub["model.embed_tokens.weight"].dtype)]
  state = pathlib.Path(args.hub) / "train_state"
  tree = restore_with_maxtext(step, config, scanned, dtype, state.exists()) if args.maxtext else restore_with_orbax(step)
  arrays = dict(flatten(tree["params"]["params"]))
  if args.maxtext and state.exists():  # a resumed run keeps its router biases elsewhere
    arrays |= {name: array for name, array in flatten(tree["nnx_aux"]["model"]) if name.endswith("gate.bias")}
  wrong, left = compare(arrays, hub, config, args.maxtext)  # MaxText rounds a router bias to its weight_dtype
  if state.exists():
    bad, missing = compare_state(tree, state, config)
    wrong, left = wrong + bad, left + missing
  print(f"{len(arrays)} arrays restored with {'MaxText' if args.maxtext else 'Orbax'}: {len(hub)} tensors{', training state' if state.exists() else ''}, "
        f"{len(wrong)} differ, {len(left)} are missing", *(wrong + left)[:5])
  sys.exit(bool(wrong or left))


if __name__ == "__main__":
  main()
