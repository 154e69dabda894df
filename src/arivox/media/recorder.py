"""The recording of a call: one stereo WAV, caller left and agent right, aligned by what was really played.

The audio path only appends bytes; decoding and writing happen once a second in a worker thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

import structlog

from arivox.audio.format import AudioFormat
from arivox.audio.g711 import Law, decode
from arivox.audio.wav import StereoWavWriter

log = structlog.get_logger()

_WRITE_EVERY_S: Final = 1.0
_CLOSE_S: Final = 5.0
_TOLERANCE_S: Final = 0.2  # a track this far behind the clock has a hole: fill it
_CALLER_TOLERANCE_S: Final = 0.6  # packets of 120 ms may be 0.4 s on their way


class _Track:
    """One side: bytes since the last write, and how far the track has come since the start."""

    __slots__ = ("_audio", "_tolerance", "length", "pending")

    def __init__(self, audio: AudioFormat, tolerance_s: float = _TOLERANCE_S) -> None:
        self._audio = audio
        self._tolerance = tolerance_s * audio.rate
        self.pending = bytearray()
        self.length = 0

    def add(self, data: bytes, elapsed: float) -> None:
        behind = int(elapsed * self._audio.rate) - self.length - len(data)
        first = self.length == 0
        if behind > 0 and (first or behind > self._tolerance):
            self.pending += self._audio.silence * behind
            self.length += behind
        self.pending += data
        self.length += len(data)

    def pad_to(self, length: int) -> None:
        missing = length - self.length
        if missing > 0:
            self.pending += self._audio.silence * missing
            self.length = length


def _retrieved(work: asyncio.Future[None]) -> None:
    """Look at the outcome of a write that nobody waits for any more."""
    if not work.cancelled() and (error := work.exception()) is not None:
        log.debug("a late write to a recording failed", error=str(error))


class Recorder:
    """Taps a media link (see ``media.link.Tap``) and writes the call to ``path``. G.711 links only.

    A disk that fails costs the recording, never the call: the error is logged and ``failed`` is set.
    """

    def __init__(
        self,
        path: Path,
        audio: AudioFormat,
        executor: Executor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """The file and its folder are created with the first second."""
        self.path = path
        self.failed: OSError | None = None
        self._law: Law = "alaw" if audio.law == "alaw" else "ulaw"
        self._rate = audio.rate
        self._writer: StereoWavWriter | None = None
        self._executor = executor
        self._clock = clock
        self._start = clock()
        self._caller = _Track(audio, _CALLER_TOLERANCE_S)
        self._agent = _Track(audio)
        self._task: asyncio.Task[None] | None = None

    def caller(self, audio: bytes) -> None:
        """Take audio that came from the caller."""
        if self.failed is None:
            self._caller.add(audio, self._clock() - self._start)

    def agent(self, audio: bytes) -> None:
        """Take audio that was sent to the caller."""
        if self.failed is None:
            self._agent.add(audio, self._clock() - self._start)

    def start(self) -> None:
        """Begin to write once a second."""
        self._task = asyncio.create_task(self._write_on(), name=f"recorder {self.path.name}")

    async def close(self) -> None:
        """Write what is left, and close the file."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        length = max(self._caller.length, self._agent.length)
        self._caller.pad_to(length)
        self._agent.pad_to(length)
        await self._write()
        try:
            async with asyncio.timeout(_CLOSE_S):
                await asyncio.get_running_loop().run_in_executor(self._executor, self._close)
        except TimeoutError:
            self._fail(OSError("the disk is too slow"))
        except OSError as error:
            self._fail(error)

    async def _write_on(self) -> None:
        while True:
            await asyncio.sleep(_WRITE_EVERY_S)
            await self._write()

    async def _write(self) -> None:
        size = min(len(self._caller.pending), len(self._agent.pending))
        if not size or self.failed is not None:
            return
        left, right = bytes(self._caller.pending[:size]), bytes(self._agent.pending[:size])
        del self._caller.pending[:size], self._agent.pending[:size]
        work = asyncio.get_running_loop().run_in_executor(self._executor, self._append, left, right)
        try:
            # Shielded: a write that began is finished, so that the pieces stay in order.
            async with asyncio.timeout(_CLOSE_S):
                await asyncio.shield(work)
        except TimeoutError:
            work.add_done_callback(_retrieved)
            self._fail(OSError("the disk is too slow"))
        except asyncio.CancelledError:
            work.add_done_callback(_retrieved)
            raise
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        if self.failed is None:
            self.failed = error
            log.error(
                "the recording failed; the call goes on",
                file=str(self.path),
                error=str(error),
                setting="RECORDINGS_DIR",
            )

    # --- in the worker thread ---

    def _open(self) -> StereoWavWriter:
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = StereoWavWriter(self.path, self._rate)
        return self._writer

    def _append(self, left: bytes, right: bytes) -> None:
        self._open().append(decode(left, self._law), decode(right, self._law))

    def _close(self) -> None:
        self._open().close()
