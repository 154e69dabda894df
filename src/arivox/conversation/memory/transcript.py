"""The turns of a call, made from what the AI says was said and from what the caller heard of it. Pure.

The text of an answer may come long before the caller has heard it, or after. A turn of the agent is complete
once its sound has been heard to the end, or was cut; a turn of the caller as soon as its text is there, and
that of the turns before it: texts come in any order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from arivox.conversation.memory.record import Turn, iso
from arivox.providers.base import Utterance

_MOST_WAITING: Final = 32
_LONGEST_WAIT_S: Final = 10.0  # for the words of an earlier turn


@dataclass
class _Spoken:
    """An item of the agent: its text and its sound, whichever came first."""

    at: float
    state: str
    text: str | None = None
    begun: bool = False
    over: bool = False
    share: float = 1.0  # that was heard


@dataclass
class _Said:
    """A turn of the caller: when it began, in which state, and its words once they are there."""

    at: float
    state: str
    text: str | None = None


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
        self._caller: dict[str, _Said] = {}  # turns without words, or after one without, the oldest first
        self._wait_s = _LONGEST_WAIT_S
        self._told: deque[Utterance] = deque(maxlen=remembered)

    def goes_on_from(self, earlier: Iterable[Utterance]) -> None:
        """Hear what was said in the call that this one goes on."""
        self._told.extend(earlier)

    def said(self) -> tuple[Utterance, ...]:
        """Return the latest of what was said, what the caller hears now and what waits for them included."""
        unfinished = (
            Utterance("agent", spoken.text.strip()) for spoken in self._spoken.values() if spoken.text
        )
        waiting = (Utterance("caller", turn.text.strip()) for turn in self._caller.values() if turn.text)
        return (*self._told, *waiting, *unfinished)

    def caller_speaks(self, state: str, now: float, item: str = "") -> None:
        """Hear that the caller began to say something; ``item`` is the turn's name, if it has one."""
        self._caller.setdefault(item, _Said(now, state))
        while len(self._caller) > _MOST_WAITING:
            del self._caller[next(iter(self._caller))]

    def caller_said(self, text: str, state: str, now: float, item: str = "") -> None:
        """Hear the caller's words, of the turn ``item``."""
        name = item if item in self._caller else ""
        turn = self._caller.setdefault(name, _Said(now, state))
        turn.text = text
        if not name:
            self._caller = {"": turn, **{key: other for key, other in self._caller.items() if key}}
        self._tell_caller(now - self._wait_s)

    def wait_no_longer(self) -> None:
        """Hear that the call ends: a text that is not there yet may come, but holds no other up."""
        self._wait_s = float("-inf")
        self._tell_caller(float("inf"))

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

    def _tell_caller(self, waited_since: float) -> None:
        """Tell the turns whose words are there, in the order in which they were said."""
        held_up = False
        for item, turn in list(self._caller.items()):
            if turn.text is None:
                held_up = held_up or turn.at > waited_since
            elif not held_up:
                del self._caller[item]
                if turn.text.strip():
                    self._tell("user", turn.text, turn.state, turn.at)

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
