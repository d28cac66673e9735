"""Install a lock file with pip, checking every hash; torch may come from another index, such as one of wheels for CPUs.

    python tools/install_lock.py requirements/server.txt [--torch-index URL [--torch-hashes FILE]] [pip's options]
    python tools/install_lock.py requirements/server.txt --show

Wheels of torch for CPUs have the same version as the locked ones, but other hashes, and need no CUDA libraries. So with
--torch-index, torch, torchcodec and torchvision are installed from that index in the locked versions *without* a check
of their hashes. With --torch-hashes they are checked: a requirements file with `--hash` for each. All other packages
are checked in either case.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

_FROM_TORCH_INDEX = ("torch", "torchcodec", "torchvision")  # wheels for CPUs link to no CUDA
_CUDA = re.compile(r"cuda-|nvidia-|triton$")
_REQUIREMENT = re.compile(
    r"^(?P<name>[a-z0-9._-]+)==(?P<version>[^\s;]+).*?(?=^[a-z0-9._-]+==|\Z)", re.MULTILINE | re.DOTALL
)


def split_lock(lock: str) -> tuple[str, list[str]]:
    """The lock without torch, its companions and CUDA, and those as requirements without hashes."""
    kept, torch = [], []
    for entry in _REQUIREMENT.finditer(lock):
        if entry["name"] in _FROM_TORCH_INDEX:
            torch.append(f"{entry['name']}=={entry['version']}")
        elif not _CUDA.match(entry["name"]):
            kept.append(entry[0])
    return "".join(kept), torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lock", type=Path, help="requirements file with a hash for every package")
    parser.add_argument("--torch-index", default="", metavar="URL", help="index for torch, torchcodec and torchvision")
    parser.add_argument("--torch-hashes", default="", metavar="FILE", help="requirements file with their hashes")
    parser.add_argument("--show", action="store_true", help="print what --torch-index would install, install nothing")
    arguments, pip_options = parser.parse_known_args()
    if arguments.show:
        rest, torch = split_lock(arguments.lock.read_text())
        sys.stdout.write("\n".join([rest.rstrip(), *torch, ""]))
        return
    pip = [sys.executable, "-m", "pip", "install", *pip_options]
    if not arguments.torch_index:
        _run([*pip, "--require-hashes", "-r", str(arguments.lock)])
        return
    rest, torch = split_lock(arguments.lock.read_text())
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "lock.txt"
        part.write_text(rest)
        # Nothing is resolved: the lock is complete, and torch is not in this part of it.
        _run([*pip, "--no-deps", "--require-hashes", "-r", str(part)])
    if not torch:
        return
    checked = ["--require-hashes", "-r", arguments.torch_hashes] if arguments.torch_hashes else torch
    if not arguments.torch_hashes:
        sys.stderr.write(f"{' and '.join(torch)}: from another index, without a check of their hashes\n")
    _run([*pip, "--no-deps", "--index-url", arguments.torch_index, *checked])


def _run(command: list[str]) -> None:
    """Run pip; exit with its code if it fails."""
    done = subprocess.run(command, check=False)  # noqa: S603 - pip itself, with what was typed
    if done.returncode != 0:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
