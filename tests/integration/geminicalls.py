"""What the calls with an emulated Gemini Live share: a greeting, a question and its answer, heard whole."""

from __future__ import annotations

import time
from typing import Any

from hearing import RATE, assert_whole, sounding
from rig import Rig, until

from arivox.audio.g711 import Pcm
from arivox.call.timeline import Entry
from arivox.emulator import sound
from arivox.emulator.gemini.session import GeminiSession
from arivox.emulator.script import Script, Stage
from arivox.testing.marked import MarkedStream
from arivox.testing.phone import SipPhone

GEMINI: dict[str, Any] = {"ai_service_provider": "gemini", "idle_caller_s": 0.0}
ANSWER = MarkedStream(2.0)
QUESTION = MarkedStream(1.5)


def listening() -> Script:
    return Script(listens=True)


def emulated(stage: Stage) -> GeminiSession:
    assert isinstance(stage.session, GeminiSession)
    return stage.session


async def say(stage: Stage, stream: MarkedStream = ANSWER, **options: Any) -> None:
    """Have the agent speak: all at once, for a busy machine makes holes in what comes piece by piece."""
    form = stage.session.output_format
    await stage.say(sound.encode(stream.pcm(form.rate), form), **{"speed": float("inf"), **options})


def heard_by_ai(stage: Stage) -> Pcm:
    """Return all that reached one connection of the AI, at 8 kHz."""
    audio = stage.session.input_format
    return sound.resample(sound.decode(stage.record.audio_received, audio), audio.rate, RATE)


async def reconnection(rig: Rig, count: int = 1, timeout: float = 5.0) -> Entry:
    """Wait for the ``count``-th change of the connection."""
    timeline = rig.timelines[0]
    await until(lambda: len(timeline.find("provider.reconnected")) >= count, "another connection", timeout)
    return timeline.find("provider.reconnected")[count - 1]


async def greeted(rig: Rig) -> tuple[SipPhone, Stage]:
    phone = await rig.dial()
    stage = await rig.stage()
    await stage.wanted()
    await say(stage)
    await phone.wait_heard()
    await phone.wait_silence(200)
    assert_whole(phone.heard().pcm, ANSWER)
    return phone, stage


async def asked_and_answered(phone: SipPhone, stage: Stage) -> None:
    """Have the caller ask and the agent answer, and both be heard whole."""
    before = len(stage.record.audio_received)
    await phone.play(QUESTION.pcm()).done()
    await stage.wanted()
    asked = time.monotonic()
    await say(stage)
    await phone.wait_heard(after=asked)
    await phone.wait_silence(200)
    assert_whole(phone.heard_between(asked, time.monotonic()).pcm, ANSWER)
    audio = stage.session.input_format
    question = sound.decode(stage.record.audio_received[before:], audio)
    assert_whole(sounding(sound.resample(question, audio.rate, RATE)), QUESTION, tolerance_ms=25)
