#!/usr/bin/env bash
# Builds everything, warnings being errors, and runs every test; then the unit tests once more under the address and undefined behaviour
# sanitizers. Ends with ctest's summary. Arguments go to ctest, for example: scripts/test.sh -L unit; with arguments the sanitizers are left out.
source "$(dirname "$0")/common.sh"

install_packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
say "Building the program and its tests"
configure release -DFATHOM_BUILD_TESTS=ON -DFATHOM_WERROR=ON
build release
say "Running the tests"
ctest --preset release -j2 "$@"
[ $# -eq 0 ] || exit 0
say "Building the tests with sanitizers"
configure checked -DFATHOM_BUILD_TESTS=ON
build checked
say "Running the unit tests with sanitizers"
# But for one and for the shell's, which take minutes there and go where the others go.
ctest --preset checked -j2 -L unit -E '^(memory_test|first_touch_test|(.*_)?cli|guide|ranks)$'
