"""Who is at the caller's end of the line, and what the AI is told of it."""

from __future__ import annotations

import asyncio

import pytest

from arivox.asterisk.messages import CallerId, Channel, Dialplan
from arivox.call import line as module
from arivox.call.caller import Caller
from arivox.call.line import Line
from arivox.call.timeline import Timeline
from arivox.errors import AsteriskError

FIRST = Channel("1.1", state="Up", caller=CallerId("Olga", "200"), dialplan=Dialplan("in", "700", 3))
CORA = CallerId("Cora", "4711")
OTHER = Channel("1.2", state="Down", dialplan=Dialplan("in", "601", 1))


class Voice:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.known: list[str] = []

    def hush(self) -> None:
        self.told.append("hush")

    def go_on(self, instructions: str, known: str = "") -> None:
        self.told.append(instructions)
        self.known.append(known)


class Desk:
    """A line whose Asterisk knows who is there."""

    def __init__(self, party: CallerId | Exception = CORA) -> None:
        self.party = party
        self.caller = Caller(FIRST)
        self.timeline = Timeline("c1")
        self.voice = Voice()
        self.line = Line(self.caller, self.timeline, self.ask)

    async def ask(self) -> CallerId:
        if isinstance(self.party, Exception):
            raise self.party
        return self.party

    async def told(self, count: int) -> list[str]:
        async with asyncio.timeout(5):
            while len(self.voice.told) < count:
                await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        return self.voice.told


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BACK_AFTER_S", 0.0)
    monkeypatch.setattr(module, "_KNOWN_AFTER_S", 0.0)


async def test_hold_and_its_end() -> None:
    desk = Desk()
    desk.line.opened(desk.voice)
    desk.line.hold()
    desk.line.hold()
    assert desk.line.absent
    desk.line.unhold()
    desk.line.unhold()
    hush, back = await desk.told(2)
    assert (hush, desk.line.absent) == ("hush", False)
    assert "is back" in back
    assert [entry.kind for entry in desk.timeline] == ["caller.hold", "caller.unhold"]


async def test_end_of_a_hold_that_never_was_says_nothing() -> None:
    desk = Desk()
    desk.line.opened(desk.voice)
    desk.line.unhold()
    assert await desk.told(0) == []
    assert list(desk.timeline) == []


async def test_hold_right_after_another_is_one_hold() -> None:
    desk = Desk()
    desk.line.opened(desk.voice)
    desk.line.hold()
    desk.line.unhold()
    desk.line.hold()
    assert await desk.told(1) == ["hush"]


@pytest.mark.parametrize("over", [False, True])
async def test_hold_before_the_ai_is_there(over: bool) -> None:
    desk = Desk()
    desk.line.hold()
    if over:
        desk.line.unhold()
        async with asyncio.timeout(5):
            while desk.line.absent:
                await asyncio.sleep(0)
    desk.line.opened(desk.voice)
    assert await desk.told(0 if over else 1) == ([] if over else ["hush"])


@pytest.mark.parametrize("held", [False, True])
async def test_successor_is_told_once_they_have_answered(held: bool) -> None:
    desk = Desk()
    desk.line.opened(desk.voice)
    if held:
        desk.line.hold()
        desk.line.unhold()  # Asterisk says so before each transfer
    desk.line.succeeded_by(OTHER)
    assert await desk.told(1) == ["hush"]
    assert desk.line.absent
    desk.line.state(Channel("1.2", state="Ringing"))
    assert await desk.told(1) == ["hush"]
    desk.line.state(Channel("1.2", state="Up"))
    _, greet = await desk.told(2)
    (known,) = desk.voice.known
    assert "Cora, telephone number 4711" in known
    assert known in greet
    assert desk.caller.channel is OTHER
    assert (desk.caller.number, desk.line.absent) == ("4711", False)
    assert desk.caller.place == Dialplan("in", "700", 4), "the dialplan goes on where the first would have"


@pytest.mark.parametrize(
    ("party", "exten", "who"),
    [
        (CallerId(), "601", "whoever answers at extension 601"),
        (CallerId(), "_attended", "name unknown"),
        (CallerId("", "730"), "730", "telephone number 730"),
        (AsteriskError("no"), "601", "whoever answers at extension 601"),
    ],
)
async def test_successor_who_is_not_known(party: CallerId | Exception, exten: str, who: str) -> None:
    desk = Desk(party)
    desk.line.opened(desk.voice)
    desk.line.succeeded_by(Channel("1.2", state="Up", dialplan=Dialplan("in", exten, 1)))
    await desk.told(2)
    assert f"on the line now: {who}." in desk.voice.known[0]


async def test_successor_who_holds_before_they_are_known_is_told_afterwards() -> None:
    desk = Desk()
    desk.line.opened(desk.voice)
    desk.line.succeeded_by(OTHER)
    desk.line.hold()
    desk.line.state(Channel("1.2", state="Up"))
    assert await desk.told(1) == ["hush"]
    desk.line.unhold()
    assert "Cora" in (await desk.told(2))[1]


async def test_second_transfer_takes_the_place_of_the_first() -> None:
    desk = Desk()
    desk.line.opened(desk.voice)
    desk.line.succeeded_by(OTHER)
    third = Channel("1.3", state="Up", dialplan=Dialplan("in", "602", 1))
    desk.line.succeeded_by(third)
    assert len(await desk.told(2)) == 2
    assert desk.caller.channel is third
    assert desk.caller.place == Dialplan("in", "700", 4)


async def test_closed_line_waits_for_nobody() -> None:
    desk = Desk()
    desk.line.opened(desk.voice)
    desk.line.succeeded_by(OTHER)
    desk.line.close()
    await asyncio.sleep(0)
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("meet")] == []
