"""Holding and dialling when Asterisk does what it never answers: nobody is left where we do not know of."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from arivox.asterisk.messages import Channel
from arivox.call import legs as module
from arivox.call.caller import Caller
from arivox.call.legs import Legs
from arivox.errors import AsteriskError, ChannelGoneError
from arivox.settings.destination import Destination

PEER = Destination("peer", "PJSIP/peer")
BRIDGE = "arivox-c1"
OUT = f"{BRIDGE}-out1"


class FakeAri:
    """Does what it is asked; the answer to some requests is lost on the way, or is a refusal."""

    def __init__(self, **fails: AsteriskError) -> None:
        self.asked: list[str] = []
        self.fails = fails
        self.deaf: dict[str, int] = {}  # so many requests are lost
        self.held: asyncio.Event | None = None  # answers wait for it
        self.made = asyncio.Event()
        self.made.set()

    def _do(self, verb: str, *names: str) -> None:
        self.asked.append(" ".join((verb, *names)))
        if error := self.fails.pop(verb, None):
            raise error
        if self.deaf.get(verb):
            self.deaf[verb] -= 1
            raise LOST

    async def remove_from_bridge(self, bridge_id: str, channel_id: str) -> None:
        self._do("remove", channel_id)

    async def add_to_bridge(self, bridge_id: str, channel_id: str) -> None:
        self._do("add", channel_id)

    async def start_music(self, channel_id: str, music: str) -> None:
        self._do("music")

    async def stop_music(self, channel_id: str) -> None:
        self._do("stop music")
        await self._wait()

    async def play(self, channel_id: str, media: str, playback_id: str) -> None:
        self._do("play", media, playback_id)

    async def stop_playback(self, playback_id: str) -> None:
        self._do("stop", playback_id)

    async def originate(self, channel_id: str, endpoint: str, **_: Any) -> Channel:
        await self.made.wait()
        self._do("dial", channel_id)
        return Channel(channel_id)

    async def external_media(self, channel_id: str, *_: Any) -> Channel:
        self._do("media", channel_id)
        return Channel(channel_id)

    async def hang_up(self, channel_id: str) -> None:
        self._do("hang up", channel_id)
        await self._wait()

    async def _wait(self) -> None:
        if self.held is not None:
            await self.held.wait()


class Desk:
    """The legs of a call on such an Asterisk."""

    def __init__(self, **fails: AsteriskError) -> None:
        self.ari = FakeAri(**fails)
        self.entered: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
        self.caller = Caller(Channel("caller"))
        self.legs = Legs(cast(Any, self.ari), self.caller, "c1", lambda name: self.entered)

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
    await dropping
    assert desk.ari.asked == [f"dial {OUT}", f"hang up {OUT}"]
    assert desk.entered.cancelled()


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_dialled_party_is_hung_up_before_the_caller_comes_back(
    lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the bridge they would hear each other, and the agent."""
    desk = Desk()
    dialling = asyncio.create_task(desk.dial())
    desk.entered.set_result(Channel(OUT))
    assert await dialling == "answered"
    assert desk.legs.out_made
    await desk.legs.hold("music", "default")
    desk.ari.deaf["hang up"] = lost
    monkeypatch.setattr(module, "_HANG_UP_PAUSES_S", (0.0, 0.0, 0.0))
    await desk.legs.take_back()
    tries = [f"hang up {OUT}"] * min(lost + 1, 3)
    parted = [f"remove {OUT}"] if lost == 3 else []
    assert desk.ari.asked[2:] == ["music", *tries, *parted, "stop music", "add caller"]
    assert desk.legs.untidy == (lost == 3), "somebody else must see to it"


async def test_hang_up_that_is_broken_off_leaves_it_to_somebody_else() -> None:
    desk = Desk()
    dialling = asyncio.create_task(desk.dial())
    desk.entered.set_result(Channel(OUT))
    await dialling
    desk.ari.held = asyncio.Event()
    dropping = asyncio.create_task(desk.legs.drop())
    await asyncio.sleep(0)
    dropping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dropping
    assert desk.legs.untidy


async def test_caller_who_leaves_in_the_middle_is_left_where_they_are() -> None:
    desk = Desk()
    await desk.legs.hold("music", "default")
    desk.ari.held = asyncio.Event()
    taking = asyncio.create_task(desk.legs.take_back())
    while desk.ari.asked[-1] != "stop music":
        await asyncio.sleep(0)
    desk.caller.leave()
    desk.ari.held.set()
    await taking
    assert desk.ari.asked[-1] == "stop music"


async def test_caller_who_is_gone_is_left_where_they_are() -> None:
    """They may be in another call by now."""
    desk = Desk()
    await desk.legs.hold("ringing", "default")
    desk.caller.leave()
    asked = list(desk.ari.asked)
    await desk.legs.stop_ringing()
    await desk.legs.take_back()
    assert desk.ari.asked == asked


async def test_dialled_party_that_left_is_no_leg() -> None:
    desk = Desk()
    dialling = asyncio.create_task(desk.dial())
    while not desk.legs.out_made:
        await asyncio.sleep(0)
    desk.legs.leg_gone(OUT, 17)
    assert await dialling == "busy"
    assert not desk.legs.out_made
    await desk.legs.drop()
    assert desk.ari.asked == [f"dial {OUT}"]


REFUSED = AsteriskError("Allocation failed", status=500)


async def test_endpoint_that_nobody_knows_is_told_from_an_asterisk_that_stops() -> None:
    """Both are refused in the same words: only a channel that Asterisk can always make tells them apart."""
    desk = Desk(dial=REFUSED)
    assert await desk.dial() == "failed"
    probe = f"{BRIDGE}-probe1"
    assert desk.ari.asked[-2:] == [f"media {probe}", f"hang up {probe}"]
    desk = Desk(dial=REFUSED, media=AsteriskError("An internal error", status=500))
    assert await desk.dial() == "stopping"


async def test_asterisk_that_does_not_answer_is_not_asked_what_is_pending() -> None:
    desk = Desk(dial=LOST)
    assert await desk.dial() == "failed"
    assert "media" not in " ".join(desk.ari.asked)


async def test_dialled_party_in_whose_place_another_is_put() -> None:
    desk = Desk()
    desk.entered.set_result(Channel(OUT))
    assert await desk.dial() == "answered"
    desk.legs.out_replaced("1.9")
    desk.legs.leg_gone(OUT, 16)
    assert not desk.legs.out_gone
    await desk.legs.whisper()
    assert desk.ari.asked[-1] == "add 1.9"
    desk.legs.leg_gone("1.9", 16)
    assert desk.legs.out_gone
    await desk.legs.drop()
    assert desk.ari.asked[-1] == "hang up 1.9"
