#!/usr/bin/env bash
# From nothing to a trained DeepSeek-V3-style model that writes text, in about ten minutes on two cores. Everything it writes lies in
# out/quickstart/. Run it again and it goes on where it stopped; remove that folder to start over.
#
#   scripts/quickstart.sh                 trains on Jane Austen's six novels, from Debian's package r-cran-janeaustenr
#   scripts/quickstart.sh FILE.txt ...    trains on your own text (a few MB)
source "$(dirname "$0")/common.sh"

OUT=out/quickstart
FATHOM=build/release/fathom
RUN=$OUT/runs/first
SECONDS_TO_TRAIN=400   # the number of steps is chosen for this machine so that training takes about that long
MOST_STEPS=4000
VOCABULARY=4096
TEXTS=("$@")

# V3's parts at a small size: MLA with a q latent, sigmoid routing in groups with a bias, a shared expert.
MODEL=(model_name=deepseek3-tiny override_model_config=true vocab_size=$VOCABULARY base_emb_dim=256 base_num_decoder_layers=6 first_num_dense_layers=1
  base_num_query_heads=4 base_num_kv_heads=4 q_lora_rank=128 kv_lora_rank=64 qk_nope_head_dim=32 qk_rope_head_dim=16 v_head_dim=32
  base_mlp_dim=768 base_moe_mlp_dim=256 num_experts=8 num_experts_per_tok=2 shared_experts=1 n_routing_groups=4 topk_routing_group=2
  rope_type=default max_position_embeddings=4096)
TRAINING=(dataset_type=text "dataset_path=$OUT/text/train" "eval_dataset_path=$OUT/text/held-out" "tokenizer_path=$OUT/tokenizer"
  per_device_batch_size=8 max_target_length=256 learning_rate=2e-3 warmup_steps_fraction=0.05 learning_rate_final_fraction=0.05
  adam_weight_decay=0.1 dtype=float32 weight_dtype=float32 remat_policy=none)

# values FILE NAME: the numbers under NAME in a file of JSON lines, a line each.
values() { perl -MJSON::PP -ne 'BEGIN { $n = shift } my $v = decode_json($_)->{$n}; print "$v\n" if defined $v' "$2" "$1"; }
median() { sort -g | perl -e 'my @v = <>; print $v[@v / 2]'; }

download_novels() {
  local package=r-cran-janeaustenr dir=$OUT/package
  mkdir -p "$dir"
  if ! (cd "$dir" && apt-get download -q "$package" 2>/dev/null); then
    as_root apt-get update -q
    (cd "$dir" && apt-get download -q "$package") || die "can't download Debian's $package; check the network, or give your own text: scripts/quickstart.sh FILE.txt ..."
  fi
  dpkg-deb -x "$dir/$package"_*.deb "$dir"
  mkdir -p "$OUT/text/whole"
  perl scripts/novels.pl "$dir/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb" "$OUT/text/whole"
}

# The last twentieth of every text is held out: cut at the end of a line.
split_text() {
  local file name
  mkdir -p "$OUT/text/train.part" "$OUT/text/held-out"
  for file in "$OUT"/text/whole/*; do
    name=$(basename "$file")
    perl -e 'my ($in, $train, $held) = @ARGV; local $/; open(my $f, "<:raw", $in) or die "$in: $!\n"; my $text = <$f>;
             my $cut = index($text, "\n", int(length($text) * 0.95)) + 1; $cut = length $text unless $cut;
             for ([$train, substr($text, 0, $cut)], [$held, substr($text, $cut)]) { open(my $o, ">:raw", $_->[0]) or die "$_->[0]: $!\n"; print $o $_->[1]; }' \
      "$file" "$OUT/text/train.part/$name" "$OUT/text/held-out/$name"
  done
  mv "$OUT/text/train.part" "$OUT/text/train"
}

# What was given, by content; without arguments, of the novels.
given_text() { if [ ${#TEXTS[@]} -gt 0 ]; then cat -- "${TEXTS[@]}" | cksum; else echo novels; fi; }

prepare_text() {
  if [ -d "$OUT/text/train" ]; then
    [ ${#TEXTS[@]} -eq 0 ] || [ "$(given_text)" = "$(cat "$OUT/text/given")" ] || die "$OUT holds a run on other text; remove that folder to start over"
    return
  fi
  say "Getting the text"
  rm -rf "$OUT/text"
  mkdir -p "$OUT/text"
  if [ ${#TEXTS[@]} -gt 0 ]; then
    mkdir "$OUT/text/whole"
    cp -- "${TEXTS[@]}" "$OUT/text/whole/"
  else
    download_novels
  fi
  given_text >"$OUT/text/given"
  split_text
  echo "$(cat "$OUT"/text/train/* | wc -c) bytes to train on, $(cat "$OUT"/text/held-out/* | wc -c) bytes held out: $OUT/text"
}

train_tokenizer() {
  [ -f "$OUT/tokenizer/tokenizer.json" ] && return
  say "Learning a vocabulary of $VOCABULARY tokens"
  "$FATHOM" tokenizer train "${INPUTS[@]}" "vocab_size=$VOCABULARY" "output=$OUT/tokenizer"
}

# Some steps to see how long one takes here; what they learn is thrown away. A multiple of 8 and one, so that the last step is evaluated.
choose_steps() {
  [ -f "$OUT/steps" ] && return
  say "Timing a few steps on this machine"
  rm -rf "$OUT/runs/timing"
  "$FATHOM" train "${MODEL[@]}" "${TRAINING[@]}" "base_output_directory=$OUT/runs" run_name=timing steps=12 enable_checkpointing=false log_level=warning
  local seconds
  seconds=$(values "$OUT/runs/timing/metrics/metrics.jsonl" perf/step_time_seconds | median)
  perl -e 'my $n = int($ARGV[0] / $ARGV[1]); $n = $ARGV[2] if $n > $ARGV[2]; print 8 * int(($n < 48 ? 48 : $n) / 8) + 1, "\n"' \
    "$SECONDS_TO_TRAIN" "$seconds" "$MOST_STEPS" >"$OUT/steps"
  echo "$seconds s a step: $(cat "$OUT/steps") steps"
}

train_model() {
  local steps
  steps=$(cat "$OUT/steps")
  CHECKPOINT=$RUN/checkpoints/$((steps - 1))
  [ -d "$CHECKPOINT" ] && return
  say "Training for $steps steps (stop with Ctrl-C, run the script again to go on)"
  "$FATHOM" train "${MODEL[@]}" "${TRAINING[@]}" "base_output_directory=$OUT/runs" run_name=first "steps=$steps" \
    "eval_interval=$((steps / 8))" "checkpoint_period=$((steps / 4))" max_num_checkpoints_to_keep=2
}

report() {
  local held_out xz ours
  say "Held-out text, bits per byte (less is better)"
  held_out=$(cat "$OUT"/text/held-out/* | wc -c)
  xz=$(cat "$OUT"/text/held-out/* | xz -9e | wc -c)
  ours=$(values "$RUN/metrics/metrics.jsonl" eval/bits_per_byte | tail -1)
  perl -e 'printf "  %-22s %.3f\n  %-22s %.3f\n", "this model", $ARGV[0], "xz -9e", 8 * $ARGV[1] / $ARGV[2]' "$ours" "$xz" "$held_out"
}

sample() {
  say "What it writes"
  "$FATHOM" decode "load_parameters_path=$CHECKPOINT" "prompt=It was a fine morning, and Emma" max_new_tokens=120 \
    decode_sampling_strategy=nucleus decode_sampling_nucleus_p=0.9 decode_sampling_temperature=0.8 seed=1
}

what_next() {
  say "What to try next"
  cat <<END
The model lies in $CHECKPOINT, a Hugging Face checkpoint; how it learned is drawn in
$OUT/runs/first/report.html, a page for any browser.

  $FATHOM decode load_parameters_path=$CHECKPOINT prompt="She had never" max_new_tokens=100
  $FATHOM train load_parameters_path=$CHECKPOINT dataset_path=YOUR.txt tokenizer_path=$OUT/tokenizer \\
      base_output_directory=$OUT/runs run_name=second steps=200 per_device_batch_size=8 max_target_length=256
  $FATHOM --help
END
}

"$(dirname "${BASH_SOURCE[0]}")/build.sh"
install_packages "${QUICKSTART_PACKAGES[@]}"
mkdir -p "$OUT"
prepare_text
INPUTS=()
for file in "$OUT"/text/train/*; do INPUTS+=("input=$file"); done
train_tokenizer
choose_steps
train_model
report
sample
what_next
