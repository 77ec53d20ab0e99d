#!/usr/bin/env bash
# example.sh BUILD_DIR SANITIZE: installs fathom in the build folder, builds examples/logits against it as another project would, and runs it.
# SANITIZE: what the libraries were built with (-fsanitize=), which a program linked to them needs too; may be empty.
set -euo pipefail
source_dir=$(cd "$(dirname "$0")/.." && pwd)
build=$1 flags=${2:+-fsanitize=$2} work=$1/example
rm -rf "$work"
cmake --install "$build" --prefix "$work/prefix" >/dev/null
cmake -G Ninja -S "$source_dir/examples/logits" -B "$work/logits" -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$work/prefix" \
  -DCMAKE_CXX_FLAGS="$flags" >/dev/null
cmake --build "$work/logits"

checkpoint=$source_dir/tests/data/golden/v3
out=$("$work/logits/logits" "$checkpoint" 3 1 4 1 5)
echo "$out"
# The program of the repository says the same: the most probable token is what it decodes.
first=$("$work/prefix/bin/fathom" decode load_parameters_path="$checkpoint" prompt_ids=3,1,4,1,5 max_new_tokens=1 ignore_eos=true dtype=float32 log_level=error)
[[ $(wc -l <<<"$out") == 5 && ${out%% *} == "${first%%$'\n'*}" ]] || { echo "decode says $first" >&2; exit 1; }
! "$work/logits/logits" "$work/absent" 1 2>/dev/null
