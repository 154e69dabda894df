"""An answer is heard whole, however long it is and however it is delivered."""

from __future__ import annotations

import asyncio

import pytest
from hearing import assert_whole
from rig import Rig

from arivox.emulator import sound
from arivox.emulator.script import Script
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.marked import MarkedStream
from arivox.testing.phone import SipPhone

pytestmark = pytest.mark.asterisk
MINUTE = MarkedStream(60.0)
THIRD = MarkedStream(20.0)


@pytest.mark.timeout(100)
async def test_long_answers_are_heard_whole(asterisk: AsteriskInstance) -> None:
    """Three calls at once, each with another kind of answer."""
    async with Rig(asterisk, Script, time_limit=90, idle_caller_s=0.0) as rig:

        async def one(count: int, phone: SipPhone, stream: MarkedStream, speed: float, size: int) -> SipPhone:
            stage = await rig.stage(count)
            await stage.wait_for("response.create")
            audio = sound.encode(stream.pcm(), stage.session.config.output_format)
            spoken = await stage.say(audio, speed=speed, sizes=[size] if size else None)
            assert spoken is not None
            assert spoken.last_at - spoken.first_at < stream.seconds / 2, "it comes faster than it is heard"
            await phone.wait_silence(300, timeout=stream.seconds + 5)
            return phone

        phones = []
        for count in range(1, 4):
            phones.append(await rig.dial())
            await rig.emulator.wait_session(count)
        minute, whole, crumbs = await asyncio.gather(
            one(1, phones[0], MINUTE, 10, 0),
            one(2, phones[1], THIRD, float("inf"), 10_000_000),
            one(3, phones[2], THIRD, 5, 160),
        )
    assert_whole(minute.heard().pcm, MINUTE)
    assert_whole(whole.heard().pcm, THIRD)
    assert_whole(crumbs.heard().pcm, THIRD)
    for phone in phones:
        assert phone.heard().missing() == []
