#!/usr/bin/env bash
# Builds the native core without Python under a sanitizer and runs its tests:
#   run.sh [address,undefined | thread] [seconds of each test with threads] [portable: without AVX2]
set -euo pipefail
cd "$(dirname "$0")/../.."
sanitizer=${1:-address,undefined}
seconds=${2:-5}
variant=${3:-}
build="build/native-${sanitizer//,/-}${variant:+-$variant}"
mkdir -p "$build"
sources=(src/dolmen/_core/{admission,cuckoo_index,hash,instant,mapping,optimizers,row_store,simhash,table}.cpp tests/native/*.cpp)
"${CXX:-g++}" -std=c++20 -O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=all "-fsanitize=$sanitizer" \
  ${variant:+-DDOLMEN_PORTABLE} -Wall -Wextra -Wconversion -ffp-contract=off -Isrc/dolmen/_core "${sources[@]}" \
  -pthread -o "$build/test_table"
timeout $((120 + 5 * seconds)) "$build/test_table" "$seconds"
