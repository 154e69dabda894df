"""A caller's tone goes through Asterisk, the service and an echoing AI, and comes back as it was."""

from __future__ import annotations

import asyncio

import pytest
from hearing import assert_clean_tone
from rig import BOTH_LOOPS, Rig, SteadyEcho

from arivox.audio.g711 import Law
from arivox.emulator.openai import Options
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.phone import SipPhone

pytestmark = pytest.mark.asterisk
SECONDS = 1.5


async def say_and_hear(rig: Rig, hz: float, law: Law = "ulaw") -> SipPhone:
    phone = await rig.dial(law=law)
    await phone.wait_heard(predicate=lambda pcm: len(pcm) > 0)
    said = phone.play(signal.tone(hz, SECONDS))
    await phone.wait_heard()
    await said.done()
    await phone.wait_silence(100)
    await phone.hangup()
    return phone


@BOTH_LOOPS
async def test_g711_comes_back_as_it_was(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, SteadyEcho) as rig:
        mu, a = await asyncio.gather(say_and_hear(rig, 1013, "ulaw"), say_and_hear(rig, 1513, "alaw"))
    for phone, hz in ((mu, 1013.0), (a, 1513.0)):
        assert_clean_tone(phone.heard().pcm, hz, SECONDS, snr_db=35)
        assert phone.heard().missing() == []
    assert {packet.payload_type for packet in mu.received} == {0}
    assert {packet.payload_type for packet in a.received} == {8}
    formats = [connection.session.input_format.name for connection in rig.emulator.sessions]
    assert sorted(formats) == ["alaw", "ulaw"], "the bytes need no conversion anywhere"


async def test_24_khz_both_ways_is_clean(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, SteadyEcho, openai_audio_format="pcm") as rig:
        mu, a = await asyncio.gather(say_and_hear(rig, 1013, "ulaw"), say_and_hear(rig, 2913, "alaw"))
        assert rig.emulator.session.session.input_format.rate == 24000
    assert_clean_tone(mu.heard().pcm, 1013, SECONDS)
    assert_clean_tone(a.heard().pcm, 2913, SECONDS)


@pytest.mark.parametrize("audio_format", ["auto", "pcm"])
async def test_beta_dialect_is_clean(asterisk: AsteriskInstance, audio_format: str) -> None:
    async with Rig(
        asterisk,
        SteadyEcho,
        emulator={"options": Options(beta=True)},
        openai_dialect="beta",
        openai_audio_format=audio_format,
    ) as rig:
        phone = await say_and_hear(rig, 1013)
        assert rig.emulator.session.headers["openai-beta"] == "realtime=v1"
    assert_clean_tone(phone.heard().pcm, 1013, SECONDS)


@pytest.mark.parametrize("count", [2, 10])
async def test_calls_at_once_never_mix(asterisk: AsteriskInstance, count: int) -> None:
    tones = signal.PROBES_HZ[: 2 * count : 2]
    async with Rig(asterisk, SteadyEcho) as rig:
        phones = await asyncio.gather(*(say_and_hear(rig, hz) for hz in tones))
        assert len(rig.timelines) == count
    for phone, hz in zip(phones, tones, strict=True):
        assert_clean_tone(phone.heard().pcm, hz, SECONDS)
        for other in tones:
            assert other == hz or signal.tone_level_db(phone.heard().pcm, other) < -60
