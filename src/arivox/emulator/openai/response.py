"""One response of the model: its life cycle on the wire.

The order of events is that of the API guide and of the live service: ``response.created``, then for each item
``output_item.added``, ``conversation.item.added``, its content, ``conversation.item.done``,
``output_item.done``, and at last ``response.done``, which always comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from arivox.audio.format import AudioFormat
from arivox.emulator.answer import Answer
from arivox.emulator.openai.conversation import Conversation, Item
from arivox.emulator.openai.outlet import Outlet
from arivox.emulator.timers import Timers

Status = Literal["completed", "cancelled", "failed", "incomplete"]
_ARGUMENTS_CHUNK: Final = 12
_ASSISTANT_MS_PER_TOKEN: Final = 50


@dataclass(frozen=True, slots=True)
class Shape:
    """What was asked of a response."""

    modalities: list[str]
    audio_format: AudioFormat
    wire_format: dict[str, Any]
    voice: str
    instructions: str | None = None
    tools: list[dict[str, Any]] = field(default_factory=list)
    tool_choice: str | dict[str, Any] = "auto"
    max_output_tokens: int | str = "inf"
    metadata: dict[str, str] | None = None
    input: list[dict[str, Any]] | None = None
    by_client: bool = False
    """True for ``response.create``, False when turn detection started it."""


class Response(Answer):
    """A response in progress."""

    def __init__(
        self,
        shape: Shape,
        conversation: Conversation | None,
        outlet: Outlet,
        timers: Timers,
        *,
        speed: float,
        on_done: Callable[[Response, float], dict[str, Any]],
    ) -> None:
        """``conversation`` is None for a response out of band; ``on_done`` returns the usage."""
        super().__init__(
            outlet.new_id("resp"),
            shape.audio_format,
            timers,
            speed=speed,
            tools=schemas(shape.tools),
            clock=outlet.clock,
        )
        self.instructions = shape.instructions or ""
        self.out_of_band = conversation is None
        self.shape = shape
        self.items: list[Item] = []
        self.status: Status | Literal["in_progress"] = "in_progress"
        self._conversation = conversation
        self._outlet = outlet
        self._on_done = on_done
        self._open: Item | None = None
        self._delta_head = (b"", b"")
        self._outlet.emit("response.created", response=self._as_dict(None, None))

    @property
    def done(self) -> bool:
        """Return whether ``response.done`` was sent."""
        return self.status != "in_progress"

    @property
    def audio_tokens(self) -> int:
        """Return the tokens of the audio written so far."""
        return round(sum(item.audio_ms for item in self.items) / _ASSISTANT_MS_PER_TOKEN)

    # At once.

    def cancel(self, reason: Literal["turn_detected", "client_cancelled"], now: float) -> None:
        """Stop speaking and finish; a message that was open stays incomplete."""
        self._finish("cancelled", {"type": "cancelled", "reason": reason}, now)

    def fail(self, code: str, message: str, now: float, *, type_: str = "server_error") -> None:
        """Finish as failed."""
        error = {"type": type_, "code": code, "message": message}
        self._finish("failed", {"type": "failed", "error": error}, now)

    def begin_speech(self) -> Item:
        """Open a message item for ``push``."""
        content_type = "output_text" if self._text_only else "output_audio"
        item = Item(
            {
                "id": self._outlet.new_id("item"),
                "object": "realtime.item",
                "type": "message",
                "status": "in_progress",
                "role": "assistant",
                "content": [],
            },
            audio_format=None if self._text_only else self.shape.audio_format,
        )
        self._add(item)
        self._open = item
        self._begun(item.id)
        self._delta_head = self._outlet.delta_head(self.id, item.id, len(self.items) - 1)
        self._emit("response.content_part.added", item, content_index=0, part=self._part(""))
        item.data["content"] = [{"type": content_type, "text" if self._text_only else "transcript": ""}]
        return item

    def push(self, audio: bytes, transcript: str = "") -> None:
        """Write the next words, and the next audio, of the open item."""
        item = self._open
        if item is None:
            raise RuntimeError("push() needs begin_speech() before it")
        if transcript:
            key = "text" if self._text_only else "transcript"
            content = item.data["content"][0]
            content[key] = (content[key] or "") + transcript  # None after a truncation
            kind = "output_text" if self._text_only else "output_audio_transcript"
            self._emit(f"response.{kind}.delta", item, content_index=0, delta=transcript)
        if audio and item.audio_format is not None:
            item.audio += audio
            self._outlet.write_delta(self._delta_head, audio)
            self._written(audio)

    def end_speech(self, status: Literal["completed", "incomplete"] = "completed") -> None:
        """Close the open item, if there is one."""
        item = self._open
        if item is None:
            return
        self._open = None
        content = item.data["content"][0]
        if self._text_only:
            text = content["text"]
            self._emit("response.output_text.done", item, content_index=0, text=text)
        else:
            text = content["transcript"] or ""
            self._emit("response.output_audio.done", item, content_index=0)
            self._emit("response.output_audio_transcript.done", item, content_index=0, transcript=text)
        self._emit("response.content_part.done", item, content_index=0, part=self._part(text))
        self._close(item, status)

    # Inside.

    @property
    def _text_only(self) -> bool:
        return self.shape.modalities == ["text"]

    def _new_call_id(self) -> str:
        return self._outlet.new_id("call")

    def _pieces(self, audio: bytes, sizes: Iterable[int] | None) -> list[bytes]:
        return [audio] if self._text_only else super()._pieces(audio, sizes)

    def _exhausted(self, now: float) -> bool:
        limit = self.shape.max_output_tokens
        if not isinstance(limit, int) or self.audio_tokens < limit:
            return False
        self._finish("incomplete", {"type": "incomplete", "reason": "max_output_tokens"}, now)
        return True

    def _complete(self, now: float) -> None:
        self._finish("completed", None, now)

    def _call(self, name: str, arguments: str, call_id: str, now: float) -> None:
        del now
        item = Item(
            {
                "id": self._outlet.new_id("item"),
                "object": "realtime.item",
                "type": "function_call",
                "status": "in_progress",
                "name": name,
                "call_id": call_id,
                "arguments": "",
            }
        )
        self._add(item)
        for start in range(0, len(arguments), _ARGUMENTS_CHUNK):
            delta = arguments[start : start + _ARGUMENTS_CHUNK]
            self._emit("response.function_call_arguments.delta", item, call_id=call_id, delta=delta)
        self._emit(
            "response.function_call_arguments.done", item, call_id=call_id, name=name, arguments=arguments
        )
        item.data["arguments"] = arguments
        self._close(item, "completed")

    def _finish(self, status: Status, details: dict[str, Any] | None, now: float) -> None:
        if self.done:
            return
        self._stop()
        self.end_speech("completed" if status == "completed" else "incomplete")
        self.status = status
        usage = self._on_done(self, now)
        self._outlet.emit("response.done", response=self._as_dict(details, usage))

    def _add(self, item: Item) -> None:
        self.items.append(item)
        self._emit_item("response.output_item.added", item)
        if self._conversation is not None:
            previous = self._conversation.last_id
            self._conversation.items.append(item)
            self._outlet.emit("conversation.item.added", item=item.data, previous_item_id=previous)

    def _close(self, item: Item, status: str) -> None:
        item.data["status"] = status
        if self._conversation is not None:
            self._outlet.emit(
                "conversation.item.done", item=item.data, previous_item_id=self._conversation.before(item)
            )
        self._emit_item("response.output_item.done", item)

    def _emit(self, type_: str, item: Item, **fields: Any) -> None:
        self._outlet.emit(
            type_, response_id=self.id, item_id=item.id, output_index=self.items.index(item), **fields
        )

    def _emit_item(self, type_: str, item: Item) -> None:
        self._outlet.emit(type_, response_id=self.id, output_index=self.items.index(item), item=item.data)

    def _part(self, text: str) -> dict[str, str]:
        return {"type": "text", "text": text} if self._text_only else {"type": "audio", "transcript": text}

    def _as_dict(self, details: dict[str, Any] | None, usage: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": self.status,
            "status_details": details,
            "output": [item.data for item in self.items],
            "conversation_id": self._conversation.id if self._conversation is not None else None,
            "output_modalities": self.shape.modalities,
            "max_output_tokens": self.shape.max_output_tokens,
            "audio": {"output": {"format": self.shape.wire_format, "voice": self.shape.voice}},
            "usage": usage,
            "metadata": self.shape.metadata,
        }


def schemas(tools: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the parameters of each function of ``tools``, by its name."""
    return {str(tool["name"]): tool.get("parameters") or {} for tool in tools if "name" in tool}
