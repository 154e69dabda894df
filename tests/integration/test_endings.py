"""The agent ends the call: after its last word, and not over the caller's."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hearing import assert_whole, last_loud
from rig import Rig

from arivox.emulator import sound
from arivox.emulator.script import Script, Stage
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.marked import MarkedStream
from arivox.testing.phone import SipPhone

pytestmark = pytest.mark.asterisk
GREETING = MarkedStream(0.5)
GOODBYE = MarkedStream(1.0)
FAST: dict[str, Any] = {"speed": float("inf")}


async def say(stage: Stage, stream: MarkedStream, **options: Any) -> None:
    await stage.say(sound.encode(stream.pcm(), stage.session.output_format), **options)


async def greeted(rig: Rig, count: int = 1) -> tuple[SipPhone, Stage]:
    phone = await rig.dial()
    stage = await rig.stage(count)
    await stage.wait_for("response.create")
    await say(stage, GREETING)
    await phone.wait_heard()
    await phone.wait_silence(100)
    return phone, stage


async def test_agent_hangs_up_after_its_last_word(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script) as rig:
        phone, stage = await greeted(rig)
        begun = time.monotonic()
        await stage.speech_started()
        await stage.speech_stopped()
        await say(stage, GOODBYE, end=False, **FAST)
        call_id = await stage.call("end_call", {})
        assert await rig.ended() == "completed"
        await phone.wait_state("down")
        pause = time.monotonic() - last_loud(phone, begun)
        assert_whole(phone.heard_between(begun, time.monotonic()).pcm, GOODBYE)
        # Time for the last word to leave a phone's jitter buffer; but nobody listens to silence for long.
        assert 0.25 < pause < 3
        outputs = [frame.event["item"] for frame in stage.record.received("conversation.item.create")]
        assert [(item["type"], item["call_id"]) for item in outputs] == [("function_call_output", call_id)]
        assert len(stage.record.received("response.create")) == 1, "nothing more is to be said"
        assert phone.bye_reason is not None


async def test_agent_that_ends_the_call_before_it_says_good_bye(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script) as rig:
        phone, stage = await greeted(rig)
        begun = time.monotonic()
        await stage.speech_started()
        await stage.speech_stopped()
        await stage.call("end_call", {}, end=False)
        await say(stage, GOODBYE)
        assert await rig.ended() == "completed"
        await phone.wait_state("down")
        assert_whole(phone.heard_between(begun, time.monotonic()).pcm, GOODBYE)


async def test_caller_who_speaks_into_the_good_bye_is_heard(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, lambda: Script(listens=True)) as rig:
        phone, stage = await greeted(rig)
        await stage.speech_started()
        await stage.speech_stopped()
        begun = time.monotonic()
        await say(stage, GOODBYE, end=False, **FAST)
        await stage.call("end_call", {})
        await phone.wait_heard(after=begun)
        phone.play(signal.speech_like(0.6))
        await stage.record.wait("input_audio_buffer.speech_stopped", sent=True, after=begun)
        answered = time.monotonic()
        await say(stage, GOODBYE)
        await phone.wait_heard(after=answered)
        await phone.wait_silence(500)
        assert_whole(phone.heard_between(answered, time.monotonic()).pcm, GOODBYE)
        assert phone.state == "up"


async def test_agent_ends_the_call_and_the_dialplan_goes_on(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, after_call="continue") as rig:
        phone, stage = await greeted(rig)
        await stage.speech_started()
        await stage.speech_stopped()
        await say(stage, GREETING, end=False)
        await stage.call("end_call", {})
        assert await rig.ended() == "completed"
        await phone.wait_state("down")
        assert await rig.status_of() == "completed"
