"""The recording's file, read back by the standard library."""

from __future__ import annotations

import errno
import os
import wave
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.audio.g711 import Pcm
from arivox.audio.wav import StereoWavWriter


def read(path: Path) -> tuple[int, Pcm]:
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth()) == (2, 2)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert len(samples) == file.getnframes() * 2, "the header promises what the file holds"
        return file.getframerate(), samples.reshape(-1, 2)


def test_empty_recording_is_a_valid_file(tmp_path: Path) -> None:
    writer = StereoWavWriter(tmp_path / "a.wav")
    rate, samples = read(tmp_path / "a.wav")
    assert (rate, len(samples)) == (8000, 0)
    writer.close()
    assert (tmp_path / "a.wav").stat().st_size == 44


@settings(max_examples=15)
@given(sizes=st.lists(st.integers(0, 500), max_size=8), rate=st.sampled_from([8000, 16000]))
def test_file_is_valid_after_every_append(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], rate: int
) -> None:
    path = tmp_path_factory.mktemp("wav") / "call.wav"
    writer = StereoWavWriter(path, rate)
    random = np.random.default_rng(len(sizes))
    left = right = np.zeros(0, np.int16)
    for size in sizes:
        a, b = random.integers(-32768, 32768, (2, size)).astype(np.int16)
        writer.append(a, b)
        left, right = np.concatenate([left, a]), np.concatenate([right, b])
        found_rate, samples = read(path)
        assert found_rate == rate
        assert np.array_equal(samples[:, 0], left)
        assert np.array_equal(samples[:, 1], right)
    writer.close()
    assert path.stat().st_size == 44 + 4 * len(left)


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        StereoWavWriter(tmp_path / "nowhere" / "a.wav")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("size", [10, 100_000], ids=["small", "large"])
def test_full_disk_is_an_os_error_on_append(tmp_path: Path, size: int) -> None:
    writer = StereoWavWriter(tmp_path / "a.wav")
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), writer._file.fileno())
    with pytest.raises(OSError, match="No space") as caught:
        writer.append(np.ones(size, np.int16), np.ones(size, np.int16))
    assert caught.value.errno == errno.ENOSPC
    with suppress(OSError):
        writer.close()  # what was buffered cannot be written either
    assert writer._file.closed
