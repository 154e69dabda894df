"""Silence has a cause, and is acted on before the caller wonders: who owes an answer is asked again."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hearing import assert_whole, sounding
from rig import Rig, until

from arivox.emulator import sound
from arivox.emulator.script import Script, Stage, in_turn
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.marked import MarkedStream
from arivox.testing.phone import SipPhone

pytestmark = pytest.mark.asterisk
ANSWER = MarkedStream(0.6)
SOON_S = 4.0
"""No caller waits longer for the next try; a second of it is for a busy machine."""


async def say(stage: Stage, stream: MarkedStream = ANSWER, **options: Any) -> None:
    await stage.say(sound.encode(stream.pcm(), stage.session.output_format), **options)


async def greeted(rig: Rig) -> tuple[SipPhone, Stage]:
    """Return a call in which the greeting was heard to its end."""
    phone = await rig.dial()
    stage = await rig.stage()
    await stage.wait_for("response.create")
    await say(stage)
    await phone.wait_heard()
    await phone.wait_silence(150)
    return phone, stage


async def asked_and_heard(phone: SipPhone, stage: Stage, since: float) -> dict[str, Any]:
    """Answer once asked again; assert that it came soon and is heard whole. Return the request."""
    asked = await stage.wait_for("response.create", timeout=SOON_S)
    assert time.monotonic() - since < SOON_S
    await say(stage)
    await phone.wait_heard(after=since)
    await phone.wait_silence(150)
    assert_whole(phone.heard_between(since, time.monotonic()).pcm, ANSWER)
    return asked


# --- answers in which there is nothing to hear ---


async def without_sound(stage: Stage) -> None:
    await stage.end()


async def in_text(stage: Stage) -> None:
    answer = stage.openai.active
    assert answer is not None
    answer.shape.modalities[:] = ["text"]
    await stage.say("On Monday at nine.")


async def withheld(stage: Stage) -> None:
    answer = stage.openai.active
    assert answer is not None
    answer._finish("incomplete", {"type": "incomplete", "reason": "content_filter"}, time.monotonic())


async def cancelled_by_itself(stage: Stage) -> None:
    answer = stage.openai.active
    assert answer is not None
    answer.cancel("turn_detected", time.monotonic())


async def of_silence(stage: Stage) -> None:
    await stage.say(stage.session.output_format.silence * 80_000, speed=100.0)


async def of_zero_bytes(stage: Stage) -> None:
    response = stage.openai.active
    assert response is not None
    audio = {"type": "response.output_audio.delta", "response_id": response.id, "item_id": "item_none"}
    await stage.send(audio | {"output_index": 0, "content_index": 0, "delta": ""})
    await stage.end()


async def of_a_click(stage: Stage) -> None:
    await stage.say(sound.encode(signal.tone(500, 0.02), stage.session.output_format))


EMPTY: dict[str, tuple[Callable[[Stage], Awaitable[None]], str, str]] = {
    "no sound": (without_sound, "had no sound", "say your answer aloud"),
    "text": (in_text, "had no sound", "say your answer aloud"),
    "silence": (of_silence, "had no sound", "say your answer aloud"),
    "zero bytes": (of_zero_bytes, "had no sound", "say your answer aloud"),
    "withheld": (withheld, "answer failed", "other words"),
}


@pytest.mark.parametrize("case", EMPTY)
async def test_greeting_in_which_nothing_is_heard(asterisk: AsteriskInstance, case: str) -> None:
    nothing, told, words = EMPTY[case]
    text = ["wrote its answer"] if case == "text" else []
    async with Rig(asterisk, Script, patient=False, expect_log=[told, *text]) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wait_for("response.create")
        since = time.monotonic()
        await nothing(stage)
        asked = await asked_and_heard(phone, stage, since)
        instructions = asked["response"]["instructions"]
        assert words in instructions
        assert rig.calls[0].conversation is not None
        assert rig.calls[0].conversation.brief.instructions in instructions, "and who it is"


@pytest.mark.parametrize("case", EMPTY)
async def test_answer_in_which_nothing_is_heard(asterisk: AsteriskInstance, case: str) -> None:
    nothing, told, _ = EMPTY[case]
    text = ["wrote its answer"] if case == "text" else []
    async with Rig(asterisk, Script, patient=False, expect_log=[told, *text]) as rig:
        phone, stage = await greeted(rig)
        await stage.speech_started()
        await stage.speech_stopped("Which days are free?")
        since = time.monotonic()
        await nothing(stage)
        await asked_and_heard(phone, stage, since)
        if case == "text":
            deleted = stage.record.received("conversation.item.delete")
            assert len(deleted) == 1, "it would lead the next ones astray"


async def test_answer_that_the_service_takes_back_is_asked_for_again(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, patient=False) as rig:
        phone, stage = await greeted(rig)
        await stage.speech_started()
        await stage.speech_stopped("Which days are free?")
        since = time.monotonic()
        await cancelled_by_itself(stage)
        await asked_and_heard(phone, stage, since)


async def test_click_is_no_answer(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, patient=False, expect_log=["had no sound"]) as rig:
        _, stage = await greeted(rig)
        await stage.speech_started()
        await stage.speech_stopped("Which days are free?")
        await of_a_click(stage)
        await stage.wait_for("response.create", timeout=SOON_S)


@pytest.mark.parametrize("begun", [False, True])
async def test_answer_that_goes_on_in_silence(asterisk: AsteriskInstance, begun: bool) -> None:
    """The service streams on, and there is nothing in it: from the start, or in the middle of a sentence."""
    async with Rig(asterisk, Script, patient=False, expect_log=["asked again"]) as rig:
        phone, stage = await greeted(rig)
        await stage.speech_started()
        await stage.speech_stopped("Which days are free?")
        if begun:
            await say(stage, end=False)
            await phone.wait_heard(after=time.monotonic())
            await phone.wait_silence(150)
        silence = stage.session.output_format.silence * 80_000
        since = time.monotonic()
        await stage.say(silence, speed=1.0, end=False, wait=False)
        await asked_and_heard(phone, stage, since)
        assert stage.record.received("response.cancel")


async def test_answer_that_the_service_cuts_off_in_the_middle_is_gone_on_with(
    asterisk: AsteriskInstance,
) -> None:
    """A noise may have made it, of which nothing else is told."""
    async with Rig(asterisk, Script, patient=False, expect_log=[]) as rig:
        phone, stage = await greeted(rig)
        await stage.speech_started()
        await stage.speech_stopped("Which days are free?")
        await say(stage, end=False)
        await phone.wait_heard(after=time.monotonic())
        await cancelled_by_itself(stage)
        await phone.wait_silence(150)
        asked = await asked_and_heard(phone, stage, time.monotonic())
        assert "Go on where you stopped" in asked["response"]["instructions"]


# --- answers that do not come ---


async def test_turn_to_which_no_answer_begins(asterisk: AsteriskInstance) -> None:
    """Also where the service hears no words in it."""
    async with Rig(asterisk, Script, patient=False, expect_log=["asked again"]) as rig:
        phone, stage = await greeted(rig)
        for kind in ("speech_started", "speech_stopped"):
            await stage.send({"type": f"input_audio_buffer.{kind}", "item_id": "item_caller"})
        since = time.monotonic()
        kind = "conversation.item.input_audio_transcription.completed"
        await stage.send({"type": kind, "item_id": "item_caller", "content_index": 0, "transcript": ""})
        asked = await asked_and_heard(phone, stage, since)
        assert "instructions" not in asked.get("response", {}), "the state's own are in force"


async def test_answer_that_begins_and_hangs_and_is_over_when_it_is_broken_off(
    asterisk: AsteriskInstance,
) -> None:
    """The service says that there is nothing to cancel: so it has ended, and another may be asked for."""
    async with Rig(asterisk, Script, patient=False, expect_log=["asked again"]) as rig:
        phone, stage = await greeted(rig)
        for kind in ("speech_started", "speech_stopped"):
            await stage.send({"type": f"input_audio_buffer.{kind}", "item_id": "item_caller"})
        since = time.monotonic()
        await stage.send(
            {"type": "response.created", "response": {"id": "resp_lost", "status": "in_progress"}}
        )
        await asked_and_heard(phone, stage, since)
        assert stage.record.received("response.cancel")


async def test_ai_that_falls_mute_is_replaced_and_hears_the_caller_again(asterisk: AsteriskInstance) -> None:
    scripts = [Script(listens=True), Script(listens=True)]
    expect_log = ["asked again", "is mute", "session is lost"]
    async with Rig(asterisk, in_turn(*scripts), patient=False, expect_log=expect_log) as rig:
        phone, first = await greeted(rig)
        playing = phone.play(MarkedStream(1.5).pcm())
        noticed = "input_audio_buffer.speech_started"
        await first.record.until(lambda: any(frame.kind == noticed for frame in first.record.frames), 5)
        await first.record.wait("input_audio_buffer.speech_stopped", sent=True)
        await first.stall()
        await playing.done()
        second = await rig.stage(2)
        await second.wanted(timeout=10)
        heard = sound.decode(second.record.audio_received, second.session.input_format)
        assert_whole(sounding(heard), MarkedStream(1.5))
        since = time.monotonic()
        await say(second)
        await phone.wait_heard(after=since)
        await phone.wait_silence(150)
        assert_whole(phone.heard_between(since, time.monotonic()).pcm, ANSWER)


async def test_ai_that_shows_no_sign_of_having_heard_is_asked(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, patient=False, expect_log=[]) as rig:
        phone, stage = await greeted(rig)
        await until(lambda: not rig.calls[0]._exchange.playout.playing, "the greeting")  # type: ignore[union-attr]
        await stage.sleep(1.0)
        await phone.play(signal.speech_like(1.5)).done()
        asked = await stage.wait_for("response.create", timeout=8)
        assert "may not have reached you" in asked["response"]["instructions"]
        since = time.monotonic()
        await say(stage)
        await phone.wait_heard(after=since)


# --- turns that do not end ---


async def test_turn_that_the_ai_does_not_end_is_ended_by_the_silence(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, patient=False, expect_log=["does not end the caller's turn"]) as rig:
        phone, stage = await greeted(rig)
        playing = phone.play(signal.speech_like(1.5))
        await stage.send({"type": "input_audio_buffer.speech_started", "item_id": "item_caller"})
        await playing.done()
        since = time.monotonic()
        await stage.wait_for("input_audio_buffer.commit", timeout=SOON_S)
        await asked_and_heard(phone, stage, since)


# --- retries ---


async def test_rate_limit_that_is_told_as_an_error_is_waited_for(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, patient=False, expect_log=["the AI reports an error"]) as rig:
        phone, stage = await greeted(rig)
        for kind in ("speech_started", "speech_stopped"):
            await stage.send({"type": f"input_audio_buffer.{kind}", "item_id": "item_caller"})
        await stage.error(
            "rate_limit_exceeded", "Rate limit reached. Please try again in 2.8s.", "rate_limit_exceeded"
        )
        since = time.monotonic()
        await stage.wait_for("response.create", timeout=6)
        assert time.monotonic() - since > 2.5
        await say(stage)
        await phone.wait_heard(after=since)
