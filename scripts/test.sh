#!/usr/bin/env bash
# Builds everything and runs every test; ends with ctest's summary. Arguments go to ctest, for example: scripts/test.sh -L unit
source "$(dirname "$0")/common.sh"

install_packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
say "Building the program and its tests"
configure -DFATHOM_BUILD_TESTS=ON
build
say "Running the tests"
ctest --preset release -j2 "$@"
