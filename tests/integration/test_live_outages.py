"""Calls with OpenAI Live whose service ends sessions, breaks off and fails: the conversation goes on."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hearing import sounding
from rig import Rig, until

from arivox.emulator import sound
from arivox.emulator.openai.messages import RequestError
from arivox.emulator.openai_live.session import LiveSession
from arivox.emulator.script import Script, Stage, in_turn
from arivox.providers.openai_live import pulse
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.marked import MarkedStream
from arivox.testing.phone import SipPhone

pytestmark = pytest.mark.asterisk
LIVE: dict[str, Any] = {"ai_service_provider": "openai-live", "idle_caller_s": 0.0}
LOST = "the AI's session is lost"
ANSWER = MarkedStream(1.0)
QUESTION = MarkedStream(1.5)
FLOW = """
common:
  states:
    greeting:
      prompt: Hello.
      next: end
      tools: [book]
    fallback: Sorry?
    error_handler: Oh.
"""
TOOLS = """
import time
from pathlib import Path
from arivox.tools import tool

@tool(timeout_s=10)
def book(day: str) -> str:
    "Book a day."
    with Path({diary!r}).open("a") as diary:
        diary.write(day + "\\n")
    deadline = time.monotonic() + 8
    while not Path({gate!r}).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return "booked for " + day
"""


def listening() -> Script:
    return Script(listens=True)


def live(stage: Stage) -> LiveSession:
    assert isinstance(stage.session, LiveSession)
    return stage.session


async def answer(phone: SipPhone, stage: Stage, words: str) -> None:
    """Have the agent say ``words`` when it wants to; the caller hears all of it."""
    await stage.wanted()
    form = stage.session.output_format
    begun = time.monotonic()
    await stage.say(sound.encode(ANSWER.pcm(form.rate), form), transcript=words)
    await phone.wait_heard(after=begun)
    await phone.wait_silence(900)
    heard = sounding(phone.heard_between(begun, time.monotonic()).pcm)
    # A service that speaks in real time may be late on a busy machine: a pause is not a missing piece.
    assert all(jump < 8 for _, jump in ANSWER.jumps(heard)), "a piece is missing"
    assert ANSWER.position_ms(heard) == pytest.approx(ANSWER.seconds * 1000, abs=40)


async def greeted(rig: Rig) -> tuple[SipPhone, Stage]:
    phone = await rig.dial()
    stage = await rig.stage()
    await answer(phone, stage, "Good morning.")
    return phone, stage


async def ask(phone: SipPhone, stage: Stage, words: str) -> None:
    """Have the caller say something, of which the model hears the words."""
    await phone.play(QUESTION.pcm()).done()
    await stage.wanted()
    turn = live(stage).last_turn
    assert turn is not None
    live(stage).transcribed(turn, words)


async def nested(stage: Stage, *events: dict[str, Any]) -> None:
    """Have the backend model tell of a task."""
    for event in events:
        await stage.send({"type": "response.event", "delegation_id": "deleg_1", "event": event})


async def expire(stage: Stage) -> None:
    live(stage).end("expired", time.monotonic())


async def withhold(stage: Stage) -> None:
    live(stage).end("content", time.monotonic())


async def leave(stage: Stage) -> None:
    live(stage).end("remote_hangup", time.monotonic())


async def fail(stage: Stage) -> None:
    live(stage).error(RequestError("server_error", "The server had an error", type="server_error"))
    await stage.close(1000)


async def say_expired(stage: Stage) -> None:
    live(stage).error(RequestError("session_expired", "Your session hit the maximum duration."))


ENDS: dict[str, Callable[[Stage], Awaitable[None]]] = {
    "expired": expire,
    "content": withhold,
    "remote_hangup": leave,
    "server_error and close 1000": fail,
    "session_expired": say_expired,
}


@pytest.mark.parametrize("how", ENDS)
async def test_session_that_ends_is_followed_by_one_that_knows_the_conversation(
    asterisk: AsteriskInstance, how: str
) -> None:
    expected = [LOST, *(["reports an error"] if how.startswith("server_error") else [])]
    async with Rig(asterisk, listening, expect_log=expected, **LIVE) as rig:
        phone, first = await greeted(rig)
        await ask(phone, first, "I have a toothache.")
        await answer(phone, first, "Which day would suit you?")
        await ENDS[how](first)
        second = await rig.stage(2)
        start = await second.wait_for("session.start")
        said = [(message["role"], message["content"][0]["text"]) for message in start["session"]["input"]]
        assert said == [
            ("assistant", "Good morning."),
            ("user", "I have a toothache."),
            ("assistant", "Which day would suit you?"),
        ]
        assert "was lost for a moment" in start["session"]["instructions"]
        await ask(phone, second, "On Monday.")
        await answer(phone, second, "On Monday at nine.")
        await phone.hangup()
        assert await rig.ended() == "caller_hangup"
        timeline = rig.timelines[0]
        assert [entry.data["text"] for entry in timeline.find("caller.said")] == [
            "I have a toothache.",
            "On Monday.",
        ]
        assert len(timeline.find("provider.reconnected")) == 1


@pytest.mark.parametrize("how", ["expired", "close 1011"])
async def test_tool_at_work_runs_once_though_its_session_is_lost(
    asterisk: AsteriskInstance, tmp_path: Path, how: str
) -> None:
    diary, gate = tmp_path / "diary", tmp_path / "gate"
    (tmp_path / "prompts.yaml").write_text(FLOW)
    (tmp_path / "tools.py").write_text(TOOLS.format(diary=str(diary), gate=str(gate)))
    files: dict[str, Any] = {"prompts_file": tmp_path / "prompts.yaml", "tools_file": tmp_path / "tools.py"}
    async with Rig(asterisk, listening, expect_log=[LOST], **files, **LIVE) as rig:
        phone, first = await greeted(rig)
        await ask(phone, first, "Monday, please.")
        await first.call("book", {"day": "Monday"})
        await until(diary.exists, "the tool")
        if how == "expired":
            await expire(first)
        else:
            await first.close(1011, "internal error")
        second = await rig.stage(2)
        start = await second.wait_for("session.start")
        assert (
            "book that you called is still at work: do not call it again"
            in (start["session"]["instructions"])
        )
        gate.touch()
        await second.record.until(
            lambda: any('has returned: "booked for Monday"' in text for text in live(second).appended), 5
        )
        await answer(phone, second, "You are booked for Monday.")
        await phone.hangup()
        assert await rig.ended() == "caller_hangup"
        assert diary.read_text() == "Monday\n"


@pytest.mark.parametrize("end", ["incomplete", "cancelled"])
async def test_call_that_was_cut_off_hangs_up_on_nobody(asterisk: AsteriskInstance, end: str) -> None:
    """The caller speaks into the good-bye, and the backend model's call of ``end_call`` is cut off."""
    item = {"type": "function_call", "call_id": "call_1", "name": "end_call"}
    async with Rig(
        asterisk, listening, expect_log=["reports an error"] if end == "incomplete" else [], **LIVE
    ) as rig:
        phone, stage = await greeted(rig)
        await nested(
            stage,
            {"type": "response.created", "response": {"id": "resp_1"}},
            {
                "type": "response.output_item.done",
                "item": {
                    **item,
                    "status": "incomplete" if end == "incomplete" else "completed",
                    "arguments": "{",
                },
            },
            {"type": f"response.{end}", "response": {"id": "resp_1", "status": end}},
        )
        await ask(phone, stage, "One more thing.")
        await answer(phone, stage, "Yes?")
        assert rig.timelines[0].find("tool") == []
        assert stage.record.received("response.item.create") == []
        await phone.hangup()
        assert await rig.ended() == "caller_hangup"


async def test_failed_task_is_asked_again_as_the_service_says(asterisk: AsteriskInstance) -> None:
    error = {"code": "rate_limit_exceeded", "message": "Please try again in 1.5 s."}
    async with Rig(asterisk, listening, expect_log=["reports an error"], **LIVE) as rig:
        phone, stage = await greeted(rig)
        failed = time.monotonic()
        await nested(
            stage,
            {"type": "response.created", "response": {"id": "resp_1"}},
            {"type": "response.failed", "response": {"status": "failed", "error": error}},
        )
        await stage.wait_for("response.create")
        assert 1.4 < time.monotonic() - failed < 4.0
        await answer(phone, stage, "On Monday at nine.")
        assert rig.timelines[0].find("provider.answer_failed") == []


async def test_service_that_falls_mute_is_replaced(
    asterisk: AsteriskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection holds, but of the unbroken sound nothing comes any more."""
    monkeypatch.setattr(pulse, "STEADY_S", 2.0)
    async with Rig(asterisk, listening, expect_log=[LOST], **LIVE) as rig:
        phone, first = await greeted(rig)
        await first.sleep(1.5)
        await first.stall()
        stalled = time.monotonic()
        second = await rig.stage(2)
        assert time.monotonic() - stalled < 8.0
        await ask(phone, second, "Are you there?")
        await answer(phone, second, "I am.")


# --- what the agent owes ---


async def test_sound_for_which_a_session_was_ended_is_not_sent_again(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, listening, expect_log=[LOST], **LIVE) as rig:
        phone, first = await greeted(rig)
        await ask(phone, first, "Something that it does not like.")
        await withhold(first)
        second = await rig.stage(2)
        await answer(phone, second, "What can I do for you?")
        heard = sound.decode(bytes(second.record.audio_received), second.session.input_format)
        assert len(sounding(heard)) == 0


async def test_caller_to_whom_the_agent_says_nothing_is_answered_when_it_is_asked(
    asterisk: AsteriskInstance,
) -> None:
    async with Rig(asterisk, listening, expect_log=["is asked again"], patient=False, **LIVE) as rig:
        phone, stage = await greeted(rig)
        await stage.wait_for("session.instructions.append")  # for the greeting
        await ask(phone, stage, "Which day?")
        spoken = time.monotonic()
        await stage.end()
        await stage.wait_for("session.instructions.append")
        assert time.monotonic() - spoken < 4.0
        await answer(phone, stage, "On Monday.")


async def test_words_without_a_sound_are_asked_for_as_speech(asterisk: AsteriskInstance) -> None:
    async with Rig(
        asterisk, listening, expect_log=["in words without a sound", "had no sound"], patient=False, **LIVE
    ) as rig:
        phone, stage = await greeted(rig)
        await ask(phone, stage, "Which day?")
        spoken = time.monotonic()
        at_ms = round(live(stage).received_ms)
        live(stage).outlet.words("output", "On Monday.", at_ms, at_ms + 500, apart=True)
        await stage.end()
        await stage.wait_for("session.instructions.append")
        await stage.wait_for("session.instructions.append")  # the first was for the greeting
        assert time.monotonic() - spoken < 3.0
        await answer(phone, stage, "On Monday, I said.")
        said = [entry.data["text"] for entry in rig.timelines[0].find("agent.said")]
        assert said == ["Good morning.", "On Monday, I said."]


async def test_task_that_nobody_speaks_of_is_spoken_of(asterisk: AsteriskInstance) -> None:
    # An answer to the caller that does not begin is another matter, and would be due at the same time.
    terms: dict[str, Any] = {"ask_again_s": 3.5, "first_audio_timeout_s": 20.0}
    async with Rig(asterisk, listening, expect_log=["had no sound"], **LIVE, **terms) as rig:
        phone, stage = await greeted(rig)
        await ask(phone, stage, "Which day?")
        await stage.end()
        await nested(
            stage,
            {"type": "response.created", "response": {"id": "resp_1"}},
            {"type": "response.completed", "response": {"id": "resp_1", "status": "completed"}},
        )
        done = time.monotonic()
        await stage.wait_for("session.instructions.append")
        await stage.wait_for("session.instructions.append")
        assert time.monotonic() - done < 4.0
        await answer(phone, stage, "On Monday.")


async def test_service_of_which_only_silence_comes_is_replaced(asterisk: AsteriskInstance) -> None:
    """It sends its unbroken sound and takes all that it is told, and does nothing."""
    scripts = in_turn(Script(listens=True, answers=False), Script(listens=True))
    async with Rig(asterisk, scripts, expect_log=["is mute", LOST], patient=False, **LIVE) as rig:
        phone = await rig.dial()
        first = await rig.stage()
        await first.wait_for("session.instructions.append")
        form = first.session.output_format
        await first.say(sound.encode(ANSWER.pcm(form.rate), form), transcript="Good morning.")
        await phone.wait_heard()
        await phone.wait_silence(900)
        await phone.play(QUESTION.pcm()).done()
        await until(lambda: len(rig.emulator.sessions) > 1, "another session", 12.0)
        second = await rig.stage(2)
        await answer(phone, second, "I am here.")


async def test_request_that_fails_is_made_again_when_the_service_says(asterisk: AsteriskInstance) -> None:
    async with Rig(
        asterisk, lambda: Script(listens=True, answers=False), expect_log=["failed"], **LIVE
    ) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wait_for("session.instructions.append")
        error = RequestError("rate_limit_exceeded", "Please try again in 2 s.", type="rate_limit_error")
        live(stage).error(error)
        failed = time.monotonic()
        await stage.wait_for("session.instructions.append")
        assert 1.8 < time.monotonic() - failed < 4.0
        begun = time.monotonic()
        form = stage.session.output_format
        await stage.say(sound.encode(ANSWER.pcm(form.rate), form), transcript="Good morning.")
        await phone.wait_heard(after=begun)


async def test_voice_that_is_refused_costs_no_call(asterisk: AsteriskInstance) -> None:
    expected = ["refuses a part of the session", "reports an error"]
    async with Rig(asterisk, listening, expect_log=expected, openai_voice_id="robot", **LIVE) as rig:
        phone = await rig.dial()
        stage = await rig.stage(2)
        await answer(phone, stage, "Good morning.")
        (line,) = rig.logged("refuses a part of the session")
        assert line["without"] == "OPENAI_VOICE_ID (robot)"
