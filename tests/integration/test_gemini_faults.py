"""Calls on a real Asterisk with a Gemini Live that misbehaves as in the field: the conversation goes on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

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
from hearing import assert_whole, sounding
from rig import Rig, until

from arivox.emulator.gemini import GeminiOptions
from arivox.emulator.gemini.session import GeminiSession
from arivox.emulator.script import Script, Stage, in_turn
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.phone import SipPhone

pytestmark = pytest.mark.asterisk
LOST = "connection was lost"
INVALID = (1007, "Request contains an invalid argument.")
POLICY = (1008, "Operation is not implemented, or supported, or enabled.")
INTERNAL = (1011, "Internal error encountered.")


async def ask(phone: SipPhone) -> float:
    """Have the caller ask; return when they have asked."""
    await phone.play(QUESTION.pcm()).done()
    return time.monotonic()


async def assert_answered(phone: SipPhone, stage: Stage, asked: float, *, within: float = 3.0) -> None:
    """Answer, and assert that the caller hears all of it so soon after they have asked."""
    await say(stage)
    assert await phone.wait_heard(after=asked) - asked < within
    await phone.wait_silence(200)
    assert_whole(phone.heard_between(asked, time.monotonic()).pcm, ANSWER)


# --- the end of a connection is not the end of the call ---


async def test_service_that_closes_for_what_the_caller_said_does_not_hear_it_again(
    asterisk: AsteriskInstance,
) -> None:
    async with Rig(asterisk, listening, expect_log=[LOST], **GEMINI) as rig:
        phone, stage = await greeted(rig)
        asked = await ask(phone)
        await stage.wanted()
        turn = stage.session.last_turn
        assert turn is not None
        stage.session.transcribed(turn, "My number is four two.")
        await stage.close(*INVALID)
        again = await rig.stage(2)
        answer = await again.wanted()
        assert "Go on where you were" in answer.instructions
        assert len(sounding(heard_by_ai(again))) < 800, "at most the end of a breath"
        assert "four two" in str((await again.record.wait("clientContent")).event)
        await assert_answered(phone, again, asked)
        await again.abort()  # a reason to send again what was kept
        third = await rig.stage(3)
        await asked_and_answered(phone, third)
        assert len(rig.calls) == 1


@pytest.mark.parametrize("close", [(1002, "An error"), POLICY, (4000, "")])
async def test_service_that_closes_is_asked_again(asterisk: AsteriskInstance, close: tuple[int, str]) -> None:
    async with Rig(asterisk, listening, expect_log=[LOST], **GEMINI) as rig:
        phone, stage = await greeted(rig)
        asked = await ask(phone)
        await stage.wanted()
        await stage.close(*close)
        again = await rig.stage(2)
        await again.wanted()
        assert_whole(sounding(heard_by_ai(again)), QUESTION, tolerance_ms=25)
        await assert_answered(phone, again, asked)


async def test_set_up_that_is_refused_in_mid_call_is_tried_again(asterisk: AsteriskInstance) -> None:
    behaviours = in_turn(listening(), Script(http_status=503), listening())
    async with Rig(asterisk, behaviours, expect_log=[LOST, "trying again"], **GEMINI) as rig:
        phone, stage = await greeted(rig)
        await stage.close(*INTERNAL)
        assert (await reconnection(rig)).data["resumed"] is True
        await asked_and_answered(phone, await rig.stage(2))


@pytest.mark.parametrize(
    "options",
    [
        GeminiOptions(resume_refusal=INTERNAL),
        GeminiOptions(resume_hangs=True),
    ],
    ids=["refused", "hangs"],
)
async def test_session_that_is_not_taken_up_begins_anew(
    asterisk: AsteriskInstance, options: GeminiOptions
) -> None:
    expected = [LOST, "trying again"]
    async with Rig(asterisk, listening, expect_log=expected, emulator={"gemini": options}, **GEMINI) as rig:
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
        await stage.close(*INTERNAL)
        lost = time.monotonic()
        assert (await reconnection(rig)).data["resumed"] is False
        assert time.monotonic() - lost < 3.0
        again = await rig.stage(len(rig.emulator.sessions))
        history = await again.record.wait("clientContent")
        assert "I have a toothache." in str(history.event)
        await asked_and_answered(phone, again)


# --- a connection that will end ---


async def test_service_that_takes_no_second_connection_is_left_first(asterisk: AsteriskInstance) -> None:
    options = GeminiOptions(one_at_a_time=True)
    async with Rig(
        asterisk,
        listening,
        expect_log=["no other connection of the AI yet"],
        emulator={"gemini": options},
        time_limit=60,
        **GEMINI,
    ) as rig:
        phone, stage = await greeted(rig)
        emulated(stage).go_away(30.0, time.monotonic())
        reconnected = await reconnection(rig, timeout=10)
        assert reconnected.data["cause"] == "goAway"
        assert reconnected.data["resumed"] is True
        assert isinstance(gap_ms := reconnected.data["gap_ms"], int)
        assert gap_ms < 1500
        again = await rig.stage(3)
        assert stage.connection.close_code == 1000, "we left before we were thrown out"
        await asked_and_answered(phone, again)
        assert rig.timelines[0].find("barge_in") == []


async def test_service_that_goes_away_with_a_question_is_asked_over_the_next_connection(
    asterisk: AsteriskInstance,
) -> None:
    async with Rig(asterisk, listening, response_timeout_s=20.0, **GEMINI) as rig:
        phone, stage = await greeted(rig)
        await stage.sleep(5.0)  # a connection is not left sooner
        asked = await ask(phone)
        await stage.wanted()  # and it says nothing
        emulated(stage).go_away(30.0, time.monotonic())
        again = await rig.stage(2)
        await again.wanted()
        assert_whole(sounding(heard_by_ai(again)), QUESTION, tolerance_ms=25)
        await assert_answered(phone, again, asked, within=4.0)


# --- tools ---

FLOW = """
common:
  states:
    greeting:
      prompt: Hello.
      next: done
      tools: [book]
    done: Thank you.
    fallback: Sorry?
    error_handler: Oh.
"""
TOOLS = """
import asyncio
from pathlib import Path
from arivox.tools import tool

@tool(timeout_s=20)
async def book(day: str) -> str:
    "Book an appointment."
    with Path({file!r}).open("a") as file:
        file.write(day + "\\n")
    await asyncio.sleep({seconds})
    return "It is booked for " + day
"""


class Booking:
    """A flow with a tool whose effect can be counted."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._file = folder / "booked"
        (folder / "prompts.yaml").write_text(FLOW)
        (folder / "tools.py").write_text(TOOLS.format(file=str(self._file), seconds=seconds))
        self.settings = {
            "prompts_file": folder / "prompts.yaml",
            "tools_file": folder / "tools.py",
            "response_timeout_s": 8.0,
            **GEMINI,
        }

    @property
    def booked(self) -> list[str]:
        return self._file.read_text().split() if self._file.exists() else []


class ClosesOnSound(Script):
    """Closes on any sound that comes while a call has no result."""

    def __init__(self, close: tuple[int, str]) -> None:
        super().__init__(listens=True)
        self._close = close

    def audio(self, data: bytes, now: float) -> None:
        assert self.stage is not None
        session = self.stage.session
        assert isinstance(session, GeminiSession)
        if session.open_calls:
            session.close(*self._close)


async def assert_told(stage: Stage) -> None:
    """Wait until the agent is asked to speak, and assert that it knows what came of the tool."""
    await stage.wanted(timeout=8)
    assert "It is booked for Monday" in str([frame.event for frame in stage.record.received()])


async def test_connection_that_is_lost_while_a_tool_is_at_work(
    asterisk: AsteriskInstance, tmp_path: Path
) -> None:
    booking = Booking(tmp_path, 1.5)
    async with Rig(asterisk, listening, expect_log=[LOST], **booking.settings) as rig:
        phone, stage = await greeted(rig)
        await ask(phone)
        await stage.wanted()
        await stage.call("book", {"day": "Monday"})
        await until(lambda: bool(booking.booked), "the booking")
        await stage.abort()
        again = await rig.stage(2)
        await assert_told(again)
        asked = time.monotonic()
        assert len(sounding(heard_by_ai(again))) < 800, "the words that led to the tool are not heard again"
        await assert_answered(phone, again, asked)
        await asked_and_answered(phone, again)
        assert booking.booked == ["Monday"]


async def test_agent_who_calls_the_tool_again_over_the_next_connection(
    asterisk: AsteriskInstance, tmp_path: Path
) -> None:
    booking = Booking(tmp_path, 2.0)
    async with Rig(asterisk, listening, expect_log=[LOST], **booking.settings) as rig:
        phone, stage = await greeted(rig)
        await ask(phone)
        await stage.wanted()
        await stage.call("book", {"day": "Monday"})
        await until(lambda: bool(booking.booked), "the booking")
        await stage.abort()
        again = await rig.stage(2)
        await reconnection(rig)
        await again.call("book", {"day": "Monday"})
        await again.record.until(lambda: bool(again.record.received("toolResponse")), 8)
        assert "It is booked for Monday" in str(again.record.received("toolResponse")[0].event)
        asked = time.monotonic()
        await assert_answered(phone, again, asked)
        assert booking.booked == ["Monday"]


@pytest.mark.parametrize("close", [POLICY, INVALID], ids=["1008", "1007"])
async def test_service_that_closes_on_sound_while_a_tool_is_at_work(
    asterisk: AsteriskInstance, tmp_path: Path, close: tuple[int, str]
) -> None:
    booking = Booking(tmp_path, 2.0)
    async with Rig(asterisk, lambda: ClosesOnSound(close), expect_log=[LOST], **booking.settings) as rig:
        phone, stage = await greeted(rig)
        await ask(phone)
        await stage.wanted()
        await stage.call("book", {"day": "Monday"})
        again = await rig.stage(2)
        await reconnection(rig)
        await phone.play(QUESTION.pcm()).done()  # while the tool is at work
        await assert_told(again)
        assert_whole(sounding(heard_by_ai(again)), QUESTION, tolerance_ms=25)
        asked = time.monotonic()
        await assert_answered(phone, again, asked)
        # The next call of a tool is not broken by the caller's sound any more.
        await again.call("book", {"day": "Tuesday"})
        await again.record.until(lambda: bool(again.record.received("toolResponse")), 8)
        await again.wanted()
        asked = time.monotonic()
        await assert_answered(phone, again, asked)
        assert booking.booked == ["Monday", "Tuesday"]
        assert len(rig.emulator.sessions) == 2


# --- answers without a sound ---


async def test_turn_with_nothing_in_it_is_asked_for_again(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, listening, expect_log=["had no sound"], patient=False, **GEMINI) as rig:
        phone, stage = await greeted(rig)
        asked = await ask(phone)
        await stage.wanted()
        await stage.end()
        await stage.record.wait("serverContent.turnComplete", count=2, sent=True)
        await stage.wanted()
        await assert_answered(phone, stage, asked, within=4.0)


async def test_greeting_with_nothing_in_it_is_asked_for_again(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, listening, expect_log=["had no sound"], patient=False, **GEMINI) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wanted()
        await stage.end()
        asked = time.monotonic()
        await stage.wanted()
        await assert_answered(phone, stage, asked)


async def test_answer_in_text_is_asked_for_again_as_speech(asterisk: AsteriskInstance) -> None:
    expected = ["had no sound", "the AI answers in text"]
    text: dict[str, Any] = {"serverContent": {"modelTurn": {"parts": [{"text": "From nine to five."}]}}}
    async with Rig(asterisk, listening, expect_log=expected, **GEMINI) as rig:
        phone, stage = await greeted(rig)
        asked = await ask(phone)
        await stage.wanted()
        await stage.send(text)
        await stage.end()
        await stage.wanted()
        await assert_answered(phone, stage, asked, within=4.0)


async def test_mute_connection_is_replaced(asterisk: AsteriskInstance) -> None:
    """Nothing comes, nor does it close: the question is heard again over another connection."""
    expected = ["the AI is mute", "given up"]
    async with Rig(asterisk, listening, expect_log=expected, patient=False, **GEMINI) as rig:
        phone, stage = await greeted(rig)
        await stage.stall()
        asked = await ask(phone)
        await rig.emulator.wait_session(2, timeout=10)
        again = await rig.stage(2)
        await again.wanted()
        assert_whole(sounding(heard_by_ai(again)), QUESTION, tolerance_ms=25)
        await assert_answered(phone, again, asked, within=9.0)
        await asyncio.wait_for(stage.connection.ended.wait(), 5)
        assert (await reconnection(rig)).data["resumed"] is True
