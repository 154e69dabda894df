"""Which AI takes a call: the service's own, or the one that the dialplan names."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hearing import hear_fallback
from rig import Rig, until

from arivox.emulator import sound
from arivox.emulator.gemini.session import GeminiSession
from arivox.emulator.openai.session import OpenAISession
from arivox.emulator.openai_live.session import LiveSession
from arivox.emulator.script import Script, Stage
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.phone import SipPhone

pytestmark = pytest.mark.asterisk
KINDS = {"openai": OpenAISession, "gemini": GeminiSession, "openai-live": LiveSession}
# Extension, the AI that must answer, and its voice.
CHOICES = [
    ("700", "openai", 500.0),
    ("710", "openai", 700.0),
    ("711", "gemini", 900.0),
    ("712", "openai-live", 1100.0),
    ("713", "gemini", 1300.0),
]


async def greet(rig: Rig, count: int, hz: float) -> Stage:
    stage = await rig.stage(count)
    await stage.wanted()
    form = stage.session.output_format
    await stage.say(sound.encode(signal.tone(hz, 1.0, rate=form.rate), form), wait=False)
    return stage


async def test_extensions_with_different_ais_at_the_same_time(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script) as rig:
        phones: list[SipPhone] = []
        for count, (extension, name, hz) in enumerate(CHOICES, 1):
            phones.append(await rig.dial(extension))
            begun = time.monotonic()
            stage = await greet(rig, count, hz)
            assert type(stage.session) is KINDS[name], extension
            chosen = rig.timelines[count - 1].find("provider.chosen")[0].data
            assert chosen["name"] == name
            await phones[-1].wait_heard(after=begun)
        await asyncio.gather(*(phone.wait_silence(300) for phone in phones))
        for phone, (extension, _, hz) in zip(phones, CHOICES, strict=True):
            heard = phone.heard().pcm
            [(start, end)] = signal.active_segments(heard)
            assert end - start == pytest.approx(1000, abs=25), extension
            tone = heard[round(start * 8) + 400 : round(end * 8) - 400]
            assert signal.dominant_frequency(tone) == pytest.approx(hz, abs=3), extension
        assert "gemini" in {repr(call).split()[-2] for call in rig.calls}


async def test_service_of_another_ai(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, ai_service_provider="openai-live") as rig:
        await rig.dial()
        assert isinstance((await rig.stage()).session, LiveSession)
        await rig.dial("711")
        assert isinstance((await rig.stage(2)).session, GeminiSession)


async def test_ai_that_there_is_not(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, expect_log=["a caller cannot be served"]) as rig:
        phone = await rig.dial("714")
        await hear_fallback(phone)
        assert await rig.ended() == "provider_failed"
        assert await rig.status_of() == "provider_failed"
        (line,) = rig.logged("a caller cannot be served")
        assert "provider=parrot: 'parrot' is not one of openai, gemini, openai-live" in line["error"]
        # The others are served all the same.
        await rig.dial()
        assert isinstance((await rig.stage()).session, OpenAISession)


async def test_ai_without_a_key(asterisk: AsteriskInstance) -> None:
    settings: dict[str, Any] = {"gemini_live_url": "", "gemini_api_key": ""}
    async with Rig(asterisk, Script, expect_log=["a caller cannot be served"], **settings) as rig:
        begun = time.monotonic()
        phone = await rig.open_phone()
        await phone.call("711")
        await until(lambda: bool(rig.logged("a caller cannot be served")), "the log")
        assert time.monotonic() - begun < 2
        (line,) = rig.logged("a caller cannot be served")
        assert "GEMINI_API_KEY is not set" in line["error"].replace(":", "")
        assert await rig.ended() == "provider_failed"
