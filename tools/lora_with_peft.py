"""LoRA of Hugging Face's peft over transformers on random tokens: tokens per second, to compare fathom's with in the same run.

    fathom train load_parameters_path=MODEL lora.enable_lora=true lora.lora_rank=16 lora.lora_alpha=32 dataset_type=synthetic \\
        per_device_batch_size=4 max_target_length=512 steps=4 enable_checkpointing=false
    python3 tools/lora_with_peft.py MODEL [--steps 3] [--batch 4] [--length 512] [--dtype bfloat16] [--threads 2] [--modules REGEX]

Needs torch, transformers (5 or later) and peft; nothing else in the project does. By default attention alone takes adapters, which is less work than
fathom's default: peft 0.21 takes gate_proj, up_proj and down_proj of a DeepSeek for those of the fused experts.
"""
import argparse
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

MODULES = r".*\.self_attn\.\w+_proj(_with_mqa)?"


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("model")
  parser.add_argument("--steps", type=int, default=3)
  parser.add_argument("--batch", type=int, default=4)
  parser.add_argument("--length", type=int, default=512)
  parser.add_argument("--rank", type=int, default=16)
  parser.add_argument("--dtype", default="bfloat16")
  parser.add_argument("--threads", type=int, default=0)
  parser.add_argument("--modules", default=MODULES, help="regular expression over whole module names")
  parser.add_argument("--experts", default=None, help="experts_implementation of transformers, such as grouped_mm or eager")
  args = parser.parse_args()
  if args.threads:
    torch.set_num_threads(args.threads)

  chosen = {"experts_implementation": args.experts} if args.experts else {}
  model = AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype), **chosen)
  lora = LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules=args.modules, task_type="CAUSAL_LM")
  model = get_peft_model(model, lora).train()
  print(f"{sum(p.requires_grad for p in model.parameters()) // 2} modules, "
        f"{sum(p.numel() for p in model.parameters() if p.requires_grad)} parameters trained, {torch.get_num_threads()} threads", flush=True)
  optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
  generator = torch.Generator().manual_seed(0)
  for step in range(args.steps):
    ids = torch.randint(model.config.vocab_size, (args.batch, args.length), generator=generator)
    start = time.perf_counter()
    optimizer.zero_grad()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    seconds = time.perf_counter() - start
    print(f"step {step}: {seconds:.2f} s, {ids.numel() / seconds:.0f} tokens/s, loss {loss.item():.3f}", flush=True)


if __name__ == "__main__":
  main()
