#!/usr/bin/env bash
# Sparse attention for the quickstart's model, as V3.2 came from V3.1: from its dense checkpoint a warm-up in which only fresh indexers learn,
# then sparse training of everything, at a context of 8 times index_topk. Beside it the dense model is trained on for as many steps on the
# same batches. Prints held-out losses and draws them (curve.svg). Needs what scripts/quickstart.sh leaves; everything it writes lies in
# out/quickstart/sparse/. Run it again and it goes on where it stopped.
source "$(dirname "$0")/common.sh"

QUICK=out/quickstart
OUT=$QUICK/sparse
FATHOM=build/release/fathom
TOPK=32
CONTEXT=$((8 * TOPK))
WARMUP_STEPS=201
STEPS=201

TRAINING=("dataset_path=$QUICK/text/train" "eval_dataset_path=$QUICK/text/held-out" per_device_batch_size=8 "max_target_length=$CONTEXT"
  "base_output_directory=$OUT" dtype=float32 weight_dtype=float32 eval_interval=40 checkpoint_period=40 max_num_checkpoints_to_keep=20)

dense_model() {
  local found
  found=$(find "$QUICK"/runs/first/checkpoints -mindepth 1 -maxdepth 1 -type d 2>/dev/null | sort -V | tail -1) || true
  [ -n "$found" ] || die "no model in $QUICK; run scripts/quickstart.sh first"
  echo "$found"
}

# Held-out loss by step of a run, a line each.
curve() { perl -MJSON::PP -ne 'my $row = decode_json($_); print "$row->{step} $_\n" for $row->{"eval/avg_loss"} // ()' "$OUT/$1/metrics/metrics.jsonl"; }

# sparse_loss CHECKPOINT STEP: "STEP LOSS" of a checkpoint of the warm-up with sparse attention; the run itself evaluates with dense.
sparse_loss() {
  local json=$OUT/warmup.$2.json
  [ -s "$json" ] || "$FATHOM" eval perplexity "load_parameters_path=$1" "eval_dataset_path=$QUICK/text/held-out" "max_target_length=$CONTEXT" \
    dtype=float32 "json=$json" log_level=warning >"$OUT/log"
  perl -MJSON::PP -0777 -ne 'BEGIN { $step = shift } print "$step ", decode_json($_)->{nll}, "\n"' "$2" "$json"
}
warmup_curve() {
  local step
  sparse_loss "$OUT/fresh/checkpoints/0" 0
  for step in $(find "$OUT"/warmup/checkpoints -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | sort -n); do
    sparse_loss "$OUT/warmup/checkpoints/$step" "$step"
  done
}

# draw: lines "NAME STEP LOSS" on standard input, one curve per name.
draw() {
  perl -e '
    my %curve; my @names;
    while (<STDIN>) { my ($name, $x, $y) = split; push @names, $name unless $curve{$name}; push @{$curve{$name}}, [$x, $y]; }
    my @all = map { @$_ } values %curve;
    my ($low, $high) = (sort { $a <=> $b } map { $_->[1] } @all)[0, -1];
    my $last = (sort { $a <=> $b } map { $_->[0] } @all)[-1];
    my $pad = ($high - $low) * 0.05; $low -= $pad; $high += $pad;
    my $at = sub { sprintf "%.1f %.1f", 60 + 560 * $_[0] / $last, 20 + 260 * ($high - $_[1]) / ($high - $low) };
    my @colours = qw(#1f77b4 #7f7f7f #d62728);
    print "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 640 330\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"640\" height=\"330\" fill=\"#fff\"/>\n";
    for my $i (0 .. 4) {
      my $y = $low + ($high - $low) * $i / 4; my ($px, $py) = split / /, $at->(0, $y);
      print "<path d=\"M60 ${py}H620\" stroke=\"#ddd\"/><text x=\"54\" y=\"", $py + 4, "\" text-anchor=\"end\">", sprintf("%.3f", $y), "</text>\n";
    }
    for my $i (0 .. 4) { my ($px) = split / /, $at->($last * $i / 4, $low); print "<text x=\"$px\" y=\"298\" text-anchor=\"middle\">", int($last * $i / 4), "</text>\n"; }
    for my $i (0 .. $#names) {
      print "<path fill=\"none\" stroke-width=\"2\" stroke=\"$colours[$i]\" d=\"M", join("L", map { $at->(@$_) } @{$curve{$names[$i]}}), "\"/>\n";
      print "<text fill=\"$colours[$i]\" x=\"", 60 + 190 * $i, "\" y=\"320\">", $names[$i] =~ s/_/ /gr, "</text>\n";
    }
    print "</svg>\n"'
}

train() {
  local name=$1 steps=$2
  shift 2
  [ -d "$OUT/$name/checkpoints/$((steps - 1))" ] && return
  say "$name, $steps steps"
  "$FATHOM" train "${TRAINING[@]}" "run_name=$name" "steps=$steps" "$@"
}

DENSE=$(dense_model)
mkdir -p "$OUT"
WARMUP=("load_parameters_path=$DENSE" init_missing=indexer indexer_n_heads=4 indexer_head_dim=32 "indexer_topk=$TOPK"
  indexer_sparse_training=false indexer_loss_scaling_factor=0.01 "trainable_parameters_mask=['.*indexer.*']")
train fresh 1 "${WARMUP[@]}" learning_rate=1e-9 # the same indexers, all but untouched
train warmup "$WARMUP_STEPS" "${WARMUP[@]}" learning_rate=3e-3
train sparse "$STEPS" "load_parameters_path=$OUT/warmup/checkpoints/$((WARMUP_STEPS - 1))" \
  indexer_sparse_training=true indexer_loss_scaling_factor=0.01 learning_rate=3e-4
train dense "$STEPS" "load_parameters_path=$DENSE" learning_rate=3e-4

say "Held-out loss at a context of $CONTEXT, index_topk=$TOPK"
warmup_curve >"$OUT/warmup.txt"
curve sparse >"$OUT/sparse.txt"
curve dense >"$OUT/dense.txt"
perl -e '
  my ($fresh, $warm, $sparse, $dense0, $dense) = map { (split)[1] } @ARGV;
  printf "  %-48s %.4f\n", "dense, as it was", $dense0;
  printf "  %-48s %.4f  %+.2f %%\n", @$_, 100 * ($_->[1] / $dense0 - 1) for ["sparse, indexers fresh", $fresh], ["sparse, after the warm-up", $warm];
  printf "  %-48s %.4f\n", "dense, trained on", $dense;
  printf "  %-48s %.4f  %+.2f %%\n", "sparse, trained", $sparse, 100 * ($sparse / $dense - 1);' \
  "$(head -1 "$OUT/warmup.txt")" "$(tail -1 "$OUT/warmup.txt")" "$(tail -1 "$OUT/sparse.txt")" "$(curve warmup | head -1)" "$(tail -1 "$OUT/dense.txt")"
{
  sed 's/^/sparse,_only_indexers_learn /' "$OUT/warmup.txt"
  awk -v n="$WARMUP_STEPS" 'NR == 1 { print "dense", 0, $2 } { print "dense", $1 + n, $2 }' "$OUT/dense.txt"
  awk -v n="$WARMUP_STEPS" '{ print "sparse,_everything_learns", $1 + n, $2 }' "$OUT/sparse.txt"
} | draw >"$OUT/curve.svg"
echo "drawn in $OUT/curve.svg"
