"""One answer of an emulated model: what it was asked to say and do, in order, and the pace of its speech.

What is written for it is the protocol's own: each has its subclass.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

from arivox.audio.format import AudioFormat
from arivox.emulator.timers import Timer, Timers

_FIRST_CHUNK_MS: Final = (40, 80)
_CHUNK_MS: Final = (100, 400)


@dataclass(eq=False)
class Spoken:
    """One piece of speech: what was written of it so far, and when (monotonic seconds)."""

    item_id: str
    audio: bytearray = field(default_factory=bytearray)
    first_at: float | None = None
    last_at: float | None = None


class Answer(ABC):
    """An answer in progress. Speech is written in chunks faster than real time, by timers."""

    instructions: str = ""
    """What the model is told for this answer alone."""
    out_of_band: bool = False
    """True when it belongs to no conversation."""

    def __init__(
        self,
        answer_id: str,
        audio_format: AudioFormat,
        timers: Timers,
        *,
        speed: float,
        tools: Mapping[str, Mapping[str, Any]],
        clock: Callable[[], float],
    ) -> None:
        """``speed`` is the pace of speech in multiples of real time."""
        self.id = answer_id
        self.audio_format = audio_format
        self.tools = tools
        """The JSON schema of the parameters of each tool, by its name."""
        self.spoken: list[Spoken] = []
        """Every piece of speech, the newest last."""
        self.busy = False
        """True while speech is being written."""
        self._timers = timers
        self._speed = speed
        self._clock = clock
        self._queue: deque[Callable[[float], None]] = deque()
        self._timer: Timer | None = None
        self._rng = random.Random(answer_id)

    @property
    @abstractmethod
    def done(self) -> bool:
        """Return whether the answer is over."""

    # What a behaviour asks for; it happens in the order of asking.

    def say(
        self,
        audio: bytes,
        transcript: str,
        now: float,
        *,
        sizes: Iterable[int] | None = None,
        speed: float | None = None,
    ) -> None:
        """Speak ``audio``, which is in ``audio_format``.

        ``sizes`` are the bytes of the chunks, the last one repeated (default: a small one, then 100 to
        400 ms); ``speed`` is the pace in multiples of real time, ``inf`` for all at once.
        """
        self._queue.append(partial(self._speak, audio, transcript, sizes, speed or self._speed))
        self._advance(now)

    def call(self, name: str, arguments: str, now: float, *, call_id: str | None = None) -> str:
        """Call a function with ``arguments`` (JSON); return the call's id."""
        call_id = call_id or self._new_call_id()
        self._queue.append(partial(self._call, name, arguments, call_id))
        self._advance(now)
        return call_id

    def end(self, now: float) -> None:
        """Complete the answer after all that was asked for."""
        self._queue.append(self._complete)
        self._advance(now)

    # At once.

    @abstractmethod
    def cancel(self, reason: Literal["turn_detected", "client_cancelled"], now: float) -> None:
        """Stop speaking and finish."""

    @abstractmethod
    def fail(self, code: str, message: str, now: float) -> None:
        """Finish as the service does when it fails."""

    @abstractmethod
    def begin_speech(self) -> object:
        """Open a piece of speech for ``push``."""

    @abstractmethod
    def push(self, audio: bytes, transcript: str = "") -> None:
        """Write the next words, and the next audio, of the open piece of speech."""

    @abstractmethod
    def end_speech(self) -> None:
        """Close the open piece of speech, if there is one."""

    # For the protocols.

    @abstractmethod
    def _new_call_id(self) -> str: ...

    @abstractmethod
    def _call(self, name: str, arguments: str, call_id: str, now: float) -> None: ...

    @abstractmethod
    def _complete(self, now: float) -> None: ...

    def _exhausted(self, now: float) -> bool:
        """Return whether a limit of the answer is reached, and finish it then."""
        return False

    def _pieces(self, audio: bytes, sizes: Iterable[int] | None) -> list[bytes]:
        return list(_cut(audio, sizes or self._sizes())) or [b""]

    def _begun(self, item_id: str) -> None:
        self.spoken.append(Spoken(item_id))

    def _written(self, audio: bytes) -> None:
        piece = self.spoken[-1]
        piece.audio += audio
        piece.last_at = self._clock()
        if piece.first_at is None:
            piece.first_at = piece.last_at

    def _stop(self) -> None:
        """Forget everything that was asked for and is not written."""
        if self._timer is not None:
            self._timer.cancel()
        self.busy = False
        self._queue.clear()

    def _advance(self, now: float) -> None:
        while self._queue and not self.busy and not self.done:
            self._queue.popleft()(now)

    def _speak(
        self, audio: bytes, transcript: str, sizes: Iterable[int] | None, speed: float, now: float
    ) -> None:
        self.busy = True
        self.begin_speech()
        pieces = self._pieces(audio, sizes)
        plan: deque[tuple[float, bytes, str]] = deque()
        start = self._starts_at(now)
        offset = 0
        for piece, words in zip(pieces, _share(transcript, [len(p) for p in pieces]), strict=True):
            plan.append((start + self.audio_format.ms(offset) / 1000 / speed, piece, words))
            offset += len(piece)
        self._next(plan, now)

    def _next(self, plan: deque[tuple[float, bytes, str]], now: float) -> None:
        while plan and plan[0][0] <= now:
            _, audio, words = plan.popleft()
            self.push(audio, words)
            if self._exhausted(now):
                return
        if plan:
            self._timer = self._timers.at(plan[0][0], partial(self._next, plan))
            return
        self.end_speech()
        self.busy = False
        self._advance(now)

    def _starts_at(self, now: float) -> float:
        """Return when the first chunk of speech that begins now is written."""
        return now

    def _sizes(self) -> Iterator[int]:
        yield self.audio_format.bytes_for(self._rng.uniform(*_FIRST_CHUNK_MS))
        while True:
            yield self.audio_format.bytes_for(self._rng.uniform(*_CHUNK_MS))


def _cut(audio: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    start = 0
    last = len(audio)
    sizes = iter(sizes)
    while start < len(audio):
        last = next(sizes, last)
        yield audio[start : start + last]
        start += last


def _share(text: str, weights: list[int]) -> Iterator[str]:
    """Yield ``text`` in as many parts as there are ``weights``, cut between words, none of it late."""
    words = text.split(" ") if text else []
    words = [word + " " for word in words[:-1]] + words[-1:]
    total = sum(weights)
    spoken = taken = 0
    for weight in weights:
        spoken += weight
        upto = -(-len(words) * spoken // total) if total else len(words)
        yield "".join(words[taken:upto])
        taken = upto
