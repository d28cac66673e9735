"""The commands of docs/clients.md run with a real server, and its versions are the tested ones."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from e2e.harness import ServerProcess

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "docs" / "clients.md").read_text()
(SHELL,) = re.findall(r"^```sh\n(.+?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.usefixtures("default_reference")
def test_the_commands_of_the_page_run(server: ServerProcess, tmp_path: Path) -> None:
    tools = Path(sys.executable).parent
    assert shutil.which("buf", path=str(tools))
    (tmp_path / "samples").symlink_to(REPO / "samples")
    answers = []
    for command in SHELL.splitlines():
        done = subprocess.run(
            command.replace("localhost:50051", server.address),
            shell=True,
            cwd=tmp_path,
            env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers.append(done.stdout)
    methods, info, _, loaded, _, found = answers
    assert "patchserve.v1.PatchCoreService/InferStream" in methods.split()
    assert json.loads(info)["backbone"] == "efficientnet_lite2"
    assert json.loads(loaded)["reference"]["imageCount"] == 1
    assert json.loads(found)["anomaly"]["isAnomalous"] is True


def pinned(lock: str, name: str) -> str:
    found = re.search(rf"^{name}==(\S+)", (REPO / "requirements" / lock).read_text(), re.MULTILINE)
    assert found
    return found[1]


def test_the_versions_match_the_locks() -> None:
    rows = re.findall(
        r"^\| \[?([A-Z].+?)(?:\]\(.+?\))? \| .+? \| \S+ ([\d.]+) \| (?:\S+ )?([\d.]+) \|", PAGE, re.MULTILINE
    )
    table = {language: versions for language, *versions in rows}
    node: dict[str, Any] = json.loads((REPO / "client/node/package.json").read_text())["dependencies"]
    java = (REPO / "client/java/Makefile").read_text()
    go = (REPO / "client/go/go.mod").read_text()
    cpp = (REPO / "client/cpp/CMakeLists.txt").read_text()
    assert table == {
        "Python, oldest": [pinned("oldest.txt", "grpcio"), pinned("oldest.txt", "protobuf")],
        "Python, newest": [pinned("dev.txt", "grpcio"), pinned("dev.txt", "protobuf")],
        "TypeScript": [node["@grpc/grpc-js"], node["@bufbuild/protobuf"]],
        "Go": [re.findall(rf"google.golang.org/{name} v(\S+)", go)[0] for name in ("grpc", "protobuf")],
        "Java": [re.findall(rf"^{name} := (\S+)", java, re.MULTILINE)[0] for name in ("GRPC", "PROTOBUF")],
        "C++": [re.findall(rf"find_package\({name} ([\d.]+)", cpp)[0] for name in ("gRPC", "Protobuf")],
    }
