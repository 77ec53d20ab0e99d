#!/usr/bin/env bash
# convert.sh FATHOM CHECKPOINT: fathom convert in trouble. Killed at any moment, two at once, no room, an input that changes, what lies about it:
# nothing that looks whole may be left behind, and the next run must end with the bytes of one without trouble.
set -u
fathom=$1
hub=$2
work=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d)  # in memory, where syncing takes no time
trap 'rm -rf "$work"' EXIT
status=0
cd "$work" || exit 1

fail() {
  echo "$*" >&2
  status=1
}

# appeared: the output is there, or something that looks like it; out of an Orbax checkpoint may hold a hidden folder.
appeared() { [[ -n $(ls out 2>/dev/null) ]]; }

# expect CODE PATTERN COMMAND...: its exit code, one line on stderr that holds PATTERN, and no output.
expect() {
  local code=$1 pattern=$2 rc
  shift 2
  "$@" >stdout 2>stderr
  rc=$?
  if [[ $rc != "$code" || $(wc -l <stderr) != 1 ]] || ! grep -qE -- "$pattern" stderr || appeared; then
    fail "$*: exit $rc (expected $code), must say $pattern: $(cat stderr)"
  fi
  rm -rf out .out.partial
}

# Small files, so that there are many moments between two of them.
to_orbax=(to=orbax checkpoint_storage_target_data_file_size_bytes=20000 log_level=error)
to_hf=(to=hf max_shard_size=20000 log_level=error)

kills=0
# same_after_kills INPUT WHOLE FLAG...: runs that are killed after a while, longer from run to run, until one ends.
same_after_kills() {
  local input=$1 whole=$2 delay=0 pid
  shift 2
  while :; do
    "$fathom" convert input="$input" output=out "$@" >stdout 2>stderr &
    pid=$!
    ((delay += 1 + delay / 8 + RANDOM % 4))
    sleep "$(printf 0.%03d $delay)"
    kill -KILL $pid 2>/dev/null
    wait $pid 2>/dev/null
    appeared && break
    kills=$((kills + 1))
    ((delay < 900)) || break
  done
  diff -r out "$whole" >/dev/null || fail "$input to $whole: other files after $kills kills: $(cat stderr)"
  rm -rf out
}

"$fathom" convert input="$hub" output=orbax "${to_orbax[@]}" >/dev/null || fail "no conversion to Orbax"
"$fathom" convert input=orbax output=hf "${to_hf[@]}" >/dev/null || fail "no conversion to Hugging Face"
"$fathom" convert input="$hub" output=fp8 "${to_hf[@]}" dtype=float8 >/dev/null || fail "no conversion to FP8"
"$fathom" convert --input-fp8-hf-path=fp8 --output-bf16-hf-path=bf16 log_level=error >/dev/null || fail "no conversion from FP8"
"$fathom" convert input=fp8 output=bf16-ours dtype=bfloat16 log_level=error >/dev/null && diff -r bf16 bf16-ours || fail "MaxText's paths give another BF16"
"$fathom" convert --hf_model_path=fp8 base_output_directory=orbax-theirs scan_layers=false --save_dtype=bfloat16 log_level=error >/dev/null || fail "no conversion with to_maxtext's flags"
"$fathom" convert input=fp8 output=orbax-ours to=orbax scan_layers=false dtype=bfloat16 log_level=error >/dev/null && diff -r orbax-theirs orbax-ours || fail "to_maxtext's flags give another Orbax"
for stored in orbax orbax-ours; do
  "$fathom" inspect $stored >stdout 2>stderr || fail "inspect $stored: $(cat stderr)"
  [[ $stored == orbax ]] || grep -q 'layers_[*]' stdout || fail "inspect $stored lists every layer: $(cat stdout)"
  grep -q 'Orbax arrays, .* files: .*; compressed' stdout && grep -q 'params.params.token_embedder.embedding .*\[' stdout || fail "inspect $stored: $(cat stdout)"
done
"$fathom" train load_parameters_path="$hub" mtp_num_layers=1 dataset_type=synthetic per_device_batch_size=1 max_target_length=8 steps=2 base_output_directory=runs run_name=run \
  enable_tensorboard=false log_level=error || fail "no training run"
trained=runs/run/checkpoints/1
"$fathom" convert input=$trained output=state "${to_orbax[@]}" >/dev/null || fail "no conversion of a training state to Orbax"
"$fathom" convert input=state output=trained "${to_hf[@]}" >/dev/null || fail "no conversion of a training state to Hugging Face"
diff -r $trained/train_state trained/train_state || fail "the training state is another one after the way through Orbax"
"$fathom" check files input=orbax against="$hub" >stdout 2>&1 || fail "Orbax is not the hub's: $(cat stdout)"
"$fathom" check files input=hf against=orbax >stdout 2>&1 || fail "Hugging Face is not Orbax's: $(cat stdout)"
ids() { "$fathom" decode load_parameters_path="$1" prompt_ids=5,6,7,8 max_new_tokens=8 ignore_eos=true json=- log_level=error | grep -A9 '"ids"'; }
[[ -n $(ids "$hub") && $(ids "$hub") == "$(TMPDIR=$work ids orbax)" ]] || fail "decoding from Orbax gives other tokens"
# A plan needs sizes alone, from either format; what needs a copy says how large it is, before it is written.
sizes() { "$fathom" plan "$2" load_parameters_path="$1" max_target_length=64 2>stderr | sed -n '/^memory/,/in all/p'; }
for planned in decode train; do
  [[ -n $(sizes "$hub" $planned) && $(sizes "$hub" $planned) == "$(TMPDIR=$work sizes orbax $planned)" ]] || fail "plan $planned of Orbax: $(sizes orbax $planned)"
  ! grep -q 'through a copy' stderr || fail "plan $planned copies: $(cat stderr)"
done
"$fathom" plan decode load_parameters_path="$hub" max_target_length=64 batch_size=4 >planned 2>&1 || fail "plan decode"
grep -q 'cache .* 256 tokens' planned || fail "plan decode leaves batch_size out"
grep -qE ' [0-9.]{2,6} GB/s from memory|products at [0-9]{1,6} GFLOP/s' planned || fail "plan decode measured nothing: $(tail -1 planned)"
TMPDIR=$work "$fathom" decode load_parameters_path=orbax prompt_ids=5 max_new_tokens=1 2>&1 | grep 'a copy of .*B in .*TMPDIR' >/dev/null || fail "the copy is not named"
ls "$work" | grep fathom && fail "a temporary folder is left behind"
same_after_kills "$hub" orbax "${to_orbax[@]}"
same_after_kills orbax hf "${to_hf[@]}"
same_after_kills "$hub" fp8 "${to_hf[@]}" dtype=float8
same_after_kills $trained state "${to_orbax[@]}"
same_after_kills state trained "${to_hf[@]}"
[[ $kills -gt 4 ]] || fail "killed $kills times only"

# Two runs on one output: one wins, the other is refused while the first works or because the output is there.
for _ in 1 2 3; do
  "$fathom" convert input="$hub" output=out "${to_orbax[@]}" >stdout 2>stderr &
  first=$!
  "$fathom" convert input="$hub" output=out "${to_orbax[@]}" >stdout2 2>stderr2
  second=$?
  wait $first
  case "$?/$second" in
    0/2 | 0/3 | 2/0 | 3/0) ;;
    *) fail "two at once: $(cat stderr stderr2)" ;;
  esac
  diff -r out orbax >/dev/null || fail "two at once leave other files"
  rm -rf out
done

# No room: a limit on the size of files here, a full disk where a file system can be mounted.
trap '' XFSZ
expect 4 'cannot write: .*still to be written; the same command continues' bash -c 'ulimit -f 40; exec "$@"' - "$fathom" convert input="$hub" output=out to=hf log_level=error
[[ ! -e .out.partial ]] || fail "a conversion that finished no file leaves .out.partial"
if unshare -rm true 2>/dev/null; then
  mkdir disk
  expect 4 'are needed, .* are free' unshare -rm bash -c 'mount -t tmpfs -o size=1m none disk && "$@"; code=$?; ls -A disk >left; exit $code' - "$fathom" convert input="$hub" output=disk/out to=orbax
  [[ ! -s left ]] || fail "a refused conversion leaves $(cat left)"
  expect 3 'cannot create this folder: Read-only' unshare -rm bash -c 'mount -t tmpfs -o ro none disk && exec "$@"' - "$fathom" convert input="$hub" output=disk/out to=orbax
fi
expect 3 'cannot create this folder' "$fathom" convert input="$hub" output=/proc/out to=orbax

# An input that changes. On busy cores a conversion may be over before it does: then once more.
until_refused() {
  local try
  for ((try = 0; try < 50; ++try)); do
    "$@" || return
    rm -rf out
  done
}
cp -r "$hub" changing
(while [[ -d changing ]]; do touch changing/model.safetensors; done) 2>/dev/null &
expect 3 'model.safetensors: changed while it was converted' until_refused "$fathom" convert input=changing output=out "${to_orbax[@]}"
mv changing changed

# Input that lies.
deep() { printf '%*s' 10000 '' | tr ' ' '['; }
cp -r "$hub" bad && deep >bad/config.json
expect 3 'bad/config.json' "$fathom" convert input=bad output=out to=orbax
cp "$hub/config.json" bad && deep >bad/model.safetensors.index.json && mv bad/model.safetensors bad/model-00001-of-00001.safetensors
expect 3 'bad/model.safetensors.index.json' "$fathom" convert input=bad output=out to=orbax
"$fathom" convert input="$hub" output=plain to=orbax checkpoint_storage_use_ocdbt=false log_level=error >/dev/null
meta=plain/0/items/params.params.decoder.decoder_norm.scale/zarr.json
sound=$(cat $meta)
deep >$meta
expect 3 'decoder_norm.scale/zarr.json' "$fathom" convert input=plain output=out log_level=error
sed 's/"shape":\[[0-9]*\]/"shape":[4611686018427387904]/' <<<"$sound" >$meta
expect 3 'decoder_norm.scale: shape' "$fathom" convert input=plain output=out log_level=error
sed 's/"chunk_shape":\[[0-9]*\]/"chunk_shape":[281474976710656]/g' <<<"$sound" >$meta
expect 3 'decoder_norm.scale' "$fathom" convert input=plain output=out log_level=error
sed 's/zstd/gzip/' <<<"$sound" >$meta
expect 3 'decoder_norm.scale: codec "gzip"' "$fathom" convert input=plain output=out log_level=error

# A model that is not what its config says, and outputs that are no place for it.
cp "$hub"/* bad && rm bad/model-*.safetensors bad/model.safetensors.index.json
sed -i 's/"num_hidden_layers": *[0-9]*/"num_hidden_layers": 9/' bad/config.json
expect 3 'tensor model.layers.[0-9]*.* is missing' "$fathom" convert input=bad output=out dtype=bfloat16
mkdir home && echo words >home/thesis.txt
expect 2 'output home exists and is no checkpoint' "$fathom" convert input="$hub" output=home overwrite=true
[[ -s home/thesis.txt ]] || fail "overwrite=true removed a folder that is no checkpoint"
cp -r "$hub" whole
cd whole && expect 2 'lies in the input' "$fathom" convert input=. output=out && cd .. || exit 1

# F16 is read, too.
"$fathom" convert input="$hub" output=f16 dtype=float16 log_level=error >/dev/null
[[ -n $(ids f16) ]] || fail "no decoding from F16"

# memory_limit holds whatever the shape: one row of 240 MB, copied, rounded and checked.
mkdir row
printf -v header '%-80s' '{"row":{"dtype":"F32","shape":[1,60000000],"data_offsets":[0,240000000]}}'
printf '\x50\0\0\0\0\0\0\0%s' "$header" >row/model.safetensors
truncate -s $((8 + 80 + 240000000)) row/model.safetensors
# within_limit JSON: the run that wrote it stayed below 200 MiB.
within_limit() {
  local peak
  peak=$(grep -o '"peak_rss_bytes": [0-9]*' "$1" | grep -o '[0-9]*$')
  [[ -n $peak && $peak -le $((200 << 20)) ]] || fail "$1: ${peak:-no} bytes resident, memory_limit=200MiB"
}
for dtype in float32 bfloat16; do
  "$fathom" convert input=row output=copy dtype=$dtype memory_limit=200MiB json=$dtype.json log_level=error >/dev/null || fail "no conversion of one row"
  within_limit $dtype.json
  "$fathom" check files input=row against=copy memory_limit=200MiB json=check.json log_level=error >/dev/null
  within_limit check.json
  rm -rf copy
done

# The layout is recognised, whatever the flag says.
for scan in true false; do
  "$fathom" convert input="$hub" output=layout to=orbax scan_layers=$scan log_level=error >/dev/null
  "$fathom" convert input=layout output=out to=hf scan_layers=$([[ $scan == true ]] && echo false || echo true) log_level=error >/dev/null
  "$fathom" check files input=out against="$hub" >stdout 2>&1 || fail "scan_layers=$scan: $(cat stdout)"
  rm -rf layout out
done
exit $status
