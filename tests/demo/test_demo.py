"""The demo as a stranger runs it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

PROVIDERS = ("openai", "gemini", "openai-live")
WORDS = [
    "yes please",
    "I have a toothache",
    "on Wednesday",
    "around ten o'clock",
    "in the morning",
    "yes that is fine",
]


@pytest.mark.asterisk
@pytest.mark.speech
@pytest.mark.timeout(240)  # the first run fetches the voice
async def test_demos_hold_their_conversations(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Three demos at once, as three strangers on one machine may run them, each with another AI."""
    await asyncio.gather(*(demo(provider, tmp_path_factory.mktemp(provider)) for provider in PROVIDERS))


async def demo(provider: str, folder: Path) -> None:
    ours = ("OPENAI_", "GEMINI_", "GOOGLE_", "AI_SERVICE_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "arivox", "demo", "--provider", provider, "--output", "out"),
        cwd=folder,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    text = output.decode()
    assert process.returncode == 0, text
    (timeline_file,) = (folder / "out").glob("*.json")
    events = json.loads(timeline_file.read_text())["events"]

    def data(kind: str, name: str) -> list[object]:
        return [event["data"][name] for event in events if event["kind"] == kind]

    assert data("provider.chosen", "name") == [provider], text
    assert [said for said in data("caller.said", "text") if said] == WORDS, text
    assert data("state", "after")[-1] == "confirmation", text
    assert {"tries", "moved"} == set(data("state", "cause")), "a misunderstanding leads to fallback"
    assert "fallback" in data("state", "after"), text
    found = [str(output) for output in data("tool", "output")]
    assert any("that is not free" in output for output in found), text
    assert re.search(r"Booked: \d{4}-\d\d-\d\d 09:00, toothache", text), text
    assert data("call.ended", "reason") == ["completed"], f"the agent hangs up\n{text}"
    assert any("toothache, on Wednesday" in str(said) for said in data("agent.said", "text")), text
    # OpenAI Live stops by itself, and nobody tells.
    interrupted = provider != "openai-live"
    assert data("barge_in", "told") == ([provider == "openai"] if interrupted else []), text
    assert ("interrupts" in text) == interrupted
    (recording,) = (folder / "out").glob("*.wav")
    with wave.open(str(recording)) as file:
        assert file.getnchannels() == 2
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2).astype(float)
    for side in (0, 1):
        assert np.sqrt(np.mean(both[:, side] ** 2)) > 100, f"{provider}: both sides spoke"
