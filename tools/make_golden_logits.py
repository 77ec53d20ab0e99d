"""Logits of Hugging Face transformers as golden JSONL, which `fathom check logits` compares with its own.

    python3 tools/make_golden_logits.py --model-id out/quickstart/runs/first/checkpoints/864 --output-path golden.jsonl \
        --prompts "It was a fine morning;She had never"
    fathom check logits load_parameters_path=out/quickstart/runs/first/checkpoints/864 golden_logits_path=golden.jsonl max_kl_div=1e-9 atol=1e-4 dtype=float32

One object per line: prompt, tokens, logits [tokens][vocabulary]. Needs torch and transformers (5 or later); nothing else in the project does.
"""
import argparse
import json

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--model-id", required=True, help="a checkpoint's folder, or a name on the hub; its tokenizer is used")
  parser.add_argument("--hf-model-path", default="", help="take the weights from this folder instead")
  parser.add_argument("--output-path", required=True)
  parser.add_argument("--prompts", default="I love to;Today is a;What is the", help="separated by semicolons")
  parser.add_argument("--hf-load-dtype", default="float32", choices=["float32", "float64", "bfloat16", "auto"])
  parser.add_argument("--trust-remote-code", action="store_true", help="run code that lies beside the checkpoint")
  args = parser.parse_args()

  tokenizer = AutoTokenizer.from_pretrained(args.model_id, trust_remote_code=args.trust_remote_code)
  dtype = args.hf_load_dtype if args.hf_load_dtype == "auto" else getattr(torch, args.hf_load_dtype)
  model = AutoModelForCausalLM.from_pretrained(args.hf_model_path or args.model_id, dtype=dtype, attn_implementation="eager",
                                               trust_remote_code=args.trust_remote_code).eval()
  prompts = [p for p in args.prompts.split(";") if p]
  with open(args.output_path, "w", encoding="utf-8") as out:
    for prompt in prompts:
      tokens = tokenizer(prompt)["input_ids"]
      with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0]
      out.write(json.dumps({"prompt": prompt, "tokens": tokens, "logits": logits.double().tolist()}) + "\n")
  print(f"{args.output_path}: {len(prompts)} prompts")


if __name__ == "__main__":
  main()
