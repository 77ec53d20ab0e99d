"""MMLU as a plain loop over Hugging Face transformers, on the prompts that fathom used: its rate, and whether the letters' logits agree.

    fathom eval mmlu load_parameters_path=MODEL data_dir=mmlu limit=8 prompts_output=prompts.jsonl samples_output=samples.jsonl
    python3 tools/mmlu_with_transformers.py MODEL prompts.jsonl --samples samples.jsonl [--batch 8] [--dtype float32]

Needs torch and transformers (5 or later); nothing else in the project does.
"""
import argparse
import json
import time

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("model")
  parser.add_argument("prompts")
  parser.add_argument("--samples", help="rows to compare with")
  parser.add_argument("--batch", type=int, default=1, help="prompts at once, padded on the left")
  parser.add_argument("--dtype", default="bfloat16")
  args = parser.parse_args()

  tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{args.model}/tokenizer.json")
  config = {}
  try:
    config = json.load(open(f"{args.model}/tokenizer_config.json", encoding="utf-8"))
  except FileNotFoundError:
    pass
  bos = config.get("bos_token") if config.get("add_bos_token") else None
  bos = [tokenizer.convert_tokens_to_ids(bos["content"] if isinstance(bos, dict) else bos)] if bos else []
  encode = lambda text: tokenizer.encode(text, add_special_tokens=False)
  letters = [encode(f" {x}") for x in "ABCD"]
  prompts = [json.loads(line) for line in open(args.prompts, encoding="utf-8")]
  model = AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype)).eval()

  scores, start, cpu = {}, time.perf_counter(), time.process_time()
  for i in range(0, len(prompts), args.batch):
    rows = prompts[i : i + args.batch]
    ids = [bos + encode(r["prompt"]) + letters[0][:-1] for r in rows]
    longest = max(map(len, ids))
    x = torch.tensor([[0] * (longest - len(r)) + r for r in ids])
    mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in ids])
    with torch.no_grad():
      logits = model(input_ids=x, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0), logits_to_keep=1).logits[:, -1]
    for r, row in zip(rows, logits.float()):
      scores[r["subject"], r["index"]] = [row[l[-1]].item() for l in letters]
  print(f"{len(prompts)} questions, {time.perf_counter() - start:.1f} s, {time.process_time() - cpu:.1f} s of processor time")

  if args.samples:
    samples = [json.loads(line) for line in open(args.samples, encoding="utf-8")]
    theirs = [(scores[s["subject"], s["index"]], [s["logits"][x] for x in "ABCD"]) for s in samples]
    worst = max(abs(a - b) for t, s in theirs for a, b in zip(t, s))
    same = sum(t.index(max(t)) == s.index(max(s)) for t, s in theirs)
    print(f"logits differ by at most {worst:.2e}; {same} of {len(theirs)} predictions are the same")


if __name__ == "__main__":
  main()
