"""What the service was told and may still refuse, by the ids of our events. Pure.

The service says nothing of most events that it takes. A refusal names the event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_KEPT: Final = 64


@dataclass(frozen=True, slots=True)
class Told:
    """Instructions; with ``asks`` the agent is to carry them out now."""

    text: str
    asks: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a tool."""

    output: str
    answer: bool
    """The agent is to speak of it."""


@dataclass(frozen=True, slots=True)
class WentOn:
    """The backend model was told to go on."""


Command = Told | Result | WentOn


class Commands:
    """The latest commands of one session."""

    def __init__(self) -> None:
        self._count = 0
        self._sent: dict[str, Command] = {}

    def sent(self, command: Command) -> str:
        """Take note of a command. Return the id of its event."""
        self._count += 1
        event_id = f"command-{self._count}"
        self._sent[event_id] = command
        if len(self._sent) > _KEPT:
            del self._sent[next(iter(self._sent))]
        return event_id

    def refused(self, event_id: str) -> Command | None:
        """Return what an event that is refused was; None when it is none of these."""
        return self._sent.pop(event_id, None)
