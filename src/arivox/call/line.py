"""The caller's end of the line: on hold by their telephone, handed over to somebody else, and back.

While nobody is there to hear the agent it is silent, and nobody is waited for. The AI is told who comes back,
or comes in the caller's place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import structlog

from arivox.asterisk.messages import CallerId, Channel
from arivox.call.caller import Caller
from arivox.call.timeline import Timeline
from arivox.errors import ArivoxError

log = structlog.get_logger()

_BACK_AFTER_S: Final = 0.3  # a transfer begins with the end of a hold: nobody is back then
_KNOWN_AFTER_S: Final = 0.2  # Asterisk learns who it is in the moments after they have answered

_BACK: Final = (
    "The caller had put you on hold and is back. They did not hear what you said meanwhile. "
    "Go on where you were interrupted."
)
_SUCCESSOR: Final = (
    "Somebody else is on the line now: {who}. The person who spoke with you before has transferred the call "
    "to them and is gone. They have heard nothing of this conversation."
)
_GREET: Final = "{successor} Tell them in one sentence who you are and what this call is about, and go on."


class Voice(Protocol):
    """The AI's voice, as the line needs it."""

    def hush(self) -> None:
        """Hear that nobody is there to hear the agent, until ``go_on``."""

    def go_on(self, instructions: str, known: str = "") -> None:
        """Hear that somebody is there again, and have the agent say something."""


class Line:
    """The caller's end of one call's line.

    ``ask_who`` asks Asterisk who is there; it may raise ArivoxError.
    """

    def __init__(
        self, caller: Caller, timeline: Timeline, ask_who: Callable[[], Awaitable[CallerId]]
    ) -> None:
        self._caller = caller
        self._timeline = timeline
        self._ask_who = ask_who
        self._log = log.bind(call=timeline.call_id)  # Asterisk's events come outside the call's context
        self._voice: Voice | None = None
        self._held = False
        self._back: asyncio.TimerHandle | None = None
        self._hushed = False
        self._successor: asyncio.Task[None] | None = None  # comes, and is not known yet
        self._answered = asyncio.Event()
        self._news = ""  # who is there now, which the AI was not told yet

    @property
    def absent(self) -> bool:
        """Return whether nobody is there."""
        return self._held or self._successor is not None

    def opened(self, voice: Voice) -> None:
        """Hear that the AI is there: what it missed is told now."""
        self._voice = voice
        self._settle()

    def hold(self) -> None:
        """Hear that the caller's telephone put us on hold."""
        self._stop_timer()
        if not self._held:
            self._held = True
            self._timeline.add("caller.hold")
            self._log.info("the caller put us on hold")
            self._settle()

    def unhold(self) -> None:
        """Hear that they took us back; told before a transfer, too, without a hold."""
        if self._held and self._back is None:
            self._back = asyncio.get_running_loop().call_later(_BACK_AFTER_S, self._come_back)

    def succeeded_by(self, channel: Channel) -> None:
        """Hear that the caller's telephone has put another channel in its place, which may ring still."""
        self.close()
        self._caller.succeeded_by(channel)
        self._held = False  # it was the other telephone that did
        self._answered.clear()
        self._timeline.add("caller.transferred", exten=channel.dialplan.exten, channel=channel.id)
        self._log.info("the caller's telephone has transferred the call", channel=channel.id)
        self._successor = asyncio.get_running_loop().create_task(self._meet(), name=f"meet {channel.id}")
        self._settle()
        self.state(channel)

    def state(self, channel: Channel) -> None:
        """Hear of the state of the caller's channel."""
        if channel.state == "Up":
            self._answered.set()

    def close(self) -> None:
        """Wait for nobody any more."""
        if self._successor is not None:
            self._successor.cancel()
            self._successor = None
        self._stop_timer()

    def _come_back(self) -> None:
        self._back = None
        self._held = False
        self._timeline.add("caller.unhold")
        self._log.info("the caller is back from hold")
        self._settle()

    def _stop_timer(self) -> None:
        if self._back is not None:
            self._back.cancel()
            self._back = None

    async def _meet(self) -> None:
        """Wait for the successor, and find out who it is."""
        await self._answered.wait()
        await asyncio.sleep(_KNOWN_AFTER_S)
        channel = self._caller.channel
        try:
            party = await self._ask_who()
        except ArivoxError as error:
            self._log.warning("it is not known who is on the line now", error=str(error))
            party = channel.caller
        self._caller.party = party
        self._timeline.add("caller.succeeded", caller=party.number, name=party.name)
        self._news = _SUCCESSOR.format(who=_named(party, channel.dialplan.exten))
        self._successor = None
        self._settle()

    def _settle(self) -> None:
        """Tell the AI's voice what has changed for it."""
        voice, absent = self._voice, self.absent
        if voice is None:
            return
        if absent and not self._hushed:
            self._hushed = True
            voice.hush()
        elif not absent and (self._hushed or self._news):
            self._hushed = False
            news, self._news = self._news, ""
            voice.go_on(_GREET.format(successor=news) if news else _BACK, news)


def _named(party: CallerId, exten: str) -> str:
    known = [party.name, f"telephone number {party.number}" if party.number else ""]
    told = ", ".join(filter(None, known))
    # What a transfer of two calls goes through has an extension of Asterisk's own making.
    return told or (f"whoever answers at extension {exten}" if exten and exten[0] != "_" else "name unknown")
