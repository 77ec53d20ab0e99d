#!/usr/bin/env bash
# cli.sh FATHOM: what holds for every command: exit codes, one line per error, help, the line for flags without effect.
set -u
fathom=$1
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
expect 2 1 'did you mean learning_rate' config learnng_rate=1
expect 2 1 'steps=x: allowed is a whole number' config steps=x
expect 2 1 'log_level=loud' config log_level=loud
expect 2 1 'which one\? .*tokenizer encode' tokenizer
expect 2 2 'accepted, no effect here: attention, megablox$' tokenizer encode attention=flash --megablox
expect 2 1 'unexpected stray' tokenizer encode stray
expect 2 1 'bench gpu: allowed are gemm, memory, disk, train, decode' bench gpu
expect 2 1 'plan serve: allowed are train, decode, convert' plan serve
expect 2 1 'unexpected foo' config foo
expect 2 1 'unexpected bad.yml' config base.yml bad.yml
expect 0 0 '^steps +7 +command line' config train steps=7
expect 0 0 'check golden' check --help
expect 0 0 'tokenizer decode' tokenizer --help
expect 0 0 'flags, with their defaults' tokenizer decode --help
expect 2 1 'unknown command chek' chek --help
expect 2 1 'per_device_batch_size=1.5: allowed is a whole number' plan train model_name=deepseek3-tiny per_device_batch_size=1.5
expect 0 0 'written +1\.37 TB' plan convert model_name=deepseek3-671b dtype=bfloat16 disk_gb_s=1
expect 3 1 'no such folder' plan convert input=/nonexistent
yml=$(mktemp --suffix=.yml)
printf 'ici_tensor_parallelism: 4\nsteps: 7\nenable_dropout: false\n' >"$yml"
expect 2 2 'accepted, no effect here: ici_tensor_parallelism$' eval perplexity "$yml"
rm "$yml"
expect 2 1 'eval perplexity needs load_parameters_path' eval perplexity
FATHOM_SIMD=mmx expect 2 1 'mmx' config
exit $status
