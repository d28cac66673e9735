#!/bin/sh
# Packs what a machine with Python 3.12, torch with CUDA and NumPy lacks to run the server there without a network:
# out/gpu/packages.tar.xz, unpacked by run.sh. OpenVINO, SciPy, faiss and the embedded weights are not needed on a GPU.
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
limit_mib=60
folder=out/gpu
rm -rf "$folder/wheels" "$folder/packages"
mkdir -p "$folder/wheels" "$folder/packages"
for name in annotated-doc annotated-types cffi click cryptography efficientnet-lite-pytorch googleapis-common-protos grpcio \
    grpcio-health-checking grpcio-reflection grpcio-status isal markdown-it-py mdurl opencv-python-headless packaging pillow \
    protobuf pycparser pydantic pydantic-core pydantic-settings pygments pyjwt python-dotenv rich safetensors shellingham \
    simplejpeg structlog typer typing-extensions typing-inspection; do
  grep -E "^$name==" requirements/server.txt | sed 's/ .*//' || { echo "pack: $name is not in requirements/server.txt"; exit 1; }
done > "$folder/wheels.txt"
"$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
  --abi cp312 --abi abi3 --abi none --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 \
  --dest "$folder/wheels" --requirement "$folder/wheels.txt"
for wheel in "$folder"/wheels/*.whl; do
  "$python" -m zipfile -e "$wheel" "$folder/packages"
done
tar -C "$folder" -cf - packages | xz -T0 -6 > "$folder/packages.tar.xz"
rm -rf "$folder/wheels" "$folder/packages"
mib=$(($(wc -c < "$folder/packages.tar.xz") / 1048576))
echo "pack: $folder/packages.tar.xz has $mib MiB (at most $limit_mib)"
[ "$mib" -lt "$limit_mib" ]
