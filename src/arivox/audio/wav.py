"""WAV files: 16-bit PCM (RIFF, format tag 1)."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

import numpy as np

from arivox.audio.g711 import Pcm

_HEADER: Final = struct.Struct("<4sI4s4sIHHIIHH4sI")


class StereoWavWriter:
    """Writes two channels side by side. The file is a valid WAV after every ``append``."""

    def __init__(self, path: Path, rate: int = 8000) -> None:
        """Create the file. Raises OSError."""
        self.path = path
        self.rate = rate
        self._frames = 0
        self._file = path.open("wb")
        try:
            self._write_header()
        except OSError:
            self._file.close()
            raise

    def append(self, left: Pcm, right: Pcm) -> None:
        """Add samples: two int16 arrays of the same shape (n,). Raises OSError."""
        both = np.empty(len(left) * 2, np.int16)
        both[0::2] = left
        both[1::2] = right
        self._file.seek(0, os.SEEK_END)
        self._file.write(both.astype("<i2").tobytes())
        self._frames += len(left)
        self._write_header()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write_header(self) -> None:
        size = self._frames * 4
        header = _HEADER.pack(
            b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 2, self.rate, self.rate * 4, 4, 16, b"data", size
        )
        self._file.seek(0)
        self._file.write(header)
        self._file.flush()
