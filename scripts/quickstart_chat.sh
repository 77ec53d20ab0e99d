#!/usr/bin/env bash
# After scripts/quickstart.sh: teaches its model to answer. A few hundred conversations are made of the novels (scripts/conversations.pl);
# fathom sft learns them twice, with all weights and with adapters of rank 16 (LoRA) beside them; the held-out losses are compared and both
# are asked to go on with a sentence. Half a minute; everything lies in out/quickstart/.
source "$(dirname "$0")/common.sh"

OUT=out/quickstart
FATHOM=build/release/fathom
STEPS=41
CONVERSATIONS=480
HELD_OUT=60
# Of some tried, those with the least held-out loss: 3e-4, 5e-4, 1e-3, 2e-3 for all weights, 2e-3, 5e-3, 1e-2 for adapters.
RATE_OF_WEIGHTS=3e-4
RATE_OF_ADAPTERS=5e-3

[ -f "$OUT/steps" ] || die "there is no model yet: run scripts/quickstart.sh first"
MODEL=$OUT/runs/first/checkpoints/$(($(cat "$OUT/steps") - 1))
[ -d "$MODEL" ] || die "$MODEL: no such checkpoint; let scripts/quickstart.sh run to its end"
CHAT=("load_parameters_path=$MODEL" "tokenizer_path=$OUT/tokenizer" chat_template=v3 dtype=float32)

make_conversations() {
  mkdir -p "$OUT/conversations"
  perl scripts/conversations.pl "$OUT/text/train" $CONVERSATIONS >"$OUT/conversations/train.jsonl"
  perl scripts/conversations.pl "$OUT/text/held-out" $HELD_OUT >"$OUT/conversations/held-out.jsonl"
}

# teach NAME RATE FLAG...: a run of that name, unless it is there.
teach() {
  [ -d "$OUT/runs/$1/checkpoints/$((STEPS - 1))" ] && return
  say "Teaching: $1"
  "$FATHOM" sft "${CHAT[@]}" weight_dtype=float32 "hf_path=$OUT/conversations/train.jsonl" "hf_eval_files=$OUT/conversations/held-out.jsonl" \
    "base_output_directory=$OUT/runs" "run_name=$1" per_device_batch_size=8 max_target_length=256 "learning_rate=$2" warmup_steps_fraction=0.1 \
    "steps=$STEPS" "eval_interval=$((STEPS - 1))" remat_policy=none "${@:3}"
}

held_out_loss() { perl -ne 'm{"eval/avg_loss":([^,]*)} and $loss = $1; END { print $loss }' "$OUT/runs/$1/metrics/metrics.jsonl"; }

compare() {
  say "Loss on $HELD_OUT held-out conversations"
  perl -e 'printf "  all weights       %.4f\n  LoRA, rank 16     %.4f (%+.1f %%)\n", @ARGV, 100 * ($ARGV[1] / $ARGV[0] - 1)' \
    "$(held_out_loss taught)" "$(held_out_loss taught-lora)"
}

# said ROLE TEXT: a message.
said() { printf '{"role": "%s", "content": "%s"}' "$1" "$(sed 's/[\\"]/\\&/g' <<<"$2")"; }

# answer FLAG MESSAGE...: of the model to a conversation.
answer() {
  local IFS=,
  echo "[${*:2}]" >"$OUT/conversations/question.json"
  "$FATHOM" decode "${CHAT[@]}" "$1" "messages_file=$OUT/conversations/question.json" max_new_tokens=60 log_level=error \
    decode_sampling_strategy=nucleus decode_sampling_nucleus_p=0.9 decode_sampling_temperature=0.7 seed=1
}

# Two rounds with the model that FLAG adds.
talk() {
  local first="Go on: She had never been" second="Which book is that from?" text
  text=$(answer "$1" "$(said user "$first")")
  printf '> %s\n%s\n> %s\n' "$first" "$text" "$second"
  answer "$1" "$(said user "$first")" "$(said assistant "$text")" "$(said user "$second")"
}

sample() {
  local weights=load_parameters_path=$OUT/runs/taught/checkpoints/$((STEPS - 1)) adapter=hf_lora_adapter_path=$OUT/runs/taught-lora/checkpoints/$((STEPS - 1))
  say "With all weights"
  talk "$weights"
  say "With LoRA"
  talk "$adapter"
  say "To talk with it"
  echo "  $FATHOM decode ${CHAT[*]} $adapter chat=true max_target_length=500"
}

"$(dirname "${BASH_SOURCE[0]}")/build.sh"
make_conversations
teach taught $RATE_OF_WEIGHTS
teach taught-lora $RATE_OF_ADAPTERS lora.enable_lora=true lora.lora_rank=16 lora.lora_alpha=32
compare
sample
