#!/usr/bin/env bash
# Fails on an include that goes up (docs/architecture.md, "Folders") and on a library or a call outside the one place that may use it.
set -euo pipefail
cd "$(dirname "$0")/.."

# folder -> folders that it may include, besides itself. Tests may also include testing.
declare -A allowed=(
  [base]=""
  [tensor]="base"
  [testing]="base tensor"
  [config]="base"
  [kernels]="base tensor"
  [spec]="base tensor config"
  [parallel]="base tensor config kernels"
  [machine]="base tensor kernels"
  [tokenizer]="base config"
  [chat]="base tokenizer"
  [parquet]="base"
  [data]="base config parallel tokenizer parquet"
  [layers]="base tensor config kernels parallel"
  [model]="base tensor config spec kernels parallel checkpoint layers"
  [checkpoint]="base tensor config spec kernels"
  [optim]="base tensor kernels"
  [report]="base"
  [train]="base tensor config spec kernels parallel report machine tokenizer chat data layers model checkpoint optim infer"
  [infer]="base tensor config spec kernels parallel tokenizer layers model checkpoint"
  [eval]="base tensor config spec kernels parallel tokenizer parquet data layers model checkpoint optim train infer"
)
# The rooms of two large folders, likewise.
declare -A rooms=(
  [kernels/simd]=""
  [kernels/elementwise]="simd"
  [kernels/norm]="simd"
  [kernels/quant]="simd"
  [kernels/gemm]="simd elementwise quant"
  [kernels/attention]="simd quant gemm"
  [kernels/indexer]="simd elementwise quant gemm attention"
  [kernels/moe]="simd"
  [kernels/head]="simd elementwise"
  [checkpoint/safetensors]=""
  [checkpoint/hub]="safetensors"
  [checkpoint/orbax]="safetensors hub"
  [checkpoint/convert]="safetensors hub orbax"
  [checkpoint/check]="safetensors hub orbax convert"
)
status=0
fail() { echo "$1" >&2; status=1; }

check_folders() {
  local file line folder target rest may
  while IFS=: read -r file line rest; do
    folder=${file#fathom/}; folder=${folder%%/*}
    target=${rest#*\"fathom/}; target=${target%%/*}
    [[ -v allowed[$folder] ]] || { fail "$file:$line: folder $folder is not in scripts/check_includes.sh"; continue; }
    may=" $folder ${allowed[$folder]} "
    [[ ${file##*/} == *test* ]] && may+="testing "
    [[ $may == *" $target "* ]] || fail "$file:$line: $folder may not include $target"
  done < <(grep -rnE '^#include "fathom/' fathom --include='*.h' --include='*.cc')
}

# Every folder and room of the tables exists, and within a folder with rooms an include stays in its room or goes down.
check_rooms() {
  local room file line folder target rest
  for room in "${!allowed[@]}" "${!rooms[@]}"; do [ -d "fathom/$room" ] || fail "scripts/check_includes.sh: there is no folder fathom/$room"; done
  while IFS=: read -r file line rest; do
    room=${file#fathom/}; room=${room%/*}; folder=${room%%/*}
    target=${rest#*\"fathom/}; target=${target%/*}
    [[ ${target%%/*} == "$folder" ]] || continue
    [[ -v rooms[$room] ]] || { fail "$file:$line: room $room is not in scripts/check_includes.sh"; continue; }
    [[ ${file##*/} == *test* || " ${room#*/} ${rooms[$room]} " == *" ${target#*/} "* ]] || fail "$file:$line: $room may not include $target"
  done < <(grep -rnE '^#include "fathom/' fathom/kernels fathom/checkpoint --include='*.h' --include='*.cc')
}

# only_in PATTERN ALLOWED_PATHS WHAT: source lines that match PATTERN lie in files that match ALLOWED_PATHS.
only_in() {
  local hit
  while IFS= read -r hit; do
    [[ -n $hit ]] && fail "$hit: $3"
  done < <(grep -rnE "$1" fathom apps --include='*.h' --include='*.cc' | grep -vE "^($2)" | cut -d: -f1,2)
}

check_folders
check_rooms
only_in '^#include .*apps/' 'apps/' 'a library may not include apps'
only_in '(dnnl::|#include .*dnnl)' 'fathom/kernels/(gemm/|simd/simd\.cc)' 'oneDNN is used in kernels/gemm only (simd.cc pins its instruction set)'
only_in '(^|[^a-zA-Z_.>])(std::|::)?(secure_)?getenv\(' 'fathom/base/env' 'the environment is read in base/env only'
only_in '#include .*<mpi\.h>' 'fathom/parallel/mpi_transport\.cc' 'MPI is used in parallel/mpi_transport.cc only'
only_in '#include .*yaml-cpp' 'fathom/config/flag_yaml' 'yaml-cpp is used in config/flag_yaml only'
exit $status
