#!/usr/bin/env bash
# cli.sh FATHOM DATA: what holds for every command: exit codes, one line per error, help, the line for flags without effect, outputs that
# are full. DATA is tests/data.
set -u
fathom=$1
data=$2
status=0
err=$(mktemp)
trap 'rm -f "$err"' EXIT

# expect CODE LINES PATTERN ARGUMENT...: exit code, lines on stderr, and what stdout and stderr together must hold.
expect() {
  local code=$1 lines=$2 pattern=$3 out rc
  shift 3
  out=$("$fathom" "$@" 2>"$err" | head -c 200000; exit "${PIPESTATUS[0]}")
  rc=$?
  if [[ $rc != "$code" || $(wc -l <"$err") != "$lines" ]] || ! grep -qE -- "$pattern" <<<"$out$(cat "$err")"; then
    echo "fathom $*: exit $rc (expected $code), $(wc -l <"$err") lines on stderr (expected $lines), must hold: $pattern" >&2
    cat "$err" >&2
    status=1
  fi
}

expect 0 0 'usage: fathom COMMAND' --help
expect 0 0 'exit codes: .*bad usage' train --help
expect 2 0 'usage: fathom COMMAND'
expect 0 0 '^fathom [0-9]+\.[0-9]+\.[0-9]+$' --version
expect 0 0 'changed_only=false' config --help
expect 0 0 '^steps +7 +command line' config steps=7
expect 0 0 '"source": "command line"' config --steps 7 json=/dev/stdout
expect 2 1 'unknown command confg; did you mean config' confg
expect 2 1 'dataset_type=hf needs hf_path=' sft
expect 2 1 'unknown command encode \(fathom' encode
expect 2 1 'python3 -m maxtext.trainers.pre_train.train: write `fathom train` in its place' python3 -m maxtext.trainers.pre_train.train base.yml steps=1
expect 2 1 'write `fathom check logits` in its place' python -m tests.utils.forward_pass_logit_checker base.yml
expect 2 1 'write `fathom COMMAND` in its place' python3 train.py
expect 2 1 'without its comment lines' train base.yml '#' MTP-specific flags mtp_num_layers=1
expect 2 1 'a space after the backslash' train base.yml indexer_loss_scaling_factor=0.01 ' '
expect 2 1 'did you mean learning_rate' config learnng_rate=1
expect 2 1 'steps=x: allowed is a whole number' config steps=x
expect 2 1 'log_level=loud' config log_level=loud
expect 2 1 'which one\? .*tokenizer encode' tokenizer
expect 2 2 'accepted, no effect here: attention, megablox$' tokenizer encode attention=flash --megablox
expect 2 1 'unexpected stray' tokenizer encode stray
expect 2 1 'bench gpu: allowed are gemm, memory, disk, train, decode' bench gpu
expect 2 1 'plan serve: allowed are train, sft, decode, convert' plan serve
expect 2 1 'unexpected foo' config foo
expect 2 1 'unexpected bad.yml' config base.yml bad.yml
expect 0 0 '^steps +7 +command line' config train steps=7
expect 0 0 'check golden' check --help
expect 0 0 'tokenizer decode' tokenizer --help
expect 0 0 'flags, with their defaults' tokenizer decode --help
expect 2 1 'unknown command chek' chek --help
expect 2 1 'per_device_batch_size=1.5: allowed is a whole number' plan train model_name=deepseek3-tiny per_device_batch_size=1.5
expect 2 1 'lora.enable_lora=true needs load_parameters_path' sft model_name=deepseek3-671b hf_path=x lora.enable_lora=true lora.lora_rank=4 lora.lora_alpha=8
expect 0 0 'mapped +31\.41 GB' plan sft model_name=deepseek2-16b lora.enable_lora=true lora.lora_rank=4 lora.lora_alpha=8
expect 0 0 'written +1\.37 TB' plan convert model_name=deepseek3-671b dtype=bfloat16 disk_gb_s=1
expect 0 1 'written +1\.37 TB' plan convert model_name=deepseek3-671b --hf_model_path=/nonexistent --save_dtype=bfloat16 disk_gb_s=1
expect 3 1 'no such folder' plan convert input=/nonexistent
# Every kernel that takes more than 1 % of the time is shared evenly by 16 to 256 threads.
for model in deepseek2-16b deepseek3-671b; do
  expect 0 0 '^above 1.25: none' bench plan model_name=$model max_target_length=4096 per_device_batch_size=1
done
# Bound threads are as many as there are places, and no more than cores: the program that starts itself anew has them all again.
cores=$("$fathom" inspect "$data/golden/v3" threads=9999 2>&1 >/dev/null | grep -oE 'has [0-9]+ cores, and uses as many threads')
OMP_PROC_BIND=close OMP_PLACES=cores expect 0 1 "${cores:-no line}" inspect "$data/golden/v3" threads=9999
machine=$(mktemp)
echo '{"read_gb_s": 10}' >"$machine"
expect 0 1 'planned with the sizes that the flags say' plan decode model_name=deepseek3-671b load_parameters_path=/nonexistent "machine=$machine"
expect 3 1 '/nonexistent' plan decode load_parameters_path=/nonexistent
rm -f "$machine"
expect 3 1 'nonexistent' convert --input-path=/nonexistent --output-path=out
yml=$(mktemp --suffix=.yml)
printf 'use_iota_embed: true\nsteps: 7\nenable_dropout: true\n' >"$yml"
expect 2 2 'accepted, no effect here: use_iota_embed$' eval perplexity "$yml"
printf 'use_sft: true\n' >"$yml"
expect 2 1 'dataset_type=hf needs hf_path=' train src/maxtext/configs/post_train/sft.yml
expect 0 0 '^learning_rate +2e-05 +sft.yml' config src/maxtext/configs/post_train/sft.yml
expect 2 1 'dataset_type=text: use_sft=true reads conversations: dataset_type=hf' train "$yml"
expect 0 0 '^use_sft +true' config "$yml"
# An adapter that the command would leave out.
for command in 'check golden' 'check files' inspect 'plan decode'; do
  expect 2 1 'error: hf_lora_adapter_path=a: fathom .* takes no adapter' $command hf_lora_adapter_path=a log_level=off
done
for command in train sft 'plan train'; do
  expect 2 1 'hf_lora_adapter_path needs lora.enable_lora=true' $command hf_lora_adapter_path=a "load_parameters_path=$data/golden/v3" hf_path=x dataset_path=x
done
# Outputs that have no place, before anything is read.
for command in 'eval perplexity' train 'check files' bench report inspect; do
  expect 2 1 'json=/nonexistent/x.json: /nonexistent is no folder' $command json=/nonexistent/x.json
done
expect 2 1 'metrics_file=/nonexistent/x: /nonexistent is no folder' train metrics_file=/nonexistent/x
expect 2 1 "json=$data: a folder; name a file" decode json="$data"
expect 2 1 'metrics_file=-: standard output has' train metrics_file=-
expect 0 0 '' config metrics_file=/nonexistent/x log_level=off
# Another model than the checkpoint's.
for flag in num_experts_per_tok=1 first_num_dense_layers=0 n_routing_groups=1; do
  given="$flag is given, but .*config.json has"
  model=(override_model_config=true "$flag" "load_parameters_path=$data/golden/v3")
  expect 2 1 "$given" decode "${model[@]}" prompt_ids=1
  expect 2 1 "$given" eval perplexity "${model[@]}" input=x
  expect 2 1 "$given" check logits "${model[@]}" "golden_logits_path=$data/golden/v2-lite/golden_logits.jsonl" max_kl_div=1
done
expect 2 1 'indexer_topk=2 is given, but .* give override_model_config=true' decode indexer_topk=2 "load_parameters_path=$data/golden/v32-fp8" prompt_ids=1
expect 2 1 'capacity_factor=1.25: fathom decode drops no tokens' decode capacity_factor=1.25 "load_parameters_path=$data/golden/v3" prompt_ids=1
# Flags that would change the result and can't be honoured, whatever the log level.
for flag in use_dpo=true ici_tensor_parallelism=4 dropout_rate=0.1; do
  expect 2 1 "error: (command line: )?$flag: " train $flag log_level=off
done
for flag in ici_tensor_parallelism=4 quantize_kvcache=true; do
  for command in decode 'eval perplexity'; do expect 2 1 "error: (command line: )?$flag: " $command $flag log_level=off; done
done
for flag in ici_context_parallelism=2 quantize_kvcache=true; do expect 2 1 "error: (command line: )?$flag: " plan decode $flag log_level=off; done
expect 2 1 'capacity_factor=1.25: tokens are dropped only with sparse_matmul=false' train capacity_factor=1.25 load_parameters_path="$data/golden/v3" dataset_type=synthetic
for flag in use_dpo=true dropout_rate=0.1; do expect 2 1 "error: (command line: )?$flag: " plan train $flag log_level=off; done
# A yml that serves several commands stops none whose result stays as it is; what was given by hand is named even there.
printf 'use_dpo: true\nquantize_kvcache: true\ncapacity_factor: 1.25\n' >"$yml"
expect 2 2 'accepted, no effect here: use_dpo$' eval perplexity "$yml" quantize_kvcache=false
expect 0 0 '^[0-9]+(,[0-9]+){3}$' decode "$yml" load_parameters_path="$data/golden/v3" prompt_ids=1,2,3 max_new_tokens=4 log_level=warning quantize_kvcache=false
expect 2 2 'accepted, no effect here: dropout_rate, use_dpo$' tokenizer encode use_dpo=true dropout_rate=0.1 log_level=warning
rm "$yml"
# URLs, whatever the command.
for flag in load_parameters_path=gs://b/x json=s3://b/x base_output_directory=gs://b input=https://h/x; do
  for command in train decode convert 'check files' 'tokenizer train' 'plan convert' inspect bench; do
    expect 2 1 "$flag: only local paths" $command $flag
  done
done
expect 2 1 'gs://b/x: only local paths' inspect gs://b/x
[[ ! -e gs: && ! -e s3: ]] || { echo "a URL became a folder" >&2; status=1; }

# What belongs to another command is named even where information is hidden.
expect 2 2 'accepted, no effect here: seed$' tokenizer encode seed=3 log_level=warning
expect 2 1 'input: none given' tokenizer encode attention=flash log_level=warning

# base.yml holds what some command reads.
reads=$(for command in train decode convert 'check files' 'check golden' 'check logits' 'check compare' 'eval perplexity' 'eval mmlu' 'eval multiple_choice' 'tokenizer train' \
  'tokenizer encode' 'tokenizer decode' 'tokenizer chat' plan bench inspect; do "$fathom" $command --help; done)
for flag in $("$fathom" config --help | sed -n 's/^  \([a-z0-9_.]*\)=.*/\1/p' | grep -vxE 'model_name|override_model_config|base_config|changed_only'); do
  grep -q "^  $flag=" <<<"$reads" || { echo "base.yml: no command reads $flag" >&2; status=1; }
done
expect 2 1 'eval perplexity needs load_parameters_path' eval perplexity
expect 2 1 'eval mmlu needs data_dir' eval mmlu
# The auditor: what differs is said, exit 1; none is accused of a difference that no fault explains.
v3="$data/golden/v3" lite="$data/golden/v2-lite" ids=prompt_ids=1,2,3,4,5,6,7,8
expect 2 1 'check compare needs a= and b=' check compare a="$v3"
expect 2 1 'check compare needs prompt= or prompt_ids=' check compare a="$v3" b="$v3"
expect 3 1 'token 900: the vocabulary' check compare a="$v3" b="$v3" prompt_ids=900
expect 3 1 'no models of one shape' check compare a="$v3" b="$lite" $ids
expect 0 0 'the two are the same' check compare a="$v3" b="$v3" $ids
expect 0 0 '"causes": \[\]' check compare a="$v3" b="$v3" $ids json=-
logits=(check logits "load_parameters_path=$lite" "golden_logits_path=$lite/golden_logits.jsonl" dtype=float32)
expect 0 0 '"diagnosis": null' "${logits[@]}" max_kl_div=1e-8 json=-
expect 1 0 '^cause: none of these faults' "${logits[@]}" max_kl_div=1e-30
expect 1 0 '"cause": null' "${logits[@]}" max_kl_div=1e-30 explain=false json=-
expect 2 1 'leave none to compare' "${logits[@]}" max_kl_div=1e-8 token_size=1 skip_first_token=true
# What would be left out, or was not asked for, is an error.
expect 2 1 'both say what to answer' decode "load_parameters_path=$v3" messages_file=x prompt_ids=1
expect 2 1 'plan sft: unexpected lora' plan sft lora model_name=deepseek2-16b
expect 2 1 'dataset_type=synthetic: use_sft=true' sft model_name=deepseek3-tiny dataset_type=synthetic
expect 2 1 'lora.lora_rank needs lora.enable_lora=true' sft "load_parameters_path=$v3" hf_path=x lora.lora_rank=4
expect 2 1 'init_missing with lora.enable_lora=true' train "load_parameters_path=$v3" dataset_path=x lora.enable_lora=true init_missing=mtp lora.lora_rank=4 lora.lora_alpha=8
expect 0 0 'learning_rate +2e-05' config sft
expect 0 0 '^  learning_rate=2e-05 ' sft --help
expect 0 0 '^  learning_rate=3e-05 ' train --help
# Names that are not UTF-8.
odd=$(mktemp -d)/$'b\xe4'
cp -r "$v3" "$odd"
expect 0 0 '"exit_code": 0' check files input="$odd" json=-
expect 0 0 '"run_name": "r' train "load_parameters_path=$odd" dataset_type=synthetic steps=1 max_target_length=16 per_device_batch_size=1 \
  "base_output_directory=$odd" run_name=$'r\xe4' json=- log_level=warning
expect 0 0 '"name": "r' report "$odd"/$'r\xe4' output="$odd/report.html" json=- log_level=warning
rm -rf "$(dirname "$odd")"
FATHOM_SIMD=mmx expect 2 1 'mmx' config

# full ARGUMENT...: standard output is full, and standard error too or closed.
full() {
  local rc
  "$fathom" "$@" >/dev/full 2>"$err"
  rc=$?
  [[ $rc == 4 ]] && grep -q 'standard output: cannot be written' "$err" || { echo "fathom $* >/dev/full: exit $rc, $(cat "$err")" >&2 && status=1; }
  "$fathom" "$@" >/dev/full 2>/dev/full
  rc=$?
  [[ $rc == 4 ]] || { echo "fathom $*, both outputs full: exit $rc" >&2 && status=1; }
  "$fathom" "$@" >&- 2>&-
  rc=$?
  [[ $rc == 4 ]] || { echo "fathom $*, both outputs closed: exit $rc" >&2 && status=1; }
}
full config
full --help
full --version
full train --help
full plan train model_name=deepseek3-671b
full decode "load_parameters_path=$data/golden/v3" prompt_ids=1,2,3 max_new_tokens=4
exit $status
