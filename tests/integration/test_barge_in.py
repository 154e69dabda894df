"""The caller interrupts: the agent is silent at once, and the AI learns what was heard."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import pytest
from hearing import assert_silent, assert_whole, last_loud, sounding
from rig import Rig, until

from arivox.emulator import sound
from arivox.emulator.script import Script, Stage
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.marked import MarkedStream
from arivox.testing.phone import SipPhone

pytestmark = pytest.mark.asterisk
ANSWER = MarkedStream(6.0)
NEXT = MarkedStream(1.0)
SILENT_WITHIN_S = 0.1


def in_format(stage: Stage, stream: MarkedStream) -> bytes:
    """Return the stream in the session's output format."""
    audio = stage.session.output_format
    return sound.encode(stream.pcm(audio.rate), audio)


@dataclass
class Interruption:
    """What one interruption did."""

    phone: SipPhone
    began: float
    """When the answer was first heard."""
    told: float
    """When the emulator wrote speech_started."""
    changes: list[dict[str, Any]]
    """The truncations and deletions that came of it."""

    def assert_silent_in_time(self, until_time: float = float("inf")) -> None:
        late = last_loud(self.phone, self.began, until_time) - self.told
        assert late < SILENT_WITHIN_S, f"the agent was heard for {late * 1000:.0f} ms more"

    def assert_truncated_as_heard(self, item_id: str, stream: MarkedStream, until_time: float) -> None:
        (change,) = self.changes
        assert change["type"] == "conversation.item.truncate"
        assert change["item_id"] == item_id
        heard = stream.position_ms(self.phone.heard_between(self.began, until_time).pcm)
        assert change["audio_end_ms"] == pytest.approx(heard, abs=40)


def changes(stage: Stage) -> list[dict[str, Any]]:
    kinds = ("conversation.item.truncate", "conversation.item.delete")
    return [frame.event for frame in stage.record.received() if frame.kind in kinds]


async def greet(stage: Stage) -> None:
    await stage.wait_for("response.create")
    await stage.say(sound.tone(stage.session.output_format, 200))


async def interrupt(phone: SipPhone, stage: Stage, began: float, after_s: float) -> Interruption:
    """Let the AI find, ``after_s`` after the answer was first heard, that the caller speaks."""
    await asyncio.sleep(began + after_s - time.monotonic())
    await stage.speech_started()
    told = stage.record.sent("input_audio_buffer.speech_started")[-1].at
    await stage.record.until(lambda: bool(changes(stage)))
    return Interruption(phone, began, told, changes(stage))


@pytest.mark.parametrize(
    ("speed", "turn", "audio_format"),
    [
        pytest.param(1.5, "answer", "auto", id="answer still being sent"),
        pytest.param(float("inf"), "answer", "auto", id="answer sent"),
        pytest.param(1.5, "greeting", "auto", id="greeting still being sent"),
        pytest.param(float("inf"), "greeting", "auto", id="greeting sent"),
        pytest.param(1.5, "answer", "pcm", id="answer at 24 kHz still being sent"),
    ],
)
async def test_agent_is_silent_at_once(
    asterisk: AsteriskInstance, speed: float, turn: str, audio_format: str
) -> None:
    async with Rig(asterisk, Script, openai_audio_format=audio_format) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        if turn == "answer":
            await greet(stage)
            await phone.wait_heard()
            await phone.wait_silence(100)
            await stage.speech_started()
            await stage.speech_stopped()
        else:
            await stage.wait_for("response.create")
        asked = time.monotonic()
        await stage.say(in_format(stage, ANSWER), speed=speed, wait=False)
        response = stage.openai.responses[-1]
        began = await phone.wait_heard(after=asked)
        cut = await interrupt(phone, stage, began, 0.7)
        assert response.status == ("cancelled" if speed < 10 else "completed")
        await phone.wait_silence(300)
        answered = time.monotonic()
        cut.assert_silent_in_time(answered)
        cut.assert_truncated_as_heard(response.items[0].id, ANSWER, answered)
        await stage.speech_stopped()
        await stage.say(in_format(stage, NEXT))
        await phone.wait_heard(after=answered)
        await phone.wait_silence(150)
        assert_whole(phone.heard_between(answered, time.monotonic()).pcm, NEXT)
        assert stage.record.sent("error") == []
        timeline = rig.timelines[0]
        assert [entry.data["item"] for entry in timeline.find("barge_in")] == [response.items[0].id]


async def test_voice_of_the_caller_interrupts(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, lambda: Script(listens=True)) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wait_for("response.create")
        await stage.say(in_format(stage, ANSWER), speed=10, wait=False)
        began = await phone.wait_heard()
        await asyncio.sleep(0.5)
        phone.play(signal.speech_like(1.0))
        told = (await stage.record.wait("input_audio_buffer.speech_started", sent=True)).at
        await stage.record.wait("input_audio_buffer.speech_stopped", sent=True)
        cut = Interruption(phone, began, told, changes(stage))
        cut.assert_silent_in_time()
        cut.assert_truncated_as_heard(stage.openai.responses[0].items[0].id, ANSWER, time.monotonic())
        await stage.say(in_format(stage, NEXT))
        answered = told + 0.1
        await phone.wait_heard(after=answered)
        await phone.wait_silence(150)
        assert_whole(phone.heard_between(answered, time.monotonic()).pcm, NEXT)


async def test_item_that_was_never_heard_is_deleted(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wait_for("response.create")
        await stage.say(in_format(stage, ANSWER), speed=100, end=False)
        await stage.say(in_format(stage, NEXT), speed=100)
        first, second = stage.openai.responses[0].items
        began = await phone.wait_heard()
        cut = await interrupt(phone, stage, began, 0.5)
        await stage.record.until(lambda: len(changes(stage)) == 2)
        cut.assert_silent_in_time()
        truncation, deletion = changes(stage)
        assert (truncation["type"], truncation["item_id"]) == ("conversation.item.truncate", first.id)
        assert (deletion["type"], deletion["item_id"]) == ("conversation.item.delete", second.id)
        assert stage.record.sent("error") == []


async def test_answer_heard_to_its_end_is_not_truncated(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wait_for("response.create")
        await stage.say(in_format(stage, NEXT))
        await phone.wait_heard()
        await phone.wait_silence(200)
        await stage.speech_started()
        await until(lambda: bool(rig.timelines[0].find("caller.speech_started")), "the interruption")
        await stage.wait_audio(200)
        assert changes(stage) == []
        assert rig.timelines[0].find("barge_in") == []


async def test_late_audio_never_plays(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wait_for("response.create")
        await stage.say(in_format(stage, ANSWER), speed=2, sizes=[800], wait=False)
        response = stage.openai.responses[0]
        began = await phone.wait_heard()
        await asyncio.sleep(0.5)
        # Written by hand: by itself the emulator stops to speak in the same instant, as the service does not.
        await stage.send(
            {"type": "input_audio_buffer.speech_started", "audio_start_ms": 0, "item_id": "item_x"}
        )
        told = stage.record.sent("input_audio_buffer.speech_started")[-1].at
        sent = len(stage.record.sent("response.output_audio.delta"))
        await stage.record.until(lambda: len(stage.record.sent("response.output_audio.delta")) >= sent + 6)
        assert not response.done
        response.cancel("turn_detected", time.monotonic())
        silence_from = told + SILENT_WITHIN_S
        cut = Interruption(phone, began, told, changes(stage))
        await phone.wait_silence(300)
        cut.assert_silent_in_time()
        cut.assert_truncated_as_heard(response.items[0].id, ANSWER, time.monotonic())
        answered = time.monotonic()
        assert_silent(phone.heard_between(silence_from, answered).pcm)
        await stage.say(in_format(stage, NEXT))
        await phone.wait_silence(150)
        assert_whole(phone.heard_between(answered, time.monotonic()).pcm, NEXT)
        await phone.hangup()
        await rig.ended()
        assert rig.counters()["ai_late_audio_ms"] >= 500


async def test_late_item_of_an_interrupted_answer_never_plays(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wait_for("response.create")
        await stage.say(in_format(stage, ANSWER), speed=100, end=False)
        response = stage.openai.responses[0]
        await phone.wait_heard()
        await stage.send(
            {"type": "input_audio_buffer.speech_started", "audio_start_ms": 0, "item_id": "item_x"}
        )
        told = time.monotonic()
        await stage.say(in_format(stage, NEXT), speed=100, end=False)
        assert len(response.items) == 2
        await phone.wait_silence(300)
        assert_silent(phone.heard_between(told + SILENT_WITHIN_S, time.monotonic()).pcm)
        response.cancel("turn_detected", time.monotonic())
        answered = time.monotonic()
        await stage.say(in_format(stage, NEXT))
        await phone.wait_heard(after=answered)
        await phone.wait_silence(150)
        assert_whole(phone.heard_between(answered, time.monotonic()).pcm, NEXT)


async def test_interruptions_one_after_another(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wait_for("response.create")
        for count in range(1, 5):
            asked = time.monotonic()
            await stage.say(in_format(stage, ANSWER), speed=5, wait=False)
            item = stage.openai.responses[-1].items[0]
            began = await phone.wait_heard(after=asked)
            await asyncio.sleep(0.3)
            await stage.speech_started()
            told = stage.record.sent("input_audio_buffer.speech_started")[-1].at
            await stage.record.until(lambda count=count: len(changes(stage)) == count)  # type: ignore[misc]
            await phone.wait_silence(100)
            done = time.monotonic()
            cut = Interruption(phone, began, told, changes(stage)[-1:])
            cut.assert_silent_in_time(done)
            cut.assert_truncated_as_heard(item.id, ANSWER, done)
            await stage.speech_stopped()
        assert len(sounding(phone.heard().pcm)) > 0
        assert stage.record.sent("error") == []
