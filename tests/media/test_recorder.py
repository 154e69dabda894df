"""The recording: both sides where they were heard, and a disk that fails costs no call."""

from __future__ import annotations

import os
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.audio.format import ALAW, ULAW, AudioFormat
from arivox.audio.g711 import Law, Pcm, decode
from arivox.media.recorder import Recorder

FRAME = 160
CALLER, AGENT = b"\x11" * FRAME, b"\x22" * FRAME


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def disk() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def read(path: Path) -> tuple[Pcm, Pcm]:
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 8000)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    return samples[:, 0], samples[:, 1]


@pytest.mark.parametrize("audio", [ULAW, ALAW])
async def test_caller_is_left_and_agent_is_right(
    audio: AudioFormat, tmp_path: Path, disk: ThreadPoolExecutor
) -> None:
    clock = Clock()
    recorder = Recorder(tmp_path / "new" / "folder" / "call.wav", audio, disk, clock)
    recorder.start()
    for _ in range(50):
        clock.now += 0.02
        recorder.caller(CALLER)
        recorder.agent(AGENT)
    await recorder.close()
    left, right = read(tmp_path / "new" / "folder" / "call.wav")
    law: Law = "alaw" if audio is ALAW else "ulaw"
    assert len(left) == 50 * FRAME
    assert np.array_equal(left, decode(CALLER * 50, law))
    assert np.array_equal(right, decode(AGENT * 50, law))


async def test_late_start_and_holes_are_silence(tmp_path: Path, disk: ThreadPoolExecutor) -> None:
    clock = Clock()
    recorder = Recorder(tmp_path / "call.wav", ULAW, disk, clock)
    for tick in range(100):
        clock.now += 0.02
        recorder.caller(CALLER)
        if 25 <= tick < 50 or tick >= 75:
            recorder.agent(AGENT)
    await recorder.close()
    left, right = read(tmp_path / "call.wav")
    assert len(left) == len(right) == 100 * FRAME
    loud = np.abs(right.astype(int)) > 0
    edge = FRAME  # audio is laid where its frame ended, to the sample
    assert not loud[: 25 * FRAME - edge].any()
    assert loud[25 * FRAME + edge : 50 * FRAME - edge].all()
    assert not loud[50 * FRAME + edge : 75 * FRAME - edge].any()
    assert loud[75 * FRAME + edge : -edge].all()


@settings(max_examples=25)
@given(jitter=st.lists(st.floats(-0.015, 0.015), min_size=1, max_size=120))
async def test_jitter_never_tears_a_track(
    tmp_path_factory: pytest.TempPathFactory, jitter: list[float]
) -> None:
    path = tmp_path_factory.mktemp("rec") / "call.wav"
    clock = Clock()
    with ThreadPoolExecutor(1) as disk:
        recorder = Recorder(path, ULAW, disk, clock)
        for tick, late in enumerate(jitter):
            clock.now = 1000.0 + 0.02 * (tick + 1) + late
            recorder.caller(CALLER)
        await recorder.close()
    left, right = read(path)
    lead = len(left) - len(jitter) * FRAME
    assert 0 <= lead <= 0.015 * 8000 + 1, "only the lateness of the first frame is filled"
    assert np.array_equal(left[lead:], decode(CALLER * len(jitter), "ulaw"))
    assert not right.any()


async def test_call_without_audio_is_an_empty_file(tmp_path: Path, disk: ThreadPoolExecutor) -> None:
    recorder = Recorder(tmp_path / "call.wav", ULAW, disk)
    recorder.start()
    await recorder.close()
    await recorder.close()
    assert len(read(tmp_path / "call.wav")[0]) == 0


async def test_folder_that_cannot_be_made(tmp_path: Path, disk: ThreadPoolExecutor) -> None:
    (tmp_path / "file").write_text("in the way")
    recorder = Recorder(tmp_path / "file" / "call.wav", ULAW, disk)
    recorder.start()
    recorder.caller(CALLER)
    await recorder.close()
    assert isinstance(recorder.failed, OSError)


def fill_disk(recorder: Recorder) -> None:
    """Make every further write of the recording fail as on a full disk."""
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), recorder._open()._file.fileno())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("frames", [5, 100])
async def test_full_disk_costs_the_recording_not_the_call(
    tmp_path: Path, disk: ThreadPoolExecutor, frames: int
) -> None:
    clock = Clock()
    recorder = Recorder(tmp_path / "call.wav", ULAW, disk, clock)
    recorder.start()
    fill_disk(recorder)
    for _ in range(frames):
        clock.now += 0.02
        recorder.caller(CALLER)
        recorder.agent(AGENT)
    await recorder.close()
    assert recorder.failed is not None
    assert "No space" in str(recorder.failed)
