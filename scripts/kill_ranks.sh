#!/usr/bin/env bash
# kill_ranks.sh FATHOM [KILLS [SEED]]: four ranks train a small model, and one of them, chosen at random, is killed (-9) at a random moment,
# as often as asked (50); the same command is started again each time. Every job must end within 30 s, not with 0, and leave no process;
# weights and moments at the end must be those of an undisturbed run, bit for bit. About 2 s a kill on two cores.
set -u
fathom=$(realpath "$1")
kills=${2:-50}
RANDOM=${3:-1}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
status=0
fail() {
  echo "kill_ranks: $*" >&2
  status=1
}
MODEL=(model_name=deepseek3-tiny override_model_config=true vocab_size=400 base_emb_dim=32 base_num_decoder_layers=3 first_num_dense_layers=1
  base_num_query_heads=2 base_num_kv_heads=2 q_lora_rank=16 kv_lora_rank=16 qk_nope_head_dim=16 qk_rope_head_dim=8 v_head_dim=16
  base_mlp_dim=64 base_moe_mlp_dim=32 num_experts=8 num_experts_per_tok=2 n_routing_groups=4 topk_routing_group=2 rope_type=default
  max_position_embeddings=4096 mtp_num_layers=1)
STEPS=${STEPS:-300}
# job NAME: the run of that name, from where it stands.
job() {
  exec mpirun --allow-run-as-root --oversubscribe --bind-to none -np 4 "$fathom" train "${MODEL[@]}" dataset_type=synthetic \
    "base_output_directory=$dir/runs" run_name="$1" steps="$STEPS" checkpoint_period=5 max_num_checkpoints_to_keep=2 max_target_length=32 \
    per_device_batch_size=1 threads=1 dtype=float32 enable_tensorboard=false log_level=warning ici_data_parallelism=2 ici_fsdp_parallelism=2
}
processes() { pgrep -f "base_output_directory=$dir/runs" | grep -vx $$; }
ranks() { processes | while read -r pid; do [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = fathom ] && echo "$pid"; done; }
# same NAME: that run's last checkpoint is the undisturbed one's.
same() {
  local file
  for file in model.safetensors train_state/mu.safetensors train_state/nu.safetensors; do
    cmp -s "$dir/runs/$1/checkpoints/$((STEPS - 1))/$file" "$dir/runs/whole/checkpoints/$((STEPS - 1))/$file" || fail "$1: $file is not the undisturbed run's"
  done
}

(job whole) 2>"$dir/whole.err" || { cat "$dir/whole.err"; exit 1; }
killed=0 runs=0 slowest=0
while [ "$killed" -lt "$kills" ] && [ "$status" = 0 ]; do
  (job "r$runs") 2>"$dir/err" &
  mpirun=$!
  until [ "$(ranks | wc -l)" = 4 ] || ! kill -0 $mpirun 2>/dev/null; do sleep 0.02; done
  sleep "$((RANDOM % 2)).$((RANDOM % 10))$((RANDOM % 10))"
  mapfile -t pids < <(ranks)
  start=${EPOCHREALTIME/./}
  if [ ${#pids[@]} = 4 ] && kill -9 "${pids[RANDOM % 4]}" 2>/dev/null; then killed=$((killed + 1)); fi
  wait $mpirun
  code=$?
  left=$(processes | wc -l)
  took=$(((${EPOCHREALTIME/./} - start) / 1000))
  if [ $code = 0 ]; then  # it had ended before
    same "r$runs"
    runs=$((runs + 1))
    continue
  fi
  [ ${#pids[@]} = 4 ] || [ -d "$dir/runs/r$runs/checkpoints/$((STEPS - 1))" ] || fail "ended with $code: $(head -1 "$dir/err")"
  [ "$took" -lt 30000 ] || fail "a job ended $took ms after its rank"
  [ "$left" = 0 ] || fail "$left processes are left"
  [ "$took" -gt "$slowest" ] && slowest=$took
  [ -d "$dir/runs/r$runs/checkpoints/$((STEPS - 1))" ] && same "r$runs" && runs=$((runs + 1))
done
(job "r$runs") 2>"$dir/err" || fail "the last run: $(head -1 "$dir/err")"
same "r$runs"
[ "$status" = 0 ] && echo "kill_ranks: $killed kills in $((runs + 1)) runs, the slowest end after $slowest ms, the undisturbed run's bits"
exit $status
