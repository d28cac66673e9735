#!/bin/sh
# Packs what a machine with Python 3.12, torch with CUDA and NumPy lacks to run the server there without a network:
# out/gpu/packages.tar.xz. Then copy the files of the repository and out/gpu/ to that machine, and run there
#   OUT=folder benchmarks/gpu/run.sh
# which unpacks it beside its temporary files, takes under six minutes with that, and prints each row as soon as it is
# known. The folder gets table.md and notes.md.
# `benchmarks/gpu/run.sh --device cpu --backbone efficientnet_lite2 --seconds 0.1` tries the same out without a GPU.
#
# Left out, because a server on a GPU that has neither TLS nor tokens needs none of it: OpenVINO, SciPy, faiss, the
# embedded weights, cryptography, and of what is packed the parts for videos, AVIF and fonts.
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
limit_mib=60
limit_with_tree_mib=64
folder=out/gpu
rm -rf "$folder/wheels" "$folder/packages" "$folder"/packages.tar.xz*
mkdir -p "$folder/wheels" "$folder/packages"
for name in annotated-doc annotated-types click efficientnet-lite-pytorch googleapis-common-protos grpcio \
    grpcio-health-checking grpcio-reflection grpcio-status isal markdown-it-py mdurl opencv-python-headless packaging pillow \
    protobuf pydantic pydantic-core pydantic-settings pygments python-dotenv rich safetensors shellingham simplejpeg \
    structlog torchcodec typer typing-extensions typing-inspection uvloop; do
  grep -E "^$name==" requirements/server.txt | sed 's/ .*//' || { echo "pack: $name is not in requirements/server.txt"; exit 1; }
done > "$folder/wheels.txt"
echo "pack: downloading $(wc -l < "$folder/wheels.txt") packages for Python 3.12 on Linux (x86-64)"
"$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
  --abi cp312 --abi abi3 --abi none --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 \
  --dest "$folder/wheels" --requirement "$folder/wheels.txt"
for wheel in "$folder"/wheels/*.whl; do
  "$python" -m zipfile -e "$wheel" "$folder/packages"
done
(
  cd "$folder/packages"
  rm -f torchcodec/libtorchcodec_core[0-9]* torchcodec/libtorchcodec_custom_ops* torchcodec/libtorchcodec_heic*
  rm -f PIL/_avif* PIL/_imagingft* pillow.libs/libavif* pillow.libs/libfreetype* pillow.libs/libharfbuzz*
  find . -name '*.pyi' -delete
  strip --strip-unneeded uvloop/loop*.so # nine tenths of it are symbols
)
# The server reads its own version from the metadata of its distribution.
"$python" - "$folder/packages" <<'PYTHON'
import pathlib, sys
from importlib.metadata import version

info = pathlib.Path(sys.argv[1], f"patchserve-{version('patchserve')}.dist-info")
info.mkdir()
(info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: patchserve\nVersion: {version('patchserve')}\n")
PYTHON
# The filter for x86 and a dictionary as large as all of it make it a sixth smaller.
echo "pack: compressing $(du -sm "$folder/packages" | cut -f 1) MiB on one core, which takes minutes"
tar -C "$folder" -cf - packages | xz --x86 --lzma2=preset=9,dict=192MiB > "$folder/packages.tar.xz.part"
mv "$folder/packages.tar.xz.part" "$folder/packages.tar.xz"
rm -rf "$folder/wheels" "$folder/packages" "$folder/wheels.txt"
packed=$(wc -c < "$folder/packages.tar.xz")
tree=$(git ls-files -z --cached --others --exclude-standard | xargs -0 cat | wc -c)
mib() { echo "$1" | awk '{ printf "%.1f", $1 / 1048576 }'; }
echo "pack: $folder/packages.tar.xz has $(mib "$packed") MiB (at most $limit_mib), with the files of the repository" \
  "$(mib $((packed + tree))) MiB (at most $limit_with_tree_mib)"
if [ "$packed" -gt $((limit_mib * 1048576)) ] || [ $((packed + tree)) -gt $((limit_with_tree_mib * 1048576)) ]; then
  echo "pack: that is too much"
  exit 1
fi
echo "pack: next, copy the files of the repository and $folder to the machine with the GPU, and run there benchmarks/gpu/run.sh"
