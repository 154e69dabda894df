"""Calls with Gemini Live on a real Asterisk: its connections come and go, and nobody on the phone notices."""

from __future__ import annotations

import asyncio
import time

import pytest
from geminicalls import (
    ANSWER,
    GEMINI,
    QUESTION,
    asked_and_answered,
    emulated,
    greeted,
    heard_by_ai,
    listening,
    reconnection,
    say,
)
from hearing import RATE, assert_silent, assert_whole, sounding
from rig import Rig, until

from arivox.emulator import sound
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.marked import MarkedStream

pytestmark = pytest.mark.asterisk


async def test_call_lives_through_three_goaways(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, listening, time_limit=90, **GEMINI) as rig:
        phone, stage = await greeted(rig)
        for count in range(1, 4):
            emulated(stage).go_away(10.0, time.monotonic())
            reconnected = await reconnection(rig, count)
            assert reconnected.data == {"cause": "goAway", "resumed": True, "gap_ms": 0}
            old, stage = stage, await rig.stage(count + 1)
            await asyncio.wait_for(old.connection.ended.wait(), 5)
            assert old.connection.close_code == 1000, "we left before we were thrown out"
            assert stage.record.received("setup")[0].event["setup"]["sessionResumption"]["handle"]
            await asked_and_answered(phone, stage)
        assert len(emulated(stage).conversation.entries) >= 7, "it is one conversation"
        # A machine that is busy with other work sends a packet late now and then.
        assert all(ms < 400 for _, ms in phone.heard().missing())
        assert rig.timelines[0].find("barge_in") == []
        await phone.hangup()
        await rig.ended()
        assert rig.counters()["ai_reconnects"] == 3
        assert rig.counters()["uplink_dropped"] == 0


async def test_goaway_waits_for_the_end_of_what_is_said(asterisk: AsteriskInstance) -> None:
    """An answer that is being made, and a caller who speaks, are not cut."""
    async with Rig(asterisk, listening, **GEMINI) as rig:
        phone, stage = await greeted(rig)
        before = len(stage.record.audio_received)
        question = phone.play(QUESTION.pcm())
        await stage.wait_audio(400)
        emulated(stage).go_away(20.0, time.monotonic())
        await question.done()
        await stage.wanted()
        asked = time.monotonic()
        assert rig.timelines[0].find("provider.reconnected") == []
        await say(stage, speed=1.5)
        await phone.wait_heard(after=asked)
        await phone.wait_silence(200)
        assert_whole(phone.heard_between(asked, time.monotonic()).pcm, ANSWER)
        await reconnection(rig)
        question_heard = sound.decode(stage.record.audio_received[before:], stage.session.input_format)
        assert_whole(sounding(sound.resample(question_heard, 16000, RATE)), QUESTION, tolerance_ms=25)
        await asked_and_answered(phone, await rig.stage(2))


async def test_caller_who_never_pauses_loses_little(asterisk: AsteriskInstance) -> None:
    """The time that goAway gave runs out in the middle of a word."""
    monologue = MarkedStream(6.0)
    async with Rig(asterisk, listening, **GEMINI) as rig:
        phone, stage = await greeted(rig)
        before = len(stage.record.audio_received)
        speaking = phone.play(monologue.pcm())
        await stage.wait_audio(500)
        emulated(stage).go_away(4.5, time.monotonic())
        await reconnection(rig, timeout=8.0)
        again = await rig.stage(2)
        await speaking.done()
        await again.wait_audio(300)
        audio = stage.session.input_format
        first = sound.resample(sound.decode(stage.record.audio_received[before:], audio), audio.rate, RATE)
        left_at = monologue.position_ms(first)
        second = monologue.track(heard_by_ai(again))
        came_at = second[0, 1] - 50  # a reading stands for the middle of 100 ms
        assert 1000 < left_at < 5500, "it was in the middle"
        assert came_at - left_at < 200
        assert monologue.position_ms(sounding(heard_by_ai(again))) == pytest.approx(6000, abs=40)


@pytest.mark.parametrize("fault", ["reset", "1011", "1000"])
async def test_connection_that_is_lost_is_opened_again(asterisk: AsteriskInstance, fault: str) -> None:
    async with Rig(asterisk, listening, expect_log=["connection was lost"], **GEMINI) as rig:
        phone, stage = await greeted(rig)
        if fault == "reset":
            await stage.abort()
        else:
            await stage.close(int(fault), "Internal error encountered." if fault == "1011" else "")
        again = await rig.stage(2)
        assert (await reconnection(rig)).data["resumed"] is True
        await asked_and_answered(phone, again)
        assert len(rig.calls) == 1


async def test_question_whose_answer_was_lost_is_heard_again(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, listening, expect_log=["connection was lost"], **GEMINI) as rig:
        phone, stage = await greeted(rig)
        await phone.play(QUESTION.pcm()).done()
        await stage.wanted()
        await stage.abort()
        again = await rig.stage(2)
        await again.wanted()
        assert_whole(sounding(heard_by_ai(again)), QUESTION, tolerance_ms=25)
        asked = time.monotonic()
        await say(again)
        await phone.wait_heard(after=asked)
        await phone.wait_silence(200)
        assert_whole(phone.heard_between(asked, time.monotonic()).pcm, ANSWER)


async def test_agent_who_was_cut_off_goes_on(asterisk: AsteriskInstance) -> None:
    """Nobody asked a question that could be heard again: the agent is told."""
    async with Rig(asterisk, listening, expect_log=["connection was lost"], **GEMINI) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wanted()
        await say(stage, MarkedStream(10.0), speed=1.2, wait=False)
        await phone.wait_heard()
        await stage.abort()
        again = await rig.stage(2)
        answer = await again.wanted()
        assert "Go on where you were" in answer.instructions


async def test_session_that_cannot_be_taken_up_begins_anew_with_its_history(
    asterisk: AsteriskInstance,
) -> None:
    async with Rig(asterisk, listening, expect_log=["connection was lost"], **GEMINI) as rig:
        phone, stage = await greeted(rig)
        await phone.play(QUESTION.pcm()).done()
        await stage.wanted()
        turn = stage.session.last_turn
        assert turn is not None
        stage.session.transcribed(turn, "I have a toothache.")
        asked = time.monotonic()
        await say(stage, transcript="Which day?")
        await phone.wait_heard(after=asked)
        await phone.wait_silence(300)
        await until(lambda: len(rig.timelines[0].find("agent.said")) == 1, "the words")
        await stage.close(1008, "BidiGenerateContent session expired")
        again = await rig.stage(2)
        assert (await reconnection(rig)).data["resumed"] is False
        setup, history = (
            again.record.received("setup")[0].event,
            again.record.received("clientContent")[0].event,
        )
        assert setup["setup"]["sessionResumption"] == {}
        said = [(turn["role"], turn["parts"][0]["text"]) for turn in history["clientContent"]["turns"]]
        assert said == [("user", "I have a toothache."), ("model", "Which day?")]
        await asked_and_answered(phone, again)


async def test_caller_interrupts_gemini(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, listening, **GEMINI) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wanted()
        await say(stage, MarkedStream(20.0), speed=3, wait=False)
        await phone.wait_heard()
        await phone.play(signal.speech_like(0.8)).done()
        frame = (await stage.record.wait("serverContent.interrupted", sent=True)).at
        await stage.wanted()
        answered = time.monotonic()
        assert_silent(phone.heard_between(frame + 0.1, answered).pcm)
        await say(stage)
        await phone.wait_heard(after=answered)
        await phone.wait_silence(200)
        assert_whole(phone.heard_between(answered, time.monotonic()).pcm, ANSWER)
        (cut,) = rig.timelines[0].find("barge_in")
        assert cut.data["told"] is False
        heard_ms = cut.data["heard_ms"]
        assert isinstance(heard_ms, int)
        assert MarkedStream(20.0).position_ms(phone.heard_between(0, answered).pcm) == pytest.approx(
            heard_ms, abs=60
        )


async def test_interruption_without_an_answer_is_noticed(asterisk: AsteriskInstance) -> None:
    """A cough stops the agent, and the model has nothing to say to it."""
    async with Rig(asterisk, listening, expect_log=["it is asked again"], patient=False, **GEMINI) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wanted()
        await say(stage, MarkedStream(20.0), speed=3, wait=False)
        await phone.wait_heard()
        await phone.play(signal.speech_like(0.8)).done()
        await stage.record.wait("serverContent.interrupted", sent=True)
        await stage.record.wait("realtimeInput.text", count=2)  # the model is asked once more
        assert rig.timelines[0].find("provider.owes")[0].data["do"] == "ask"
        asked = time.monotonic()
        await say(stage)
        await phone.wait_heard(after=asked)
        await phone.wait_silence(200)
        assert_whole(phone.heard_between(asked, time.monotonic()).pcm, ANSWER)


async def test_gemini_that_falls_silent_is_noticed(asterisk: AsteriskInstance) -> None:
    """Two answers that do not come: the caller is sent on."""
    async with Rig(
        asterisk,
        listening,
        expect_log=["it is asked again", "the AI failed", "is mute", "is given up"],
        response_timeout_s=4.0,
        first_audio_timeout_s=4.0,
        **GEMINI,
    ) as rig:
        phone, stage = await greeted(rig)
        await phone.play(QUESTION.pcm()).done()
        await stage.wanted()
        turn = stage.session.last_turn
        assert turn is not None
        stage.session.transcribed(turn, "Is anybody there?")
        assert await rig.ended() == "provider_failed"
