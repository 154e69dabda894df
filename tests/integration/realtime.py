"""Calls that take their time: a minute's answer, the time limit, a caller who is silent.

``test_realtime.py`` runs this file beside the other tests, in a process of its own.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hearing import assert_whole, last_loud
from rig import Rig, until

from arivox.emulator import sound
from arivox.emulator.script import Script, Stage, in_turn
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.marked import MarkedStream
from arivox.testing.phone import SipPhone

pytestmark = pytest.mark.asterisk
MINUTE = MarkedStream(60.0)
THIRD = MarkedStream(20.0)
GREETING = MarkedStream(0.5)
GOODBYE = MarkedStream(1.0)
LONG_GOODBYE = MarkedStream(13.5)
FAST: dict[str, Any] = {"speed": float("inf")}


async def say(stage: Stage, stream: MarkedStream, **options: Any) -> None:
    await stage.say(sound.encode(stream.pcm(), stage.session.output_format), **options)


async def greeted(rig: Rig) -> tuple[SipPhone, Stage]:
    phone = await rig.dial()
    stage = await rig.stage()
    await stage.wait_for("response.create")
    await say(stage, GREETING)
    await phone.wait_heard()
    await phone.wait_silence(100)
    return phone, stage


# --- a long answer is heard whole, however it is delivered ---


@pytest.mark.timeout(100)
async def test_long_answers_are_heard_whole(asterisk: AsteriskInstance) -> None:
    """Three calls at once, each with another kind of answer."""
    async with Rig(asterisk, Script, time_limit=90, idle_caller_s=0.0) as rig:

        async def one(count: int, phone: SipPhone, stream: MarkedStream, speed: float, size: int) -> SipPhone:
            stage = await rig.stage(count)
            await stage.wait_for("response.create")
            audio = sound.encode(stream.pcm(), stage.session.output_format)
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


# --- by the clock ---

LIMIT_S = 16
GOODBYE_BEFORE_S = 6.0


async def polite(stage: Stage) -> None:
    """Says nothing until it is asked to say good-bye."""
    await stage.wait_for("response.create")
    await say(stage, GREETING)
    asked = await stage.wait_for("response.create", timeout=LIMIT_S)
    assert "good-bye" in asked["response"]["instructions"]
    await say(stage, GOODBYE)


async def talkative(stage: Stage) -> None:
    """Is in the middle of an answer, and still sending it, when it is asked."""
    await stage.wait_for("response.create")
    await say(stage, MarkedStream(60.0), speed=1.2, wait=False)
    await stage.wait_for("response.cancel", timeout=LIMIT_S)
    await stage.wait_for("response.create")
    await say(stage, GOODBYE)


async def endless(stage: Stage) -> None:
    """Does not come to an end with its good-bye."""
    await stage.wait_for("response.create")
    await say(stage, GREETING)
    await stage.wait_for("response.create", timeout=LIMIT_S)
    await say(stage, MarkedStream(30.0), **FAST)


async def speechless(stage: Stage) -> None:
    """Is asked to say good-bye, and does not."""
    await stage.wait_for("response.create")
    await say(stage, GREETING)
    await stage.wait_for("response.create", timeout=LIMIT_S)


async def farewell(stage: Stage) -> None:
    """Ends the call by itself, with many words, of which the last come after the good-bye was due."""
    await stage.wait_for("response.create")
    await say(stage, LONG_GOODBYE, end=False, **FAST)
    await stage.call("end_call", {})


@pytest.fixture(scope="module")
def endings() -> dict[str, Any]:
    return {}


async def test_call_that_is_too_long(asterisk: AsteriskInstance, endings: dict[str, Any]) -> None:
    """Five calls at once: each kind of AI at the time limit."""
    scenarios = [polite, talkative, endless, speechless, farewell]
    scripts = [Script(scenario) for scenario in scenarios]
    async with Rig(
        asterisk,
        in_turn(*scripts),
        max_call_duration_s=LIMIT_S,
        goodbye_before_s=GOODBYE_BEFORE_S,
        idle_caller_s=0.0,
    ) as rig:
        phones: list[SipPhone] = []
        up: list[float] = []
        for count in range(1, len(scenarios) + 1):
            up.append(time.monotonic())
            phones.append(await rig.dial())
            await rig.emulator.wait_session(count)
        reasons = await asyncio.gather(*(rig.ended(index, LIMIT_S + 4) for index in range(len(scenarios))))
        for index, phone in enumerate(phones):
            await phone.wait_state("down")
            lasted = phone.received[-1].time - up[index]
            name = scenarios[index].__name__
            stage = scripts[index].stage
            assert stage is not None
            last_words = [done.at for done in stage.done if done.name == "say"][-1]
            endings[name] = (phone, last_words, reasons[index], lasted)
    for name in ("polite", "talkative"):
        phone, last_words, reason, lasted = endings[name]
        assert reason == "time_limit"
        # A packet of the answer that was cut off may still be on its way.
        assert_whole(phone.heard_between(last_words, time.monotonic()).pcm, GOODBYE, tolerance_ms=25)
        assert lasted < LIMIT_S - 2, name
    for name in ("endless", "speechless"):
        _, _, reason, lasted = endings[name]
        assert reason == "time_limit"
        assert LIMIT_S - 4 < lasted < LIMIT_S + 2, name


def test_good_bye_of_the_agent_may_be_long(endings: dict[str, Any]) -> None:
    if "farewell" not in endings:
        pytest.skip("the call that is too long was not made")
    phone, _, reason, _ = endings["farewell"]
    assert reason == "completed"
    assert_whole(phone.heard().pcm, LONG_GOODBYE)


# --- for want of a caller ---


async def test_silent_caller_is_asked_and_then_left(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, idle_caller_s=1.0) as rig:
        phone, stage = await greeted(rig)
        quiet = last_loud(phone, 0.0)
        asked = await stage.wait_for("response.create")
        assert "Are you still there?" in asked["response"]["instructions"]
        assert 0.8 < time.monotonic() - quiet < 3
        await say(stage, GREETING)
        await phone.wait_heard(after=quiet)
        last = await stage.wait_for("response.create")
        assert "Good-bye" in last["response"]["instructions"]
        begun = time.monotonic()
        await say(stage, GOODBYE)
        assert await rig.ended() == "caller_idle"
        await phone.wait_state("down")
        assert_whole(phone.heard_between(begun, time.monotonic()).pcm, GOODBYE)


async def test_caller_who_speaks_is_not_asked(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, lambda: Script(listens=True), idle_caller_s=1.0) as rig:
        phone, stage = await greeted(rig)
        for _ in range(2):
            begun = time.monotonic()
            await phone.play(signal.speech_like(0.7)).done()
            await stage.record.wait("input_audio_buffer.speech_stopped", sent=True, after=begun)
            await say(stage, GREETING)
            await phone.wait_heard()
            await phone.wait_silence(100)
        assert rig.timelines[0].find("alarm") == []
        # And one who speaks when asked starts afresh.
        await stage.wait_for("response.create")
        await say(stage, GREETING)
        begun = time.monotonic()
        await phone.play(signal.speech_like(0.7)).done()
        await stage.record.wait("input_audio_buffer.speech_stopped", sent=True, after=begun)
        await say(stage, GREETING)
        asked = await stage.wait_for("response.create")
        assert "Are you still there?" in asked["response"]["instructions"]
        await until(lambda: len(rig.timelines[0].find("alarm")) == 2, "both alarms")
