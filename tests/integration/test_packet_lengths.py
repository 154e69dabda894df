"""A caller whose packets have another length, or stop for a while, is heard as long as they spoke."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from hearing import RATE, joined, sounding
from rig import Rig

from arivox.audio.g711 import Pcm, decode
from arivox.emulator import sound
from arivox.emulator.script import Script, Stage
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.marked import MarkedStream
from arivox.testing.phone import SipPhone
from arivox.testing.talker import burst

pytestmark = pytest.mark.asterisk
VOICE = MarkedStream(4.2)
BUFFER_MS = 60.0


def heard_by_ai(stage: Stage) -> Pcm:
    return decode(stage.record.audio_received, "ulaw")


@asynccontextmanager
async def caller(rig: Rig, ptime_ms: int = 20) -> AsyncIterator[tuple[SipPhone, Stage]]:
    """Make a phone whose call is up, and the stage of its AI, which hears it."""
    number = len(rig.timelines) + 1
    server = ("127.0.0.1", rig.asterisk.sip_port)
    async with SipPhone(server, user=f"length{ptime_ms}", ptime_ms=ptime_ms) as phone:
        assert await phone.call("700") == 200
        stage = await rig.stage(number)
        await stage.wait_for("response.create")
        await stage.say(sound.tone(stage.session.output_format, 100))
        await stage.wait_audio(300)
        yield phone, stage


@pytest.mark.parametrize("ptime_ms", [10, 30, 60, 120])
async def test_voice_is_as_long_and_whole_whatever_the_ptime(
    asterisk: AsteriskInstance, ptime_ms: int
) -> None:
    async with Rig(asterisk, Script) as rig:
        async with caller(rig, ptime_ms) as (phone, stage):
            await phone.play(VOICE.pcm()).done()
            await stage.wait_audio(300)
            assert {len(packet.payload) for packet in phone.sent} == {8 * ptime_ms}
            voice = sounding(heard_by_ai(stage))
        await rig.ended()
    assert len(voice) / RATE * 1000 == pytest.approx(VOICE.seconds * 1000, abs=ptime_ms + BUFFER_MS)
    assert VOICE.jumps(voice) == [], "no silence is put in, and nothing is missing"


async def test_bursts_of_long_packets_put_nothing_in(asterisk: AsteriskInstance) -> None:
    """Every fourth packet of 60 ms waits for the next, as on a radio link."""
    async with Rig(asterisk, Script) as rig:
        async with caller(rig, 60) as (phone, stage):
            phone.talker.packets = 0
            lumps = [burst(first, 1) for first in range(4, 60, 4)]
            phone.talker.impairment = lambda index: next(filter(None, (lump(index) for lump in lumps)), None)
            await phone.play(VOICE.pcm()).done()
            phone.talker.impairment = None
            await stage.wait_audio(300)
            voice = sounding(heard_by_ai(stage))
        await rig.ended()
    assert len(voice) / RATE * 1000 == pytest.approx(VOICE.seconds * 1000, abs=60 + BUFFER_MS)
    assert VOICE.jumps(voice) == []


async def test_who_is_back_from_a_hold_is_heard_with_their_pauses(asterisk: AsteriskInstance) -> None:
    """A trunk that sends nothing for five seconds, and goes on with the next timestamp."""
    word, pause_ms = signal.tone(1013, 0.4), 600.0
    sentence = joined(*[word, signal.silence(pause_ms / 1000)] * 5, word)
    async with Rig(asterisk, Script) as rig:
        async with caller(rig) as (phone, stage):
            await phone.play(word).done()
            phone.talker.paused = True
            paused = time.monotonic()
            await asyncio.sleep(5.0)
            phone.talker.paused = False
            paused_ms = (time.monotonic() - paused) * 1000
            await phone.play(sentence).done()
            await stage.wait_audio(300)
            segments = signal.active_segments(heard_by_ai(stage), RATE, min_ms=100)
        await rig.ended()
    assert len(segments) == 7, "each word is heard by itself"
    pauses = [after[0] - before[1] for before, after in pairwise(segments)]
    assert pauses[0] == pytest.approx(paused_ms, abs=150), "the hold is as long as it was"
    for heard in pauses[1:]:
        assert heard == pytest.approx(pause_ms, abs=BUFFER_MS)


async def test_stream_that_stops_is_soon_heard_as_silent(asterisk: AsteriskInstance) -> None:
    """The AI ends a turn by hearing silence, also where packets are so long that one may be late."""
    async with Rig(asterisk, Script) as rig:
        async with caller(rig, 120) as (phone, stage):
            ended = await phone.play(VOICE.pcm()[:RATE]).done()
            phone.mute()
            await stage.wait_audio(500)
            while signal.level_dbfs(heard_by_ai(stage)[-RATE // 2 :]) > -50:
                await stage.wait_audio(20)
            silent_s = time.monotonic() - ended
        await rig.ended()
    assert silent_s < 1.5, "half a second of silence is heard"
