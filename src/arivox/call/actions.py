"""What the AI's tools do to one call: transfer, hold, keys both ways, notes.

Each verb is a tool of ``conversation.tools.builtin``: it returns what the AI is told, or raises ToolError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

import structlog

from arivox.asterisk.client import AriClient
from arivox.call.caller import Caller
from arivox.call.ending import STATUS_VARIABLE, EndReason
from arivox.call.legs import Answer, Legs
from arivox.call.timeline import Timeline
from arivox.conversation.conversation import Conversation
from arivox.conversation.flow import Keyed
from arivox.conversation.tools import names
from arivox.conversation.tools.builtin import LONGEST_HOLD_S
from arivox.errors import AsteriskError, ChannelGoneError
from arivox.settings.destination import Destination
from arivox.settings.settings import Settings
from arivox.tools import ToolError

log = structlog.get_logger()

SUMMARY_VARIABLE: Final = "ARIVOX_SUMMARY"

_DIGITS_S: Final = 30.0
_LAST_WORDS_S: Final = 20.0

_WHISPER: Final = (
    "The caller is on hold and cannot hear you. A colleague has just answered: you speak to them alone, and "
    "they will be connected with the caller as soon as you have finished. Tell them in one or two sentences "
    'what they must know, then stop. Say: "A caller for you. {summary} I am connecting you now."'
)
_GONE: Final = "they hung up before they were connected"
_PROBLEMS: Final[Mapping[Answer, str]] = {
    "busy": "the line is busy",
    "no_answer": "nobody answers",
    "failed": "the line cannot be reached",
    "stopping": "a restart of the telephone exchange is pending: no transfer is possible now",
}


class Voice(Protocol):
    """The AI's voice, as the actions need it."""

    async def spoken(self, longest_s: float) -> None:
        """Return once the agent has finished what it is saying, and the caller has heard it."""

    def tell(self, instructions: str) -> None:
        """Have the agent say something, once it has finished what it is saying."""

    def caller_away(self, away: bool) -> None:
        """Stop or begin waiting for the caller to speak."""

    def hang_up_after_speech(self) -> None:
        """End the call once the agent has finished speaking."""


@dataclass(frozen=True, slots=True)
class Continued:
    """An action that goes on once the agent has said something."""

    say: str
    then: Callable[[], Awaitable[None]]


@dataclass
class Notes:
    """What is noted for the people who run the line."""

    notes: list[str]
    call_back: str = ""


class Actions:
    """The actions of one call."""

    def __init__(
        self,
        settings: Settings,
        ari: AriClient,
        caller: Caller,
        legs: Legs,
        timeline: Timeline,
        end: Callable[[EndReason], None],
        let_go: Callable[[bool], None],
        noted: Callable[[Notes], None],
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """``let_go`` is told that the caller is no longer ours, or is again; ``noted`` after each note."""
        self.voice: Voice
        self.conversation: Conversation
        self.deaf = False
        """The AI must not hear the line now."""
        self.notes = Notes([])
        self._settings = settings
        self._destinations = settings.destinations
        self._ari = ari
        self._caller = caller
        self._legs = legs
        self._timeline = timeline
        self._end = end
        self._let_go = let_go
        self._noted = noted
        self._now = now
        self._digits: asyncio.Future[Keyed] | None = None
        self._away = False  # the caller is on hold, or being transferred

    async def run(self, name: str, arguments: Mapping[str, str]) -> Any:
        """Run one of our tools. Raises ToolError. A ``Continued`` is to be told, and gone on with."""
        if name not in (names.TRANSFER, names.HOLD):
            return await self._act(name, arguments)
        if self._away:
            raise ToolError("the caller is on hold, or being connected")
        self._away = True
        self.voice.caller_away(True)
        done: Any = None
        try:
            done = await self._act(name, arguments)
        finally:
            if not isinstance(done, Continued):
                self._come_back()
        return done

    def _come_back(self) -> None:
        self._away = False
        self.voice.caller_away(False)

    async def _act(self, name: str, arguments: Mapping[str, str]) -> Any:
        try:
            return await _ACTIONS[name](self, arguments)
        except ChannelGoneError as error:
            raise ToolError("the caller has hung up") from error
        except AsteriskError as error:
            log.warning("Asterisk refused what a tool asked for", tool=name, error=str(error))
            raise ToolError("the telephone system refused it") from error

    def keyed(self, keyed: Keyed) -> None:
        """Hear the digits that a tool waits for."""
        if self._digits is not None and not self._digits.done():
            self._digits.set_result(keyed)

    # --- the tools ---

    async def _end_call(self, arguments: Mapping[str, str]) -> None:
        self.voice.hang_up_after_speech()

    async def _transfer(self, arguments: Mapping[str, str]) -> Any:
        destination = self._destinations.get(arguments["destination"])
        if destination is None:
            there = ", ".join(self._destinations) or "none: TRANSFER_TO is not set"
            raise ToolError(f"there is no destination {arguments['destination']!r}; there are: {there}")
        try:
            number = destination.number(arguments.get("number", ""))
        except ValueError as error:
            raise ToolError(str(error)) from None
        summary = arguments.get("summary", "")
        await self.voice.spoken(_LAST_WORDS_S)
        self._timeline.add("transfer", to=destination.name, number=number, whisper=bool(summary))
        log.info("transferring", to=destination.name)
        if destination.goto:
            await self._leave(destination, number, summary)
            return {"ok": "the caller has left"}
        try:
            await self._dial(destination, number, summary)
            if not summary:
                await self._connect(destination)
                return {"ok": "they are connected"}
            self.deaf = True  # what the colleague says meanwhile must not break the summary off
            await self._legs.whisper()
        except BaseException:
            await asyncio.shield(self._take_back())
            raise
        return Continued(_WHISPER.format(summary=summary), lambda: self._connect_after(destination))

    async def _connect_after(self, destination: Destination) -> None:
        """Connect once the summary was heard."""
        try:
            await self.voice.spoken(_LAST_WORDS_S)
            if not self._legs.out_gone:
                await self._connect(destination)
                return
            problem = _GONE
        except ToolError as error:
            problem = str(error)
        except AsteriskError as error:
            log.warning("could not connect", to=destination.name, error=str(error))
            problem = "the telephone system failed"
        except BaseException:
            await asyncio.shield(self._take_back())
            self._come_back()
            raise
        self._timeline.add("transfer.failed", to=destination.name, problem=problem)
        await self._take_back()
        self._come_back()
        self.voice.tell(f"It failed: {problem}. The caller is back with you: tell them, and go on.")

    async def _leave(self, destination: Destination, number: str, summary: str) -> None:
        await self._ari.set_variable(self._caller.id, STATUS_VARIABLE, EndReason.TRANSFERRED.value)
        await self._ari.set_variable(self._caller.id, SUMMARY_VARIABLE, summary)
        self._let_go(True)
        try:
            await self._ari.continue_in_dialplan(self._caller.id, destination.context, number)
        except BaseException:
            self._let_go(False)  # broken off, too: somebody must still see to them
            raise
        self._end(EndReason.TRANSFERRED)

    async def _dial(self, destination: Destination, number: str, summary: str) -> None:
        # Who is connected at once hears it ring; who must wait for a talk hears music.
        await self._legs.hold("music" if summary else "ringing", self._settings.hold_music)
        caller_id = self._settings.transfer_caller_id or self._caller.number
        answer = await self._legs.dial(destination, number, caller_id, self._settings.transfer_ring_s)
        self._timeline.add("transfer.answer", to=destination.name, answer=answer)
        if answer != "answered":
            raise ToolError(f"{_PROBLEMS[answer]}; the caller is back with you")

    async def _connect(self, destination: Destination) -> None:
        try:
            await self._legs.connect()
        except ChannelGoneError as error:
            raise ToolError(_GONE) from error
        # From here on who hangs up is the switchboard's to notice; who has by now, nobody would.
        if self._legs.out_gone:
            raise ToolError(_GONE)
        self._let_go(True)
        self._timeline.add("transfer.connected", to=destination.name)
        self._end(EndReason.TRANSFERRED)

    async def _take_back(self) -> None:
        """Whatever went wrong, the caller is not left alone with the music."""
        try:
            await self._legs.take_back()
        except ChannelGoneError:
            pass  # they have hung up
        except AsteriskError as error:
            log.error("could not bring the caller back from hold", error=str(error))
            self._end(EndReason.ASTERISK_FAILED)  # they hear nobody: the dialplan shall go on
        self.deaf = False

    async def _hold(self, arguments: Mapping[str, str]) -> dict[str, str]:
        seconds = min(max(int(arguments["seconds"]), 1), LONGEST_HOLD_S)
        await self.voice.spoken(_LAST_WORDS_S)
        self._timeline.add("hold", seconds=seconds)
        try:
            await self._legs.hold("music", self._settings.hold_music)
            await asyncio.sleep(seconds)
        finally:
            await asyncio.shield(self._take_back())
            self._timeline.add("unhold")
        return {"ok": "the caller is back"}

    async def _send_dtmf(self, arguments: Mapping[str, str]) -> None:
        await self._legs.send_dtmf(arguments["digits"])

    async def _collect(self, arguments: Mapping[str, str]) -> dict[str, str]:
        secret = arguments.get("secret") == "yes"
        length = min(max(int(arguments.get("length", "0")), 0), 32)
        field = self.conversation.digits(arguments["name"], length, secret=secret)
        self._digits = asyncio.get_running_loop().create_future()
        self.conversation.want(field)
        try:
            async with asyncio.timeout(_DIGITS_S):
                keyed = await self._digits
        except TimeoutError:
            raise ToolError(f"the caller has keyed in nothing within {_DIGITS_S:g} s") from None
        finally:
            self._digits = None
            self.conversation.want(None)
        if field.secret:
            return {"ok": f"{keyed.name} was keyed in; nobody may read it"}
        return {keyed.name: keyed.shown}

    async def _note(self, arguments: Mapping[str, str]) -> None:
        self.notes.notes.append(arguments["text"])
        self._noted(self.notes)

    async def _call_back(self, arguments: Mapping[str, str]) -> dict[str, str]:
        try:
            when = datetime.fromisoformat(arguments["when"]).replace(tzinfo=None)
        except ValueError:
            raise ToolError("when must be a date and time as YYYY-MM-DD HH:MM") from None
        if when <= self._now():
            raise ToolError(f"{arguments['when']} is over; now it is {self._now():%Y-%m-%d %H:%M}")
        number = arguments.get("number", self._caller.number)
        if not number:
            raise ToolError("the caller's number is withheld: ask for the number to call")
        about = f", about {arguments['about']}" if "about" in arguments else ""
        self.notes.call_back = f"{when:%Y-%m-%d %H:%M} {number}{about}"
        self._noted(self.notes)
        return {"ok": "noted"}


_ACTIONS: Final[dict[str, Callable[[Actions, Mapping[str, str]], Any]]] = {
    names.END: Actions._end_call,
    names.TRANSFER: Actions._transfer,
    names.HOLD: Actions._hold,
    names.SEND_DTMF: Actions._send_dtmf,
    names.COLLECT: Actions._collect,
    names.NOTE: Actions._note,
    names.CALL_BACK: Actions._call_back,
}
