#!/usr/bin/env bash
# Builds the native core without Python under a sanitizer and runs its tests: run.sh [address,undefined | thread]
set -euo pipefail
cd "$(dirname "$0")/../.."
sanitizer=${1:-address,undefined}
build="build/native-${sanitizer//,/-}"
mkdir -p "$build"
sources=(src/dolmen/_core/{admission,cuckoo_index,hash,instant,mapping,optimizers,row_store,table}.cpp tests/native/test_table.cpp)
"${CXX:-g++}" -std=c++20 -O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=all "-fsanitize=$sanitizer" \
  -Wall -Wextra -Wconversion -ffp-contract=off -Isrc/dolmen/_core "${sources[@]}" -pthread -o "$build/test_table"
timeout 60 "$build/test_table" 5
