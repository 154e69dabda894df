"""The second opinion works: a caller on the PJSIP stack hears the echo of what it says."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arivox.audio.g711 import Pcm
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance

pytestmark = [
    pytest.mark.asterisk,
    pytest.mark.skipif(importlib.util.find_spec("pjsua2") is None, reason="pjsua2 is not installed"),
]
SCRIPT = Path(__file__).with_name("pjsua_caller.py")


def write_wav(path: Path, pcm: Pcm) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(pcm.tobytes())


def read_wav(path: Path) -> Pcm:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate()) == (1, 8000)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


async def run(*arguments: str) -> tuple[int | None, list[dict[str, Any]]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return process.returncode, [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize("codec", ["PCMU", "PCMA"])
async def test_full_stack_hears_its_echo(asterisk: AsteriskInstance, tmp_path: Path, codec: str) -> None:
    said, heard = tmp_path / "said.wav", tmp_path / "heard.wav"
    write_wav(said, np.concatenate([signal.silence(0.3), signal.tone(1013, 1.0), signal.silence(2.0)]))
    uri = f"sip:600@127.0.0.1:{asterisk.sip_port}"
    status, events = await run(uri, str(said), str(heard), "--seconds", "2", "--codec", codec, "--dtmf", "15")
    assert status == 0
    assert [event["name"] for event in events if event["event"] == "codec"] == [codec]
    assert "".join(event["digit"] for event in events if event["event"] == "digit") == "15"
    (statistics,) = [event for event in events if event["event"] == "statistics"]
    assert statistics["lost"] == 0
    sound = read_wav(heard)
    ((start, end),) = signal.active_segments(sound, min_ms=200)
    tone = sound[round(start * 8) : round(end * 8)]
    assert signal.dominant_frequency(tone) == pytest.approx(1013, abs=1)
    assert end - start > 600, "the digits take the place of the tone while they last"


async def test_call_that_is_refused_ends_with_status_1(asterisk: AsteriskInstance, tmp_path: Path) -> None:
    write_wav(tmp_path / "said.wav", signal.silence(0.1))
    uri = f"sip:999@127.0.0.1:{asterisk.sip_port}"
    status, events = await run(uri, str(tmp_path / "said.wav"), str(tmp_path / "heard.wav"))
    assert status == 1
    assert events[-1]["status"] == 404
