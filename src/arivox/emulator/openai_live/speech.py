"""What the model says, and what it delegates: one answer of a Live session.

On the wire it has no beginning and no end. Its audio goes into the stream at the pace of real time, each
frame with the words that begin in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from arivox.emulator.answer import Answer
from arivox.emulator.openai.messages import RequestError
from arivox.emulator.openai_live.delegation import Backend, Task
from arivox.emulator.openai_live.outlet import LiveOutlet
from arivox.emulator.openai_live.stream import OutputStream
from arivox.emulator.timers import Timers


class Speech(Answer):
    """An answer in progress."""

    def __init__(
        self,
        outlet: LiveOutlet,
        timers: Timers,
        stream: OutputStream,
        backend: Backend | None,
        *,
        tools: Mapping[str, Mapping[str, Any]],
        instructions: str = "",
        on_begin: Callable[[], None] = lambda: None,
        on_done: Callable[[Speech, float], None],
    ) -> None:
        """``backend`` is None in a session without tools; ``on_begin`` is called with each act of it."""
        super().__init__(
            outlet.new_id("speech"), stream.format, timers, speed=1.0, tools=tools, clock=outlet.clock
        )
        self.instructions = instructions
        self.status: Literal["in_progress", "completed", "cancelled", "failed"] = "in_progress"
        self._outlet = outlet
        self._stream = stream
        self._backend = backend
        self._on_begin = on_begin
        self._on_done = on_done
        self._task: Task | None = None
        self._open = False
        self._apart = True

    @property
    def done(self) -> bool:
        """Return whether the answer is over."""
        return self.status != "in_progress"

    # At once.

    def cancel(self, reason: Literal["turn_detected", "client_cancelled"], now: float) -> None:
        """Stop speaking: what is not written never will be. What was delegated goes on."""
        del reason
        self._finish("cancelled", now)

    def fail(self, code: str, message: str, now: float) -> None:
        """Stop with an ``error`` event."""
        if not self.done:
            self._outlet.error(RequestError(code, message, type="server_error"))
        self._finish("failed", now)

    def begin_speech(self) -> None:
        """Begin an utterance."""
        now = self._clock()
        self._end_task(now)
        self._on_begin()
        self._begun(self.id)
        self._stream.hold(now)
        self._open = self._apart = True

    def push(self, audio: bytes, transcript: str = "") -> None:
        """Write the next audio at once, and the words that belong to it before it."""
        if not self._open:
            raise RuntimeError("push() needs begin_speech() before it")
        if transcript:
            start_ms, end_ms = self._stream.place(len(audio))
            self._outlet.words("output", transcript, start_ms, end_ms, apart=self._apart)
            self._apart = False
        if audio:
            self._stream.write(audio)
            self._written(audio)

    def end_speech(self) -> None:
        """End the utterance, if there is one."""
        if self._open:
            self._open = False
            self._stream.release()

    # Inside.

    def _starts_at(self, now: float) -> float:
        # In its place in the stream: silence may have been written ahead.
        return self._stream.due(now)

    def _sizes(self) -> Iterator[int]:
        while True:
            yield self._stream.frame_bytes

    def _new_call_id(self) -> str:
        return self._outlet.new_id("call")

    def _call(self, name: str, arguments: str, call_id: str, now: float) -> None:
        del now
        if self._backend is None:
            raise RuntimeError("a session without Responses delegation has no tools to call")
        self._on_begin()
        if self._task is None:
            self._task = self._backend.delegate()
        self._backend.call(self._task, name, arguments, call_id)

    def _end_task(self, now: float) -> None:
        task, self._task = self._task, None
        if task is not None and self._backend is not None:
            self._backend.end(task, now)

    def _complete(self, now: float) -> None:
        self._finish("completed", now)

    def _finish(self, status: Literal["completed", "cancelled", "failed"], now: float) -> None:
        if self.done:
            return
        self._stop()
        self.end_speech()
        self.status = status
        self._end_task(now)
        self._on_done(self, now)
