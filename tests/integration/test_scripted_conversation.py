"""A conversation through its states: what the AI is told, when, and what is kept of it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from rig import Rig, until

from arivox.emulator.record import Frame
from arivox.emulator.script import Script, Stage
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.phone import SipPhone

pytestmark = pytest.mark.asterisk


async def turn(stage: Stage, words: str) -> None:
    """Let the caller have said ``words``; the AI's answer is begun."""
    await stage.speech_started()
    await stage.speech_stopped(words)


async def greeted(rig: Rig) -> tuple[SipPhone, Stage]:
    phone = await rig.dial()
    stage = await rig.stage()
    await stage.wait_for("response.create")
    await stage.say("Shall we begin?", speed=20)
    await phone.wait_heard()
    return phone, stage


def told_since(stage: Stage, count: int) -> list[Frame]:
    """Return what the client sent after its first ``count`` messages, but for the audio."""
    return [frame for frame in stage.record.received() if frame.kind != "input_audio_buffer.append"][count:]


def output_of(frame: Frame) -> dict[str, Any]:
    item = frame.event["item"]
    assert item["type"] == "function_call_output"
    output: dict[str, Any] = json.loads(item["output"])
    return output


async def test_first_brief_is_complete(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, openai_voice_id="cedar", vad_silence_duration_ms=640) as rig:
        _, stage = await greeted(rig)
        first, second = told_since(stage, 0)[:2]
        assert (first.kind, second.kind) == ("session.update", "response.create")
        session = first.event["session"]
        assert "Current state: greeting" in session["instructions"]
        assert "Riverside Clinic" in session["instructions"]
        assert {tool["name"] for tool in session["tools"]} == {"move_to_state", "not_understood", "end_call"}
        assert session["audio"]["output"]["voice"] == "cedar"
        assert session["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 640
        assert stage.connection.headers["authorization"] == "Bearer sk-test"
        assert stage.connection.query["model"] == rig.settings.openai_model
        assert stage.record.sent("error") == []


async def test_states_move_in_order(asterisk: AsteriskInstance) -> None:
    way: list[tuple[str, str, dict[str, Any]]] = [
        ("gathering_reason", "yes", {}),
        ("collecting_availability_days", "a sore throat", {"reason": "a sore throat"}),
        ("collecting_availability_times", "Tuesday", {"day": "Tuesday"}),
        ("proposing_slot", "in the morning", {"time": "in the morning"}),
        ("confirmation", "yes, please", {"agreed": True}),
    ]
    async with Rig(asterisk, Script) as rig:
        phone, stage = await greeted(rig)
        for state, words, said in way:
            count = len(told_since(stage, 0))
            await turn(stage, words)
            call_id = await stage.call("move_to_state", {"state": state, **said})
            await stage.wait_for("response.create")
            update, output, create = told_since(stage, count)[-3:]
            # The brief comes first, or the answer would be given by the old one.
            assert [update.kind, output.kind, create.kind] == [
                "session.update",
                "conversation.item.create",
                "response.create",
            ]
            assert f"Current state: {state}" in update.event["session"]["instructions"]
            assert output.event["item"]["call_id"] == call_id
            assert output_of(output) == {"ok": True, "state": state}
            assert "instructions" not in create.event.get("response", {})
            begun = time.monotonic()
            await stage.say(f"This is {state}.", speed=20)
            await phone.wait_heard(after=begun)
        told = stage.record.received("session.update")[-1].event["session"]
        assert "a sore throat" in told["instructions"]
        assert "Tuesday" in told["instructions"]
        assert [tool["name"] for tool in told["tools"]] == ["end_call"]
        assert [entry.data["after"] for entry in rig.timelines[0].find("state")] == [
            state for state, *_ in way
        ]
        assert stage.record.sent("error") == []


async def test_wrong_tool_calls_are_answered_with_an_error_and_lead_aside(asterisk: AsteriskInstance) -> None:
    wrong: list[tuple[str, dict[str, Any] | str, str]] = [
        ("order_pizza", {}, "order_pizza"),
        ("move_to_state", {"state": "nowhere"}, "nowhere"),
        ("move_to_state", {"state": "confirmation"}, "gathering_reason"),
        ("move_to_state", {"reason": "x"}, "state"),
        ("move_to_state", "{not json", "arguments"),
        ("move_to_state", {"state": 7}, "arguments"),
    ]
    async with Rig(asterisk, Script) as rig:
        _, stage = await greeted(rig)
        for name, arguments, part in wrong:
            count = len(told_since(stage, 0))
            await turn(stage, "Well.")
            await stage.call(name, arguments)
            await stage.wait_for("response.create")
            output, create = told_since(stage, count)[-2:]
            assert (output.kind, create.kind) == ("conversation.item.create", "response.create")
            assert part in output_of(output)["error"]
            await stage.say("Once more.", speed=20)
        # Two mistakes in the first state, and three in the next.
        assert stage.record.received_count["session.update"] == 1 + 2
        states = [entry.data for entry in rig.timelines[0].find("state")]
        assert states == [
            {"before": "greeting", "after": "fallback", "cause": "tries"},
            {"before": "fallback", "after": "error_handler", "cause": "tries"},
        ]
        told = stage.record.received("session.update")[-1].event["session"]["instructions"]
        assert "something went wrong on our side" in told


async def test_several_tools_of_one_answer_are_all_answered_before_it_speaks_on(
    asterisk: AsteriskInstance,
) -> None:
    async with Rig(asterisk, Script) as rig:
        _, stage = await greeted(rig)
        await turn(stage, "Yes.")
        count = len(told_since(stage, 0))
        ids = [
            await stage.call("move_to_state", {"state": "gathering_reason"}, end=False),
            await stage.call("order_pizza", {}, end=False),
        ]
        assert told_since(stage, count) == [], "the answer may still be cut off"
        await stage.end()
        await stage.record.wait("conversation.item.create", count=2)
        await stage.wait_for("response.create")
        told = told_since(stage, count)
        assert [f.event["item"]["call_id"] for f in told if f.kind == "conversation.item.create"] == ids
        assert [f.kind for f in told].count("response.create") == 1
        assert stage.record.sent("error") == []


async def test_transcript_of_both_sides_is_on_the_timeline(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script) as rig:
        phone, stage = await greeted(rig)
        await phone.wait_silence(100)
        await turn(stage, "I have a sore throat.")
        await stage.say("I am sorry to hear that.", speed=20)
        timeline = rig.timelines[0]
        await until(lambda: len(timeline.find("agent.said")) == 2, "both sentences of the agent")
        assert [entry.data["text"] for entry in timeline.find("caller.said")] == ["I have a sore throat."]
        assert [entry.data["text"] for entry in timeline.find("agent.said")] == [
            "Shall we begin?",
            "I am sorry to hear that.",
        ]
        kinds = [entry.kind for entry in timeline if entry.kind.startswith(("caller.s", "agent.speaks"))]
        assert kinds.index("agent.speaks") < kinds.index("caller.speech_started")
        lag = timeline.find("agent.speaks")[1].data["latency_ms"]
        assert isinstance(lag, int)
        assert 0 <= lag < 500


async def test_failed_transcription_does_no_harm(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, expect_log=["were not transcribed"]) as rig:
        phone, stage = await greeted(rig)
        await stage.speech_started()
        item = await stage.speech_stopped()
        stage.openai.transcription_failed(item, "unintelligible")
        begun = time.monotonic()
        await stage.say("Pardon?", speed=20)
        await phone.wait_heard(after=begun)


async def test_prompts_of_ones_own(asterisk: AsteriskInstance, tmp_path: Any) -> None:
    file = tmp_path / "prompts.yaml"
    file.write_text(
        "openai:\n  system_instruction: You are a parrot.\n  states:\n    squawk: Squawk.\n", encoding="utf-8"
    )
    async with Rig(asterisk, Script, prompts_file=file) as rig:
        _, stage = await greeted(rig)
        instructions = stage.record.received("session.update")[0].event["session"]["instructions"]
        assert "You are a parrot." in instructions
        assert "Current state: squawk\nSquawk." in instructions
