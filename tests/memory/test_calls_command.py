"""``arivox calls`` as an operator runs it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stores import record, turns

from arivox.conversation.memory.record import Saved
from arivox.conversation.memory.spool import Spool
from arivox.conversation.memory.sqlite import SqliteStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a directory with three calls: two in the store, one of them recorded, one in the spool."""

    async def fill() -> None:
        store = SqliteStore(tmp_path / "arivox-memory.db", 3600)
        recorded = record("c1", started=1_790_000_000.0)
        recorded.recording = str(tmp_path / "c1.wav")
        recorded.ended, recorded.reason = recorded.started + 61, "completed"
        await store.save(recorded, turns("c1", 3), 0)
        await store.save(record("c2", caller="5559999", started=1_790_000_100.0), turns("c2", 2), 0)
        await store.close()

    (tmp_path / "c1.wav").write_text("RIFF")
    asyncio.run(fill())
    Spool(tmp_path / "arivox-spool").write(Saved(record("c3", started=1_790_000_200.0), turns("c3", 1)))
    return tmp_path


def arivox(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "arivox", "calls", *words],
        cwd=folder,
        env=environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_list_has_the_newest_first(folder: Path) -> None:
    lines = arivox(folder, "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["call", "c3", "c2", "c1"]
    assert "completed" in lines[3]
    assert " 61 " in lines[3]
    assert [
        line.split()[0] for line in arivox(folder, "list", "--caller", "5559999").stdout.splitlines()
    ] == [
        "call",
        "c2",
    ]


def test_show_has_what_was_said(folder: Path) -> None:
    shown = arivox(folder, "show", "1700000000.c1")
    assert shown.returncode == 0
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert lines[1][1:] == ["caller", "c1", "says", "0", "[greeting]"]
    assert lines[2][1:] == ["agent", "c1", "says", "1", "[greeting]"]


def test_export_is_json_a_line(folder: Path) -> None:
    calls = [json.loads(line) for line in arivox(folder, "export").stdout.splitlines()]
    assert [call["call"] for call in calls] == ["c1", "c2", "c3"]
    assert [turn["text"] for turn in calls[0]["turns"]] == ["c1 says 0", "c1 says 1", "c1 says 2"]
    assert calls[0]["started"] == "2026-09-21T14:13:20.000Z"


def test_erase_by_caller_leaves_nothing_of_them(folder: Path) -> None:
    done = arivox(folder, "erase", "--caller", "5551234")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "c3: erased from the spool",
        f"c1: erased from the store, the recording {folder / 'c1.wav'}",
    ]
    left = [path for path in folder.rglob("*") if path.is_file() and b"5551234" in path.read_bytes()]
    assert left == []
    assert [json.loads(line)["call"] for line in arivox(folder, "export").stdout.splitlines()] == ["c2"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("show", "nobody"), "no call nobody is kept"),
        (("erase",), "needs either a call or --caller"),
        (("erase", "c1", "--caller", "1"), "needs either a call or --caller"),
    ],
)
def test_what_cannot_be_done_is_said(folder: Path, words: tuple[str, ...], problem: str) -> None:
    done = arivox(folder, *words)
    assert done.returncode == 2
    assert problem in done.stderr
