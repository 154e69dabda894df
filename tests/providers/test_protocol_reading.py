"""What OpenAI Realtime sends us: read as the official SDK's types define it, or refused."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.beta.realtime import RealtimeServerEvent as BetaServerEvent
from openai.types.realtime import RealtimeServerEvent
from pydantic import BaseModel

from arivox.errors import ProtocolError
from arivox.providers.openai import protocol


def models(union: Any) -> dict[str, type[BaseModel]]:
    members = get_args(get_args(union)[0])
    return {get_args(member.model_fields["type"].annotation)[0]: member for member in members}


SERVER, BETA = models(RealtimeServerEvent), models(BetaServerEvent)


AUDIO = bytes(range(200))
OUTPUT = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}
TEXT = {**OUTPUT, "transcript": "Hello."}
CALL = {"type": "function_call", "call_id": "call_1", "name": "end_call", "arguments": "{}"}
SERVER_EVENTS: dict[str, dict[str, Any]] = {
    "error": {"error": {"type": "invalid_request_error", "message": "No."}},
    "session.created": {"session": {"type": "realtime"}},
    "session.updated": {"session": {"type": "realtime"}},
    "input_audio_buffer.speech_started": {"audio_start_ms": 1, "item_id": "item_1"},
    "input_audio_buffer.speech_stopped": {"audio_end_ms": 2, "item_id": "item_1"},
    "conversation.item.input_audio_transcription.completed": {
        "item_id": "item_1", "content_index": 0, "transcript": "Hello.",
        "usage": {"type": "duration", "seconds": 1.0},
    },
    "conversation.item.input_audio_transcription.failed": {
        "item_id": "item_1", "content_index": 0, "error": {"message": "No."},
    },
    "response.created": {"response": {"id": "resp_1", "status": "in_progress"}},
    "response.done": {
        "response": {"id": "resp_1", "status": "cancelled", "status_details": {"reason": "turn_detected"}}
    },
    "response.output_item.done": {"response_id": "resp_1", "output_index": 0, "item": CALL},
    "response.output_audio.delta": {**OUTPUT, "delta": b64encode(AUDIO).decode()},
    "response.output_audio.done": OUTPUT,
    "response.output_audio_transcript.delta": {**OUTPUT, "delta": "Hel"},
    "response.output_audio_transcript.done": TEXT,
    "response.output_text.done": {**OUTPUT, "text": "Hello."},
}  # fmt: skip


def event(name: str, *, nulls: bool) -> bytes:
    """Return an event the SDK accepts; with ``nulls`` as its types write it: null where nothing is known."""
    raw = {"type": name, "event_id": "event_1", **SERVER_EVENTS[name]}
    model = SERVER[name].model_validate(raw)
    return model.model_dump_json().encode() if nulls else json.dumps(raw).encode()


def test_the_examples_are_all_that_is_read() -> None:
    assert protocol._KINDS.keys() == SERVER_EVENTS.keys() <= SERVER.keys()
    assert protocol._BETA_NAMES.keys() <= BETA.keys()


@pytest.mark.parametrize("name", SERVER_EVENTS)
def test_every_event_is_read(name: str) -> None:
    for data in (event(name, nulls=False), memoryview(event(name, nulls=False))):
        found, message = protocol.parse(data)
        assert found == name
        assert message is not None


@pytest.mark.parametrize("name", SERVER_EVENTS)
def test_null_means_not_there(name: str) -> None:
    # Compatible servers built on the SDK's types write them so.
    assert protocol.parse(event(name, nulls=True))[0] == name


def test_contents_are_what_the_server_said() -> None:
    _, delta = protocol.parse(event("response.output_audio.delta", nulls=False))
    assert (delta.item_id, delta.delta, delta.response_id) == ("item_1", AUDIO, "resp_1")
    _, text = protocol.parse(event("response.output_audio_transcript.done", nulls=False))
    assert (text.item_id, text.transcript) == ("item_1", "Hello.")
    _, done = protocol.parse(event("response.output_item.done", nulls=False))
    assert (done.item.type, done.item.call_id, done.item.name) == ("function_call", "call_1", "end_call")
    _, ended = protocol.parse(event("response.done", nulls=False))
    assert ended.response.status == "cancelled"


@pytest.mark.parametrize(("beta", "ga"), protocol._BETA_NAMES.items())
def test_beta_names_are_read_as_ga(beta: str, ga: str) -> None:
    raw = {"type": beta, "event_id": "e", **SERVER_EVENTS[ga]}
    BETA[beta].model_validate(raw)
    assert protocol.parse(json.dumps(raw).encode()) == protocol.parse(event(ga, nulls=False))


@pytest.mark.parametrize("name", sorted((SERVER.keys() | BETA.keys()) - SERVER_EVENTS.keys()))
def test_events_without_use_are_passed_over(name: str) -> None:
    raw = json.dumps({"type": name, "whatever": [1, {"a": None}]}).encode()
    if name not in protocol._BETA_NAMES:
        assert protocol.parse(raw) == (name, None)


MALFORMED = {
    "empty": b"",
    "not_json": b"hello",
    "cut_off": b'{"type":"response.output_audio.del',
    "list": b"[]",
    "null": b"null",
    "without_type": b'{"event_id":"e"}',
    "type_is_a_number": b'{"type":7}',
    "delta_is_not_base64": b'{"type":"response.output_audio.delta","item_id":"i","delta":"@@@@"}',
    "delta_is_missing": b'{"type":"response.output_audio.delta","item_id":"i"}',
    "delta_without_item": b'{"type":"response.output_audio.delta","delta":""}',
    "error_without_error": b'{"type":"error"}',
    "response_is_text": b'{"type":"response.done","response":"x"}',
    "not_utf8": b'{"type":"\xff\xfe"}',
    "half_a_surrogate": b'{"type":"\\ud800"}',
    "nested_too_deep": b'{"type":"error","x":' + b"[" * 100_000,
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="OpenAI Realtime: "):
        protocol.parse(data)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=4,
)
fields = ["item_id", "delta", "error", "response", "item", "session", "transcript", "response_id", "status"]
objects = st.dictionaries(st.sampled_from(fields), values | st.dictionaries(st.sampled_from(fields), values))
guesses = st.builds(
    lambda name, rest: json.dumps({**rest, "type": name}).encode(),
    st.sampled_from(sorted(SERVER_EVENTS)),
    objects,
)


@settings(max_examples=120)
@given(st.binary(max_size=60) | guesses)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        name, _ = protocol.parse(data)
    except ProtocolError:
        return
    assert isinstance(name, str)
