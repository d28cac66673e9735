"""benchmarks/gpu/processes.py: what is below a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from gpu.processes import children, kill_tree, processor_s

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

SERVER = "setsid sh -c 'sleep 20; echo still there' & echo started; exec sleep 20"


def test_what_has_a_session_of_its_own_is_killed_too() -> None:
    with subprocess.Popen(["sh", "-c", SERVER], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "started\n"
        kill_tree(server.pid)
        assert server.stdout.read() == ""  # all that could write there are gone


def test_what_a_group_has_left_is_killed_though_its_leader_has_ended() -> None:
    script = "(sleep 20; echo still there) & echo started"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "started\n"
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
        kill_tree(server.pid)
        assert server.stdout.read() == ""


def test_a_child_that_has_just_ended_is_left_out() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 20 & exec cat"], stdin=subprocess.PIPE) as server:
        try:
            while "20" not in (found := dict(children(server.pid))):  # before that, it is a copy of the shell
                pass
            os.kill(found["20"], signal.SIGKILL)
            while children(server.pid):
                pass
            assert processor_s(server.pid).keys() == {"parent"}
        finally:
            kill_tree(server.pid)
