"""Calls with OpenAI Live on a real Asterisk: nobody takes turns, and the model falls silent by itself."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hearing import assert_all_heard, assert_silent, assert_whole, last_loud, sounding
from rig import Rig, until

from arivox.emulator import sound
from arivox.emulator.openai_live import LiveOptions
from arivox.emulator.openai_live.session import LiveSession
from arivox.emulator.script import Script, Stage
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.marked import MarkedStream
from arivox.testing.phone import SipPhone

pytestmark = pytest.mark.asterisk
LIVE: dict[str, Any] = {"ai_service_provider": "openai-live", "idle_caller_s": 0.0}
ANSWER = MarkedStream(2.0)
QUESTION = MarkedStream(1.5)


def listening() -> Script:
    return Script(listens=True)


async def say(stage: Stage, stream: MarkedStream = ANSWER, **options: Any) -> None:
    form = stage.session.output_format
    await stage.say(sound.encode(stream.pcm(form.rate), form), **options)


async def greeted(rig: Rig) -> tuple[SipPhone, Stage]:
    phone = await rig.dial()
    stage = await rig.stage()
    await stage.wanted()
    await say(stage, transcript="Good morning.")
    await phone.wait_heard()
    await phone.wait_silence(900)
    assert_all_heard(phone.heard().pcm, ANSWER)
    return phone, stage


async def test_question_and_answer_are_heard_whole(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, listening, **LIVE) as rig:
        phone, stage = await greeted(rig)
        before = len(stage.record.audio_received)
        await phone.play(QUESTION.pcm()).done()
        await stage.wanted()
        question = sound.decode(stage.record.audio_received[before:], stage.session.input_format)
        assert_whole(sounding(question), QUESTION, tolerance_ms=25)
        turn = stage.session.last_turn
        assert turn is not None
        stage.session.transcribed(turn, "I have a toothache.")
        asked = time.monotonic()
        await say(stage, transcript="Which day would suit you?")
        await phone.wait_heard(after=asked)
        await phone.wait_silence(900)
        assert_all_heard(phone.heard_between(asked, time.monotonic()).pcm, ANSWER)
        await phone.hangup()
        await rig.ended()
        timeline = rig.timelines[0]
        assert [entry.data["text"] for entry in timeline.find("caller.said")] == ["I have a toothache."]
        said = [entry.data["text"] for entry in timeline.find("agent.said")]
        assert said == ["Good morning.", "Which day would suit you?"]
        spoken = [entry.data["item"] for entry in timeline.find("agent.speaks")]
        assert [entry.data["item"] for entry in timeline.find("agent.said")] == spoken
        # The service counts the seconds, and told of the last of them.
        closed = stage.record.sent("session.closed")[0].event
        assert closed["reason"] == "close_requested"
        assert rig.counters()["usage_seconds"] == round(closed["usage"]["seconds"])
        assert rig.counters()["ai_skipped_silence_ms"] <= 40


async def test_model_that_is_spoken_over_stops_itself(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, listening, **LIVE) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wanted()
        await say(stage, MarkedStream(20.0), transcript="A long story", wait=False)
        await phone.wait_heard()
        await phone.play(signal.speech_like(0.8)).done()
        await stage.wanted()
        stopped = stage.session.responses[0].spoken[0].last_at
        assert stopped is not None
        # The queue to the caller is shallow: nothing plays on for long.
        assert last_loud(phone, 0.0) - stopped < 0.2
        answered = time.monotonic()
        assert_silent(phone.heard_between(stopped + 0.2, answered).pcm)
        await say(stage)
        await phone.wait_heard(after=answered)
        await phone.wait_silence(900)
        assert_all_heard(phone.heard_between(answered, time.monotonic()).pcm, ANSWER)
        assert not [frame for frame in stage.record.received() if "truncate" in frame.kind]


async def test_session_is_left_for_another_before_its_own_end(asterisk: AsteriskInstance) -> None:
    """The service ends the session sooner than the call would: it is left at a quiet moment before."""
    async with Rig(
        asterisk,
        listening,
        emulator={"live": LiveOptions(expires_after=12.0)},
        max_call_duration_s=300,
        **LIVE,
    ) as rig:
        phone, first = await greeted(rig)
        await until(lambda: len(rig.emulator.sessions) > 1, "another session", 15.0)
        second = await rig.stage(2)
        closed = first.record.sent("session.closed")[0].event
        assert closed["reason"] == "close_requested", "it was not waited for"
        await phone.play(QUESTION.pcm()).done()
        await second.wanted()
        begun = time.monotonic()
        await say(second, transcript="Which day would suit you?")
        await phone.wait_heard(after=begun)
        await phone.wait_silence(900)
        assert_all_heard(phone.heard_between(begun, time.monotonic()).pcm, ANSWER)
        (start,) = second.record.received("session.start")
        assert "Good morning." in str(start.event["session"]["input"])


async def test_session_that_expires_in_the_middle(asterisk: AsteriskInstance) -> None:
    """Of an answer: what had come is heard, and the next session is asked to go on with it."""
    lost = "the AI's session is lost"
    async with Rig(asterisk, listening, expect_log=[lost], goodbye_before_s=0.0, **LIVE) as rig:
        phone, first = await greeted(rig)
        await phone.play(QUESTION.pcm()).done()
        await first.wanted()
        turn = first.session.last_turn
        assert turn is not None
        first.session.transcribed(turn, "Which day?")
        begun = time.monotonic()
        await say(first, transcript="On Monday there is", end=False)
        assert isinstance(first.session, LiveSession)
        first.session.end("expired", time.monotonic())
        second = await rig.stage(2)
        asked = await second.wanted()
        assert "go on where the conversation stands" in asked.instructions
        await phone.wait_heard(after=begun)
        await phone.wait_silence(300)
        assert_all_heard(phone.heard_between(begun, time.monotonic()).pcm, ANSWER)
        again = time.monotonic()
        await say(second, transcript="a time at nine.")
        await phone.wait_heard(after=again)
        await phone.wait_silence(900)
        assert_all_heard(phone.heard_between(again, time.monotonic()).pcm, ANSWER)
        (line,) = rig.logged(lost)
        assert "as long as it may" in line["error"]


async def test_ai_that_is_lost_is_called_again(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, listening, expect_log=["the AI's session is lost"], **LIVE) as rig:
        phone, first = await greeted(rig)
        playing = phone.play(QUESTION.pcm())
        await first.wait_audio(600)
        assert isinstance(first.session, LiveSession)
        until_ms = round(first.session.received_ms) - 100  # the transcript lags behind the sound
        first.session.outlet.words("input", "I have", until_ms - 300, until_ms, apart=True)
        await first.close(1011, "internal error")
        second = await rig.stage(2)
        await playing.done()
        asked = await second.wanted()
        assert asked is not None
        form = second.session.input_format
        written = sound.decode(bytes(first.record.audio_received[: form.bytes_for(until_ms)]), form)
        rest = sounding(sound.decode(bytes(second.record.audio_received), form))
        assert QUESTION.jumps(rest) == []
        assert QUESTION.position_ms(rest) == pytest.approx(1500, abs=30)
        assert 1500 - len(rest) / 8 == pytest.approx(QUESTION.position_ms(written), abs=30)
        turn = second.session.last_turn
        assert turn is not None
        second.session.transcribed(turn, "a toothache.")
        begun = time.monotonic()
        await say(second, transcript="Which day would suit you?")
        await phone.wait_heard(after=begun)
        await phone.wait_silence(900)
        assert_all_heard(phone.heard_between(begun, time.monotonic()).pcm, ANSWER)
        (start,) = [frame for frame in second.record.received() if frame.kind == "session.start"]
        assert "Good morning." in str(start.event)
        await phone.hangup()
        assert await rig.ended() == "caller_hangup"
        said = [entry.data["text"] for entry in rig.timelines[0].find("caller.said")]
        assert said == ["I have", "a toothache."]


async def test_agent_ends_the_call_after_its_last_word(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, listening, **LIVE) as rig:
        phone, stage = await greeted(rig)
        await phone.play(QUESTION.pcm()).done()
        await stage.wanted()
        begun = time.monotonic()
        await say(stage, transcript="Good-bye.", end=False)
        await stage.call("end_call", {})
        assert await rig.ended() == "completed"
        await phone.wait_state("down")
        assert_all_heard(phone.heard_between(begun, time.monotonic()).pcm, ANSWER)


async def test_stall_of_the_network_loses_no_word(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, listening, **LIVE) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wanted()
        await say(stage, MarkedStream(6.0), wait=False)
        await phone.wait_heard()
        await stage.stall()
        await stage.sleep(1.5)
        await stage.resume()
        await phone.wait_silence(2500, timeout=15)
        stream = MarkedStream(6.0)
        jumps = stream.jumps(phone.heard().pcm)
        assert all(jump < 8 for _, jump in jumps), "a piece is missing"
        assert stream.position_ms(phone.heard().pcm) == pytest.approx(6000, abs=40)
