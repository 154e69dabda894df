"""The items of a Realtime conversation, in order."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from msgspec import Struct

from arivox.audio.format import AudioFormat
from arivox.emulator.openai.messages import RequestError, convert

_TEXT_BYTES_PER_TOKEN: Final = 4
_USER_MS_PER_TOKEN: Final = 100
_ASSISTANT_MS_PER_TOKEN: Final = 50


class _Content(Struct, forbid_unknown_fields=True):
    type: Literal["input_text", "input_audio", "input_image", "output_text"]
    text: str | None = None
    audio: str | None = None
    transcript: str | None = None
    image_url: str | None = None
    detail: str | None = None


class _Named(Struct, tag_field="type", forbid_unknown_fields=True, kw_only=True):
    id: str | None = None
    object: str | None = None
    status: Literal["completed", "incomplete", "in_progress"] | None = None


class _Message(_Named, tag="message"):
    role: Literal["user", "assistant", "system"]
    content: list[_Content]


class _FunctionCall(_Named, tag="function_call"):
    name: str
    arguments: str
    call_id: str | None = None


class _FunctionCallOutput(_Named, tag="function_call_output"):
    call_id: str
    output: str


_CONTENT_OF_ROLE: Final = {
    "user": {"input_text", "input_audio", "input_image"},
    "assistant": {"output_text"},
    "system": {"input_text"},
}


@dataclass(slots=True, eq=False)
class Item:
    """One item: its JSON object, and its audio where it has one."""

    data: dict[str, Any]
    audio: bytearray = field(default_factory=bytearray)
    audio_format: AudioFormat | None = None

    @property
    def id(self) -> str:
        """Return the item's id."""
        return str(self.data["id"])

    @property
    def audio_ms(self) -> float:
        """Return how long the audio is."""
        return self.audio_format.ms(len(self.audio)) if self.audio_format else 0.0

    @property
    def text(self) -> str:
        """Return every text and transcript in the item."""
        parts = self.data.get("content", ())
        texts = [part.get("text") or part.get("transcript") or "" for part in parts]
        return " ".join(text for text in texts if text)

    @property
    def tokens(self) -> tuple[int, int]:
        """Return the item's text and audio tokens, at the documented rates."""
        call = str(self.data.get("arguments", "")) + str(self.data.get("output", ""))
        is_user = self.data.get("role") == "user"
        audio = self.audio_ms / (_USER_MS_PER_TOKEN if is_user else _ASSISTANT_MS_PER_TOKEN)
        # The transcript of what the user said is not the model's: it is not billed.
        text = call if is_user and self.audio else self.text + call
        return text_tokens(text), round(audio)


@dataclass(frozen=True, slots=True)
class Truncation:
    """What the client said it had played of an item."""

    item_id: str
    audio_end_ms: int
    at: float


def text_tokens(text: str) -> int:
    """Return roughly how many tokens ``text`` is."""
    return -(-len(text.encode()) // _TEXT_BYTES_PER_TOKEN)


class Conversation:
    """Items by id, in their order."""

    def __init__(self, conversation_id: str) -> None:
        self.id = conversation_id
        self.items: list[Item] = []
        self.truncations: list[Truncation] = []
        self.deleted: list[str] = []

    @property
    def last_id(self) -> str | None:
        """Return the id of the last item."""
        return self.items[-1].id if self.items else None

    def before(self, item: Item) -> str | None:
        """Return the id of the item before ``item``; None for the first, and for one that was deleted."""
        index = self.items.index(item) if item in self.items else 0
        return self.items[index - 1].id if index else None

    def find(self, item_id: str, verb: str) -> Item:
        """Return the item.

        Raises:
            RequestError: There is none; ``verb`` is what the client wanted to do with it.
        """
        for item in self.items:
            if item.id == item_id:
                return item
        raise RequestError(
            f"item_{verb}_invalid_item_id",
            f"Error {verb.removesuffix('e')}ing item: the item with id '{item_id}' does not exist.",
            param="item_id",
        )

    def create(self, data: dict[str, Any], new_id: str, previous_item_id: str | None) -> Item:
        """Put in what the client made after the item named; last when none is, first when it is ``root``.

        Raises:
            RequestError: The item or its place is not allowed.
        """
        if not str(data.get("type", "")).startswith("mcp_"):
            known = convert(data, _Message | _FunctionCall | _FunctionCallOutput, ".item")  # type: ignore[arg-type]
            if isinstance(known, _Message):
                _check_content(known)
        item = Item({"id": new_id, "object": "realtime.item", "status": "completed", **_given(data)})
        if any(item.id == other.id for other in self.items):
            raise RequestError(
                "item_create_duplicate_item_id",
                f"Error adding item: an item with id '{item.id}' already exists.",
                param="item.id",
            )
        if previous_item_id is None:
            index = len(self.items)
        elif previous_item_id == "root":
            index = 0
        else:
            index = self._after(previous_item_id)
        self.items.insert(index, item)
        return item

    def _after(self, item_id: str) -> int:
        for index, item in enumerate(self.items):
            if item.id == item_id:
                return index + 1
        raise RequestError(
            "item_create_invalid_previous_item_id",
            f"Error adding item: the previous item with id '{item_id}' does not exist.",
            param="previous_item_id",
        )

    def delete(self, item_id: str) -> None:
        """Remove an item.

        Raises:
            RequestError: There is no such item.
        """
        self.items.remove(self.find(item_id, "delete"))
        self.deleted.append(item_id)

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int, now: float) -> None:
        """Cut an assistant's audio, and forget its transcript: the text of what was cut is not known.

        Raises:
            RequestError: It is no such item, or shorter than that.
        """
        item = self.find(item_id, "truncate")
        if item.data.get("role") != "assistant" or item.audio_format is None or content_index != 0:
            raise RequestError(
                "invalid_value",
                "Only model output audio messages can be truncated",
                param="item_id" if content_index == 0 else "content_index",
            )
        if audio_end_ms > item.audio_ms:
            raise RequestError(
                "invalid_value",
                f"Audio content of {int(item.audio_ms)}ms is already shorter than {audio_end_ms}ms",
                param="audio_end_ms",
            )
        del item.audio[item.audio_format.bytes_for(audio_end_ms) :]
        for part in item.data["content"]:
            part["transcript"] = None
        self.truncations.append(Truncation(item_id, audio_end_ms, now))

    def with_audio(self, item: Item) -> dict[str, Any]:
        """Return the item's object with its audio in base64, as ``retrieved`` shows it."""
        content = [dict(part) for part in item.data.get("content", ())]
        for part in content:
            if part["type"] in {"input_audio", "output_audio"}:
                part["audio"] = base64.b64encode(item.audio).decode()
        return {**item.data, "content": content} if content else item.data


def _check_content(message: _Message) -> None:
    allowed = _CONTENT_OF_ROLE[message.role]
    for index, part in enumerate(message.content):
        at = f"item.content[{index}]"
        if part.type not in allowed:
            supported = ", ".join(f"'{name}'" for name in sorted(allowed))
            raise RequestError(
                "invalid_value",
                f"Invalid value: '{part.type}'. Supported values are: {supported}.",
                param=f"{at}.type",
            )
        needed = {"input_audio": "audio", "input_image": "image_url"}.get(part.type, "text")
        if getattr(part, needed) is None:
            raise RequestError(
                "missing_required_parameter",
                f"Missing required parameter: '{at}.{needed}'.",
                param=f"{at}.{needed}",
            )


def _given(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if value is not None}
