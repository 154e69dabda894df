"""What was said in a session, and what the model is told: the part that a handle brings back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import msgspec

from arivox.audio.format import AudioFormat
from arivox.emulator.gemini.messages import Tool

_TEXT_BYTES_PER_TOKEN: Final = 4
_AUDIO_TOKENS_PER_S: Final = 25
_STATE = re.compile(r"^[ \t]*Current state:[ \t]*\S", re.MULTILINE)


@dataclass(slots=True, eq=False)
class Entry:
    """One content of the history: a turn of either side, or the result of a call."""

    id: str
    role: Literal["user", "model", "tool"]
    text: str = ""
    audio: bytearray = field(default_factory=bytearray)
    """What the caller said; the model's own speech is counted only."""
    audio_format: AudioFormat | None = None
    """None for what was typed."""
    spoken_ms: float = 0.0

    @property
    def audio_tokens(self) -> int:
        """Return the tokens of its audio."""
        return round(self.spoken_ms / 1000 * _AUDIO_TOKENS_PER_S)

    @property
    def text_tokens(self) -> int:
        """Return the tokens of its text; a transcript has none."""
        return 0 if self.spoken_ms else text_tokens(self.text)


@dataclass(slots=True)
class Conversation:
    """The history, the instruction and the tools."""

    entries: list[Entry] = field(default_factory=list)
    system: str = ""
    tools: tuple[Tool, ...] = ()
    told: str | None = None
    """The newest text that tells a state."""
    calls: frozenset[str] = frozenset()
    """Ids of all calls ever made."""

    @property
    def instructions(self) -> str:
        """Return what the model goes by: the newest text that tells a state, else the instruction."""
        return self.system if self.told is None else self.told

    @property
    def last_turn(self) -> Entry | None:
        """Return the caller's turn, if it was spoken and stands last."""
        last = self.entries[-1] if self.entries else None
        return last if last is not None and last.role == "user" and last.audio_format is not None else None

    @property
    def last_output(self) -> str:
        """Return the result of a function, if it stands last; else nothing."""
        last = self.entries[-1] if self.entries else None
        return last.text if last is not None and last.role == "tool" else ""

    def instruct(self, text: str) -> None:
        """Replace the instruction."""
        if self.told == self.system:
            self.told = None
        self.system = text
        self.note(text)

    def note(self, text: str) -> None:
        """Remember ``text`` if it tells a state."""
        if _STATE.search(text):
            self.told = text

    def take_result(self, entry_id: str, result: dict[str, Any]) -> None:
        """Add the result of a call, and remember what it tells about the state."""
        self.entries.append(Entry(entry_id, "tool", msgspec.json.encode(result).decode()))
        for text in _texts(result):
            self.note(text)

    def copy(self) -> Conversation:
        """Return it as it is now."""
        return replace(self, entries=list(self.entries))


def text_tokens(text: str) -> int:
    """Return roughly how many tokens ``text`` is."""
    return -(-len(text.encode()) // _TEXT_BYTES_PER_TOKEN)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
