"""An answer of the model: its speech and calls on the wire.

Where the answer ends, its turn may go on: a call that blocks has to be answered first, and then the next
answer belongs to the same turn. A turn is complete only when all its speech would have been played in real
time: https://ai.google.dev/api/live, ``generationComplete`` and ``turnComplete``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

import msgspec

from arivox.audio.format import SLIN24
from arivox.emulator.answer import Answer
from arivox.emulator.gemini.conversation import Entry
from arivox.emulator.gemini.outlet import Outlet, model_turn
from arivox.emulator.timers import Timers

_AUDIO_TOKENS_PER_S: Final = 25

State = Literal["generating", "waiting", "playing", "over"]


class Owner(Protocol):
    """What an answer needs of its session."""

    def begun(self, turn: ModelTurn) -> Entry:
        """Return a new content of the history for the words that follow."""
        ...

    def called(self, turn: ModelTurn, call_id: str, name: str, arguments: str) -> None:
        """Remember that a function was called."""
        ...

    def ends(self, turn: ModelTurn) -> bool:
        """Return whether the model's turn ends with this answer."""
        ...

    def generated(self, turn: ModelTurn, now: float, *, announced: bool) -> None:
        """Go on after the answer; ``announced`` says that ``generationComplete`` was sent."""
        ...

    def interrupt(self, now: float) -> None:
        """Stop the model's turn."""
        ...

    def broken(self, turn: ModelTurn, code: str, message: str, now: float) -> None:
        """Go on after a failure of the service."""
        ...


class ModelTurn(Answer):
    """An answer in progress."""

    def __init__(
        self,
        outlet: Outlet,
        owner: Owner,
        timers: Timers,
        *,
        told: str,
        speed: float,
        tools: Mapping[str, Mapping[str, Any]],
        transcribes: bool,
        max_tokens: int | None,
    ) -> None:
        """``told`` is the text that asked for it; ``max_tokens`` the most it may say."""
        super().__init__(
            outlet.new_id("answer"), SLIN24, timers, speed=speed, tools=tools, clock=outlet.clock
        )
        self.instructions = told
        self.state: State = "generating"
        self.plays_until = 0.0
        """When a client that plays in real time has played what was sent."""
        self.spoken_ms = 0.0
        self.call_text = ""
        self._outlet = outlet
        self._owner = owner
        self._transcribes = transcribes
        self._max_ms = None if max_tokens is None else max_tokens * 1000 / _AUDIO_TOKENS_PER_S
        self._open: Entry | None = None
        self._pieces_left = 0
        self._announced = False
        self._words = ""
        """The newest words, which trail behind their audio: the last come with its end."""

    @property
    def done(self) -> bool:
        """Return whether nothing more is generated."""
        return self.state != "generating"

    # At once.

    def cancel(self, reason: Literal["turn_detected", "client_cancelled"], now: float) -> None:
        """Stop speaking: the turn is interrupted."""
        del reason
        if not self.done:
            self._owner.interrupt(now)

    def fail(self, code: str, message: str, now: float) -> None:
        """Fail as the service does: the connection closes.

        With the name of a ``turnCompleteReason`` as ``code``, only the turn ends.
        """
        if not self.done:
            self.stop("over")
            self._owner.broken(self, code, message, now)

    def begin_speech(self) -> Entry:
        """Open a content for ``push``."""
        self._open = self._owner.begun(self)
        self._begun(self._open.id)
        return self._open

    def push(self, audio: bytes, transcript: str = "") -> None:
        """Write the next words, and the next audio, of the open content."""
        entry = self._open
        if entry is None:
            raise RuntimeError("push() needs begin_speech() before it")
        if audio and self._is_last_piece():
            content: dict[str, Any] = {"modelTurn": model_turn(audio)}
            if words := self._say(entry, self._words + transcript):
                content["outputTranscription"] = {"text": words}
            self._words = ""
            self._announced = True
            self._outlet.content(**content, generationComplete=True)
        else:
            if transcript:
                self._flush()
                self._words = transcript
            if audio:
                self._outlet.audio(audio)
        if audio:
            ms = self.audio_format.ms(len(audio))
            entry.spoken_ms += ms
            self.spoken_ms += ms
            self.plays_until = max(self.plays_until, self._clock()) + ms / 1000
            self._written(audio)

    def end_speech(self) -> None:
        """Close the open content, if there is one."""
        if self._open is not None:
            self._flush()
            self._open = None

    # For the session.

    def stop(self, state: State) -> None:
        """Generate nothing more."""
        self._stop()
        self._open = None
        self._words = ""
        self.state = state

    # Inside.

    def _flush(self) -> None:
        words, self._words = self._words, ""
        if self._open is not None and (words := self._say(self._open, words)):
            self._outlet.content(outputTranscription={"text": words})

    def _say(self, entry: Entry, words: str) -> str:
        """Add words to the history; return what the client gets of them."""
        entry.text += words
        return words if self._transcribes else ""

    def _is_last_piece(self) -> bool:
        if self._pieces_left == 0:
            return False
        self._pieces_left -= 1
        if self._pieces_left or len(self._queue) != 1 or self._queue[0] != self._complete:
            return False
        return self._owner.ends(self)

    def _pieces(self, audio: bytes, sizes: Any) -> list[bytes]:
        pieces = super()._pieces(audio, sizes)
        self._pieces_left = len(pieces)
        return pieces

    def _new_call_id(self) -> str:
        return self._outlet.new_id("function-call")

    def _exhausted(self, now: float) -> bool:
        if self._max_ms is None or self.spoken_ms < self._max_ms:
            return False
        self._complete(now)
        return True

    def _call(self, name: str, arguments: str, call_id: str, now: float) -> None:
        try:
            args = msgspec.json.decode(arguments or "{}", type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.fail("MALFORMED_FUNCTION_CALL", f"the arguments of {name} are no JSON object", now)
            return
        self.call_text += name + arguments
        self._owner.called(self, call_id, name, arguments)
        self._outlet.emit(toolCall={"functionCalls": [{"name": name, "args": args, "id": call_id}]})

    def _complete(self, now: float) -> None:
        if not self.done:
            self.end_speech()
            self.stop("waiting")
            self._owner.generated(self, now, announced=self._announced)
