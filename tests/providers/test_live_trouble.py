"""A session with OpenAI Live whose service refuses, fails, hangs or speaks without a sound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import structlog
from liveline import BRIEF, FRAME, Line, line

from arivox.audio.format import ULAW
from arivox.emulator import sound
from arivox.emulator.openai_live import LiveOptions
from arivox.emulator.script import Script, Stage, in_turn
from arivox.errors import ProviderError
from arivox.media.playout import Cut
from arivox.providers.base import (
    AgentAudio,
    AgentText,
    Brief,
    CallerActive,
    Fault,
    ResponseDone,
    ToolCall,
    Utterance,
)
from arivox.providers.openai_live import session as session_module
from arivox.providers.openai_live import tasks as tasks_module

PAST = tuple(Utterance("caller", f"{number}: " + "word " * 60) for number in range(40))


def failure(code: str, message: str = "Oh.", **more: Any) -> dict[str, Any]:
    """Return an error of the session."""
    return {"type": "error", "error": {"type": "server_error", "code": code, "message": message, **more}}


def refusing(*events: dict[str, Any], code: int = 4000) -> Script:
    """Return a service that answers ``session.start`` with ``events`` and a close."""

    async def scenario(stage: Stage) -> None:
        await stage.wait_for("session.start")
        for event in events:
            await stage.send(event)
        await stage.close(code)

    return Script(scenario, greets=False)


def refusal(param: str | None, code: str = "invalid_value", message: str = "No.") -> Script:
    return refusing(failure(code, message, type="invalid_request_error", param=param))


def closed(reason: str) -> Script:
    return refusing({"type": "session.closed", "reason": reason, "usage": {"seconds": 0}}, code=1000)


async def nested(made: Line, *events: dict[str, Any], task: str | None = "deleg_1") -> None:
    """Have the backend model's stream tell ``events``."""
    for event in events:
        await made.stage.send({"type": "response.event", "delegation_id": task, "event": event})


def begun() -> dict[str, Any]:
    return {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}}


def called(call_id: str, status: str | None = "completed", arguments: str = "{}") -> dict[str, Any]:
    item = {
        "type": "function_call",
        "call_id": call_id,
        "name": "look",
        "arguments": arguments,
        "status": status,
    }
    return {"type": "response.output_item.done", "output_index": 0, "item": item}


def over(status: str, **response: Any) -> dict[str, Any]:
    return {"type": f"response.{status}", "response": {"status": status, **response}}


async def read(made: Line) -> None:
    """Return once the session has read all that was sent so far."""
    seconds = made.session.counters.usage.get("seconds", 0) + 1
    await made.stage.send({"type": "session.usage.updated", "usage": {"seconds": seconds}})
    await made.once(lambda: made.session.counters.usage.get("seconds") == seconds, "it was not read")


async def answer(made: Line, text: str = "Good.") -> None:
    """Have the agent say something, which is to be told as ever."""
    before = len(made.of(AgentAudio)), len(made.of(AgentText))
    await made.say(text)
    await made.until(AgentAudio, before[0] + 1)
    told = await made.until(AgentText, before[1] + 1)
    assert told.text == text


# --- set-up ---


@pytest.mark.parametrize(
    "first",
    [
        lambda: refusing(failure("server_error")),
        lambda: refusing(failure("rate_limit_exceeded", type="rate_limit_error")),
        lambda: refusing(failure("session_limit_reached", type="invalid_request_error")),
        lambda: refusing(failure("session_expired", type="invalid_request_error")),
        lambda: closed("connection_lost"),
        lambda: closed("expired"),
        lambda: refusing(code=1012),
    ],
    ids=["server error", "rate limit", "too many sessions", "expired", "lost", "closed as expired", "1012"],
)
async def test_refusal_that_does_not_last_is_tried_again(first: Callable[[], Script]) -> None:
    with structlog.testing.capture_logs() as logs:
        async with line(in_turn(first(), Script())) as made:
            await answer(made)
            assert made.of(Fault) == []
            assert made.session.counters.left_out == 0
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == [
        "the AI's server did not take the session; trying again"
    ]


async def test_voice_that_is_refused_is_left_out_aloud() -> None:
    with structlog.testing.capture_logs() as logs:
        async with line(openai_voice_id="robot") as made:
            made.session.send_audio(FRAME)
            await made.record.wait("session.input_audio.append")
            (start,) = made.record.received("session.start")
            assert "output" not in start.event["session"]["audio"]
            assert len(made.server.sessions) == 2
            assert made.session.counters.left_out == 1
            assert [fault.error.fatal for fault in made.of(Fault)] == [False]
            await answer(made)
    (warning,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert warning["event"] == "the AI refuses a part of the session; it is started without"
    assert warning["without"] == "OPENAI_VOICE_ID (robot)"
    assert "session.audio.output.voice" in warning["error"]


async def test_sound_before_a_session_with_a_wrong_voice_is_kept() -> None:
    async with line(connect=False, openai_voice_id="robot") as made:
        for _ in range(10):
            made.session.send_audio(FRAME)
        made.session.speak("Say hello.")
        await made.session.connect(BRIEF)
        await made.record.wait("session.instructions.append")
        assert bytes(made.record.audio_received) == FRAME * 10


async def test_history_that_is_refused_is_told_in_part_and_then_not_at_all() -> None:
    behaviours = in_turn(
        refusal("session.input", "string_above_max_length"), refusal("session.input[2].content"), Script()
    )
    async with line(behaviours, connect=False) as made:
        await made.session.connect(Brief("You are a test.", BRIEF.tools, history=PAST))
        starts = [peer.record.received("session.start")[0].event["session"] for peer in made.server.sessions]
        sizes = [len(start.get("input", [])) for start in starts]
        assert sizes == [40, 10, 0]
        assert starts[1]["input"][-1] == starts[0]["input"][-1], "the newest is told"
        assert starts[2]["delegation"] == starts[0]["delegation"]
        assert made.session.counters.left_out == 2
        await answer(made)


async def test_history_for_which_a_session_is_closed_is_left_out() -> None:
    async with line(in_turn(closed("content"), Script()), connect=False) as made:
        await made.session.connect(Brief("You are a test.", history=PAST))
        assert len(made.record.received("session.start")[0].event["session"]["input"]) < len(PAST) / 2


@pytest.mark.parametrize(
    "param", ["session.delegation.responses.tools[0].parameters", "session.instructions", None]
)
async def test_part_that_a_call_cannot_do_without_is_not_left_out(param: str | None) -> None:
    async with line(lambda: refusal(param), connect=False) as made:
        with pytest.raises(ProviderError) as caught:
            await made.session.connect(BRIEF)
        assert caught.value.code == "invalid_value"
        assert len(made.server.sessions) == 1


# --- calls of tools ---


@pytest.mark.parametrize("end", ["completed", "incomplete"])
async def test_incomplete_call_is_neither_run_nor_answered(end: str) -> None:
    async with line() as made:
        await nested(made, begun(), called("a", "incomplete", '{"whe'), called("b"), over(end))
        await made.until(ToolCall)
        await read(made)
        assert made.of(ToolCall) == [ToolCall("b", "look", "{}")]


@pytest.mark.parametrize(
    "end",
    [
        over("cancelled"),
        over("failed", error={"code": "server_error", "message": "Oh."}),
        {"type": "error", "code": "server_error", "message": "Oh."},
        {**over("completed"), "response": {"status": "cancelled"}},
    ],
    ids=["cancelled", "failed", "error", "completed as cancelled"],
)
async def test_call_of_a_response_that_is_cut_off_is_not_run(end: dict[str, Any]) -> None:
    async with line() as made:
        await nested(made, begun(), called("a"), end)
        await read(made)
        assert made.of(ToolCall) == []
        made.session.tool_result("a", "sky", answer=False)
        await made.record.wait("session.instructions.append")
        assert made.record.received("response.item.create") == [], "nobody waits for it"


async def test_call_without_a_status_is_run_when_its_response_is_complete() -> None:
    async with line() as made:
        await nested(made, begun(), called("a", None))
        await read(made)
        assert made.of(ToolCall) == []
        await nested(made, {"type": "response.done"})
        assert await made.until(ToolCall) == ToolCall("a", "look", "{}")


async def test_call_of_a_response_whose_end_is_not_told_is_run_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks_module, "UNTOLD_S", 1.0)
    async with line() as made:
        await nested(made, begun(), called("a"))
        await read(made)
        assert made.of(ToolCall) == []
        await made.until(ToolCall)
        await nested(made, over("completed"))
        await read(made)
        assert len(made.of(ToolCall)) == 1


async def test_result_that_no_task_waits_for_is_told_in_words() -> None:
    async with line() as made:
        made.session.tool_result("call_of_another_session", "Booked for nine.")
        await made.record.wait("session.instructions.append", count=2)
        assert made.appended()[0] == "A tool that you called has returned: Booked for nine."
        assert made.session.busy, "the agent is to speak of it"
        assert made.record.received("response.item.create") == []
        await made.once(lambda: made.service.active is not None, "the model was not asked to speak")


async def test_result_that_is_refused_is_told_in_words() -> None:
    async with line() as made:
        await nested(made, begun(), called("gone"), over("completed"))
        await made.until(ToolCall)
        made.session.tool_result("gone", "Booked for nine.", answer=False)
        await made.until(Fault)  # the service knows no such call
        await made.record.wait("session.instructions.append")
        assert made.appended() == ["A tool that you called has returned: Booked for nine."]


# --- tasks that fail ---


async def test_failed_task_goes_on_as_soon_as_the_service_says() -> None:
    error = {"code": "rate_limit_exceeded", "message": "Please try again in 600ms."}
    async with line() as made:
        await nested(made, begun(), over("failed", error=error))
        fault = await made.until(Fault)
        assert (fault.error.fatal, fault.error.retry_after_s) == (False, 0.6)
        failed = made.record.sent("response.event")[-1]
        assert made.session.busy
        again = await made.record.wait("response.create")
        assert 0.5 < again.at - failed.at < 4
        assert made.of(ResponseDone) == []
        await answer(made, "It is done.")


async def test_task_that_will_not_fare_better_is_told_to_the_agent() -> None:
    error = {"code": "insufficient_quota", "message": "No money."}
    async with line() as made:
        await nested(made, begun(), over("failed", error=error))
        done = await made.until(ResponseDone)
        assert done.status == "failed"
        assert done.error is not None
        assert (done.error.code, done.error.fatal, done.error.lost) == ("insufficient_quota", False, False)
        await made.record.wait("session.instructions.append")
        assert "has failed" in made.appended()[0]
        assert not made.session.busy
        assert made.record.received("response.create") == []


async def test_task_that_is_withheld_says_so() -> None:
    async with line() as made:
        await nested(made, begun(), over("incomplete", incomplete_details={"reason": "content_filter"}))
        done = await made.until(ResponseDone)
        assert done.error is not None
        assert done.error.rejected


async def test_task_that_fails_again_and_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_module, "_FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(tasks_module, "_SHORTEST_WAIT_S", 0.02)
    error = {"code": "server_error", "message": "Oh."}
    async with line(lambda: Script(answers=False)) as made:
        for count in range(1, tasks_module.MOST_FAILURES + 1):
            await nested(made, begun(), over("failed", error=error))
            await made.record.wait("response.create", count=count)
        await nested(made, begun(), over("failed", error=error))
        done = await made.until(ResponseDone)
        assert done.status == "failed"
        assert len(made.of(Fault)) == tasks_module.MOST_FAILURES
        await made.record.wait("session.instructions.append")


async def test_task_that_hangs_is_told_and_still_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_module, "SLOW_S", 1.0)
    async with line() as made:
        delegation = {"id": "deleg_1", "target": "responses", "type": "delegation"}
        await made.stage.send({"type": "session.delegation.created", "delegation": delegation})
        await made.once(lambda: made.session.busy, "it is at work")
        done = await made.until(ResponseDone)
        assert done.status == "failed"
        assert done.error is not None
        assert done.error.code == "task_slow"
        assert not made.session.busy
        await nested(made, begun(), called("a"), over("completed"), task=None)
        await made.until(ToolCall)


async def test_task_for_nobody_is_answered() -> None:
    async with line(brief=Brief("No tools.")) as made:
        task = made.service.delegate()
        append = await made.record.wait("session.instructions.append")
        assert append.event["delegation_id"] == task
        assert "there are no tools" in append.event["content"]
        assert made.session.busy
        assert made.record.sent("error") == []


# --- silence ---


async def test_task_that_nobody_speaks_of_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_REPLY_S", 0.2)
    async with line() as made:
        await nested(made, begun(), over("completed"))
        await made.once(lambda: made.session.busy, "the agent has something to say")
        assert await made.until(ResponseDone) == ResponseDone("completed")
        assert not made.session.busy
        await answer(made)


async def test_task_that_the_agent_speaks_of_is_told_as_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_REPLY_S", 3.0)
    async with line() as made:
        await nested(made, begun(), over("completed"))
        await made.once(lambda: made.session.busy, "the agent has something to say")
        await answer(made)
        await made.until(ResponseDone)
        assert not made.session.busy
        # It begins to speak of the next while that is being written.
        await nested(made, begun(), {"type": "response.output_text.delta", "delta": "It"})
        await read(made)
        await answer(made, "It is.")
        await nested(made, over("completed"))
        await read(made)
        assert not made.session.busy
        assert len(made.of(ResponseDone)) == 2


async def test_caller_who_speaks_first_is_answered_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_REPLY_S", 1.5)
    async with line() as made:
        await nested(made, begun(), over("completed"))
        for number in range(4):
            await made.stage.sleep(0.5)
            made.service.outlet.words("input", "and", number * 300, number * 300 + 200, apart=True)
        await made.until(CallerActive)
        await read(made)
        assert made.of(ResponseDone) == []
        await made.until(ResponseDone)


async def test_who_asks_waits_for_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_REPLY_S", 1.0)
    async with line(lambda: Script(answers=False)) as made:
        await nested(made, begun(), over("completed"))
        await made.once(lambda: made.session.busy, "the agent has something to say")
        made.session.speak()
        await made.stage.sleep(1.3)
        assert made.of(ResponseDone) == []
        assert made.session.busy


async def test_words_without_a_sound_are_an_answer_that_is_owed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_UNHEARD_S", 1.0)
    with structlog.testing.capture_logs() as logs:
        async with line() as made:
            await answer(made, "Hello.")
            made.session.speak()
            words = made.service.outlet.words
            words("output", "Here is", 5000, 5400, apart=True)
            words("output", "some text.", 5400, 5900, apart=True)
            done = await made.until(ResponseDone, 2)
            assert done == ResponseDone("completed")
            assert not made.session.busy
            words("output", "And more of it.", 5900, 6300, apart=True)
            await read(made)
            assert len(made.of(AgentText)) == 1, "nobody has heard it"
            made.session.speak()
            await made.record.wait("session.instructions.append", count=2)
            await answer(made, "Now you hear me.")
            assert [event.item_id for event in made.of(AgentText)] == ["live-1", "live-2"]
    (warning,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert warning["text"] == "Here is some text."


async def test_words_that_come_a_little_before_their_sound_are_told_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_module, "_UNHEARD_S", 1.0)
    async with line() as made:
        words = made.service.outlet.words
        words("output", "Good", 0, 400, apart=True)
        words("input", "Hm.", 1000, 1200, apart=True)
        await made.until(CallerActive)
        assert made.of(AgentText) == []
        await made.stage.say(sound.tone(ULAW, 600), transcript="morning.", speed=float("inf"))
        await made.until(ResponseDone)
        assert [event.item_id for event in made.of(AgentText)] == ["live-1"] * 2
        assert " ".join(event.text for event in made.of(AgentText)) == "Good morning."
        await made.stage.sleep(1.2)
        assert len(made.of(ResponseDone)) == 1


async def test_words_that_were_cancelled_are_not_told_of_the_next_utterance() -> None:
    async with line() as made:
        made.service.outlet.words("output", "One moment", 0, 400, apart=True)
        await read(made)
        made.session.interrupt([Cut("live-1", 0, 0)], cancel=True)
        await answer(made, "Good-bye.")
        assert [event.text for event in made.of(AgentText)] == ["Good-bye."]


async def test_same_request_reaches_the_service_each_time() -> None:
    async with line(lambda: Script(answers=False)) as made:
        for _ in range(3):
            made.session.speak("Say good-bye.")
        await made.record.wait("session.instructions.append", count=3)
        assert made.appended() == ["Do this now: Say good-bye."] * 3
        ids = {frame.event["event_id"] for frame in made.record.received("session.instructions.append")}
        assert len(ids) == 3


async def test_silence_and_receipts_are_no_sign_of_the_model() -> None:
    async with line(lambda: Script(answers=False), live=LiveOptions(frame_ms=20, usage_every=0.1)) as made:
        counters = made.session.counters
        before = counters.messages_in
        made.session.update(Brief("All of it.", BRIEF.tools))
        made.session.speak()
        await made.record.wait("session.instructions.appended", sent=True, count=2)
        await made.record.wait("session.output_audio.delta", sent=True, count=30)
        await made.record.wait("session.usage.updated", sent=True, count=3)
        await read(made)
        assert counters.messages_in == before
        await made.stage.send({"type": "session.input_transcript.delta", "delta": "Hm."})
        await made.once(lambda: counters.messages_in == before + 1, "words are one")
        await made.stage.say(sound.tone(ULAW, 200), speed=1)
        await made.until(AgentAudio)
        assert counters.messages_in >= before + 2, "and so is a voice"


# --- errors of a session that goes on ---


async def test_request_that_is_refused_has_failed() -> None:
    async with line(lambda: Script(answers=False)) as made:
        made.session.speak()
        append = await made.record.wait("session.instructions.append")
        await made.stage.send(failure("invalid_value", client_event_id=append.event["event_id"]))
        done = await made.until(ResponseDone)
        assert done.status == "failed"
        assert not made.session.busy


async def test_error_of_the_service_while_an_answer_is_awaited_is_its_failure() -> None:
    async with line(lambda: Script(answers=False)) as made:
        await made.stage.send(failure("server_error"))
        await made.until(Fault)
        made.session.speak()
        await made.stage.send(failure("rate_limit_exceeded", "Please try again in 3 s."))
        done = await made.until(ResponseDone)
        assert done.error is not None
        assert (done.status, done.error.retry_after_s, done.error.fatal) == ("failed", 3.0, False)
        made.service.outlet.words("input", "Hello?", 0, 400, apart=True)
        await made.stage.send(failure("server_error"))
        done = await made.until(ResponseDone, 2)
        assert done.status == "failed"
        assert len(made.of(Fault)) == 1


async def test_request_that_is_refused_in_the_middle_of_an_utterance_fails_at_its_end() -> None:
    async with line(lambda: Script(answers=False)) as made:
        await made.stage.say(sound.tone(ULAW, 2000), speed=1, wait=False)
        await made.until(AgentAudio)
        made.session.speak("Say more.")
        append = await made.record.wait("session.instructions.append")
        await made.stage.send(failure("server_error", client_event_id=append.event["event_id"]))
        await read(made)
        assert made.of(ResponseDone) == []
        done = await made.until(ResponseDone)
        assert done.status == "failed"
        assert not made.session.busy


async def test_text_that_is_longer_than_it_seemed_is_sent_in_halves() -> None:
    text = "This sentence is about as long as any other. " * 20
    async with line(lambda: Script(answers=False)) as made:
        made.session.update(Brief("All of it.", focus=text))
        append = await made.record.wait("session.instructions.append")
        event_id = append.event["event_id"]
        await made.stage.send(failure("string_above_max_length", client_event_id=event_id, type="x"))
        await made.record.wait("session.instructions.append", count=3)
        whole, *halves = made.appended()
        assert " ".join(halves).split() == whole.split()
        assert made.of(Fault) == []
        assert not made.session.busy


async def test_error_of_a_lasting_kind_about_an_event_of_ours_ends_nothing() -> None:
    async with line(lambda: Script(answers=False)) as made:
        made.session.speak()
        append = await made.record.wait("session.instructions.append")
        error = {"type": "invalid_request_error", "code": "model_not_found", "message": "No."}
        event = {"type": "error", "error": error, "client_event_id": append.event["event_id"]}
        await made.stage.send(msgspec.json.encode(event))
        done = await made.until(ResponseDone)
        assert done.error is not None
        assert not done.error.fatal
        made.session.speak()
        await made.record.wait("session.instructions.append", count=2)
