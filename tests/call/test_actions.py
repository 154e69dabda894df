"""Transfers and holds at the moments when something goes wrong: the caller is never left alone."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
import structlog

from arivox.asterisk.messages import CallerId, Channel
from arivox.call.actions import Actions, Continued
from arivox.call.caller import Caller
from arivox.call.ending import EndReason
from arivox.call.timeline import Timeline
from arivox.errors import AsteriskError, ChannelGoneError
from arivox.settings.destination import Destination
from arivox.settings.settings import Settings
from arivox.tools import ToolError


class Legs:
    """Legs that do what they are asked, unless they are to fail at a verb."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fails: dict[str, Exception] = {}
        self.answer = "answered"
        self.out_gone = False
        self.gone_after = ""
        self.wait: asyncio.Event | None = None

    async def _do(self, verb: str) -> None:
        self.done.append(verb)
        if verb in self.fails:
            raise self.fails[verb]
        self.out_gone = self.out_gone or verb == self.gone_after

    async def hold(self, sound: str, music: str) -> None:
        await self._do(f"hold {sound}")
        if self.wait is not None:
            await self.wait.wait()

    async def dial(self, destination: Destination, number: str, caller_id: str, ring_s: float) -> str:
        await self._do(f"dial {destination.dial_string(number)} as {caller_id}")
        return self.answer

    async def whisper(self) -> None:
        await self._do("whisper")

    async def connect(self) -> None:
        await self._do("connect")

    async def take_back(self) -> None:
        await self._do("take back")


class Voice:
    """An agent that has always finished."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.away: list[bool] = []

    async def spoken(self, longest_s: float) -> None:
        await asyncio.sleep(0)

    def tell(self, instructions: str) -> None:
        self.told.append(instructions)

    def caller_away(self, away: bool) -> None:
        self.away.append(away)

    def hang_up_after_speech(self) -> None:
        self.told.append("good-bye")


class Ari:
    def __init__(self) -> None:
        self.fails = False
        self.wait: asyncio.Event | None = None

    async def set_variable(self, *_: str) -> None: ...

    async def continue_in_dialplan(self, *_: str) -> None:
        if self.wait is not None:
            await self.wait.wait()
        if self.fails:
            raise AsteriskError("no")


class Desk:
    """The actions of one call, on stand-ins."""

    def __init__(self) -> None:
        self.legs, self.voice, self.ari = Legs(), Voice(), Ari()
        self.ended: list[EndReason] = []
        self.gone: list[bool] = []
        self.timeline = Timeline("c1")
        settings = Settings(transfer_to="peer=PJSIP/peer, queue=goto:1@queues")
        caller = Caller(Channel("ch", caller=CallerId("", "555")))
        self.actions = Actions(
            settings,
            cast(Any, self.ari),
            caller,
            cast(Any, self.legs),
            self.timeline,
            self.ended.append,
            self.gone.append,
            lambda notes: None,
        )
        self.actions.voice = self.voice

    async def transfer(self, **arguments: str) -> Any:
        return await self.actions.run("transfer_call", {"destination": "peer", **arguments})


async def test_blind_transfer_connects_and_lets_go() -> None:
    desk = Desk()
    await desk.transfer()
    assert desk.legs.done == ["hold ringing", "dial PJSIP/peer as 555", "connect"]
    assert (desk.gone, desk.ended) == ([True], [EndReason.TRANSFERRED])


async def test_colleague_who_hangs_up_at_the_moment_of_connecting_gives_the_caller_back() -> None:
    desk = Desk()
    desk.legs.gone_after = "connect"
    with pytest.raises(ToolError, match="they hung up before they were connected"):
        await desk.transfer()
    assert desk.legs.done[-1] == "take back"
    assert (desk.gone, desk.ended, desk.voice.away) == ([], [], [True, False])


@pytest.mark.parametrize("gone_after", ["whisper", "connect"])
async def test_the_same_after_the_whisper_is_told(gone_after: str) -> None:
    desk = Desk()
    desk.legs.gone_after = gone_after
    continued = await desk.transfer(summary="A toothache.")
    assert isinstance(continued, Continued)
    assert desk.actions.deaf
    await continued.then()
    (told,) = desk.voice.told
    assert told.startswith("It failed: they hung up before they were connected. The caller is back with you")
    assert (desk.legs.done[-1], desk.ended, desk.actions.deaf) == ("take back", [], False)
    desk.legs.out_gone, desk.legs.gone_after = False, ""
    await desk.transfer()
    assert desk.ended == [EndReason.TRANSFERRED], "it can be tried again"


@pytest.mark.parametrize(
    ("verb", "error", "problem"),
    [
        ("hold ringing", AsteriskError("no"), "the telephone system refused it"),
        ("connect", AsteriskError("no"), "the telephone system refused it"),
        ("connect", ChannelGoneError("gone"), "they hung up before they were connected"),
        ("hold ringing", ChannelGoneError("gone"), "the caller has hung up"),
    ],
)
async def test_failure_at_any_verb_brings_the_caller_back(verb: str, error: Exception, problem: str) -> None:
    desk = Desk()
    desk.legs.fails[verb] = error
    with structlog.testing.capture_logs(), pytest.raises(ToolError, match=problem):
        await desk.transfer()
    assert (desk.legs.done[-1], desk.voice.away, desk.gone) == ("take back", [True, False], [])


async def test_caller_who_cannot_be_brought_back_goes_on_in_the_dialplan() -> None:
    desk = Desk()
    desk.legs.answer = "busy"
    desk.legs.fails["take back"] = AsteriskError("no")
    with structlog.testing.capture_logs() as log, pytest.raises(ToolError, match="the line is busy"):
        await desk.transfer()
    assert desk.ended == [EndReason.ASTERISK_FAILED]
    assert log[-1]["event"] == "could not bring the caller back from hold"


async def test_dialplan_that_does_not_take_the_caller_leaves_them_with_the_agent() -> None:
    desk = Desk()
    desk.ari.fails = True
    with structlog.testing.capture_logs(), pytest.raises(ToolError):
        await desk.transfer(destination="queue")
    assert (desk.gone, desk.ended) == ([True, False], [])


async def test_way_into_the_dialplan_that_is_broken_off_leaves_the_caller_ours() -> None:
    """Whatever ends the call next must still see to them."""
    desk = Desk()
    desk.ari.wait = asyncio.Event()
    working = asyncio.ensure_future(desk.transfer(destination="queue"))
    while not desk.gone:
        await asyncio.sleep(0)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert (desk.gone, desk.ended) == ([True, False], [])


async def test_one_transfer_or_hold_at_a_time() -> None:
    desk = Desk()
    desk.legs.wait = asyncio.Event()
    first = asyncio.ensure_future(desk.transfer())
    await asyncio.sleep(0)
    for name, arguments in (("transfer_call", {"destination": "peer"}), ("hold_call", {"seconds": "1"})):
        with pytest.raises(ToolError, match="on hold, or being connected"):
            await desk.actions.run(name, arguments)
    desk.legs.wait.set()
    await first
    assert desk.legs.done.count("connect") == 1


@pytest.mark.parametrize("summary", [{}, {"summary": "A toothache."}])
async def test_transfer_that_is_broken_off_brings_the_caller_back(summary: dict[str, str]) -> None:
    desk = Desk()
    desk.legs.wait = asyncio.Event()
    working = asyncio.ensure_future(desk.transfer(**summary))
    while not desk.legs.done:
        await asyncio.sleep(0)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert desk.legs.done[-1] == "take back"
    assert desk.voice.away == [True, False]
