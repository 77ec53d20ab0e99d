#!/usr/bin/env bash
# eval_cli.sh FATHOM DATA: evaluations on the command line: scores and rows, prompts, runs that are killed, other runs' rows, an adapter, bad
# flags and files, one line of error each. DATA is tests/data.
set -u
fathom=$(realpath "$1")
data=$(realpath "$2")
dir=$(mktemp -d)
status=0
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1

fail() {
  echo "eval_cli: $*" >&2
  status=1
}

# run EXPECTED_CODE ARGUMENT...: stdout is in out, stderr in err.
run() {
  local expected=$1 code
  "$fathom" "${@:2}" log_level=error threads=1 >out 2>err
  code=$?
  [[ $code == "$expected" ]] || fail "${*:2}: exit $code (expected $expected): $(cat err)"
}

# refused CODE WORDS ARGUMENT...: one line with these words, and no result.
refused() {
  rm -f result.json
  run "$1" "${@:3}" json=result.json
  [[ $(wc -l <err) == 1 ]] && grep -qF -- "$2" err || fail "${*:3}: not one line with '$2': $(cat err)"
  [[ ! -e result.json ]] || fail "${*:3}: a result"
}

# A model with a tokenizer that has a token for a blank and each letter, trained for a step.
make_model() {
  for ((i = 0; i < 200; ++i)); do printf 'x A B C D E F\n'; done >letters.txt
  cat "$data/tokenizer/train.txt" >>letters.txt
  run 0 tokenizer train input=letters.txt vocab_size=400 output=tokenizer
  local model=(model_name=deepseek3-tiny override_model_config=true vocab_size=400 base_emb_dim=32 base_num_decoder_layers=2
    first_num_dense_layers=1 base_num_query_heads=2 base_num_kv_heads=2 q_lora_rank=16 kv_lora_rank=16 qk_nope_head_dim=16 qk_rope_head_dim=8
    v_head_dim=16 base_mlp_dim=64 base_moe_mlp_dim=32 num_experts=8 num_experts_per_tok=2 n_routing_groups=4 topk_routing_group=2
    rope_type=default max_position_embeddings=4096 tokenizer_path=tokenizer held_out_fraction=0 enable_tensorboard=false
    "dataset_path=letters.txt" per_device_batch_size=2 max_target_length=32)
  run 0 train "${model[@]}" base_output_directory=runs run_name=first steps=1
  mv runs/first/checkpoints/0 model
  run 0 train "${model[@]}" base_output_directory=runs run_name=lora steps=3 learning_rate=0.1 load_parameters_path=model lora.enable_lora=true lora.lora_rank=4 lora.lora_alpha=8
  mv runs/lora/checkpoints/2 adapter
}

subjects='subjects=[abstract_algebra,world_religions]'
mmlu=(eval mmlu load_parameters_path=model "data_dir=$data/mmlu" dtype=float32 "$subjects")

scores_and_rows() {
  run 0 "${mmlu[@]}" json=result.json samples_output=rows prompts_output=prompts
  grep -q '^world religions .* 3$' out && grep -q '^all .* 6$' out || fail "table: $(cat out)"
  [[ $(wc -l <rows) == 6 && $(grep -c '"logits":{"A":' rows) == 6 && $(wc -l <prompts) == 6 ]] || fail "rows: $(cat rows)"
  local right
  right=$(grep -c '"correct":true' rows)
  grep -A3 '"mmlu": {' result.json | grep -q "\"acc,none\": $(awk "BEGIN { print substr(sprintf(\"%.4f\", $right / 6), 1, 5) }")" ||
    fail "$right of 6 are right: $(cat result.json)"
  cp rows whole
  head -c 700 rows >cut && mv cut rows
  run 0 "${mmlu[@]}" json=again.json samples_output=rows
  cmp rows whole && cmp again.json result.json || fail "a run that was cut short is another one"
  run 0 "${mmlu[@]}" json=- samples_output=rows
  cmp out result.json || fail "json=-: $(cat out)"
}

other_runs_rows() {
  for change in num_shots=0 prompt_style=lm_eval dtype=bfloat16 hf_lora_adapter_path=adapter; do
    refused 3 'rows line 1: a row of another run' "${mmlu[@]}" samples_output=rows "$change"
  done
  refused 3 'rows line 3: a row of another run' "${mmlu[@]}" samples_output=rows limit=2
  cp model/model.safetensors kept && cp kept model/model.safetensors
  refused 3 'rows line 1: a row of another run' "${mmlu[@]}" samples_output=rows
  cmp rows whole || fail "a refusal has changed the rows"
}

an_adapter_counts() {
  run 0 "${mmlu[@]}" samples_output=plain_rows
  run 0 "${mmlu[@]}" samples_output=adapter_rows hf_lora_adapter_path=adapter
  sed 's/"hash":"[^"]*",//' plain_rows >a
  sed 's/"hash":"[^"]*",//' adapter_rows >b
  cmp -s a b && fail "an adapter changes nothing"
  run 0 eval perplexity load_parameters_path=model against=model "input=$data/tokenizer/train.txt" max_target_length=256 dtype=float32 json=-
  grep -q '"mean_kl": 0.0' out && grep -q '"top1_agreement": 1.0' out || fail "a model and itself: $(cat out)"
  run 0 eval perplexity load_parameters_path=model against=model "input=$data/tokenizer/train.txt" max_target_length=256 hf_lora_adapter_path=adapter
  grep -q '^mean KL  *[1-9]' out || fail "a model and its adapter: $(cat out)"
  run 0 convert input=model to=orbax output=orbax
  run 0 eval perplexity load_parameters_path=model against=orbax "input=$data/tokenizer/train.txt" max_target_length=256 dtype=float32 json=-
  grep -q '"mean_kl": 0.0' out || fail "a model and its Orbax copy: $(cat out)"
}

scorings() {
  run 0 "${mmlu[@]}" scoring=continuations num_shots=1 json=- && grep -q '"acc_norm,none"' out || fail "continuations: $(cat out)"
  run 0 "${mmlu[@]}" compat=maxtext max_target_length=600 samples_output=written && grep -q '"text":' written || fail "maxtext: $(cat written)"
  run 0 "${mmlu[@]}" compat=maxtext max_target_length=600 prompt_template='{question} {choices} Answer:B' prompts_output=prompts
  grep -q '^abstract algebra  *33.33' out && ! grep -q multiple prompts || fail "prompt_template: $(cat out)"
  refused 2 'prompt_template' "${mmlu[@]}" prompt_template=x
  refused 2 'num_shots=5' "${mmlu[@]}" compat=maxtext num_shots=5
  refused 2 'prompt_style=original' "${mmlu[@]}" scoring=continuations prompt_style=original
  refused 2 'compat=maxtext' "${mmlu[@]}" scoring=letters compat=maxtext
}

own_questions() {
  printf '%s\n' '{"question":"One?","choices":["a","b"],"answer":1}' '{"question":"Two?","choices":["a","b","c"],"answer":"C","subject":"x y"}' >own.jsonl
  local own=(eval multiple_choice load_parameters_path=model dtype=float32 input=own.jsonl)
  run 0 "${own[@]}" samples_output=own_rows json=result.json
  grep -q '^x y .* 1$' out && grep -q '^all .* 2$' out && grep -q '"multiple_choice_x y"' result.json && [[ $(wc -l <own_rows) == 2 ]] ||
    fail "own questions: $(cat out own_rows)"
  for row in '{"question":"Q","choices":["a"],"answer":0}' '{"question":"Q","choices":["a","b"],"answer":2}' '{"question":"Q","choices":["a","b"]}' \
    '{"question":"Q","choices":["a",2],"answer":0}' '{"question":"Q","choices":["a","b"],"answer":"b"}' 'Q' '[]'; do
    printf '%s\n' '{"question":"Q","choices":["a","b"],"answer":0}' "$row" >own.jsonl
    refused 3 'own.jsonl line 2' "${own[@]}"
  done
  printf '%s\n' '{"question":"One?","choices":["a","b"],"answer":1,"subject":"x"}' '{"question":"Two?","choices":["c","d"],"answer":0,"subject":"x"}' >own.jsonl
  printf '{"question":"Shown?","choices":["e","f"],"answer":"B"}\n' >shown.jsonl
  run 0 "${own[@]}" num_shots=1 prompts_output=prompts json=result.json
  grep -qF 'One?\nA. a\nB. b\nAnswer: B\n\nTwo?\nA. c\nB. d\nAnswer:"' prompts && [[ $(wc -l <prompts) == 1 ]] || fail "own examples: $(cat prompts)"
  grep -A2 '"n-shot"' result.json | grep -q '"multiple_choice": 1' || fail "n-shot: $(cat result.json)"
  run 0 "${own[@]}" num_shots=1 shots_input=shown.jsonl prompts_output=prompts
  [[ $(grep -cF 'Shown?\nA. e\nB. f\nAnswer: B\n\n' prompts) == 2 ]] || fail "examples of a file: $(cat prompts)"
  refused 3 'num_shots=2: the first 2 rows of subject "x"' "${own[@]}" num_shots=2
  refused 3 'shown.jsonl: 1 examples of subject "x"; num_shots=5 needs more' "${own[@]}" shots_input=shown.jsonl
  refused 2 'num_shots=1: scoring=generated' "${own[@]}" num_shots=1 scoring=generated
  : >own.jsonl
  refused 3 'own.jsonl: no question' "${own[@]}"
}

bad_flags() {
  refused 2 'num_shots' "${mmlu[@]}" num_shots=6
  refused 2 'prompt_style' "${mmlu[@]}" prompt_style=chat
  refused 2 'astrology' eval mmlu load_parameters_path=model "data_dir=$data/mmlu" 'subjects=[astrology]'
  refused 3 'nowhere' eval mmlu load_parameters_path=model data_dir=nowhere
  refused 3 'anatomy_test.csv' eval mmlu load_parameters_path=model "data_dir=$data/mmlu"
  refused 2 'data_dir' eval mmlu load_parameters_path=model
  refused 2 'max_position_embeddings is 256' eval mmlu load_parameters_path=short "data_dir=$data/mmlu" "$subjects"
  refused 3 'cuts " A" and' eval mmlu load_parameters_path=model "data_dir=$data/mmlu" "tokenizer_path=$data/tokenizer/gpt2" "$subjects"
}

make_model
cp -r model short
sed -i 's/"max_position_embeddings": *[0-9]*/"max_position_embeddings": 256/' short/config.json
scores_and_rows
other_runs_rows
an_adapter_counts
scorings
own_questions
bad_flags
exit $status
