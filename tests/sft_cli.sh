#!/usr/bin/env bash
# sft_cli.sh FATHOM DATA: fine-tuning on conversations: every file format and column gives the same run, a run in two parts ends with the same
# bits, bad rows are named or counted, what is too long is cut or left out, a tiny model
# learns its answers by heart and is talked with; and text as hub data, tokens, mixtures. DATA is tests/data.
set -u
fathom=$(realpath "$1")
data=$(realpath "$2")
scripts=$(realpath "$(dirname "$0")/../scripts")
dir=$(mktemp -d)
status=0
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1

MODEL=(model_name=deepseek3-tiny override_model_config=true vocab_size=1024 base_emb_dim=32 base_num_decoder_layers=2 first_num_dense_layers=1
  base_num_query_heads=2 base_num_kv_heads=2 q_lora_rank=16 kv_lora_rank=16 qk_nope_head_dim=16 qk_rope_head_dim=8 v_head_dim=16
  base_mlp_dim=64 base_moe_mlp_dim=32 num_experts=8 num_experts_per_tok=2 n_routing_groups=4 topk_routing_group=2 rope_type=default
  max_position_embeddings=4096 mtp_num_layers=0)
COMMON=("tokenizer_path=$data/tokenizer/deepseek" chat_template=v3 base_output_directory=runs enable_tensorboard=false log_level=warning threads=1
  per_device_batch_size=2 max_target_length=128 warmup_steps_fraction=0 held_out_fraction=0 dtype=float32)
ROWS=(packing=false enable_data_shuffling=false)

fail() {
  echo "sft_cli: $*" >&2
  status=1
}

# sft NAME FLAG...: runs; what it says on stderr is in NAME.err.
sft() { "$fathom" sft "${MODEL[@]}" "${COMMON[@]}" run_name="$1" "${@:2}" 2>"$1.err"; }

# To six digits: micro-batches sum in another order.
losses() { grep -oP '"learning/(loss|total_weights)":\K[^,]*' "runs/$1/metrics/metrics.jsonl" | awk '{printf "%.6g\n", $1}'; }

targets() { grep -oP '"learning/total_weights":\K[^,]*' "runs/$1/metrics/metrics.jsonl" | awk '{n += $1} END {print n}'; }

question() { echo "what is $1 and $1?"; }
answer() { echo "It is $(($1 + $1))."; }

# rows FORM FIRST LAST: one a line.
rows() {
  local i q a
  for ((i = $2; i <= $3; ++i)); do
    q=$(question "$i") a=$(answer "$i")
    case $1 in
      messages) echo "{\"messages\": [{\"role\": \"user\", \"content\": \"$q\"}, {\"role\": \"assistant\", \"content\": \"$a\"}]}" ;;
      prompt) echo "{\"id\": $i, \"prompt\": \"$q\", \"completion\": \"$a\"}" ;;
      question) echo "{\"answer\": \"$a\", \"question\": \"$q\"}" ;;
      conversations) echo "{\"conversations\": [{\"from\": \"human\", \"value\": \"$q\"}, {\"from\": \"gpt\", \"value\": \"$a\"}]}" ;;
    esac
  done
}

# same_run NAME FLAG...: its losses are those of the run `messages`.
same_run() {
  sft "$1" "${ROWS[@]}" steps=3 enable_checkpointing=false "${@:2}" || fail "$1: $(cat "$1.err")"
  diff <(losses messages) <(losses "$1") >&2 || fail "$1: other losses than of the same conversations as messages"
}

every_form_is_the_same_data() {
  mkdir -p hub/data
  rows messages 1 4 >hub/data/train-00000-of-00002.jsonl
  rows messages 5 6 >hub/data/train-00001-of-00002.jsonl
  rows messages 9 9 >hub/data/test-00000-of-00001.jsonl
  sft messages "${ROWS[@]}" steps=3 enable_checkpointing=false hf_path=hub || fail "messages: $(cat messages.err)"
  [[ $(losses messages | wc -l) == 6 ]] || fail "messages: $(losses messages)"
  rows prompt 1 6 >prompt.jsonl
  same_run prompt hf_train_files=prompt.jsonl "train_data_columns=[prompt,completion]"
  (echo "["; rows question 1 6 | sed '$!s/$/,/'; echo "]") >question.json
  same_run question hf_path=question.json "train_data_columns=['question','answer']"
  rows conversations 1 6 >conversations.jsonl
  same_run conversations hf_path=conversations.jsonl "train_data_columns=[conversations]"
  if zstd -q prompt.jsonl; then same_run zstd hf_path=prompt.jsonl.zst "train_data_columns=[prompt,completion]"; fi
  same_run parquet "hf_path=$data/parquet/sums.parquet"
  same_run micro hf_path=hub per_device_batch_size=1 gradient_accumulation_steps=2
  sft eval "${ROWS[@]}" steps=2 enable_checkpointing=false hf_path=hub eval_interval=1 hf_eval_split=test || fail "eval: $(cat eval.err)"
  [[ $(grep -c 'eval/avg_loss' runs/eval/metrics/metrics.jsonl) == 2 ]] || fail "eval: not evaluated"
}

# As the contract: whatever the order, each conversation once an epoch, and nothing but answers (or everything but BOS) counts.
an_epoch_has_every_conversation_once() {
  local packed rowwise
  rows messages 1 40 >epoch.jsonl
  sft packed hf_path=epoch.jsonl num_epoch=1 steps=99 learning_rate=0 enable_checkpointing=false || fail "packed: $(cat packed.err)"
  sft rowwise hf_path=epoch.jsonl num_epoch=1 steps=99 learning_rate=0 enable_checkpointing=false packing=false || fail "rowwise: $(cat rowwise.err)"
  packed=$(targets packed) rowwise=$(targets rowwise)
  [[ $packed == "$rowwise" && $packed != 0 ]] || fail "epoch: $packed targets packed, $rowwise row by row"
  (($(wc -l <runs/packed/metrics/metrics.jsonl) < $(wc -l <runs/rowwise/metrics/metrics.jsonl))) || fail "packed: no fewer steps"
}

a_run_in_two_parts_ends_with_the_same_bits() {
  rows messages 1 30 >shuffled.jsonl
  local flags=(hf_path=shuffled.jsonl learning_rate_schedule_steps=7)
  sft whole "${flags[@]}" steps=7 || fail "whole: $(cat whole.err)"
  sft parts "${flags[@]}" steps=3 && sft parts "${flags[@]}" steps=7 || fail "parts: $(cat parts.err)"
  diff -r runs/whole/checkpoints/6 runs/parts/checkpoints/6 >&2 || fail "parts: another checkpoint than the whole run's"
}

# refused NAME CODE PATTERN FLAG...
refused() {
  local code
  sft "$1" "${ROWS[@]}" steps=2 log_level=error "${@:4}"
  code=$?
  [[ $code == "$2" && $(wc -l <"$1.err") == 1 && $(cat "$1.err") =~ $3 ]] || fail "$1: exit $code (expected $2): $(cat "$1.err")"
}

bad_rows_are_named_or_counted() {
  (rows messages 1 1; echo '{"text": "x"}'; rows messages 2 3; echo '{"messages": [{"role": "wizard"}]}') >bad.jsonl
  refused bad 3 'bad.jsonl, line 2: no "messages"' hf_path=bad.jsonl
  (rows messages 1 1; rows messages 2 2 | head -c 30) >cut.jsonl
  refused cut 3 'cut.jsonl, line 2: .*not valid JSON' hf_path=cut.jsonl
  refused absent 3 'absent.jsonl: no such file' hf_path=absent.jsonl
  refused split 3 'train_split=nothing' hf_path=hub train_split=nothing
  refused none 2 'hf_path='
  refused columns 2 'train_data_columns=\[a\]' hf_path=hub 'train_data_columns=[a]'
  : >empty.jsonl
  refused empty 3 'empty.jsonl: is empty' hf_path=empty.jsonl
  head -c -100 "$data/parquet/sums.parquet" >short.parquet
  refused short 3 'short.parquet: .*cut off' hf_path=short.parquet
  sft skipped "${ROWS[@]}" hf_path=bad.jsonl skip_bad_rows=true num_epoch=1 steps=9 json=skipped.json || fail "skipped: $(cat skipped.err)"
  grep -q '"bad": 2' skipped.json && grep -q 'of 5 conversations read, .* 2 bad rows' skipped.err || fail "skipped: $(cat skipped.err skipped.json)"
  # past the rows that are looked at before the first step
  (rows messages 1 9; for ((i = 0; i < 130; ++i)); do rows messages 1 9; done; echo '{}') >late.jsonl
  sft late "${ROWS[@]}" hf_path=late.jsonl steps=800 per_device_batch_size=8 max_target_length=32 num_epoch=1
  [[ $? == 3 ]] && tail -1 late.err | grep -q 'late.jsonl, line 1180' || fail "late: $(cat late.err)"
}

long_conversations_are_cut_or_left_out() {
  (rows messages 1 2; echo "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", \"content\": \"$(printf 'word %.0s' {1..200})\"}]}") >long.jsonl
  sft cut_off hf_path=long.jsonl num_epoch=1 steps=9 json=cut_off.json || fail "cut_off: $(cat cut_off.err)"
  grep -q '"truncated": 1' cut_off.json && grep -q '1 were cut at max_target_length=128' cut_off.err || fail "cut_off: $(cat cut_off.err cut_off.json)"
  sft left_out hf_path=long.jsonl num_epoch=1 steps=9 use_truncation=false json=left_out.json || fail "left_out: $(cat left_out.err)"
  grep -q '"too_long": 1' left_out.json || fail "left_out: $(cat left_out.json)"
}

answers_are_learnt_by_heart() {
  local i got
  rows messages 1 4 >heart.jsonl
  sft heart hf_path=heart.jsonl steps=120 learning_rate=1e-2 per_device_batch_size=4 sample_period=119 "sample_prompt=$(question 2)" || fail "heart: $(cat heart.err)"
  tail -1 runs/heart/metrics/samples.jsonl | grep -qF "\"step\":119,\"prompt\":\"$(question 2)\",\"text\":\"$(answer 2)\",\"finish_reason\":\"stop\"" ||
    fail "heart: the last sample is $(tail -1 runs/heart/metrics/samples.jsonl)"
  for i in 1 3; do
    got=$("$fathom" decode load_parameters_path=runs/heart/checkpoints/119 "prompt=<｜User｜>$(question $i)<｜Assistant｜>" max_new_tokens=30 \
      dtype=float32 threads=1 log_level=error)
    [[ $got == *"$(answer $i)" ]] || fail "heart: $(question $i) -> $got"
  done
}

# taught NAME TEXT MESSAGE...: the answer to these messages is TEXT and ends of itself.
taught() {
  local IFS=,
  echo "[${*:3}]" >"$1.json"
  "$fathom" decode load_parameters_path=runs/rounds/checkpoints/199 chat_template=v3 messages_file="$1.json" max_new_tokens=60 dtype=float32 threads=1 \
    log_level=error json="$1.out" >/dev/null 2>"$1.err" || fail "$1: exit $?: $(cat "$1.err")"
  grep -q '"finish_reason": "stop"' "$1.out" && grep -qF "\"text\": \"$2\"" "$1.out" || fail "$1: $(cat "$1.out") instead of $2"
}

# As scripts/quickstart_chat.sh does: conversations of two rounds about texts.
rounds_are_learnt() {
  local messages
  mkdir texts
  printf 'CHAPTER I\n\nNobody in the valley had seen so much rain as fell in that one week of spring.\n\n"Not even I," said the miller.\n\n' >texts/the-mill.txt
  printf 'Her brother, who was older by a year, took the road to the harbour before it was light.\n\nShort.\n' >texts/two-of-a-kind.md
  perl "$scripts/conversations.pl" texts 2 >rounds.jsonl || fail "conversations.pl: exit $?"
  [[ $(grep -c '"Which book is that from?"' rounds.jsonl) == 2 ]] || fail "conversations.pl: $(cat rounds.jsonl)"
  perl "$scripts/conversations.pl" texts 3 2>&1 | grep -q 'texts: 2 sentences will do, 3 are wanted' || fail "conversations.pl finds a third sentence"
  sft rounds hf_path=rounds.jsonl steps=200 learning_rate=1e-2 packing=false || fail "rounds: $(cat rounds.err)"
  mapfile -t messages < <(grep -o '{"role[^}]*}' rounds.jsonl)
  taught first "seen so much rain as fell in that one week of spring." "${messages[0]}"
  taught second "It is from The Mill." "${messages[@]:0:3}"
  taught other "It is from Two of a Kind." "${messages[@]:4:3}"
}

# With the model that answers_are_learnt_by_heart made.
conversations_on_the_terminal() {
  local chat=(decode load_parameters_path=runs/heart/checkpoints/119 chat_template=v3 dtype=float32 threads=1 log_level=error max_target_length=100 max_new_tokens=40)
  printf '%s\n/reset\nwhat is 3 \\\nand 3?\n/help\n\n/reset\n"""%s"""\n%s' "$(question 1)" "$(question 2)" "$(printf 'long %.0s' {1..200})" >said
  "$fathom" "${chat[@]}" chat=true <said >heard 2>heard.err || fail "chat: exit $?: $(cat heard.err)"
  [[ $(sed -n 1p heard) == "$(answer 1)" && $(grep -c "^$(answer 2)\$" heard) == 1 ]] || fail "chat: $(cat heard)"
  grep -q '/system TEXT' heard && tail -1 heard | grep -q 'max_target_length=100 is its limit' || fail "chat: $(cat heard)"
  echo "[{\"role\": \"user\", \"content\": \"$(question 3)\"}]" >messages.json
  [[ $("$fathom" "${chat[@]}" messages_file=messages.json) == "$(answer 3)" ]] || fail "messages_file: $("$fathom" "${chat[@]}" messages_file=messages.json 2>&1)"
  echo '{"messages": []}' >messages.json
  "$fathom" "${chat[@]}" messages_file=messages.json 2>heard.err
  [[ $? == 3 ]] && grep -q 'messages.json: no conversation' heard.err || fail "messages_file: $(cat heard.err)"
}

# train NAME FLAG...: on text.
train() { "$fathom" train "${MODEL[@]}" "${COMMON[@]}" "${ROWS[@]}" run_name="$1" steps=4 enable_checkpointing=false "${@:2}" 2>"$1.err"; }

text_as_hub_data_tokens_and_mixtures() {
  rows prompt 1 30 | sed 's/"prompt"/"text"/' >text.jsonl
  train text dataset_path=text.jsonl || fail "text: $(cat text.err)"
  train hub dataset_type=hf hf_path=text.jsonl || fail "hub: $(cat hub.err)"
  "$fathom" tokenizer encode "tokenizer_path=$data/tokenizer/deepseek" input=text.jsonl output=text.tokens log_level=error >/dev/null || fail "encode: exit $?"
  train tokens dataset_type=tokens dataset_path=text.tokens || fail "tokens: $(cat tokens.err)"
  for run in hub tokens; do diff <(losses text) <(losses "$run") >&2 || fail "$run: other losses than of the same text"; done
  train astray dataset_path=text.tokens
  [[ $? == 3 ]] && grep -q 'dataset_type=tokens' astray.err || fail "astray: $(cat astray.err)"
  train lines dataset_type=tokens dataset_path=text.jsonl
  [[ $? == 3 ]] && grep -q 'text.jsonl: no file of tokens' lines.err || fail "lines: $(cat lines.err)"
  train mixture dataset_path=text.jsonl:0.5,hub/data:0.5 2>&1
  [[ $? == 3 ]] && grep -q 'no string "text"' mixture.err || fail "mixture: $(cat mixture.err)"
  rows question 1 30 | sed 's/"question"/"text"/' >more.jsonl
  train mixture dataset_path=text.jsonl:0.5,more.jsonl:1.5 || fail "mixture: $(cat mixture.err)"
  [[ $(losses mixture | wc -l) == 8 ]] || fail "mixture: $(losses mixture)"
  grep -q '"perf/data_wait_share":0' runs/mixture/metrics/metrics.jsonl || fail "mixture: no data_wait_share"
  train half dataset_path=text.jsonl:0.5,more.jsonl
  [[ $? == 2 ]] && grep -q 'more.jsonl has no weight' half.err || fail "half: $(cat half.err)"
}

every_form_is_the_same_data
an_epoch_has_every_conversation_once
a_run_in_two_parts_ends_with_the_same_bits
bad_rows_are_named_or_counted
long_conversations_are_cut_or_left_out
answers_are_learnt_by_heart
rounds_are_learnt
conversations_on_the_terminal
text_as_hub_data_tokens_and_mixtures
exit $status
