#!/usr/bin/env bash
# ranks.sh FATHOM DATA: two ranks under mpirun train as one process does, on every axis; a run goes on with another mesh; a mesh that cannot
# be is one line; ranks that are killed, stand still or get a signal end the job as they should, and restart=auto goes on with fewer. Exit
# code 77 where there is no mpirun or no MPI backend beside the program. DATA is tests/data.
set -u
fathom=$(realpath "$1")
scripts=$(realpath "$(dirname "$0")/../scripts")
text=$(realpath "$2")/tokenizer/train.txt
command -v mpirun >/dev/null || { echo "ranks: skipped: no mpirun (Debian: openmpi-bin)"; exit 77; }
[ -e "$(dirname "$fathom")/libfathom_mpi.so" ] || { echo "ranks: skipped: built without MPI (Debian: libopenmpi-dev)"; exit 77; }
dir=$(mktemp -d)
status=0
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
export OMP_WAIT_POLICY=passive ASAN_OPTIONS=detect_leaks=0  # Open MPI keeps some memory until its end

MODEL=(model_name=deepseek3-tiny override_model_config=true vocab_size=400 base_emb_dim=32 base_num_decoder_layers=3 first_num_dense_layers=1
  base_num_query_heads=2 base_num_kv_heads=2 q_lora_rank=16 kv_lora_rank=16 qk_nope_head_dim=16 qk_rope_head_dim=8 v_head_dim=16
  base_mlp_dim=64 base_moe_mlp_dim=32 num_experts=8 num_experts_per_tok=2 n_routing_groups=4 topk_routing_group=2 rope_type=default
  max_position_embeddings=4096 mtp_num_layers=1)
COMMON=("dataset_path=$text" tokenizer_path=tokenizer "base_output_directory=$dir/runs" held_out_fraction=0 enable_tensorboard=false log_level=warning
  threads=1 dtype=float32 adam_eps=1e-3 max_target_length=32 warmup_steps_fraction=0)

fail() {
  echo "ranks: $*" >&2
  status=1
}
launch() { mpirun --allow-run-as-root --oversubscribe --bind-to none -np "${ranks:-2}" "$@"; }
# axes NAME: that axis has two ranks, the others one.
axes() {
  local axis
  for axis in data fsdp expert tensor context pipeline; do
    if [ "$axis" = "$1" ]; then echo "ici_${axis}_parallelism=2"; else echo "ici_${axis}_parallelism=1"; fi
  done
}
one() { "$fathom" train "${MODEL[@]}" "${COMMON[@]}" per_device_batch_size=4 run_name="$1" "${@:2}" 2>"$1.err"; }
# two NAME AXIS FLAG...
two() {
  local mesh
  mapfile -t mesh < <(axes "$2")
  launch "$fathom" train "${MODEL[@]}" "${COMMON[@]}" per_device_batch_size=2 run_name="$1" "${mesh[@]}" "${@:3}" 2>"$1.err"
}
losses() { grep -o '"learning/loss":[^,]*,.*"learning/raw_grad_norm":[^,]*' "runs/$1/metrics/metrics.jsonl" | sed 's/"learning\/loss"://; s/,.*"learning\/raw_grad_norm":/ /'; }
# same A B: as many steps, every loss and gradient norm within 2e-5.
same() {
  paste -d' ' <(losses "$1") <(losses "$2") | awk '
    function far(x, y) { d = x > y ? x - y : y - x; return !(d <= 2e-5 * (y > 0 ? y : -y)) }
    NF != 4 || far($1, $3) || far($2, $4) { print "step " NR - 1 ": " $0; bad = 1 } END { if (NR == 0) print "no steps"; exit bad || NR == 0 }'
}

"$fathom" tokenizer train "input=$text" vocab_size=400 output=tokenizer log_level=error >/dev/null || fail "no tokenizer"
one alone steps=4 || fail "one process: $(tail -1 alone.err)"
for axis in data fsdp expert tensor context pipeline; do
  two "$axis" "$axis" steps=4 json="$axis.json" || fail "$axis: $(grep fathom: "$axis.err" | head -1)"
  same "$axis" alone >difference || fail "$axis: not as one process: $(head -1 difference)"
  read -ra tokenised < <(grep -o '"bytes_tokenised": [0-9]*' "$axis.json" | grep -o '[0-9]*$' | xargs)
  [ "${tokenised[*]}" = "$(stat -c %s "$text") 0" ] || fail "$axis: ranks have tokenised ${tokenised[*]} bytes, not the text once"
done

# Two steps on one mesh, two on another; the folder is one of one process.
two moved fsdp steps=2 learning_rate_schedule_steps=4 || fail "moved: $(grep fathom: moved.err | head -1)"
two moved expert steps=4 || fail "moved on: $(grep fathom: moved.err | head -1)"
same moved alone >difference || fail "two steps on fsdp, two on expert: $(head -1 difference)"
cmp -s <(head -c 8 runs/moved/checkpoints/3/model.safetensors) <(head -c 8 runs/alone/checkpoints/3/model.safetensors) || fail "other headers"

# Twice the same bits.
two again tensor steps=4 || fail "again: $(grep fathom: again.err | head -1)"
cmp -s runs/again/checkpoints/3/model.safetensors runs/tensor/checkpoints/3/model.safetensors || fail "the same mesh twice: other bits"

# One line for both ranks.
launch "$fathom" train "${MODEL[@]}" "${COMMON[@]}" per_device_batch_size=2 run_name=r ici_tensor_parallelism=4 ici_fsdp_parallelism=1 2>wrong.err
[ $? = 2 ] || fail "a mesh of four for two ranks does not end with 2"
[ "$(grep -c '^fathom: error: .*ici_tensor_parallelism=4' wrong.err)" = 1 ] || fail "a mesh of four for two ranks: $(grep fathom: wrong.err)"
launch "$fathom" plan train "${MODEL[@]}" 2>wrong.err && fail "fathom plan runs as two"

# What a step sends is what the plan of one process counts; how many rows travel to experts is the router's to say.
echo '{"gemm_f32_gflops": 100, "read_gb_s": 10}' >machine.json
for axis in data fsdp tensor context pipeline; do
  mapfile -t mesh < <(axes "$axis")
  "$fathom" plan train "${MODEL[@]}" "${COMMON[@]}" per_device_batch_size=2 machine=machine.json json=plan.json "${mesh[@]}" >/dev/null 2>plan.err ||
    fail "plan of $axis: $(tail -1 plan.err)"
  name=${axis/pipeline/stage}
  planned=$(grep -o "\"${name}_bytes\": [0-9]*" plan.json | grep -o '[0-9]*$')
  sent=$(grep -o "\"comm/bytes_sent/$name\":[0-9]*" "runs/$axis/metrics/metrics.jsonl" | head -1 | grep -o '[0-9]*$')
  [ -n "$sent" ] && [ "$planned" = "$sent" ] || fail "$axis sends $sent bytes in a step, planned were $planned"
done
"$fathom" plan train "${MODEL[@]}" "${COMMON[@]}" per_device_batch_size=2 machine=machine.json search=true hosts=4 memory=1GiB >best 2>plan.err || fail "search: $(tail -1 plan.err)"
grep -q 'the shortest step of [0-9]* meshes that fit into' best || fail "search names no best mesh: $(tail -3 best)"
"$fathom" plan train "${MODEL[@]}" "${COMMON[@]}" per_device_batch_size=2 machine=machine.json search=true hosts=4 memory=1MiB >best 2>plan.err
grep -q 'none of [0-9]* meshes fits' best || fail "search finds room for a model in 1 MiB: $(tail -3 best)"

# Decoding: one process's answers on every mesh, drafted or not, and what a rank sends and takes is what the plan says. The model is wide
# enough for its weights to be most of a rank's memory.
WIDE=(model_name=deepseek3-tiny override_model_config=true vocab_size=400 base_emb_dim=512 base_num_decoder_layers=3 first_num_dense_layers=1
  base_num_query_heads=4 base_num_kv_heads=4 q_lora_rank=64 kv_lora_rank=64 qk_nope_head_dim=64 qk_rope_head_dim=32 v_head_dim=64
  base_mlp_dim=2048 base_moe_mlp_dim=512 num_experts=8 num_experts_per_tok=2 n_routing_groups=4 topk_routing_group=2 rope_type=default
  max_position_embeddings=4096 mtp_num_layers=1)
"$fathom" train "${WIDE[@]}" "${COMMON[@]}" per_device_batch_size=1 run_name=wide steps=1 learning_rate=0 2>wide.err || fail "wide: $(tail -1 wide.err)"
printf 'The quick brown fox\nAnd so it goes, on and on\nOnce\n' >prompts.txt
DECODE=(load_parameters_path=runs/wide/checkpoints/0 ignore_eos=true dtype=float32 threads=1 log_level=error ici_fsdp_parallelism=1)
MANY=("${DECODE[@]}" prompt_file=prompts.txt batch_size=2 max_new_tokens=20)
ONE=("${DECODE[@]}" prompt_ids=5,6,7,8,9,10,11,12 max_new_tokens=40)
"$fathom" decode "${MANY[@]}" >one.text || fail "decoding on one process"
for axis in tensor expert; do
  for drafts in none mtp; do
    launch "$fathom" decode "${MANY[@]}" ici_${axis}_parallelism=2 speculative=$drafts >two.text 2>two.err || fail "decoding on $axis: $(grep fathom: two.err)"
    cmp -s one.text two.text || fail "decoding on $axis, drafts: $drafts: other answers"
  done
  launch "$fathom" decode "${ONE[@]}" ici_${axis}_parallelism=2 json=two.json >/dev/null 2>two.err || fail "decoding on $axis: $(grep fathom: two.err)"
  "$fathom" plan decode "${ONE[@]}" ici_${axis}_parallelism=2 machine=machine.json json=plan.json >/dev/null 2>plan.err || fail "plan of decoding: $(tail -1 plan.err)"
  sent=$(grep -o "\"$axis\": [0-9]*" two.json | head -1 | grep -o '[0-9]*$')
  mapfile -t planned < <(grep -o "\"${axis}_bytes\": [0-9]*" plan.json | grep -o '[0-9]*$')  # for the prompt, in a step
  [ $((planned[0] + 39 * planned[1])) = "$sent" ] || fail "decoding on $axis sends $sent bytes, planned were ${planned[*]}"
  peak=$(grep -o '"peak_rss_bytes": [0-9]*' two.json | grep -o '[0-9]*$' | sort -n | tail -1)
  memory=$(grep -o '"in_all_bytes": [0-9]*' plan.json | grep -o '[0-9]*$')
  [ $((10 * memory)) -ge $((9 * peak)) ] && [ $((10 * memory)) -le $((11 * peak)) ] || fail "decoding on $axis takes $peak bytes, planned were $memory"
done
# What the first rank alone finds is said once, and nobody is waited for; standard input is its own.
mkdir blocked.json.tmp
launch "$fathom" decode "${ONE[@]}" ici_tensor_parallelism=2 json=blocked.json >/dev/null 2>two.err && fail "a result that cannot be written is none"
[ "$(grep -c '^fathom: error: ' two.err)" = 1 ] && grep -q '^fathom: error: blocked.json' two.err || fail "an output that cannot be: $(grep fathom: two.err)"
launch "$fathom" decode "${MANY[@]}" ici_expert_parallelism=2 prompt_file=- <prompts.txt >two.text 2>two.err || fail "standard input: $(grep fathom: two.err)"
cmp -s one.text two.text || fail "decoding what standard input says: other answers"
launch "$fathom" serve 2>two.err
[ "$(grep -c '^fathom: error: unknown command serve' two.err)" = 1 ] || fail "an unknown command: $(grep fathom: two.err)"
"$fathom" plan decode "${ONE[@]}" machine=machine.json search=true hosts=4 >best 2>plan.err || fail "search: $(tail -1 plan.err)"
grep -q 'the shortest step of 3 meshes' best || fail "search of a mesh to decode on: $(tail -3 best)"

# Muon over parts of matrices, batches that grow, adapters beside what is divided, a module's own head on the last stage.
one muon steps=3 opt_type=muon || fail "muon: $(tail -1 muon.err)"
for axis in fsdp expert tensor; do
  two muon-$axis $axis steps=3 opt_type=muon || fail "muon on $axis: $(grep fathom: muon-$axis.err | head -1)"
  same muon-$axis muon >difference || fail "muon on $axis: $(head -1 difference)"
done
RAMP=(steps=4 enable_rampup_batch_size=true global_rampup_samples=4)
one ramp "${RAMP[@]}" per_device_batch_size_start=2 per_device_batch_size_increment=2 || fail "ramp: $(tail -1 ramp.err)"
two ramp-fsdp fsdp "${RAMP[@]}" per_device_batch_size_start=1 per_device_batch_size_increment=1 || fail "ramp on fsdp: $(grep fathom: ramp-fsdp.err | head -1)"
same ramp-fsdp ramp >difference || fail "ramp on fsdp: $(head -1 difference)"
LORA=(load_parameters_path=runs/alone/checkpoints/3 lora.enable_lora=true lora.lora_rank=4 lora.lora_alpha=8 learning_rate=1e-2
  'lora.lora_module_path=.*(o_proj|q_b_proj|kv_b_proj|q_a_proj|gate_proj|down_proj)' learning_rate_schedule_steps=4)
one lora steps=4 "${LORA[@]}" || fail "adapters: $(tail -1 lora.err)"
for axis in expert tensor pipeline; do
  two lora-$axis $axis steps=2 "${LORA[@]}" || fail "adapters on $axis: $(grep fathom: lora-$axis.err | head -1)"
  two lora-$axis fsdp steps=4 "${LORA[@]}" || fail "adapters on $axis, then fsdp: $(grep fathom: lora-$axis.err | head -1)"
  same lora-$axis lora >difference || fail "adapters on $axis, then fsdp: $(head -1 difference)"
done
one balance steps=3 load_balance_loss_weight=0.1 || fail "balance: $(tail -1 balance.err)"
two balance-context context steps=3 load_balance_loss_weight=0.1 || fail "balance on context: $(grep fathom: balance-context.err | head -1)"
same balance-context balance >difference || fail "balance on context: $(head -1 difference)"
one own steps=3 mtp_own_head=true || fail "own head: $(tail -1 own.err)"
two own-pipeline pipeline steps=3 mtp_own_head=true || fail "own head on stages: $(grep fathom: own-pipeline.err | head -1)"
same own-pipeline own >difference || fail "own head on stages: $(head -1 difference)"

# Conversations are rendered once, with those that are held out; a bad one is one line.
for i in $(seq 40); do
  echo "{\"messages\": [{\"role\": \"user\", \"content\": \"what is $i?\"}, {\"role\": \"assistant\", \"content\": \"It is $i.\"}]}"
done >rows.jsonl
SFT=(use_sft=true train_data_columns=messages dataset_type=hf hf_path=rows.jsonl "tokenizer_path=$(dirname "$text")/deepseek" chat_template=v3 vocab_size=1024 max_target_length=64
  steps=3 eval_interval=2 held_out_fraction=0.2)
one sft "${SFT[@]}" || fail "sft: $(tail -1 sft.err)"
two sft-tensor tensor "${SFT[@]}" json=sft.json || fail "sft on tensor: $(grep fathom: sft-tensor.err | head -1)"
same sft-tensor sft >difference || fail "sft on tensor: $(head -1 difference)"
grep -A2 '"bytes_read"' sft.json | grep -o '"bytes_tokenised": [0-9]*' | sed -n 2p | grep -q ': 0$' || fail "sft: two ranks have rendered rows: $(cat sft.json)"
echo '{"messages": 5}' >>rows.jsonl
two sft-bad data "${SFT[@]}" eval_interval=-1 && fail "a bad row is trained on"
[ "$(grep -c '^fathom: error: .*rows.jsonl, line 41' sft-bad.err)" = 1 ] && [ "$(grep -c '^fathom: error' sft-bad.err)" = 1 ] || fail "a bad row: $(grep fathom: sft-bad.err)"

# Questions and files are divided; the result is one process's.
for i in $(seq 150); do
  echo "{\"question\": \"$i and $((i % 7))?\", \"choices\": [\"a $i\", \"b\"], \"answer\": $((i % 2)), \"subject\": \"s$((i % 2))\"}"
done >questions.jsonl
QUESTIONS=(eval multiple_choice load_parameters_path=runs/alone/checkpoints/3 input=questions.jsonl dtype=float32 threads=1 log_level=warning)
"$fathom" "${QUESTIONS[@]}" samples_output=one.jsonl json=one.json >one.table || fail "questions on one process"
launch "$fathom" "${QUESTIONS[@]}" samples_output=two.jsonl json=two.json >two.table 2>two.err || fail "questions on two: $(grep fathom: two.err)"
for kind in jsonl json table; do cmp -s one.$kind two.$kind || fail "questions on two ranks: another $kind"; done
MMLU=(eval mmlu load_parameters_path=runs/alone/checkpoints/3 "data_dir=$(dirname "$text")/../mmlu" 'subjects=[abstract_algebra,nutrition,world_religions]' scoring=continuations
  dtype=float32 threads=1 log_level=warning)
"$fathom" "${MMLU[@]}" samples_output=mmlu.jsonl prompts_output=mmlu.prompts json=mmlu.json >mmlu.table || fail "mmlu on one process"
ranks=3 launch "$fathom" "${MMLU[@]}" samples_output=mmlu3.jsonl prompts_output=mmlu3.prompts json=mmlu3.json ici_fsdp_parallelism=1 ici_data_parallelism=3 >mmlu3.table 2>two.err ||
  fail "mmlu on three: $(grep fathom: two.err)"
for kind in jsonl prompts json table; do [ -s mmlu.$kind ] && cmp -s mmlu.$kind mmlu3.$kind || fail "mmlu on three ranks: another $kind"; done
# Passes over text are divided; what is printed and written has the bits of one process, and the text is read once.
TEXT=(eval perplexity load_parameters_path=runs/alone/checkpoints/3 "input=$text" max_target_length=64 dtype=float32 threads=1 log_level=warning)
figures() { grep -vE '"(seconds|bytes_tokenised|rank|ranks)"|^ *[]{}[]|tokens/s' "$1"; }
for against in "" against=runs/fsdp/checkpoints/3; do
  "$fathom" "${TEXT[@]}" $against json=one.json >one.table || fail "perplexity on one process"
  for axis in fsdp tensor; do
    mapfile -t mesh < <(axes "$axis")
    launch "$fathom" "${TEXT[@]}" $against "${mesh[@]}" json=two.json >two.table 2>two.err || fail "perplexity on $axis: $(grep fathom: two.err)"
    [ -n "$against" ] || [ "$(figures one.table)" = "$(figures two.table)" ] || fail "perplexity on $axis: $(cat two.table)"
    [ "$axis" = tensor ] || [ "$(figures one.json)" = "$(figures two.json)" ] || fail "perplexity $against on $axis: $(cat two.json)"
    [ "$(grep -o '"bytes_tokenised": [0-9]*' two.json | grep -o '[0-9]*$' | xargs)" = "$(stat -c %s "$text") 0" ] || fail "perplexity: the text is not read once: $(cat two.json)"
  done
done
launch "$fathom" "${TEXT[@]}" ici_pipeline_parallelism=2 ici_fsdp_parallelism=1 2>wrong.err
[ $? = 2 ] && [ "$(grep -c '^fathom: error: .*ici_pipeline_parallelism=2' wrong.err)" = 1 ] || fail "perplexity on stages: $(grep fathom: wrong.err)"
# Two files for three ranks, of which one has none; three files for two.
CONVERT=(convert input=runs/alone/checkpoints/3 to=hf max_shard_size=300000 dtype=bfloat16 log_level=warning)
"$fathom" "${CONVERT[@]}" output=one-few >/dev/null || fail "few files on one process"
ranks=3 launch "$fathom" "${CONVERT[@]}" output=three-few >/dev/null 2>two.err || fail "few files on three ranks: $(grep fathom: two.err)"
diff -r one-few three-few >difference || fail "few files on three ranks: $(head -1 difference)"
[ "$(find one-few -maxdepth 1 -name '*.safetensors' | wc -l)" = 2 ] || fail "not two files for three ranks"
for format in hf orbax; do
  CONVERT=(convert input=runs/alone/checkpoints/3 to=$format max_shard_size=150000 dtype=bfloat16 log_level=warning)
  "$fathom" "${CONVERT[@]}" output=one-$format >/dev/null || fail "to $format on one process"
  launch "$fathom" "${CONVERT[@]}" output=two-$format >converted 2>two.err || fail "to $format on two: $(grep fathom: two.err)"
  diff -r one-$format two-$format >difference || fail "to $format on two ranks: $(head -1 difference)"
  [ $format = orbax ] || [ "$(find one-hf -maxdepth 1 -name '*.safetensors' | wc -l)" = 3 ] || fail "not three files for two ranks"
  [ "$(grep -c 'tensors' converted)" = 1 ] || fail "two ranks print a conversion: $(cat converted)"
done
launch "$fathom" "${CONVERT[@]}" output=two-orbax >converted 2>two.err
[ $? = 2 ] && [ "$(grep -c '^fathom: error: .*two-orbax' two.err)" = 1 ] || fail "an output that is there: $(grep fathom: two.err)"

# Moments that ranks along data share, and checkpoints written beside the steps, change no bit.
two zero data steps=4 shard_optimizer_over_data=true checkpoint_period=1 || fail "zero: $(grep fathom: zero.err | head -1)"
for file in model.safetensors train_state/mu.safetensors train_state/nu.safetensors; do
  cmp -s "runs/zero/checkpoints/3/$file" "runs/data/checkpoints/3/$file" || fail "shard_optimizer_over_data: other bits in $file"
done

processes() { pgrep -f "base_output_directory=$dir/runs.* run_name=$1 "; }
# ranks_of NAME: the processes of its ranks.
ranks_of() { processes "$1" | while read -r pid; do [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = fathom ] && echo "$pid"; done; }
# begun NAME JOB: waits until it has trained three steps.
begun() { until [ "$(cat "runs/$1/metrics/metrics.jsonl" 2>/dev/null | wc -l)" -ge 3 ] || ! kill -0 "$2" 2>/dev/null; do sleep 0.05; done; }
# ended NAME CODE WORDS: the job that waits ends with that code, the first line has the words, and no process is left.
ended() {
  wait $job
  local code=$?
  [ $code = "$2" ] || fail "$1 ends with $code, not $2: $(head -3 "$1.err")"
  [[ $(grep fathom: "$1.err" | head -1) == *$3* ]] || fail "$1: $(head -3 "$1.err")"
  [ -z "$(processes "$1")" ] || fail "$1: processes are left"
}

# Ranks that are asked for different things do nothing.
mpirun --allow-run-as-root --oversubscribe --bind-to none -np 1 "$fathom" train "${MODEL[@]}" "${COMMON[@]}" run_name=apart : \
  -np 1 -x M_LEARNING_RATE=0.1 "$fathom" train "${MODEL[@]}" "${COMMON[@]}" run_name=apart >/dev/null 2>apart.err &
job=$!
ended apart 2 "rank 1 is asked for learning_rate=0.1, rank 0 for learning_rate="

# A rank is killed: the other says so and goes with it.
two killed fsdp steps=100000 >/dev/null &
job=$!
begun killed $job
kill -9 "$(ranks_of killed | tail -1)"
ended killed 137 "has ended without a word"

# A rank stands still: the other notices.
two stopped fsdp steps=100000 hang_seconds=3 >/dev/null &
job=$!
begun stopped $job
kill -STOP "$(ranks_of stopped | tail -1)"
ended stopped 1 "has not been heard of for 3 s"

# A signal to one of them stops all after the same step, which is saved; likewise one that mpirun hands on to all.
for signal in TERM USR1; do
  two "$signal" fsdp steps=100000 log_level=info >/dev/null &
  job=$!
  begun "$signal" $job
  if [ $signal = TERM ]; then kill -TERM "$(ranks_of TERM | tail -1)"; else kill -USR1 "$(pgrep -f "^mpirun.* run_name=USR1 ")"; fi
  ended "$signal" $((128 + $(kill -l $signal))) ""
  step=$(ls runs/$signal/checkpoints)
  [ "$(wc -l <runs/$signal/metrics/metrics.jsonl)" = $((step + 1)) ] || fail "$signal: stopped after another step than $step"
done

# One of three is killed, and two go on to the end.
"$fathom" train "${MODEL[@]}" "${COMMON[@]}" per_device_batch_size=2 run_name=fewer steps=40 checkpoint_period=2 ranks=3 restart=auto \
  launcher="mpirun --allow-run-as-root --oversubscribe --bind-to none -np {n}" >/dev/null 2>fewer.err &
job=$!
begun fewer $job
kill -9 "$(ranks_of fewer | tail -1)"
ended fewer 0 "has ended without a word"
grep -q "on 3 ranks has ended with 137; 2 go on from step" fewer.err || fail "fewer: $(cat fewer.err)"

"$scripts/kill_ranks.sh" "$fathom" 3 || fail "kill_ranks.sh"
exit $status
