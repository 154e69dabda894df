"""The deadlines of a call that concern the caller: its length, and their silence. Pure.

What the AI owes is another matter: see ``owed``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from arivox.settings.settings import Settings

_NEVER: Final = float("inf")


class Alarm(Enum):
    """What a deadline asks for."""

    SAY_GOODBYE = auto()
    TIME_LIMIT = auto()
    CALLER_SILENT = auto()
    ASK_CALLER = auto()
    CALLER_IDLE = auto()


@dataclass(slots=True)
class Limits:
    """Seconds; 0 switches ``goodbye_before`` and ``idle`` off."""

    length: float
    goodbye_before: float
    idle: float

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Return the limits of the settings."""
        return cls(settings.max_call_duration_s, settings.goodbye_before_s, settings.idle_caller_s)


class Watchdog:
    """Told what happens, and asked now and then what is due. All times in seconds on one clock."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._end = now + limits.length
        self._goodbye = self._end - limits.goodbye_before if limits.goodbye_before else _NEVER
        self._quiet_since = now
        self._asked = False
        self._busy = False
        self._silence = 0.0
        self._away = False
        self._tools = False

    def silence(self, after: float) -> None:
        """Say how long a caller may be silent in the present state; 0: as long as in any other."""
        self._silence = after

    def caller_away(self, away: bool, now: float) -> None:
        """Hear that the caller cannot speak with the AI for a while, or can again: nobody is waited for."""
        self._away = away
        self._quiet_since = now

    def tools_at_work(self, running: bool, now: float) -> None:
        """Hear that the AI waits for a tool, or no longer: neither it nor the caller is waited for."""
        if self._tools and not running:
            self._quiet_since = now
        self._tools = running

    def key_pressed(self, now: float) -> None:
        """Hear that the caller pressed a key: they are there."""
        self._asked = False
        self._quiet_since = now

    def agent_audio(self, now: float) -> None:
        """Hear that the agent's sound arrived."""
        self._busy = True
        self._quiet_since = now

    def agent_quiet(self, now: float) -> None:
        """Hear that the agent's queue ran empty: from now on it is the caller's turn."""
        self._busy = False
        self._quiet_since = now

    def caller_spoke(self, now: float) -> None:
        """Hear that the caller began to speak."""
        self._busy = True
        self._asked = False
        self._quiet_since = now

    def caller_stopped(self, now: float) -> None:
        """Hear that the caller's turn ended."""
        self._busy = False
        self._quiet_since = now

    def caller_active(self, now: float) -> None:
        """Hear of a sign that the caller has said something."""
        self._asked = False
        self._quiet_since = now

    def check(self, now: float, *, owed: bool) -> Alarm | None:
        """Return the most urgent alarm that is due. Each is raised once, ``ASK_CALLER`` once a silence.

        While something is ``owed`` to the caller, nobody waits for them. Where the state has a say in
        silence, each such while of it is told, and nothing else of it.
        """
        if now >= self._end:
            self._end = _NEVER
            return Alarm.TIME_LIMIT
        if self._away:
            return None
        if now >= self._goodbye:
            self._goodbye = _NEVER
            return Alarm.SAY_GOODBYE
        if owed:
            self._quiet_since = max(self._quiet_since, now)
        waiting = self._busy or self._tools or owed
        if self._silence and not waiting:
            if now < self._quiet_since + self._silence:
                return None
            self._quiet_since = now
            return Alarm.CALLER_SILENT
        if self._limits.idle and not waiting and now >= self._quiet_since + self._limits.idle:
            self._quiet_since = now
            if self._asked:
                return Alarm.CALLER_IDLE
            self._asked = True
            return Alarm.ASK_CALLER
        return None
