"""Runs ``pjsua_caller.py``, the caller on the PJSIP stack, and reads what it left."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arivox.audio.g711 import Pcm

SCRIPT = Path(__file__).with_name("pjsua_caller.py")
NEEDS_PJSIP = pytest.mark.skipif(importlib.util.find_spec("pjsua2") is None, reason="pjsua2 is not installed")


@dataclass(frozen=True)
class PjsipCall:
    """A call that is over."""

    status: int | None
    """Exit status: 0 if the call came up."""
    events: list[dict[str, Any]]
    heard: Pcm

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of one kind."""
        return [event for event in self.events if event["event"] == kind]


async def call(uri: str, said: Pcm, folder: Path, *arguments: str) -> PjsipCall:
    """Call ``uri``, say ``said`` (8 kHz), and return the call once it is over."""
    spoken, heard = folder / "said.wav", folder / "heard.wav"
    with wave.open(str(spoken), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(said.tobytes())
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), uri, str(spoken), str(heard), *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    events = [json.loads(line) for line in output.splitlines()]
    return PjsipCall(process.returncode, events, _read(heard) if heard.exists() else np.zeros(0, np.int16))


def _read(path: Path) -> Pcm:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate()) == (1, 8000)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)
