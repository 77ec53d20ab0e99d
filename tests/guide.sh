#!/usr/bin/env bash
# guide.sh FATHOM SOURCE: runs the small commands of docs/guide.md as they stand, one after the other, and looks at what they leave.
set -u
PATH=$(dirname "$(realpath "$1")"):$PATH
OUT=$(mktemp -d)
export PATH OUT OMP_WAIT_POLICY=passive
trap 'rm -rf "$OUT"' EXIT
cd "$2" || exit 1

commands=$(awk '/^```sh small$/ {on = 1; next} /^```$/ {on = 0} on' docs/guide.md)
[[ $(grep -c '^ *fathom ' <<<"$commands") -ge 20 ]] || { echo "guide: too few commands found" >&2; exit 1; }
if ! bash -euo pipefail -c "$commands" >"$OUT/log" 2>&1; then
  echo "guide: a command failed; the last lines are" >&2
  tail -n 5 "$OUT/log" >&2
  exit 1
fi
for made in v32-again/model.safetensors v32-unscanned/0/items lora/checkpoints/4/adapter_model.safetensors dsa_sparse_training/checkpoints/4/config.json experts.html \
  matmul_pre_training/report.html; do
  [[ -s $OUT/$made ]] || { echo "guide: no $made" >&2; exit 1; }
done
grep -q "within the bars" "$OUT/log" || { echo "guide: logits were not compared" >&2; exit 1; }
