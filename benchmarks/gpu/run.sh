#!/bin/sh
# Runs the benchmark on a machine with a GPU, with what pack.sh has packed if it is there. Flags: those of `python -m gpu`.
set -eu
cd "$(dirname "$0")/../.."
packed=out/gpu/packages.tar.xz
unpacked=${TMPDIR:-/tmp}/patchserve-packages
path=server:client:protos/python:benchmarks
if [ -f "$packed" ]; then
  [ -d "$unpacked" ] || { mkdir -p "$unpacked" && tar -xJf "$packed" -C "$unpacked"; }
  path=$path:$unpacked/packages
fi
PYTHONPATH=$path exec "${PYTHON:-python3}" -m gpu "$@"
