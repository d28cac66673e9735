#!/bin/sh
# Runs the benchmark on a machine with a GPU: with the server that is installed there, else with what pack.sh has packed.
# Flags: those of `python -m gpu`.
# What it prints is also in $OUT/table.md and $OUT/notes.md, if OUT is set.
set -eu
began=$(date +%s) # unpacking and imports count too
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
packed=out/gpu/packages.tar.xz
path=$PWD/server:$PWD/client:$PWD/protos/python:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}
if [ -f "$packed" ] && ! "$python" -c 'from importlib.metadata import version; version("patchserve")' 2> /dev/null; then
  if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))'; then
    echo "run: $packed is for Python 3.12, and $python is $("$python" --version). Set PYTHON to another one." >&2
    exit 2
  fi
  unpacked=${TMPDIR:-/tmp}/patchserve-packages-$(cksum < "$packed" | cut -d ' ' -f 1)
  if [ ! -d "$unpacked" ]; then
    "$python" -m tarfile --filter=data -e "$packed" "$unpacked.part"
    mv "$unpacked.part" "$unpacked"
  fi
  path=$path:$unpacked/packages
fi
check='
import sys, numpy, torch, grpc, pydantic
if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 8):
    sys.exit(f"torch is {torch.__version__}")
'
if ! missing=$(PYTHONPATH=$path "$python" -c "$check" 2>&1); then
  echo "run: $python lacks something: $(echo "$missing" | tail -n 1)." \
    "It needs torch 2.8 or newer with CUDA and NumPy, and the server or what benchmarks/gpu/pack.sh packs." >&2
  exit 2
fi
PYTHONUNBUFFERED=1 PYTHONPATH=$path exec "$python" -m gpu --began "$began" "$@"
