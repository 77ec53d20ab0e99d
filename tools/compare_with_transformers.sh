#!/usr/bin/env bash
# Does a checkpoint that fathom wrote give the same logits in Hugging Face transformers? Its tokenizer and weights are loaded there as they
# lie; both sides compute in float32, and fathom prints the comparison. Exit code 0: the same.
#
#   tools/compare_with_transformers.sh CHECKPOINT [PROMPT ...]
#
# PYTHON (default python3) must have torch and transformers 5 or later; FATHOM is the program (default build/release/fathom).
set -euo pipefail

[ $# -ge 1 ] || { echo "usage: $0 CHECKPOINT [PROMPT ...]" >&2; exit 2; }
checkpoint=$1
shift
[ $# -ge 1 ] || set -- "I love to" "Today is a" "What is the"
repository=$(cd "$(dirname "$0")/.." && pwd)
golden=$(mktemp)
trap 'rm -f "$golden"' EXIT

prompts=$(printf '%s;' "$@")
"${PYTHON:-python3}" "$repository/tools/make_golden_logits.py" --model-id "$checkpoint" --output-path "$golden" --prompts "$prompts"
"${FATHOM:-$repository/build/release/fathom}" check logits "load_parameters_path=$checkpoint" "golden_logits_path=$golden" \
  max_kl_div=1e-9 atol=1e-4 dtype=float32
