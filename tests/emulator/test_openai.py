"""The protocol of one session, without sockets: order of events, refusals, audio, turns."""

import base64
from typing import Any

import numpy as np
import pytest
from oracle import Desk, kinds, only

from arivox.audio.format import ALAW, SLIN24, ULAW
from arivox.emulator import sound
from arivox.emulator.openai import Options

SPOKEN = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_audio_transcript.delta",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]
PCMU = {"type": "audio/pcmu"}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def audio_of(events: list[dict[str, Any]]) -> bytes:
    deltas = only(events, "response.output_audio.delta")
    return b"".join(base64.b64decode(event["delta"]) for event in deltas)


def phone(desk: Desk, **audio_in: Any) -> None:
    desk.update(audio={"input": {"format": PCMU, **audio_in}, "output": {"format": PCMU}})


def append(desk: Desk, audio: bytes, frame: int = 160) -> list[dict[str, Any]]:
    """Send ``audio`` in frames as a call does, one every 20 ms."""
    got = []
    for start in range(0, len(audio), frame):
        got += desk.tell({"type": "input_audio_buffer.append", "audio": b64(audio[start : start + frame])})
        got += desk.advance(0.02)
    return got


def talk(desk: Desk, ms: int = 600, silence_ms: int = 700) -> list[dict[str, Any]]:
    return append(desk, sound.tone(ULAW, ms) + ULAW.silence * ULAW.bytes_for(silence_ms))


def error(events: list[dict[str, Any]]) -> dict[str, Any]:
    assert kinds(events) == ["error"], events
    return dict(events[0]["error"])


def answer(desk: Desk, audio: bytes, transcript: str = "One two three four.") -> list[dict[str, Any]]:
    before = len(desk.events)
    desk.tell({"type": "response.create"})
    response = desk.behaviour.responses[-1]
    response.say(audio, transcript, desk.now)
    response.end(desk.now)
    desk.advance(60)
    return desk.events[before:]


# Session


def test_session_created_shows_every_default() -> None:
    session = Desk().events[0]["session"]
    assert session["type"] == "realtime"
    assert session["id"].startswith("sess_")
    assert session["model"] == "gpt-realtime-2.1"
    assert session["output_modalities"] == ["audio"]
    assert session["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}
    assert session["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    assert session["audio"]["output"]["voice"] == "marin"
    assert session["instructions"]


def test_an_update_changes_only_what_it_holds() -> None:
    desk = Desk()
    before = desk.events[0]["session"]
    [updated] = desk.update(instructions="Be brief.", audio={"output": {"format": PCMU}})
    session = updated["session"]
    assert session["instructions"] == "Be brief."
    assert session["audio"]["output"] == {"format": PCMU, "voice": "marin", "speed": 1.0}
    assert session["audio"]["input"] == before["audio"]["input"]
    assert {**session, "instructions": 0, "audio": 0} == {**before, "instructions": 0, "audio": 0}


def test_everything_that_can_be_set_is_taken_and_shown() -> None:
    wanted: dict[str, Any] = {
        "instructions": "",
        "output_modalities": ["text"],
        "audio": {
            "input": {
                "format": {"type": "audio/pcma"},
                "transcription": {"model": "gpt-transcribe", "language": "en", "keywords": ["x"]},
                "noise_reduction": {"type": "far_field", "strength": 0.5},
                "turn_detection": {
                    "type": "semantic_vad",
                    "eagerness": "high",
                    "create_response": False,
                    "interrupt_response": False,
                },
            },
            "output": {"format": PCMU, "voice": "cedar", "speed": 1.2},
        },
        "tools": [{"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}],
        "tool_choice": {"type": "function", "name": "f"},
        "parallel_tool_calls": True,
        "reasoning": {"effort": "low"},
        "max_output_tokens": 100,
        "truncation": {"type": "retention_ratio", "retention_ratio": 0.8},
        "tracing": "auto",
        "include": ["item.input_audio_transcription.logprobs"],
    }
    [updated] = Desk().update(**wanted)
    session = updated["session"]
    assert {key: session[key] for key in wanted} == wanted


def test_null_turns_things_off() -> None:
    off = {"turn_detection": None, "transcription": None, "noise_reduction": None}
    # The reference allows null for all three, the SDK's types for turn_detection only.
    [updated] = Desk().update(audio={"input": off}, valid=False)
    assert {key: updated["session"]["audio"]["input"][key] for key in off} == off


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({}, "missing_required_parameter", "session.type"),
        ({"type": "realtime", "temperature": 1}, "unknown_parameter", "session.temperature"),
        ({"type": "realtime", "voice": "marin"}, "unknown_parameter", "session.voice"),
        (
            {"type": "realtime", "output_modalities": ["text", "audio"]},
            "invalid_value",
            "session.output_modalities",
        ),
        (
            {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcm", "rate": 8000}}}},
            "invalid_value",
            "session.audio.input.format.rate",
        ),
        (
            {
                "type": "realtime",
                "audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 2}}},
            },
            "invalid_value",
            "session.audio.input.turn_detection.threshold",
        ),
        (
            {"type": "realtime", "audio": {"input": {"turn_detection": {"type": "magic"}}}},
            "invalid_value",
            "session.audio.input.turn_detection.type",
        ),
        (
            {"type": "realtime", "audio": {"output": {"voice": "bob"}}},
            "invalid_value",
            "session.audio.output.voice",
        ),
        (
            {"type": "realtime", "audio": {"output": {"speed": 3}}},
            "invalid_value",
            "session.audio.output.speed",
        ),
        ({"type": "realtime", "instructions": 5}, "invalid_type", "session.instructions"),
        ({"type": "realtime", "model": "gpt-realtime-2"}, "invalid_value", "session.model"),
    ],
)
def test_a_wrong_update_changes_nothing_and_names_the_field(
    session: dict[str, Any], code: str, param: str
) -> None:
    desk = Desk()
    got = error(desk.tell({"type": "session.update", "event_id": "mine", "session": session}, valid=False))
    assert (got["type"], got["code"], got["param"], got["event_id"]) == (
        "invalid_request_error",
        code,
        param,
        "mine",
    )
    assert desk.session.config.as_dict() == desk.events[0]["session"]


def test_the_voice_is_frozen_once_it_was_heard() -> None:
    desk = Desk()
    assert kinds(desk.update(audio={"output": {"voice": "cedar"}})) == ["session.updated"]
    answer(desk, SLIN24.silence * 2400)
    assert error(desk.update(audio={"output": {"voice": "marin"}}))["code"] == "cannot_update_voice"
    assert kinds(desk.update(audio={"output": {"voice": "cedar"}})) == ["session.updated"]


# Events that are not understood


@pytest.mark.parametrize(
    ("data", "code", "param"),
    [
        (b"{", "invalid_json", None),
        (b"\xff", "invalid_json", None),
        (b"[]", "invalid_event", None),
        (b"{}", "missing_required_parameter", "type"),
        (b'{"type":"session.destroy","event_id":"e"}', "invalid_value", "type"),
        (b'{"type":7}', "invalid_value", "type"),
        (b'{"type":"input_audio_buffer.append","event_id":"e"}', "missing_required_parameter", "audio"),
        (b'{"type":"input_audio_buffer.append","audio":"*"}', "invalid_value", "audio"),
        (b'{"type":"input_audio_buffer.commit","x":1}', "unknown_parameter", "x"),
        (
            b'{"type":"conversation.item.truncate","item_id":"i","content_index":0,"audio_end_ms":-1}',
            "invalid_value",
            "audio_end_ms",
        ),
        (
            b'{"type":"response.create","response":{"modalities":["text"]}}',
            "unknown_parameter",
            "response.modalities",
        ),
    ],
)
def test_a_frame_that_makes_no_sense_is_an_error_and_no_end(
    data: bytes, code: str, param: str | None
) -> None:
    desk = Desk()
    got = error(desk.tell_raw(data))
    assert (got["code"], got["param"]) == (code, param)
    assert got["event_id"] == ("e" if b'"event_id":"e"' in data else None)
    assert kinds(desk.update(instructions="still here")) == ["session.updated"]


def test_the_error_for_an_unknown_type_names_those_that_are_known() -> None:
    message = error(Desk().tell_raw(b'{"type":"nope"}'))["message"]
    assert "'nope'" in message
    assert "'input_audio_buffer.append'" in message
    assert "'output_audio_buffer.clear'" in message


def test_a_binary_frame_is_refused() -> None:
    desk = Desk()
    desk.session.receive_binary(b"\0\1", desk.now)
    assert error(desk.events[1:])["code"] == "invalid_event"


# Responses


def test_a_spoken_response_has_the_documented_order() -> None:
    events = answer(Desk(), sound.tone(SLIN24, 3000))
    order = []
    for kind in kinds(events):
        if kind not in order:
            order.append(kind)
    assert order == [*SPOKEN, "rate_limits.updated"]
    last = events[-2]["response"]
    assert (last["status"], last["status_details"]) == ("completed", None)
    assert last["output"][0]["content"] == [{"type": "output_audio", "transcript": "One two three four."}]
    assert last["conversation_id"].startswith("conv_")


def test_all_audio_and_all_words_arrive_unchanged() -> None:
    audio = sound.tone(SLIN24, 2345)
    events = answer(Desk(), audio)
    assert audio_of(events) == audio
    words = [event["delta"] for event in only(events, "response.output_audio_transcript.delta")]
    assert "".join(words) == "One two three four."
    assert len(words) > 1


def test_deltas_are_of_odd_sizes_and_faster_than_real_time() -> None:
    desk = Desk(options=Options(speed=4))
    began = desk.now
    answer(desk, sound.tone(SLIN24, 8000))
    times = [
        at
        for at, event in zip(desk.times, desk.events, strict=True)
        if event["type"] == "response.output_audio.delta"
    ]
    sizes = [len(base64.b64decode(e["delta"])) for e in only(desk.events, "response.output_audio.delta")]
    assert 40 <= SLIN24.ms(sizes[0]) <= 80
    assert all(100 <= SLIN24.ms(size) <= 400 for size in sizes[1:-1])
    assert len(set(sizes)) > 5
    assert any(size % 960 for size in sizes)
    assert times[0] == began
    assert times[-1] - began == pytest.approx(2.0, abs=0.1)


def test_sizes_and_speed_can_be_given() -> None:
    desk = Desk()
    desk.tell({"type": "response.create"})
    response = desk.behaviour.responses[0]
    response.say(bytes(1000), "", desk.now, sizes=[1, 333], speed=float("inf"))
    sizes = [len(base64.b64decode(e["delta"])) for e in only(desk.events, "response.output_audio.delta")]
    assert sizes == [1, 333, 333, 333]


@pytest.mark.parametrize(
    ("name", "form"), [("audio/pcm", SLIN24), ("audio/pcmu", ULAW), ("audio/pcma", ALAW)]
)
def test_formats_of_the_two_directions_are_independent(name: str, form: Any) -> None:
    desk = Desk()
    desk.update(audio={"output": {"format": {"type": name}}})
    assert desk.session.input_format is SLIN24
    events = answer(desk, sound.tone(form, 1000))
    assert events[-2]["response"]["usage"]["output_token_details"]["audio_tokens"] == 20
    assert events[0]["response"]["audio"]["output"]["format"]["type"] == name


def test_a_text_response_has_no_audio() -> None:
    desk = Desk()
    desk.tell({"type": "response.create", "response": {"output_modalities": ["text"]}})
    desk.behaviour.responses[0].say(b"", "Hello there", desk.now)
    desk.behaviour.responses[0].end(desk.now)
    events = desk.events[1:]
    assert "response.output_text.done" in kinds(events)
    assert not [kind for kind in kinds(events) if "audio" in kind]
    assert only(events, "response.done")[0]["response"]["output"][0]["content"] == [
        {"type": "output_text", "text": "Hello there"}
    ]


def test_one_response_at_a_time() -> None:
    desk = Desk()
    desk.tell({"type": "response.create"})
    got = error(desk.tell({"type": "response.create", "event_id": "second"}))
    assert (got["code"], got["event_id"]) == ("conversation_already_has_active_response", "second")
    desk.behaviour.responses[0].end(desk.now)
    assert kinds(desk.tell({"type": "response.create"})) == ["response.created"]


def test_a_response_out_of_band_runs_beside_and_leaves_no_item() -> None:
    desk = Desk()
    desk.tell({"type": "response.create"})
    params = {"conversation": "none", "metadata": {"topic": "x"}, "input": [], "instructions": "Classify."}
    [created] = desk.tell({"type": "response.create", "response": params})
    assert created["response"]["conversation_id"] is None
    assert created["response"]["metadata"] == {"topic": "x"}
    other = desk.behaviour.responses[1]
    assert other.out_of_band
    other.say(bytes(4800), "Yes", desk.now)
    other.end(desk.now)
    assert "conversation.item.added" not in kinds(desk.advance(5))
    assert desk.session.active is desk.behaviour.responses[0]
    assert desk.session.conversation.items == []


def test_a_reference_to_an_unknown_item_is_refused() -> None:
    params = {"conversation": "none", "input": [{"type": "item_reference", "id": "item_x"}]}
    got = error(Desk().tell({"type": "response.create", "response": params}, valid=False))
    assert got["param"] == "response.input[0].id"


def test_cancel_ends_the_response_and_leaves_the_item_incomplete() -> None:
    desk = Desk()
    desk.tell({"type": "response.create"})
    desk.behaviour.responses[0].say(sound.tone(SLIN24, 4000), "One two three four", desk.now)
    desk.advance(0.5)
    events = desk.tell({"type": "response.cancel"})
    assert kinds(events) == SPOKEN[6:]
    assert events[4]["item"]["status"] == "incomplete"
    assert events[-1]["response"]["status"] == "cancelled"
    assert events[-1]["response"]["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert kinds(desk.advance(5)) == ["rate_limits.updated"]


@pytest.mark.parametrize("response_id", [None, "resp_x"])
def test_cancel_without_a_response_is_an_error(response_id: str | None) -> None:
    desk = Desk()
    event: dict[str, Any] = {"type": "response.cancel"}
    if response_id is not None:
        desk.tell({"type": "response.create"})
        event["response_id"] = response_id
    assert error(desk.tell(event))["code"] == "response_cancel_not_active"


def test_a_function_call_after_a_preamble() -> None:
    desk = Desk()
    desk.tell({"type": "response.create"})
    response = desk.behaviour.responses[0]
    response.say(sound.tone(SLIN24, 400), "One moment.", desk.now)
    call_id = response.call("lookup", '{"name":"Ann Example"}', desk.now)
    response.end(desk.now)
    events = desk.advance(5)
    assert kinds(events)[-9:] == [
        "response.output_item.added",
        "conversation.item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
        "rate_limits.updated",
    ]
    assert "".join(e["delta"] for e in only(events, "response.function_call_arguments.delta")) == (
        '{"name":"Ann Example"}'
    )
    done = only(events, "response.output_item.done")[-1]
    assert done["output_index"] == 1
    assert {key: done["item"][key] for key in ("type", "name", "call_id", "arguments", "status")} == {
        "type": "function_call",
        "name": "lookup",
        "call_id": call_id,
        "arguments": '{"name":"Ann Example"}',
        "status": "completed",
    }
    assert [item["type"] for item in events[-2]["response"]["output"]] == ["message", "function_call"]


def test_a_failed_response_says_why() -> None:
    desk = Desk()
    desk.tell({"type": "response.create"})
    desk.behaviour.responses[0].fail("rate_limit_exceeded", "Slow down.", desk.now)
    last = desk.events[-1]["response"]
    assert last["status"] == "failed"
    assert last["status_details"]["error"]["code"] == "rate_limit_exceeded"
    assert desk.session.active is None


def test_the_token_limit_makes_a_response_incomplete() -> None:
    desk = Desk()
    desk.tell({"type": "response.create", "response": {"max_output_tokens": 20}})
    desk.behaviour.responses[0].say(sound.tone(SLIN24, 5000), "Long", desk.now)
    desk.advance(10)
    last = only(desk.events, "response.done")[0]["response"]
    assert last["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
    assert last["output"][0]["status"] == "incomplete"


def test_usage_counts_the_whole_context_each_time_and_caches_it() -> None:
    desk = Desk()
    desk.update(instructions="x" * 800)
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "y" * 40}]}
    desk.tell({"type": "conversation.item.create", "item": item})
    first = answer(desk, sound.tone(SLIN24, 1000), "z" * 40)[-2]["response"]["usage"]
    assert first["input_token_details"]["text_tokens"] == pytest.approx(210, abs=2)
    assert first["input_token_details"]["cached_tokens"] == 0
    assert first["output_token_details"] == {"audio_tokens": 20, "text_tokens": 10}
    assert first["total_tokens"] == first["input_tokens"] + first["output_tokens"]
    second = answer(desk, sound.tone(SLIN24, 1000), "z")[-2]["response"]["usage"]
    assert second["input_token_details"]["audio_tokens"] == 20
    assert second["input_token_details"]["cached_tokens"] == 192
    desk.update(instructions="w" * 800)
    third = answer(desk, sound.tone(SLIN24, 1000), "z")[-2]["response"]["usage"]
    assert third["input_token_details"]["cached_tokens"] == 0


# Items


def test_items_are_made_found_and_deleted_in_order() -> None:
    desk = Desk()

    def make(item_id: str, previous: str | None) -> list[dict[str, Any]]:
        item = {
            "id": item_id,
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": item_id}],
        }
        event: dict[str, Any] = {"type": "conversation.item.create", "item": item}
        if previous is not None:
            event["previous_item_id"] = previous
        return desk.tell(event)

    events = make("b", None)
    assert kinds(events) == ["conversation.item.added", "conversation.item.done"]
    assert events[0]["previous_item_id"] is None
    assert make("d", None)[0]["previous_item_id"] == "b"
    assert make("a", "root")[0]["previous_item_id"] is None
    assert make("c", "b")[1]["previous_item_id"] == "b"
    assert [item.id for item in desk.session.conversation.items] == ["a", "b", "c", "d"]
    assert error(make("a", None))["param"] == "item.id"
    assert error(make("e", "zz"))["param"] == "previous_item_id"
    [found] = desk.tell({"type": "conversation.item.retrieve", "item_id": "c"})
    assert found["item"]["content"] == [{"type": "output_text", "text": "c"}]
    assert desk.tell({"type": "conversation.item.delete", "item_id": "c"})[0]["item_id"] == "c"
    got = error(desk.tell({"type": "conversation.item.delete", "item_id": "c", "event_id": "again"}))
    assert (got["code"], got["event_id"]) == ("item_delete_invalid_item_id", "again")
    assert error(desk.tell({"type": "conversation.item.retrieve", "item_id": "c"}))["code"] == (
        "item_retrieve_invalid_item_id"
    )


@pytest.mark.parametrize(
    ("item", "param"),
    [
        (
            {"type": "message", "role": "user", "content": [{"type": "output_text", "text": ""}]},
            "item.content[0].type",
        ),
        (
            {"type": "message", "role": "assistant", "content": [{"type": "output_audio", "audio": ""}]},
            "item.content[0].type",
        ),
        ({"type": "message", "role": "user", "content": [{"type": "input_text"}]}, "item.content[0].text"),
        ({"type": "message", "role": "boss", "content": []}, "item.role"),
        ({"type": "message", "role": "user"}, "item.content"),
        ({"type": "function_call_output", "output": "x"}, "item.call_id"),
        ({"role": "user"}, "item.type"),
    ],
)
def test_a_wrong_item_is_refused(item: dict[str, Any], param: str) -> None:
    got = error(Desk().tell({"type": "conversation.item.create", "item": item}, valid=False))
    assert got["param"] == param


def test_function_call_outputs_and_replayed_history_are_taken() -> None:
    desk = Desk()
    for item in (
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "s"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "ok"},
    ):
        events = desk.tell({"type": "conversation.item.create", "item": item})
        assert kinds(events) == ["conversation.item.added", "conversation.item.done"]


def test_truncate_cuts_the_audio_and_forgets_the_words() -> None:
    desk = Desk()
    audio = sound.tone(SLIN24, 2000)
    item_id = answer(desk, audio)[-2]["response"]["output"][0]["id"]
    event = {"type": "conversation.item.truncate", "item_id": item_id, "content_index": 0}
    [truncated] = desk.tell({**event, "audio_end_ms": 700})
    assert (truncated["item_id"], truncated["audio_end_ms"]) == (item_id, 700)
    [told] = desk.session.conversation.truncations
    assert (told.item_id, told.audio_end_ms, told.at) == (item_id, 700, desk.now)
    [found] = desk.tell({"type": "conversation.item.retrieve", "item_id": item_id})
    [content] = found["item"]["content"]
    assert content["transcript"] is None
    assert base64.b64decode(content["audio"]) == audio[: SLIN24.bytes_for(700)]
    got = error(desk.tell({**event, "audio_end_ms": 701}))
    assert got["message"] == "Audio content of 700ms is already shorter than 701ms"


def test_truncate_of_an_unknown_item_or_of_no_audio_is_refused() -> None:
    desk = Desk()
    event = {"type": "conversation.item.truncate", "content_index": 0, "audio_end_ms": 0}
    assert error(desk.tell({**event, "item_id": "item_x"}))["code"] == "item_truncate_invalid_item_id"
    item = {"id": "t", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}
    desk.tell({"type": "conversation.item.create", "item": item})
    assert error(desk.tell({**event, "item_id": "t"}))["code"] == "invalid_value"
    assert desk.session.conversation.truncations == []


# The caller


def test_a_turn_is_found_committed_and_answered() -> None:
    desk = Desk(listens=True)
    phone(desk)
    append(desk, ULAW.silence * 8000)
    events = talk(desk)
    assert kinds(events) == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
    ]
    started, stopped, committed, added = events[:4]
    assert started["audio_start_ms"] == 700
    assert stopped["audio_end_ms"] == 2100
    assert started["item_id"] == stopped["item_id"] == committed["item_id"] == added["item"]["id"]
    assert added["item"]["content"] == [{"type": "input_audio", "transcript": None}]
    [item] = desk.behaviour.items
    assert bytes(item.audio) == ULAW.silence * 2400 + sound.tone(ULAW, 600) + ULAW.silence * 4000
    [found] = desk.tell({"type": "conversation.item.retrieve", "item_id": item.id})
    assert base64.b64decode(found["item"]["content"][0]["audio"]) == bytes(item.audio)


def test_a_second_turn_holds_only_its_own_audio() -> None:
    desk = Desk(listens=True)
    phone(desk, turn_detection={"type": "server_vad", "create_response": False})
    talk(desk)
    append(desk, ULAW.silence * 4000)
    talk(desk, 400)
    first, second = desk.behaviour.items
    assert first.audio_ms == 1100
    assert second.audio_ms == 300 + 400 + 500
    assert bytes(second.audio) == ULAW.silence * 2400 + sound.tone(ULAW, 400) + ULAW.silence * 4000
    assert desk.behaviour.responses == []


def test_speech_interrupts_the_response() -> None:
    desk = Desk(listens=True)
    phone(desk)
    desk.tell({"type": "response.create"})
    desk.behaviour.responses[0].say(sound.tone(ULAW, 60000), "Very long", desk.now)
    events = talk(desk)
    at = kinds(events).index("input_audio_buffer.speech_started")
    assert kinds(events)[at + 1 : at + 7] == SPOKEN[6:]
    done = events[at + 6]["response"]
    assert done["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert not only(events[at:], "response.output_audio.delta")
    assert len(desk.behaviour.interruptions) == 1
    assert done["output"][0]["status"] == "incomplete"


def test_with_interrupt_response_off_the_response_goes_on() -> None:
    desk = Desk(listens=True)
    phone(desk, turn_detection={"type": "server_vad", "interrupt_response": False})
    desk.tell({"type": "response.create"})
    desk.behaviour.responses[0].say(sound.tone(ULAW, 60000), "Very long", desk.now)
    events = talk(desk)
    assert "input_audio_buffer.speech_stopped" in kinds(events)
    assert "response.done" not in kinds(events)


def test_semantic_vad_waits_longer_when_it_is_not_eager() -> None:
    def turn_ms(eagerness: str) -> float:
        desk = Desk(listens=True)
        phone(desk, turn_detection={"type": "semantic_vad", "eagerness": eagerness})
        talk(desk, silence_ms=2000)
        return desk.behaviour.items[0].audio_ms

    assert turn_ms("high") < turn_ms("auto") == turn_ms("medium") < turn_ms("low")


def test_manual_turns_are_committed_by_the_client() -> None:
    desk = Desk(listens=True)
    phone(desk, turn_detection=None)
    assert append(desk, sound.tone(ULAW, 600)) == []
    events = desk.tell({"type": "input_audio_buffer.commit"})
    assert kinds(events) == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    assert desk.behaviour.items[0].audio_ms == 600
    got = error(desk.tell({"type": "input_audio_buffer.commit"}))
    assert got["code"] == "input_audio_buffer_commit_empty"
    assert "0.00ms" in got["message"]


def test_clear_forgets_what_was_not_committed() -> None:
    desk = Desk()
    phone(desk, turn_detection=None)
    append(desk, sound.tone(ULAW, 600))
    assert kinds(desk.tell({"type": "input_audio_buffer.clear"})) == ["input_audio_buffer.cleared"]
    assert (
        error(desk.tell({"type": "input_audio_buffer.commit"}))["code"] == "input_audio_buffer_commit_empty"
    )


def test_transcripts_come_only_when_they_are_asked_for() -> None:
    desk = Desk(listens=True)
    phone(desk)
    talk(desk)
    [item] = desk.behaviour.items
    before = len(desk.events)
    desk.session.transcribed(item, "one two")
    assert desk.events[before:] == []
    phone(desk, transcription={"model": "gpt-transcribe"})
    before = len(desk.events)
    desk.session.transcribed(item, "one two")
    events = desk.events[before:]
    prefix = "conversation.item.input_audio_transcription"
    assert kinds(events) == [f"{prefix}.delta", f"{prefix}.delta", f"{prefix}.completed"]
    assert "".join(event["delta"] for event in events[:-1]) == events[-1]["transcript"] == "one two"
    assert events[-1]["usage"]["input_tokens"] == 11
    desk.session.transcription_failed(item, "Too noisy")
    assert desk.events[-1]["type"] == f"{prefix}.failed"


def test_an_idle_caller_is_spoken_to() -> None:
    desk = Desk(listens=True)
    phone(desk, turn_detection={"type": "server_vad", "idle_timeout_ms": 5000})
    answer(desk, sound.tone(ULAW, 1000))
    desk = Desk(listens=True)
    phone(desk, turn_detection={"type": "server_vad", "idle_timeout_ms": 5000})
    desk.tell({"type": "response.create"})
    response = desk.behaviour.responses[0]
    response.say(sound.tone(ULAW, 1000), "", desk.now)
    response.end(desk.now)
    assert "input_audio_buffer.timeout_triggered" not in kinds(desk.advance(6))
    events = desk.advance(1)
    assert kinds(events) == [
        "input_audio_buffer.timeout_triggered",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
    ]


def test_nothing_is_kept_of_a_silent_caller() -> None:
    desk = Desk(listens=True)
    phone(desk)
    append(desk, ULAW.silence * 80_000)
    assert desk.session._hearing.buffered_ms < 1000
    assert desk.session.received_ms == pytest.approx(10_000)


# Time


def test_a_session_expires_with_an_error_and_1001() -> None:
    desk = Desk(options=Options(expires_after=1800))
    assert desk.advance(1799) == []
    got = error(desk.advance(2))
    assert got["code"] == "session_expired"
    assert got["message"] == "Your session hit the maximum duration of 30 minutes."
    assert desk.closed == (1001, got["message"])


def test_rate_limits_follow_the_response() -> None:
    desk = Desk()
    desk.tell({"type": "response.create"})
    desk.behaviour.responses[0].end(desk.now)
    assert kinds(desk.advance(0.03)) == []
    [limits] = desk.advance(0.03)
    assert limits["rate_limits"][0]["name"] == "tokens"
    quiet = Desk(options=Options(rate_limits=False))
    quiet.tell({"type": "response.create"})
    quiet.behaviour.responses[0].end(quiet.now)
    assert quiet.advance(1) == []


# Beta


def test_the_beta_dialect_speaks_the_old_names() -> None:
    desk = Desk(listens=True, options=Options(beta=True))
    assert kinds(desk.events) == ["session.created", "conversation.created"]
    session = desk.events[0]["session"]
    assert (session["input_audio_format"], session["modalities"]) == ("pcm16", ["text", "audio"])
    assert "type" not in session
    wanted = {
        "modalities": ["text", "audio"],
        "voice": "alloy",
        "input_audio_format": "g711_ulaw",
        "output_audio_format": "g711_alaw",
        "input_audio_transcription": {"model": "whisper-1"},
        "turn_detection": {"type": "server_vad", "silence_duration_ms": 400},
        "temperature": 0.7,
        "max_response_output_tokens": "inf",
        "instructions": "Be brief.",
        "tools": [],
    }
    [updated] = desk.tell({"type": "session.update", "session": wanted})
    assert updated["session"]["input_audio_format"] == "g711_ulaw"
    assert updated["session"]["turn_detection"]["silence_duration_ms"] == 400
    assert desk.session.output_format is ALAW
    desk.tell({"type": "response.create", "response": {"modalities": ["audio", "text"]}})
    response = desk.behaviour.responses[0]
    response.say(sound.tone(ALAW, 300), "Hi", desk.now)
    response.call("f", "{}", desk.now)
    response.end(desk.now)
    desk.advance(2)
    seen = kinds(desk.events)
    for kind in ("response.audio.delta", "response.audio_transcript.done", "conversation.item.created"):
        assert kind in seen
    assert not [
        kind for kind in seen if "output_audio" in kind or kind.endswith(("item.added.", "item.done."))
    ]
    assert "conversation.item.done" not in seen
    assert "name" not in only(desk.events, "response.function_call_arguments.done")[0]
    done = only(desk.events, "response.done")[0]["response"]
    assert done["output"][0]["content"] == [{"type": "audio", "transcript": "Hi"}]


def test_the_beta_dialect_refuses_the_new_names() -> None:
    desk = Desk(options=Options(beta=True))
    got = error(desk.tell({"type": "session.update", "event_id": "e", "session": {"audio": {}}}))
    assert (got["code"], got["param"], got["event_id"]) == ("unknown_parameter", "session.audio", "e")


# Sounds


def test_marks_tell_their_place() -> None:
    for form in (SLIN24, ULAW, ALAW):
        numbers = sound.read_marks(sound.marks(form, 100, 1300), form)
        assert sorted(set(numbers)) == [(130 + k) % 128 for k in range(10)]
        assert numbers.count(2) == form.rate // 100


@pytest.mark.parametrize(
    ("source", "target"), [(8000, 24000), (16000, 24000), (24000, 8000), (16000, 8000), (8000, 8000)]
)
def test_resampling_keeps_length_and_pitch(source: int, target: int) -> None:
    pcm = np.rint(8000 * np.sin(np.arange(source) * 2 * np.pi * 1000 / source)).astype(np.int16)
    result = sound.resample(pcm, source, target)
    assert len(result) == target
    spectrum = np.abs(np.fft.rfft(result))
    assert int(spectrum.argmax()) == 1000
