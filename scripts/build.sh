#!/usr/bin/env bash
# Builds the program: build/release/fathom. Installs the Debian packages that are missing. Can be run again at any time.
source "$(dirname "$0")/common.sh"

install_packages "${BUILD_PACKAGES[@]}"
say "Building build/release/fathom"
if [ -f build/release/CMakeCache.txt ]; then
  configure release
else
  configure release -DFATHOM_BUILD_TESTS=OFF
fi
build release fathom
