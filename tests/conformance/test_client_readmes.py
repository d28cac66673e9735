"""The code in the READMEs of the clients compiles and runs."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance.languages import CLIENT, CPP, GO, JAVA, JAVA_COMMAND, NODE
from e2e.in_process import in_process_server
from fakes.images import card, encoded

GO_PROGRAM = """package main

import (
\t"context"
\t"io"
\t"log"
\t"os"
\t"time"

\t"patchserve"
\t"patchserve/pb"
)

func main() {
\timage, err := os.ReadFile("parcel.jpg")
\tif err != nil {
\t\tlog.Fatal(err)
\t}
\tif err := run(image); err != nil {
\t\tlog.Fatal(err)
\t}
}

func run(image []byte) error {
%s\treturn nil
}
"""

JAVA_PROGRAM = """
import com.google.protobuf.ByteString;
import java.nio.file.*;
import java.time.Duration;
import java.util.List;
import patchserve.client.*;
import patchserve.v1.*;

class Example {
    public static void main(String[] arguments) throws Exception {
        var image = ByteString.copyFrom(Files.readAllBytes(Path.of("parcel.jpg")));
%s    }
}
"""


@pytest.fixture
def address() -> Iterator[str]:
    with in_process_server() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, seed in (("good.jpg", 0), ("parcel.jpg", 1)):
        (tmp_path / name).write_bytes(encoded(card(seed)))
    return tmp_path


def example(language: str, marker: str, address: str) -> str:
    """The code block of a README, with the address of this server."""
    (block,) = re.findall(
        rf"^```{marker}\n(.+?)^```$", (CLIENT / language / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert "localhost:50051" in block
    return str(block).replace("localhost:50051", address)


def done(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.mark.skipif(not NODE.exists(), reason="the client in node is not built: make test-clients")
def test_the_example_for_node_runs(address: str, folder: Path) -> None:
    place = CLIENT / "node/dist/readme"
    place.mkdir(exist_ok=True)
    (place / "example.ts").write_text(example("node", "ts", address))
    options = ("--target", "es2022", "--module", "nodenext", "--strict", "--types", "node", "--rootDir", ".")
    done("npx", "tsc", "--ignoreConfig", *options, "example.ts", cwd=place)
    first, second = done("node", place / "example.js", cwd=folder).stdout.splitlines()
    assert re.fullmatch(r"(true|false) \d+\.\d+ x \d{3,}", first)
    assert second == "1 response"


@pytest.mark.skipif(not GO.exists(), reason="the client in go is not built: make test-clients")
def test_the_example_for_go_runs(address: str, folder: Path) -> None:
    place = CLIENT / "go/build/readme"
    place.mkdir(exist_ok=True)
    code = example("go", "go", address)
    indented = "".join(f"\t{line}" if line.strip() else line for line in code.splitlines(keepends=True))
    (place / "main.go").write_text(GO_PROGRAM % indented)
    gopath = f"{CLIENT / 'go/build/gopath'}:/usr/share/gocode"
    done("go", "build", "-o", folder / "example", "main.go", cwd=place, GO111MODULE="off", GOPATH=gopath)
    printed = done(folder / "example", cwd=folder).stderr
    assert re.search(r" (true|false) \d+\.\d+ x \d{3,}\n$", printed)


@pytest.mark.skipif(not JAVA.exists(), reason="the client in java is not built: make test-clients")
def test_the_example_for_java_runs(address: str, folder: Path) -> None:
    (folder / "Example.java").write_text(JAVA_PROGRAM % example("java", "java", address))
    library = CLIENT / "java/build/patchserve-client.jar"
    first, second = done(*JAVA_COMMAND, "-cp", library, "Example.java", cwd=folder).stdout.splitlines()
    assert re.fullmatch(r"(true|false) \d+\.\d+ x \d{3,}", first)
    assert second == "1 RESPONSE"


@pytest.mark.skipif(not CPP.exists(), reason="the client in cpp is not built: make test-clients")
def test_the_example_for_cpp_runs(address: str, folder: Path) -> None:
    (folder / "example.cpp").write_text(example("cpp", "cpp", address))
    include = (f"-I{CLIENT / 'cpp/include'}", f"-I{CPP.parent / 'generated'}")
    libraries = done("pkg-config", "--libs", "grpc++", "protobuf", cwd=folder).stdout.split()
    ours = ("example.cpp", CPP.parent / "libpatchserve.a")
    done("g++", "-std=c++20", *include, *ours, *libraries, "-o", "example", cwd=folder)
    first, *frames = done(folder / "example", cwd=folder).stdout.splitlines()
    assert re.fullmatch(r"[01] \d+\.\d+ x \d{3,}", first)
    assert frames == ["0 1", "1 1", "2 1"]
