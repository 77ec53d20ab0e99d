#!/usr/bin/env bash
# cut_file.sh FATHOM DATA: a file that is cut short while it is mapped ends the command with one line that names it, and exit code 3.
# DATA is tests/data.
set -u
fathom=$(realpath "$1")
data=$(realpath "$2")
dir=$(mktemp -d)
pid=
trap 'kill -9 $pid 2>/dev/null; rm -rf "$dir"' EXIT
cd "$dir" || exit 1
ulimit -c 0
cp -r "$data/golden/v3" model
chmod -R u+w model
for ((i = 0; i < 1000; ++i)); do echo '!#%'; done >prompts # half a minute or more, were it not cut

"$fathom" decode load_parameters_path=model "tokenizer_path=$data/tokenizer/deepseek" prompt_file=prompts max_new_tokens=900 ignore_eos=true \
  log_level=error >out 2>err &
pid=$!
until [[ -s out ]] || ! kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
truncate -s 4096 model/model.safetensors
wait "$pid"
code=$?
pid=
if [[ $code != 3 || $(wc -l <err) != 1 ]] || ! grep -q 'model/model.safetensors: cut short' err; then
  echo "cut_file: exit $code (expected 3), stderr:" >&2
  cat err >&2
  exit 1
fi
