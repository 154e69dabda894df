"""The demo as a stranger runs it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import wave
from pathlib import Path

import numpy as np
import pytest


@pytest.mark.asterisk
@pytest.mark.speech
@pytest.mark.timeout(240)  # the first run fetches the voice
async def test_demo_holds_its_conversation(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "arivox", "demo", "--output", "out"),
        cwd=tmp_path,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await demo.communicate()
    text = output.decode()
    assert demo.returncode == 0, text
    (timeline_file,) = (tmp_path / "out").glob("*.json")
    events = json.loads(timeline_file.read_text())["events"]

    def data(kind: str, name: str) -> list[object]:
        return [event["data"][name] for event in events if event["kind"] == kind]

    assert data("caller.said", "text") == [
        "yes please",
        "I have a toothache",
        "on Wednesday",
        "in the morning",
        "yes that is fine",
    ]
    assert data("state", "after")[-1] == "confirmation"
    assert data("call.ended", "reason") == ["completed"], "the agent hangs up"
    assert any("toothache, on Wednesday" in str(said) for said in data("agent.said", "text"))
    assert len(data("barge_in", "heard_ms")) == 1
    assert "interrupts" in text
    (recording,) = (tmp_path / "out").glob("*.wav")
    with wave.open(str(recording)) as file:
        assert file.getnchannels() == 2
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2).astype(float)
    for side in (0, 1):
        assert np.sqrt(np.mean(both[:, side] ** 2)) > 100, "both sides spoke"
