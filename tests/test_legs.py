"""Holding and dialling when Asterisk does what it never answers: nobody is left where we do not know of."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from arivox.asterisk.messages import Channel
from arivox.destination import Destination
from arivox.errors import AsteriskError, ChannelGoneError
from arivox.legs import Legs

PEER = Destination("peer", "PJSIP/peer")
BRIDGE = "arivox-c1"
OUT = f"{BRIDGE}-out1"


class FakeAri:
    """Does what it is asked; the answer to some requests is lost on the way, or is a refusal."""

    def __init__(self, **fails: AsteriskError) -> None:
        self.asked: list[str] = []
        self.fails = fails
        self.made = asyncio.Event()
        self.made.set()

    def _do(self, verb: str, *names: str) -> None:
        self.asked.append(" ".join((verb, *names)))
        if error := self.fails.pop(verb, None):
            raise error

    async def remove_from_bridge(self, bridge_id: str, channel_id: str) -> None:
        self._do("remove", channel_id)

    async def add_to_bridge(self, bridge_id: str, channel_id: str) -> None:
        self._do("add", channel_id)

    async def start_music(self, channel_id: str, music: str) -> None:
        self._do("music")

    async def stop_music(self, channel_id: str) -> None:
        self._do("stop music")

    async def play(self, channel_id: str, media: str, playback_id: str) -> None:
        self._do("play", media, playback_id)

    async def stop_playback(self, playback_id: str) -> None:
        self._do("stop", playback_id)

    async def originate(self, channel_id: str, endpoint: str, **_: Any) -> Channel:
        await self.made.wait()
        self._do("dial", channel_id)
        return Channel(channel_id)

    async def hang_up(self, channel_id: str) -> None:
        self._do("hang up", channel_id)


class Desk:
    """The legs of a call on such an Asterisk."""

    def __init__(self, **fails: AsteriskError) -> None:
        self.ari = FakeAri(**fails)
        self.entered: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
        self.legs = Legs(cast(Any, self.ari), Channel("caller"), "c1", lambda name: self.entered)

    async def dial(self) -> str:
        return await self.legs.dial(PEER, "", "555", 5.0)


LOST = AsteriskError("no answer in time")


@pytest.mark.parametrize("sound", ["music", "ringing"])
@pytest.mark.parametrize("verb", ["remove", "music", "play"])
async def test_hold_that_was_not_answered_is_taken_back(sound: Any, verb: str) -> None:
    desk = Desk(**{verb: LOST})
    if (sound, verb) in (("music", "play"), ("ringing", "music")):
        await desk.legs.hold(sound, "default")
    else:
        with pytest.raises(AsteriskError):
            await desk.legs.hold(sound, "default")
    await desk.legs.take_back()
    assert desk.ari.asked[-1] == "add caller"
    assert not desk.legs.on_hold


async def test_ringing_that_could_not_be_stopped_is_stopped_later() -> None:
    """A tone that goes on holds up whatever else is asked of the channel."""
    desk = Desk(stop=LOST)
    await desk.legs.hold("ringing", "default")
    with pytest.raises(AsteriskError):
        await desk.legs.take_back()
    await desk.legs.stop_ringing()
    stopped = f"stop {BRIDGE}-ring1"
    assert desk.ari.asked[-2:] == [stopped, stopped]
    await desk.legs.stop_ringing()
    assert desk.ari.asked.count(stopped) == 2, "it is known to have stopped"


async def test_ringing_has_a_name_of_its_own_each_time() -> None:
    desk = Desk(stop=ChannelGoneError("it has ended", status=404))
    for _ in range(2):
        await desk.legs.hold("ringing", "default")
        await desk.legs.take_back()
    assert [one for one in desk.ari.asked if one.startswith("stop")] == [
        f"stop {BRIDGE}-ring1",
        f"stop {BRIDGE}-ring2",
    ]


async def test_phone_that_may_ring_for_nobody_is_hung_up() -> None:
    desk = Desk(dial=LOST)
    assert await desk.dial() == "failed"
    assert desk.ari.asked == [f"dial {OUT}", f"hang up {OUT}"]
    assert desk.entered.cancelled(), "who answers nevertheless is not waited for"


async def test_dialling_broken_off_hangs_up_what_is_being_dialled() -> None:
    """To hang up must not overtake the request to dial: there would be nothing to hang up yet."""
    desk = Desk()
    desk.ari.made.clear()
    dialling = asyncio.create_task(desk.dial())
    await asyncio.sleep(0)
    dialling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialling
    assert not desk.legs.out_made
    dropping = asyncio.create_task(desk.legs.drop())
    await asyncio.sleep(0)
    assert desk.ari.asked == []
    desk.ari.made.set()
    assert await dropping
    assert desk.ari.asked == [f"dial {OUT}", f"hang up {OUT}"]
    assert desk.entered.cancelled()


async def test_dialled_party_that_cannot_be_hung_up_is_told_of() -> None:
    desk = Desk(**{"hang up": LOST})
    dialling = asyncio.create_task(desk.dial())
    desk.entered.set_result(Channel(OUT))
    assert await dialling == "answered"
    assert desk.legs.out_made
    assert not await desk.legs.drop()
    assert await desk.legs.drop(), "there is nobody any more, as far as we know"


async def test_dialled_party_that_left_is_no_leg() -> None:
    desk = Desk()
    dialling = asyncio.create_task(desk.dial())
    while not desk.legs.out_made:
        await asyncio.sleep(0)
    desk.legs.leg_gone(OUT, 17)
    assert await dialling == "busy"
    assert not desk.legs.out_made
    assert await desk.legs.drop()
    assert desk.ari.asked == [f"dial {OUT}"]
