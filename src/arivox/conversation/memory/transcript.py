"""The turns of a call, made from what the AI says was said and from what the caller heard of it. Pure.

The text of an answer may come long before the caller has heard it, or after. A turn of the agent is complete
once its sound has been heard to the end, or was cut; a turn of the caller as soon as its text is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from arivox.conversation.memory.record import Turn, iso
from arivox.providers.base import Utterance


@dataclass
class _Spoken:
    """An item of the agent: its text and its sound, whichever came first."""

    at: float
    state: str
    text: str | None = None
    begun: bool = False
    over: bool = False
    share: float = 1.0  # that was heard


class Transcript:
    """The turns of one call. ``now`` is in seconds since 1970, ``on_turn`` is given each turn once.

    ``remembered`` is how many of the latest can be asked for again.
    """

    def __init__(
        self, call: str, on_turn: Callable[[Turn], None], provider: str = "", remembered: int = 0
    ) -> None:
        self._provider = provider
        self._call = call
        self._on_turn = on_turn
        self._spoken: dict[str, _Spoken] = {}
        self._caller: tuple[float, str] | None = None  # since when they speak, and in which state
        self._told: deque[Utterance] = deque(maxlen=remembered)

    def goes_on_from(self, earlier: Iterable[Utterance]) -> None:
        """Hear what was said in the call that this one goes on."""
        self._told.extend(earlier)

    def said(self) -> tuple[Utterance, ...]:
        """Return the latest of what was said, what the caller hears now and what waits for them included."""
        unfinished = (
            Utterance("agent", spoken.text.strip()) for spoken in self._spoken.values() if spoken.text
        )
        return (*self._told, *unfinished)

    def caller_speaks(self, state: str, now: float) -> None:
        """Hear that the caller began to say something."""
        if self._caller is None:
            self._caller = (now, state)

    def caller_said(self, text: str, state: str, now: float) -> None:
        """Hear the caller's words."""
        at, said_in = self._caller or (now, state)
        self._caller = None
        if text.strip():
            self._tell("user", text, said_in, at)

    def agent_speaks(self, item: str, state: str, now: float) -> None:
        """Hear that the caller begins to hear an item: those before it are heard to their end."""
        self.agent_quiet()
        spoken = self._spoken.setdefault(item, _Spoken(now, state))
        spoken.at, spoken.state, spoken.begun = now, state, True

    def agent_said(self, item: str, text: str, state: str, now: float) -> None:
        """Hear the words of an item."""
        spoken = self._spoken.setdefault(item, _Spoken(now, state))
        spoken.text = f"{spoken.text} {text}" if spoken.text else text
        self._tell_if_over(item, spoken)

    def agent_quiet(self) -> None:
        """Hear that the caller has heard every item that was begun to its end."""
        for item in self.being_heard:
            spoken = self._spoken[item]
            spoken.over = True
            self._tell_if_over(item, spoken)

    @property
    def being_heard(self) -> tuple[str, ...]:
        """Return the items that were begun and are not over."""
        return tuple(item for item, spoken in self._spoken.items() if spoken.begun and not spoken.over)

    def cut(self, item: str, heard_ms: float, received_ms: float) -> None:
        """Hear how much of an item the caller heard before they interrupted."""
        spoken = self._spoken.get(item)
        if spoken is not None:
            spoken.over = True
            spoken.share = min(heard_ms / received_ms, 1.0) if received_ms else 0.0
            self._tell_if_over(item, spoken)

    # --- inside ---

    def _tell_if_over(self, item: str, spoken: _Spoken) -> None:
        if not spoken.over or spoken.text is None:
            return
        del self._spoken[item]
        text = heard(spoken.text, spoken.share)
        if text:
            self._tell("ai", text, spoken.state, spoken.at, cut=spoken.share < 1)

    def _tell(
        self, speaker: Literal["user", "ai"], text: str, state: str, at: float, *, cut: bool = False
    ) -> None:
        self._told.append(Utterance("caller" if speaker == "user" else "agent", text.strip()))
        self._on_turn(Turn(iso(at), speaker, text.strip(), state, self._call, self._provider, cut))


def heard(text: str, share: float) -> str:
    """Return the words of ``text`` that were begun within the first ``share`` (0 to 1) of its sound.

    Speech is taken to be even: no provider says when each word is spoken.
    """
    text = text.strip()
    if share >= 1:
        return text
    end = round(len(text) * max(share, 0.0))
    if end == 0:
        return ""
    following = text.find(" ", end)
    return text if following < 0 else text[:following]
