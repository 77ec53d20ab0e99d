# Shared by the scripts beside it; they source it. Sets -euo pipefail, goes to the root of the clone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Debian 12 packages, by what needs them.
BUILD_PACKAGES=(g++ cmake ninja-build pkg-config libdnnl-dev libhwy-dev libfmt-dev libspdlog-dev nlohmann-json3-dev libyaml-cpp-dev libzstd-dev zlib1g-dev libxxhash-dev libopenmpi-dev)
TEST_PACKAGES=(libgtest-dev libgmock-dev openmpi-bin procps)
QUICKSTART_PACKAGES=(perl xz-utils)

say() { if [ -t 1 ]; then printf '\n\033[1m== %s\033[0m\n' "$*"; else printf '\n== %s\n' "$*"; fi; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

installed() { dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed; }

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "need root or sudo for: $*"
  fi
}

# install_packages NAME...: those that are missing, with apt-get.
install_packages() {
  local missing=() package
  for package in "$@"; do installed "$package" || missing+=("$package"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "these packages are missing and there is no apt-get: ${missing[*]}"
  say "Installing Debian packages: ${missing[*]}"
  as_root apt-get update -q
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
}

# configure PRESET [-DNAME=VALUE...]: in build/PRESET.
configure() {
  local log preset=$1
  shift
  log=$(mktemp)
  if ! cmake --preset "$preset" "$@" >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    die "cmake could not configure build/$preset; if packages changed, remove that folder and try again"
  fi
  rm -f "$log"
}

# build PRESET [TARGET...]: everything if none is named.
build() {
  local targets=() preset=$1
  shift
  [ $# -eq 0 ] || targets=(--target "$@")
  NINJA_STATUS='[%f/%t %es] ' cmake --build "build/$preset" --parallel "$(nproc)" "${targets[@]}"
}
