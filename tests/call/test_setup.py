"""The set-up of a call whose caller stands in the place of somebody else, and may not be there yet."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from arivox.asterisk.messages import Channel
from arivox.call import setup as module
from arivox.call.caller import Caller
from arivox.call.setup import Setup
from arivox.call.timeline import Timeline
from arivox.errors import AsteriskError, ChannelGoneError

COMES = Channel("1.2", state="Down")
GONE = Channel("1.1", state="Up")


class FakeAri:
    """Answers as Asterisk does."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.states = ["Down", "Ringing", "Up"]
        self.variables: dict[tuple[str, str], str] = {}
        self.away: set[str] = set()
        self.refuses = 0

    async def channel(self, channel_id: str) -> Channel:
        state = self.states.pop(0)
        if not state:
            raise ChannelGoneError("Channel not found", status=404)
        self.asked.append(f"state {state}")
        return Channel(channel_id, state=state)

    async def variable(self, channel_id: str, name: str) -> str:
        if channel_id in self.away:
            raise ChannelGoneError("Channel not found", status=404)
        return self.variables.get((channel_id, name), "")

    async def ring(self, channel_id: str) -> None:
        self.asked.append("ring")

    async def answer(self, channel_id: str) -> None:
        self.asked.append("answer")

    async def external_media(self, *_: Any) -> Channel:
        if self.refuses:
            raise AsteriskError("An internal error", status=self.refuses)
        return Channel("media")

    async def create_bridge(self, bridge_id: str) -> None:
        self.asked.append("bridge")

    async def add_to_bridge(self, *names: str) -> None:
        self.asked.append("add")


class Desk:
    """A set-up on such an Asterisk."""

    def __init__(self, channel: Channel, replaced: Channel | None = None) -> None:
        self.ari = FakeAri()
        entered: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
        entered.set_result(Channel("media"))
        context = SimpleNamespace(
            settings=SimpleNamespace(rtp_source_check="learn", ari_request_timeout_s=1.0),
            ari=self.ari,
            rtp_host="127.0.0.1",
            expect_channel=lambda name: entered,
            choose_provider=lambda name, where: (name, where),
        )
        legs = SimpleNamespace(media_id="media", bridge_id="bridge")
        self.setup = Setup(
            "c1", Caller(channel), (), cast(Any, context), cast(Any, legs), Timeline("c1"), replaced
        )

    async def build(self) -> None:
        link = SimpleNamespace(port=4000, expect=lambda peer: None)
        await self.setup.media(cast(Any, link), cast(Any, SimpleNamespace(name="ulaw")))


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 0.0)


async def test_channel_that_is_down_is_answered_once_it_is_up() -> None:
    """Asterisk refuses it before: 412."""
    desk = Desk(COMES)
    await desk.build()
    assert desk.ari.asked.index("answer") > desk.ari.asked.index("state Up")
    assert desk.ari.asked[-1] == "add"


async def test_channel_that_never_comes_up_is_not_waited_for() -> None:
    desk = Desk(COMES)
    desk.ari.states = ["Down", ""]
    with pytest.raises(ChannelGoneError):
        await desk.build()
    assert "answer" not in desk.ari.asked


@pytest.mark.parametrize(
    ("state", "rings"), [("Ring", True), ("Up", True), ("Down", False), ("Ringing", False)]
)
async def test_who_is_being_called_is_not_told_that_it_rings(state: str, rings: bool) -> None:
    """Asterisk would refuse it: 412."""
    desk = Desk(Channel("1.2", state=state))
    await desk.setup.ring()
    assert desk.ari.asked == (["ring"] if rings else [])


async def test_caller_is_answered_at_once() -> None:
    desk = Desk(Channel("1.1", state="Ring"))
    await desk.build()
    assert desk.ari.asked[0] in ("answer", "bridge")


@pytest.mark.parametrize("away", [False, True])
async def test_variables_of_who_is_replaced_count(away: bool) -> None:
    desk = Desk(COMES, GONE)
    desk.ari.variables["1.1", "ARIVOX_PROVIDER"] = "gemini"
    if away:
        desk.ari.away.add("1.1")
    chosen: Any = await desk.setup.provider()
    assert chosen == ("" if away else "gemini", "ARIVOX_PROVIDER")


async def test_own_variables_count_more() -> None:
    desk = Desk(COMES, GONE)
    desk.ari.variables |= {("1.1", "ARIVOX_PROVIDER"): "gemini", ("1.2", "ARIVOX_PROVIDER"): "openai"}
    chosen: Any = await desk.setup.provider()
    assert chosen[0] == "openai"


async def test_asterisk_that_makes_no_channel_says_what_may_be_pending() -> None:
    desk = Desk(GONE)
    desk.ari.refuses = 500
    with pytest.raises(AsteriskError, match="core stop gracefully"):
        await desk.build()
    await desk.setup.settled()
