from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from arivox.testing.child import Child, alive

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""
PARENT = """
import os, pathlib, signal, sys, time
from arivox.testing.child import Child
output = pathlib.Path(sys.argv[1])
child = Child([sys.executable, "-c", "import time; print('runs', flush=True); time.sleep(60)"], output=output)
while "runs" not in output.read_text():
    time.sleep(0.01)
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_output_and_exit_status(tmp_path: Path) -> None:
    child = Child([sys.executable, "-c", "print('here'); raise SystemExit(7)"], output=tmp_path / "out")
    assert child.wait(10)
    assert child.exit_status == 7
    assert (tmp_path / "out").read_text() == "here\n"


def test_stop_ends_it(tmp_path: Path) -> None:
    child = Child([sys.executable, "-c", "import time; time.sleep(60)"], output=tmp_path / "out")
    assert child.exit_status is None
    assert alive(child.pid)
    child.stop()
    assert child.exit_status == -signal.SIGTERM
    assert not alive(child.pid)
    child.stop()


def test_one_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    child = Child([sys.executable, "-c", STUBBORN], output=tmp_path / "out")
    deadline = time.monotonic() + 10
    while "deaf" not in (tmp_path / "out").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not child.wait(0)
    child.stop(grace=0.1)
    assert child.exit_status == -signal.SIGKILL


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    child = Child([str(tmp_path / "nothing")], output=tmp_path / "out")
    assert child.wait(10)
    assert child.exit_status
    assert "No such file" in (tmp_path / "out").read_text()


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Child([sys.executable], output=tmp_path / "nowhere/out")


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "out")]
    parent = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert parent.returncode == -signal.SIGKILL
    pid = int(parent.stdout)
    deadline = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)
