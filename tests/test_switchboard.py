"""Callers who enter and leave while the switchboard asks Asterisk who is there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import repeat
from typing import Any

import pytest
import structlog

from arivox import switchboard as module
from arivox.asterisk import persist
from arivox.asterisk.messages import Application, Channel, Dialplan, StasisEnd, StasisStart
from arivox.ending import EndReason
from arivox.errors import AsteriskError
from arivox.switchboard import Switchboard

CALLER = Channel("1.1", dialplan=Dialplan(app_name="Stasis", app_data="arivox,provider=gemini"))
LEAVES = StasisEnd(timestamp="", channel=CALLER)
ENTERS = StasisStart(timestamp="", args=["provider=gemini"], channel=CALLER)


class FakeAri:
    """Lists the caller once it is let; notes who is sent on."""

    url, app = "http://asterisk", "arivox"

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.sent_on: list[str] = []
        self.away = 0  # so many requests fail

    async def application(self) -> Application:
        await self.let.wait()
        return Application("arivox", channel_ids=[CALLER.id])

    async def channel(self, channel_id: str) -> Channel:
        return CALLER

    async def set_variable(self, channel_id: str, name: str, value: str) -> None:
        pass

    async def continue_in_dialplan(self, channel_id: str) -> None:
        if self.away:
            self.away -= 1
            raise AsteriskError("no answer in time")
        self.sent_on.append(channel_id)


class FakeCall:
    """Goes on until it is over."""

    id, bridge_id, media_id, released = "1", "arivox-00000001", "arivox-00000001-media", False
    untidy = False

    def __init__(self, channel: Channel, args: Sequence[str]) -> None:
        self.channel = channel
        self.args = tuple(args)
        self.over = asyncio.Event()

    async def run(self) -> None:
        await self.over.wait()

    def caller_gone(self) -> None:
        pass

    def end(self, reason: EndReason) -> None:
        pass


class Desk:
    """A switchboard between the two."""

    def __init__(self, max_calls: int = 5) -> None:
        self.ari = FakeAri()
        self.calls: list[FakeCall] = []
        self.board = Switchboard(self.ari, self._new_call, max_calls)  # type: ignore[arg-type]

    def _new_call(self, channel: Channel, args: Sequence[str]) -> Any:
        self.calls.append(FakeCall(channel, args))
        return self.calls[-1]

    async def served(self, count: int) -> None:
        """Wait until so many calls were made."""
        async with asyncio.timeout(5):
            while len(self.calls) < count:
                await asyncio.sleep(0)

    async def settle(self, *, but: int = 0) -> None:
        """Wait until no more than the tasks of so many calls are left."""
        async with asyncio.timeout(5):
            while len(tasks := self.board._tasks) > but:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ON_THE_WAY_S", 0.0)
    monkeypatch.setattr(persist, "delays", lambda first, most: repeat(0.0))
    monkeypatch.setattr(module, "delays", lambda first, most: repeat(0.0))


async def test_caller_who_waits_is_served_as_the_dialplan_says() -> None:
    desk = Desk()
    desk.ari.let.set()
    desk.board.on_up()
    await desk.served(1)
    (call,) = desk.calls
    assert call.args == ("provider=gemini",)


async def test_caller_who_comes_in_meanwhile_is_served_once() -> None:
    desk = Desk()
    with structlog.testing.capture_logs() as log:
        desk.board.on_up()
        desk.board.on_event(ENTERS)
        desk.ari.let.set()
        await desk.settle(but=1)
    assert len(desk.calls) == 1
    assert [line for line in log if line["log_level"] == "warning"] == []


@pytest.mark.parametrize("told", ["never", "early", "late"])
async def test_caller_whose_call_ends_meanwhile_is_not_served_again(told: str) -> None:
    """They are on their way out of the application: to serve or to refuse them would skip a line there.

    That they have left may be told before the call is over, after it, or too late.
    """
    desk = Desk()
    desk.board.on_up()
    desk.board.on_event(ENTERS)
    if told == "early":
        desk.board.on_event(LEAVES)
    desk.calls[0].over.set()
    await desk.settle(but=1)
    if told == "late":
        desk.board.on_event(LEAVES)
    desk.ari.let.set()
    await desk.settle()
    assert len(desk.calls) == 1
    assert desk.ari.sent_on == []


async def test_caller_who_is_refused_meanwhile_is_refused_once() -> None:
    desk = Desk(max_calls=0)
    desk.board.on_up()
    desk.board.on_event(ENTERS)
    await desk.settle(but=1)
    desk.ari.let.set()
    await desk.settle()
    assert desk.ari.sent_on == [CALLER.id]


async def test_refusal_is_repeated_until_asterisk_hears_it() -> None:
    desk = Desk(max_calls=0)
    desk.ari.away = 3
    desk.board.on_event(ENTERS)
    await desk.settle()
    assert desk.ari.sent_on == [CALLER.id]


async def test_caller_who_comes_back_is_served_each_time() -> None:
    """A dialplan that tries again: to have let them go once does not bar them."""
    desk = Desk()
    for count in (1, 2, 3):
        desk.board.on_event(ENTERS)
        desk.calls[-1].over.set()
        await desk.settle()
        desk.board.on_event(LEAVES)
        assert len(desk.calls) == count


async def test_caller_who_came_back_unheard_is_served() -> None:
    """They were sent on, and entered again while the events were lost."""
    desk = Desk()
    desk.board.on_event(ENTERS)
    desk.calls[0].over.set()
    await desk.settle()
    desk.board.on_down()
    desk.ari.let.set()
    desk.board.on_up()
    await desk.served(2)


async def test_shut_down_sends_on_who_comes_in_the_middle_of_it() -> None:
    desk = Desk()
    desk.board.on_event(ENTERS)
    ending = asyncio.create_task(desk.board.shut_down(5.0))
    await asyncio.sleep(0)
    late = Channel("1.2", dialplan=CALLER.dialplan)
    desk.board.on_event(StasisStart(timestamp="", args=[], channel=late))
    desk.calls[0].over.set()
    await ending
    assert desk.ari.sent_on == [late.id]


async def test_pair_that_cannot_be_looked_into_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asterisk goes away in the middle of the answer: a bridge that nobody knows may hold two who talk."""
    desk = Desk()
    pair, swept = "arivox-00000002", []

    async def application() -> Application:
        return Application("arivox", channel_ids=["1.9", f"{pair}-out1"], bridge_ids=[pair])

    async def bridge(bridge_id: str) -> Any:
        desk.board.on_down()
        raise AsteriskError("no answer in time")

    async def sweep(name: str) -> None:
        swept.append(name)

    fakes = {"application": application, "bridge": bridge, "hang_up": sweep, "destroy_bridge": sweep}
    for name, fake in fakes.items():
        monkeypatch.setattr(desk.ari, name, fake, raising=False)
    desk.board.on_up()
    await desk.settle()
    assert swept == []
    assert desk.calls == []
