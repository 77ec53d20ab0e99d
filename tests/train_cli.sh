#!/usr/bin/env bash
# train_cli.sh FATHOM DATA: what holds for whole training runs: a killed run ends with the same bits, signals and a full disk lose nothing,
# micro-batches change nothing, a tiny model learns two sequences by heart, the end of the data is the end of the run, a run goes on with its
# own inputs only, and one that diverges stops. DATA is tests/data.
set -u
fathom=$(realpath "$1")
text=$(realpath "$2")/tokenizer/train.txt
dir=$(mktemp -d)
status=0
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1

MODEL=(model_name=deepseek3-tiny override_model_config=true vocab_size=400 base_emb_dim=32 base_num_decoder_layers=3 first_num_dense_layers=1
  base_num_query_heads=2 base_num_kv_heads=2 q_lora_rank=16 kv_lora_rank=16 qk_nope_head_dim=16 qk_rope_head_dim=8 v_head_dim=16
  base_mlp_dim=64 base_moe_mlp_dim=32 num_experts=8 num_experts_per_tok=2 n_routing_groups=4 topk_routing_group=2 rope_type=default
  max_position_embeddings=4096)
COMMON=(tokenizer_path=tokenizer base_output_directory=runs held_out_fraction=0 enable_tensorboard=false log_level=warning threads=1)
STEPS=200
LONG=("dataset_path=$text" per_device_batch_size=4 max_target_length=32 "steps=$STEPS" checkpoint_period=7)

fail() {
  echo "train_cli: $*" >&2
  status=1
}

# train NAME FLAG...: runs; what it says on stderr is in NAME.err.
train() { "$fathom" train "${MODEL[@]}" "${COMMON[@]}" run_name="$1" "${@:2}" 2>"$1.err"; }

# start NAME FLAG...: the same in the background, as process $pid.
start() {
  "$fathom" train "${MODEL[@]}" "${COMMON[@]}" run_name="$1" "${@:2}" 2>"$1.err" &
  pid=$!
}

steps_done() { wc -l 2>/dev/null <"runs/$1/metrics/metrics.jsonl" || echo 0; }

# wait_for COMMAND...: until it succeeds or process $pid has ended.
wait_for() { until "$@" || ! kill -0 "$pid" 2>/dev/null; do sleep 0.005; done; }
reached() { (($(steps_done "$1") >= $2)); }
saving() { compgen -G "runs/$1/checkpoints/.*.partial" >/dev/null; }

# stop SIGNAL EXPECTED_CODE WHAT
stop() {
  local code
  kill "-$1" "$pid" || fail "$3: the run had ended before SIG$1"
  wait "$pid" 2>/dev/null
  code=$?
  [[ $code == "$2" ]] || fail "$3: exit $code after SIG$1 (expected $2)"
}

# What each step computed, once for each set of values; times are left out.
values() { sed -E 's/"perf[^,}]*,?//g' "runs/$1/metrics/metrics.jsonl" | sort -u; }
losses() { grep -oP '"learning/loss":\K[^,]*' "runs/$1/metrics/metrics.jsonl"; }

same_as_whole() {
  diff -r "runs/whole/checkpoints/$((STEPS - 1))" "runs/$1/checkpoints/$((STEPS - 1))" >&2 || fail "$1: the last checkpoint differs from an uninterrupted run's"
  diff <(values whole) <(values "$1") >&2 || fail "$1: the metrics differ from an uninterrupted run's"
}

killed_runs_end_with_the_same_bits() {
  local i lines
  for ((i = 0; i < 10; ++i)); do  # in the middle of a save, at last
    start killed "${LONG[@]}"
    wait_for saving killed
    stop KILL 137 killed
    saving killed && break
    rm -rf runs/killed
  done
  saving killed || fail "killed: no kill came during a save"
  for i in 1 2 3; do
    lines=$(($(steps_done killed) + 1 + RANDOM % 40))
    start killed "${LONG[@]}"
    wait_for reached killed "$lines"
    stop KILL 137 killed
  done
  train killed "${LONG[@]}" || fail "killed: exit $? when it ran to the end: $(cat killed.err)"
  same_as_whole killed
}

signals_save_and_stop() {
  start stopped "${LONG[@]}"
  wait_for reached stopped 10
  stop TERM 143 stopped
  start stopped "${LONG[@]}"
  wait_for reached stopped $(($(steps_done stopped) + 10))
  stop INT 130 stopped
  local last=$(($(steps_done stopped) - 1))
  [[ -d runs/stopped/checkpoints/$last ]] || fail "stopped: step $last was the last, and was not saved"
  train stopped "${LONG[@]}" || fail "stopped: exit $? when it went on: $(cat stopped.err)"
  [[ $(steps_done stopped) == "$STEPS" ]] || fail "stopped: a step was lost or done twice"
  same_as_whole stopped
}

# save_fails WHAT: the run `full` goes on from its checkpoint, can't save, says so in one line, and leaves what was there.
save_fails() {
  local code
  train full "${LONG[@]}" checkpoint_period=20
  code=$?
  [[ $code == 4 && $(wc -l <full.err) == 1 ]] && grep -q 'cannot' full.err || fail "$1: exit $code (expected 4), $(cat full.err)"
  diff -r runs/full/checkpoints before >&2 || fail "$1: the checkpoints that were there have changed"
}

full_disk_leaves_the_last_checkpoint() {
  train full "${LONG[@]}" steps=10 || fail "full: exit $? at first"
  cp -r runs/full/checkpoints before
  (ulimit -f 64 && save_fails "file size limit" && exit $status) || status=1
  [[ $(id -u) == 0 ]] && return  # root writes anywhere
  chmod a-w runs/full/checkpoints
  save_fails "read-only folder"
  chmod u+w runs/full/checkpoints
}

the_way_through_orbax_changes_nothing() {
  local step layout
  step=$(ls runs/whole/checkpoints | sort -n | tail -2 | head -1)
  for layout in true false; do
    "$fathom" convert input="runs/whole/checkpoints/$step" output="orbax-$layout" to=orbax scan_layers=$layout log_level=error >/dev/null &&
      "$fathom" convert input="orbax-$layout" output="runs/orbax-$layout/checkpoints/$step" to=hf log_level=error >/dev/null || fail "orbax-$layout: exit $?"
    train "orbax-$layout" "${LONG[@]}" || fail "orbax-$layout: exit $? when it went on: $(cat "orbax-$layout.err")"
    diff -r "runs/whole/checkpoints/$((STEPS - 1))" "runs/orbax-$layout/checkpoints/$((STEPS - 1))" >&2 || fail "orbax-$layout: the last checkpoint differs"
  done
}

micro_batches_equal_the_large_batch() {
  local flags=("dataset_path=$text" max_target_length=32 steps=20 dtype=float32 enable_checkpointing=false)
  train large "${flags[@]}" per_device_batch_size=4 || fail "large: exit $?"
  train micro "${flags[@]}" per_device_batch_size=1 gradient_accumulation_steps=4 || fail "micro: exit $?"
  paste <(losses large) <(losses micro) |
    awk '{ d = ($1 - $2) / $1; if (!(d * d <= 1e-10)) bad = 1 } END { exit bad || NR != 20 }' || fail "four micro-batches give other losses than one batch"
}

two_sequences_are_learnt_by_heart() {
  head -c 110 "$text" >two.txt
  train two dataset_path=two.txt per_device_batch_size=2 max_target_length=32 steps=200 num_epoch=200 learning_rate=1e-2 enable_checkpointing=false ||
    fail "two: exit $?"
  losses two | awk 'END { exit !(NR == 200 && $1 < 0.01) }' || fail "two sequences: the last loss is $(losses two | tail -1)"
}

evaluation_is_checked_before_step_0() {
  local code share flags=("dataset_path=$text" max_target_length=32 per_device_batch_size=1 steps=2 eval_interval=1)
  for share in 0 1e-09; do
    train none "${flags[@]}" held_out_fraction=$share
    code=$?
    [[ $code == 2 && $(wc -l <none.err) == 1 && ! -e runs/none ]] && grep -q "held_out_fraction=$share" none.err || fail "none: exit $code, $(cat none.err)"
  done
  train some "${flags[@]}" held_out_fraction=0.02 json=some.json || fail "some: exit $?: $(cat some.err)"
  grep -q '"steps": 2' some.json && grep -qE '"eval_loss": [0-9]' some.json && grep -q '"checkpoint": "runs/some/checkpoints/1"' some.json ||
    fail "some: json= holds $(cat some.json)"
}

data_that_ends_ends_the_run() {
  local i code
  head -c 110 "$text" >two.txt
  echo "num_epoch: 9" >nine.yml
  ends() { "$fathom" train nine.yml "${MODEL[@]}" "${COMMON[@]}" run_name=ends dataset_path=two.txt per_device_batch_size=2 max_target_length=32 steps=100 2>ends.err; }
  for i in first again; do
    ends
    code=$?
    [[ $code == 0 && $(steps_done ends) == 9 && $(ls runs/ends/checkpoints) == 8 ]] ||
      fail "ends, $i: exit $code, $(steps_done ends) steps, checkpoints $(ls runs/ends/checkpoints), $(cat ends.err)"
  done
  grep -q 'used up its data with step 8' ends.err || fail "ends: the second run does not say that the data is used up: $(cat ends.err)"
  grep -q '"optimizer_steps": 9' runs/ends/checkpoints/8/train_state/state.json || fail "ends: step 8 is not the ninth"
}

# refuses CODE PATTERN FLAG...: the run `whole` does not go on like this, and says so in one line.
refuses() {
  local code
  train whole "${LONG[@]}" steps=$((STEPS + 1)) "${@:3}"
  code=$?
  [[ $code == "$1" && $(wc -l <whole.err) == 1 ]] && grep -q "$2" whole.err || fail "${*:3}: exit $code (expected $1), must say $2: $(cat whole.err)"
}

a_run_goes_on_with_its_own_inputs_only() {
  refuses 2 'base_emb_dim=64' base_emb_dim=64
  head -c 20000 "$text" >part.txt
  "$fathom" tokenizer train input=part.txt vocab_size=400 output=other log_level=warning >/dev/null || fail "other: exit $?"
  refuses 3 'another tokenizer.json' tokenizer_path=other
}

the_tokenizer_may_be_named_by_its_file() {
  mkdir named && cp tokenizer/* named && cp "$text" named/corpus.txt
  train named "dataset_path=$text" per_device_batch_size=4 max_target_length=32 steps=2 tokenizer_path=named/tokenizer.json || fail "named: exit $?: $(cat named.err)"
  [[ $(cd runs/named/checkpoints/1 && echo *) == "config.json model.safetensors tokenizer.json tokenizer_config.json train_state" ]] ||
    fail "named: the checkpoint holds $(ls runs/named/checkpoints/1)"
}

a_full_state_starts_another_run() {
  local last=$((STEPS - 1))
  train state "${LONG[@]}" steps=$((STEPS + 2)) load_full_state_path=runs/whole/checkpoints/$last || fail "state: exit $?: $(cat state.err)"
  [[ $(steps_done state) == 2 ]] && grep -q "runs/whole/checkpoints/$last holds no position in this run's data" state.err || fail "state: $(cat state.err)"
  train sgd "${LONG[@]}" steps=$((STEPS + 2)) opt_type=sgd load_full_state_path=runs/whole/checkpoints/$last
  [[ $? == 3 && $(wc -l <sgd.err) == 1 ]] && grep -q "another optimizer's" sgd.err || fail "sgd: $(cat sgd.err)"
}

one_process_at_a_time_trains_a_run() {
  local code
  start held "${LONG[@]}" steps=100000
  wait_for reached held 1
  "$fathom" train "${MODEL[@]}" "${COMMON[@]}" run_name=held "${LONG[@]}" 2>second.err
  code=$?
  [[ $code == 3 && $(wc -l <second.err) == 1 ]] && grep -q 'run held: .*another process' second.err || fail "held: exit $code: $(cat second.err)"
  kill -KILL "$pid"
  wait "$pid" 2>/dev/null
}

gradients_that_stay_infinite_stop_the_run() {
  local code
  train broken "${LONG[@]}" learning_rate=1e38 warmup_steps_fraction=0 abort_on_nan_loss=false abort_on_inf_loss=false
  code=$?
  [[ $code == 1 && $(steps_done broken) -lt 20 ]] && grep -q '5 steps in a row' broken.err || fail "broken: exit $code after $(steps_done broken) steps: $(cat broken.err)"
}

# lines FROM TO: documents as JSON lines.
lines() {
  local i
  for ((i = $1; i <= $2; ++i)); do echo "{\"text\": \"document $i of the set $(printf 'with some words %.0s' {1..400})\"}"; done
}

# ended NAME CODE PATTERN SAVED: what the run ended with, and its checkpoints.
ended() {
  [[ $code == "$2" && $(tail -1 "$1.err") =~ $3 ]] || fail "$1: exit $code (expected $2): $(cat "$1.err")"
  [[ $(ls "runs/$1/checkpoints" 2>/dev/null) == "$4" ]] || fail "$1: checkpoints $(ls "runs/$1/checkpoints"), expected $4"
}

an_error_after_step_0_saves_the_last_step() {
  local code last flags=(dataset_path=bad.jsonl max_target_length=128 per_device_batch_size=8 steps=5000 enable_data_shuffling=false)
  (lines 1 700; echo '{"text": "cut off') >bad.jsonl
  train bad "${flags[@]}"
  code=$?
  last=$(($(steps_done bad) - 1))
  ended bad 3 'bad.jsonl, line' "$last"
  ((last > 20)) || fail "bad: $last is no step after a window of text"
  train bad "${flags[@]}"
  code=$?
  ended bad 3 'bad.jsonl, line' "$last"
  [[ $(steps_done bad) == $((last + 1)) ]] || fail "bad: the data went on elsewhere"
  # an evaluation's data goes bad, and a folder goes away
  lines 1 40 >eval.jsonl
  start eval "${flags[@]}" eval_dataset_path=eval.jsonl eval_interval=8
  wait_for reached eval 1
  echo broken >eval.jsonl
  wait "$pid"
  code=$?
  [[ $code == 3 && -n $(ls runs/eval/checkpoints) ]] || fail "eval: exit $code, checkpoints $(ls runs/eval/checkpoints)"
  start gone "${LONG[@]}" steps=100000 checkpoint_period=100000
  wait_for reached gone 3
  rm -rf runs/gone
  wait "$pid"
  code=$?
  [[ $code == 4 && -n $(ls runs/gone/checkpoints) ]] && grep -q 'runs/gone: .*removed' gone.err || fail "gone: exit $code: $(cat gone.err)"
}

a_log_that_nobody_reads_saves_and_stops() {
  "$fathom" train "${MODEL[@]}" "${COMMON[@]}" run_name=pipe "${LONG[@]}" steps=100000 log_level=info log_period=1 2>&1 | head -20 >/dev/null
  [[ ${PIPESTATUS[0]} == 141 && -n $(ls runs/pipe/checkpoints) ]] || fail "pipe: checkpoints $(ls runs/pipe/checkpoints)"
}

a_disk_too_small_is_told_before_step_0() {
  local code
  train small "${LONG[@]}" steps=2000000000 checkpoint_period=1
  code=$?
  [[ $code == 4 && ! -e runs/small && $(wc -l <small.err) == 1 ]] &&
    grep -q '1999999999 checkpoints of .* are needed, .* are free.*max_num_checkpoints_to_keep.*enable_checkpointing=false' small.err ||
    fail "small: exit $code: $(cat small.err)"
  if unshare -rm true 2>/dev/null; then
    mkdir disk
    unshare -rm bash -c 'mount -t tmpfs -o size=3m none disk && exec "$@"' - "$fathom" train "${MODEL[@]}" "${COMMON[@]}" run_name=tight "${LONG[@]}" base_output_directory=disk 2>tight.err
    code=$?
    [[ $code == 4 && $(wc -l <tight.err) == 1 ]] && grep -q '3\.1 MB are free' tight.err || fail "tight: exit $code: $(cat tight.err)"
  fi
  start fits "${LONG[@]}" steps=2000000000 checkpoint_period=1 max_num_checkpoints_to_keep=2
  wait_for reached fits 2
  stop TERM 143 fits
}

metrics_hold_each_step_once() {
  local i
  for i in 1 2; do
    train anew "${LONG[@]}" steps=$((6 - 2 * i)) enable_checkpointing=false metrics_file=all.jsonl || fail "anew: exit $?: $(cat anew.err)"
  done
  [[ $(steps_done anew) == 2 && $(wc -l <all.jsonl) == 2 ]] || fail "anew: $(steps_done anew) and $(wc -l <all.jsonl) lines for 2 steps"
  echo mine >notes
  train anew "${LONG[@]}" steps=2 enable_checkpointing=false metrics_file=notes
  [[ $? == 3 && $(cat notes) == mine ]] || fail "notes: $(cat notes anew.err)"
  rm runs/anew/metrics/metrics.jsonl && mkfifo runs/anew/metrics/metrics.jsonl
  timeout 20 "$fathom" train "${MODEL[@]}" "${COMMON[@]}" run_name=anew "${LONG[@]}" steps=2 enable_checkpointing=false 2>anew.err
  [[ $? == 4 ]] && grep -q 'metrics.jsonl: .*pipe' anew.err || fail "a pipe for metrics: $(cat anew.err)"
}

a_warm_up_shows_its_own_loss() {
  train warm_up "${LONG[@]}" steps=1 use_indexer=true indexer_n_heads=2 indexer_head_dim=16 indexer_topk=8 enable_checkpointing=false \
    indexer_loss_scaling_factor=0.01 log_level=info || fail "warm_up: exit $?: $(cat warm_up.err)"
  grep -q 'completed step: 0,.* indexer_loss: ' warm_up.err && ! grep -q 'perplexity: ' warm_up.err || fail "warm_up: $(cat warm_up.err)"
}

# The lines of steps that a log holds; metrics have every step.
logged() { grep -oP '^completed step: \K[0-9]*' "$1.err" | tr '\n' ' '; }

the_log_has_a_line_now_and_then() {
  local period
  for period in 4 100; do
    rm -rf runs/log
    TERM=dumb train log "${LONG[@]}" steps=11 enable_checkpointing=false log_level=info log_period=$period || fail "log: $(cat log.err)"
    [[ $(logged log) == "0 $([[ $period == 4 ]] && echo '4 8 ')10 " && $(steps_done log) == 11 ]] || fail "log_period=$period: lines of steps $(logged log)"
  done
  ! grep -q $'[\r\033]' log.err || fail "a log holds what only a terminal understands"
}

# terminal COLUMNS: a run of 300 steps on one; what it shows is in terminal.out.
terminal() {
  rm -rf runs/terminal
  script -qec "stty cols $1; '$fathom' train ${MODEL[*]} ${COMMON[*]} run_name=terminal 'dataset_path=$text' per_device_batch_size=4 max_target_length=32 \
    steps=300 enable_checkpointing=false log_level=info" /dev/null >terminal.out </dev/null
}

a_terminal_has_one_line_that_follows_the_steps() {
  local widest
  TERM=xterm terminal 100
  grep -qP '\rstep [0-9]+/300, loss [0-9.]+, [0-9]+ tokens/s, [0-9]+ % of peak, [0-9a-z]+ left, [0-9.]+ [kMG]B\033\[K' terminal.out ||
    fail "a terminal shows no line that follows the steps"
  TERM=xterm terminal 40
  widest=$(tr '\r' '\n' <terminal.out | grep -aoP '^step .*(?=\033\[K)' | wc -L)
  ((widest > 10 && widest < 40)) || fail "on 40 columns a line has $widest"
  TERM=dumb terminal 100
  grep -q 'completed step: 299' terminal.out && ! grep -q $'\033' terminal.out || fail "a dumb terminal gets what it cannot show"
}

a_trace_shows_steps_and_changes_nothing() {
  local file=runs/traced/trace/steps_2-3.json
  train plain "${LONG[@]}" steps=5 enable_checkpointing=false || fail "plain: exit $?: $(cat plain.err)"
  train traced "${LONG[@]}" steps=5 enable_checkpointing=false log_level=info profiler=trace skip_first_n_steps_for_profiler=2 profiler_steps=2 ||
    fail "traced: exit $?: $(cat traced.err)"
  diff <(values plain) <(values traced) >&2 || fail "a trace changes what is trained"
  [[ $(grep -o '"name":"step [0-9]*"' $file | tr '\n' ' ') == '"name":"step 2" "name":"step 3" ' ]] || fail "$file has other steps"
  [[ $(grep -c '"name":"layer 2"' $file) == 4 ]] || fail "$file: a layer does not run forward and backward in each step"
  grep -q '"name":"product dy^T x".*"layer":1,"flops":[0-9]*,.*"bytes":' $file || fail "$file: no product says what it did"
  grep -q "traced steps 2 to 3: $file" traced.err && grep -q '^  product x W^T .* %' traced.err || fail "traced: no table: $(tail -3 traced.err)"
}

sampled_steps() { grep -oP '^\{"step":\K[0-9]*' runs/sampled/metrics/samples.jsonl | tr '\n' ' '; }

samples_are_what_the_weights_of_that_step_write() {
  local flags=("${LONG[@]}" checkpoint_period=2 async_checkpointing=false sample_period=2 sample_tokens=8 "sample_prompt=the ") text written
  train unsampled "${LONG[@]}" steps=4 enable_checkpointing=false || fail "unsampled: exit $?: $(cat unsampled.err)"
  train sampled "${flags[@]}" steps=4 learning_rate_schedule_steps=4 log_level=info || fail "sampled: exit $?: $(cat sampled.err)"
  diff <(values unsampled) <(values sampled) >&2 || fail "samples change what is trained"
  [[ $(sampled_steps) == "0 2 3 " ]] && grep -q 'sample after step 3: "' sampled.err && grep -q 'text samples .*B' sampled.err ||
    fail "sampled: samples after steps $(sampled_steps)"
  "$fathom" decode load_parameters_path=runs/sampled/checkpoints/3 "prompt=the " max_new_tokens=8 json=decoded.json log_level=warning >/dev/null
  text=$(grep -oP '"text": \K.*(?=,)' decoded.json) written=$(grep -oP '"step":3,.*"text":\K.*(?=,"finish)' runs/sampled/metrics/samples.jsonl)
  [[ -n $text && $text == "$written" ]] || fail "after step 3 the run wrote $written, its checkpoint writes $text"
  grep -q 'What the model writes after' runs/sampled/report.html || fail "the report has no samples"
  rm -r runs/sampled/checkpoints/3
  train sampled "${flags[@]}" steps=6 learning_rate_schedule_steps=4 || fail "sampled on: exit $?: $(cat sampled.err)"
  [[ $(sampled_steps) == "0 2 4 5 " ]] || fail "sampled on: samples after steps $(sampled_steps)"
  train unread dataset_type=synthetic steps=1 max_target_length=16 per_device_batch_size=1 enable_checkpointing=false sample_period=1
  [[ $? == 2 && $(wc -l <unread.err) == 1 ]] && grep -q 'sample_period: .*tokenizer' unread.err || fail "unread: $(cat unread.err)"
}

a_run_stays_in_its_folder() {
  local name
  for name in ../out "$PWD/out" a/../../out ..; do
    "$fathom" train "${MODEL[@]}" "${COMMON[@]}" run_name="$name" "${LONG[@]}" steps=1 2>out.err
    [[ $? == 2 ]] && grep -q 'run_name=.*leads out' out.err && [[ ! -e out ]] || fail "run_name=$name: $(cat out.err)"
  done
}

"$fathom" tokenizer train input="$text" vocab_size=400 output=tokenizer log_level=warning >/dev/null || exit 1
train whole "${LONG[@]}" || { cat whole.err >&2; exit 1; }
killed_runs_end_with_the_same_bits
signals_save_and_stop
full_disk_leaves_the_last_checkpoint
the_way_through_orbax_changes_nothing
micro_batches_equal_the_large_batch
two_sequences_are_learnt_by_heart
evaluation_is_checked_before_step_0
data_that_ends_ends_the_run
the_tokenizer_may_be_named_by_its_file
gradients_that_stay_infinite_stop_the_run
one_process_at_a_time_trains_a_run
a_full_state_starts_another_run
a_run_goes_on_with_its_own_inputs_only
an_error_after_step_0_saves_the_last_step
a_log_that_nobody_reads_saves_and_stops
a_disk_too_small_is_told_before_step_0
metrics_hold_each_step_once
a_warm_up_shows_its_own_loss
the_log_has_a_line_now_and_then
a_terminal_has_one_line_that_follows_the_steps
a_trace_shows_steps_and_changes_nothing
samples_are_what_the_weights_of_that_step_write
a_run_stays_in_its_folder
# A V3.2 model from scratch whose indexers nothing trains says so, where warnings are shown.
SPARSE=(dataset_type=synthetic steps=1 max_target_length=16 per_device_batch_size=1 enable_checkpointing=false use_indexer=true indexer_n_heads=2
  indexer_head_dim=16 indexer_topk=8)
train idle "${SPARSE[@]}" || fail "a plain run of V3.2"
grep -q 'indexers are fresh and this run does not train them' idle.err || fail "fresh indexers that nothing trains are not named"
train warm "${SPARSE[@]}" indexer_loss_scaling_factor=0.01 || fail "a warm-up of V3.2"
! grep -q 'indexers are fresh' warm.err || fail "indexers that are trained are named as idle"

exit $status
