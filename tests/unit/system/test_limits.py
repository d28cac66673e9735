"""The limits of containers and services, read from files as Linux has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchserve_server.system.limits import cgroup_bytes, cgroup_cores, machine_bytes, open_files_limit

GIB = 2**30


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


@pytest.mark.parametrize(
    ("own", "files", "nbytes", "cores"),
    [
        ("0::/\n", {}, None, None),
        ("0::/\n", {"memory.max": "max\n", "cpu.max": "max 100000\n"}, None, None),
        ("0::/\n", {"memory.max": str(GIB), "cpu.max": "150000 100000\n"}, GIB, 1.5),
        # The lowest of the group and those above it; others do not count.
        (
            "0::/system.slice/patchserve.service\n",
            {
                "system.slice/memory.max": str(2 * GIB),
                "system.slice/cpu.max": "200000 100000",
                "system.slice/patchserve.service/memory.max": str(3 * GIB),
                "system.slice/patchserve.service/cpu.max": "max 100000",
                "other/memory.max": "1",
            },
            2 * GIB,
            2.0,
        ),
        # In a container, the path may be that of the host.
        ("0::/docker/0123\n", {"memory.max": str(GIB), "cpu.max": "50000 100000"}, GIB, 0.5),
        # Version 1.
        (
            "5:memory:/docker/0123\n4:cpu,cpuacct:/docker/0123\n0::/\n",
            {
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/docker/0123/memory.limit_in_bytes": str(GIB),
                "cpu,cpuacct/docker/0123/cpu.cfs_quota_us": "300000\n",
                "cpu,cpuacct/docker/0123/cpu.cfs_period_us": "100000\n",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            GIB,
            3.0,
        ),
        ("0::/\n", {"memory.max": "nonsense", "cpu.max": ""}, None, None),
    ],
)
def test_the_lowest_limit_of_the_groups_counts(
    own: str, files: dict[str, str], nbytes: int | None, cores: float | None, tmp_path: Path
) -> None:
    write(tmp_path, files)
    (tmp_path / "own").write_text(own)
    assert cgroup_bytes(tmp_path, tmp_path / "own") == nbytes
    assert cgroup_cores(tmp_path, tmp_path / "own") == cores


def test_without_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert cgroup_bytes(tmp_path, tmp_path / "none") is None
    assert cgroup_cores(tmp_path, tmp_path / "none") is None


def test_what_the_machine_says_is_plausible() -> None:
    files, nbytes = open_files_limit(), machine_bytes()
    assert files is None or files > 16
    assert nbytes is None or nbytes > GIB // 4
