"""The caller's telephone puts the call on hold: the agent is silent, waits for nobody, and then goes on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from hearing import assert_silent
from rig import Rig, until
from wire import LOST, Wire

from arivox.emulator import sound
from arivox.emulator.script import Script, Stage
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.marked import MarkedStream
from arivox.testing.phone import AnswerPlan, SipPhone
from arivox.testing.sdp import Direction

pytestmark = pytest.mark.asterisk
AIS = ("openai", "gemini", "openai-live")
STORY = MarkedStream(6.0)
HZ, LOST_HZ = 700.0, 1100.0


async def greeted(rig: Rig) -> tuple[SipPhone, Stage]:
    """Return a call in which the greeting was heard to its end."""
    phone = await rig.dial()
    stage = await rig.stage()
    await stage.wanted()
    await say(stage, 0.3)
    await phone.wait_heard()
    await phone.wait_silence(300)
    return phone, stage


async def say(stage: Stage, seconds: float, **options: Any) -> None:
    form = stage.session.output_format
    await stage.say(sound.encode(signal.tone(HZ, seconds, rate=form.rate), form), **options)


async def held(rig: Rig, phone: SipPhone, direction: Direction = "sendonly") -> float:
    """Put the call on hold, and return since when it is."""
    count = len(rig.timelines[0].find("caller.hold"))
    assert await phone.hold(direction) == 200
    await until(lambda: len(rig.timelines[0].find("caller.hold")) > count, "the hold")
    return time.monotonic()


async def taken_back(rig: Rig, phone: SipPhone, stage: Stage) -> None:
    """End the hold, and have the AI say something where it is asked to; it must be heard."""
    begun = time.monotonic()
    assert await phone.unhold() == 200
    await until(lambda: bool(rig.timelines[0].find("caller.unhold")), "the end of the hold")
    await stage.wanted()
    await say(stage, 0.5, wait=False)
    first = await phone.wait_heard(after=begun)
    assert first - begun < 3, "the agent goes on"


@pytest.mark.parametrize("ai", AIS)
async def test_held_caller_is_left_in_peace(asterisk: AsteriskInstance, ai: str) -> None:
    async with Rig(asterisk, Script, ai_service_provider=ai, idle_caller_s=1.5) as rig:
        phone, stage = await greeted(rig)
        since = await held(rig, phone)
        await asyncio.sleep(4.0)  # they would have been asked twice, and hung up
        assert phone.state == "up"
        assert rig.timelines[0].find("alarm") == []
        assert stage.session.active is None, "nobody is spoken to"
        assert phone.heard_between(since + 0.3, time.monotonic()).pcm.size == 0
        await taken_back(rig, phone, stage)
        # Whoever is back is waited for as ever.
        await until(lambda: bool(rig.timelines[0].find("alarm")), "the question whether they are there", 8)
        assert rig.timelines[0].find("alarm")[0].data["name"] == "ask_caller"


@pytest.mark.parametrize("direction", ["sendonly", "inactive"])
async def test_what_is_said_into_a_hold_is_not_heard(
    asterisk: AsteriskInstance, direction: Direction
) -> None:
    async with Rig(asterisk, Script) as rig:
        phone, stage = await greeted(rig)
        begun = time.monotonic()
        story = sound.encode(STORY.pcm(), stage.session.output_format)
        await stage.say(story, speed=float("inf"))
        await phone.wait_heard(after=begun)
        since = await held(rig, phone, direction)
        truncated = await stage.wait_for("conversation.item.truncate")
        # Its own second answer, to a tool say, is not heard at all.
        await stage.say("Is anybody there?", speed=float("inf"))
        await stage.wait_for("conversation.item.delete")
        before = phone.heard_between(begun, since + 0.3).pcm
        spoken = sum(stop - start for start, stop in signal.active_segments(before))
        assert truncated["audio_end_ms"] == pytest.approx(spoken, abs=200), (
            "as much as was heard, and no more"
        )
        assert truncated["audio_end_ms"] < 5000
        await asyncio.sleep(0.5)
        back = time.monotonic()
        await taken_back(rig, phone, stage)
        await phone.wait_silence(400)
        heard = phone.heard_between(back, time.monotonic()).pcm
        assert sum(stop - start for start, stop in signal.active_segments(heard)) == pytest.approx(
            500, abs=60
        )
        await phone.hangup()
        assert await rig.ended() == "caller_hangup"
        assert rig.counters()["agent_heard_s"] < 0.3 + truncated["audio_end_ms"] / 1000 + 0.5 + 0.3


@pytest.mark.parametrize("ai", AIS)
async def test_nothing_that_was_said_into_a_hold_is_heard_later(asterisk: AsteriskInstance, ai: str) -> None:
    """Neither the rest of a sentence nor what the AI begins meanwhile."""
    async with Rig(asterisk, Script, ai_service_provider=ai) as rig:
        phone, stage = await greeted(rig)
        await stage.speech_started()
        await stage.speech_stopped("Tell me.")
        begun = time.monotonic()
        await stage.wanted()
        form = stage.session.output_format
        story = sound.encode(signal.tone(LOST_HZ, 3.0, rate=form.rate), form)
        await stage.say(story, wait=False)
        await phone.wait_heard(after=begun)
        await held(rig, phone)
        await asyncio.sleep(0.5)
        await say(stage, 1.0, wait=False)
        await asyncio.sleep(3.5)  # all of it has come, also at the pace of speech
        back = time.monotonic()
        await taken_back(rig, phone, stage)
        await phone.wait_silence(900)
        heard = phone.heard_between(back, time.monotonic()).pcm
        assert signal.tone_level_db(heard, LOST_HZ) < -40
        assert sum(stop - start for start, stop in signal.active_segments(heard)) == pytest.approx(
            500, abs=100
        )
        await phone.hangup()
        assert await rig.ended() == "caller_hangup"
        assert rig.counters()["agent_heard_s"] < 2.6


@pytest.mark.parametrize("ai", AIS)
async def test_hold_in_the_greeting(asterisk: AsteriskInstance, ai: str) -> None:
    async with Rig(asterisk, Script, ai_service_provider=ai, first_audio_timeout_s=2.0) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await until(lambda: bool(rig.timelines[0].find("media.up")), "the media")
        since = await held(rig, phone)
        await asyncio.sleep(2.5)  # longer than its first sound may take
        assert phone.state == "up"
        if stage.session.active is not None:
            await say(stage, 1.0, speed=5)
        await asyncio.sleep(0.3)
        await taken_back(rig, phone, stage)
        assert_silent(phone.heard_between(since + 0.1, since + 2.4).pcm)


async def test_two_holds_in_a_row_and_an_end_of_none(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script) as rig:
        phone, stage = await greeted(rig)
        asked = len(stage.record.received("response.create"))
        assert await phone.unhold() == 200
        await held(rig, phone)
        assert await phone.hold("inactive") == 200
        assert await phone.hold("sendonly") == 200
        await taken_back(rig, phone, stage)
        assert await phone.unhold() == 200
        await phone.wait_silence(300)
        assert len(stage.record.received("response.create")) == asked + 1, "told once that they are back"
        assert len(rig.timelines[0].find("caller.unhold")) == 1
        phone.play(signal.tone(500, 0.3))
        await stage.wait_audio(300)


@pytest.mark.parametrize("when", ["silent", "speaking"])
async def test_held_caller_who_hangs_up_ends_the_call(asterisk: AsteriskInstance, when: str) -> None:
    async with Rig(asterisk, Script) as rig:
        phone, stage = await greeted(rig)
        if when == "speaking":
            await say(stage, 5.0, speed=float("inf"), wait=False)
            await phone.wait_heard(after=time.monotonic())
        await held(rig, phone)
        await phone.hangup()
        assert await rig.ended() == "caller_hangup"


async def test_time_limit_counts_while_the_caller_is_on_hold(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, max_call_duration_s=3.0, goodbye_before_s=0.0) as rig:
        phone, _ = await greeted(rig)
        await held(rig, phone)
        assert await rig.ended() == "time_limit"
        await phone.wait_state("down")


async def test_good_bye_is_taken_back_by_a_hold(asterisk: AsteriskInstance) -> None:
    """Who presses a key for it is not done: the call does not end while they are away."""
    async with Rig(asterisk, Script) as rig:
        phone, stage = await greeted(rig)
        await stage.speech_started()
        await stage.speech_stopped("Good-bye.")
        begun = time.monotonic()
        await say(stage, 2.0, speed=float("inf"), end=False)
        await stage.call("end_call", {})
        await phone.wait_heard(after=begun)
        await held(rig, phone)
        await asyncio.sleep(3.0)
        assert phone.state == "up"
        await taken_back(rig, phone, stage)
        assert rig.calls


TOOL = """
import asyncio
from arivox.tools import tool

@tool()
async def look() -> str:
    "Look something up."
    await asyncio.sleep(1.0)
    return "found"
"""
FLOW = """
common:
  states:
    greeting: {prompt: Hello., next: done, tools: [look]}
    done: Thank you.
    fallback: Sorry?
    error_handler: Oh.
"""


async def test_hold_while_a_tool_is_at_work(asterisk: AsteriskInstance, tmp_path: Path) -> None:
    (tmp_path / "prompts.yaml").write_text(FLOW)
    (tmp_path / "tools.py").write_text(TOOL)
    files: dict[str, Any] = {"prompts_file": tmp_path / "prompts.yaml", "tools_file": tmp_path / "tools.py"}
    async with Rig(asterisk, Script, **files) as rig:
        phone, stage = await greeted(rig)
        await stage.speech_started()
        await stage.speech_stopped("Please look.")
        await stage.call("look", {})
        since = await held(rig, phone)
        created = await stage.wait_for("conversation.item.create")
        assert "found" in created["item"]["output"], "the tool is not disturbed"
        assert len(rig.timelines[0].find("tool")) == 1
        if stage.session.active is not None:
            await say(stage, 1.0, speed=5)
        await asyncio.sleep(0.5)
        assert phone.heard_between(since + 0.3, time.monotonic()).pcm.size == 0
        await taken_back(rig, phone, stage)


@pytest.mark.parametrize("lost", ["hold", "its end"])
async def test_hold_that_was_not_heard_of_is_found_after_the_reconnect(
    asterisk: AsteriskInstance, lost: str
) -> None:
    async with (
        Wire(asterisk) as wire,
        Rig(asterisk, Script, ari_url=wire.url, expect_log=[LOST]) as rig,
    ):
        phone, stage = await greeted(rig)
        if lost == "its end":
            await held(rig, phone)
        wire.freeze()
        assert await (phone.hold() if lost == "hold" else phone.unhold()) == 200
        wire.mend()
        kind = "caller.hold" if lost == "hold" else "caller.unhold"
        await until(lambda: bool(rig.timelines[0].find(kind)), "what was not heard of", 8)
        await rig.reconciled()
        if lost == "hold":
            await taken_back(rig, phone, stage)
        else:
            begun = time.monotonic()
            await stage.wanted()
            await say(stage, 0.5, wait=False)
            await phone.wait_heard(after=begun)


@pytest.mark.parametrize("answer", [200, 486])
async def test_hold_while_a_colleague_is_called(
    asterisk: AsteriskInstance, tmp_path: Path, answer: int
) -> None:
    """Who was to be connected is; to a caller who comes back to the AI it speaks once they are there."""
    (tmp_path / "prompts.yaml").write_text(FLOW.replace("look", "transfer_call"))
    settings: dict[str, Any] = {"prompts_file": tmp_path / "prompts.yaml", "transfer_to": "peer=PJSIP/peer"}
    server = ("127.0.0.1", asterisk.sip_port)
    async with (
        Rig(asterisk, Script, **settings) as rig,
        SipPhone(server, user="peer", port=asterisk.peer_port, plan=AnswerPlan(answer, 1.0)) as other,
    ):
        phone, stage = await greeted(rig)
        await stage.speech_started()
        await stage.speech_stopped("Somebody, please.")
        await stage.call("transfer_call", {"destination": "peer"})
        await other.wait_state("ringing")
        since = await held(rig, phone)
        if answer == 200:
            assert await rig.ended() == "transferred"
            assert await phone.unhold() == 200
            begun = time.monotonic()
            other.play(signal.tone(500, 0.5))
            await phone.wait_heard(after=begun)
            await phone.hangup()
            await other.wait_state("down")
            return
        await stage.wait_for("conversation.item.create")
        if stage.session.active is not None:
            await say(stage, 1.0, speed=5)
        await asyncio.sleep(0.5)
        assert phone.heard_between(since + 0.3, time.monotonic()).pcm.size == 0
        await taken_back(rig, phone, stage)
