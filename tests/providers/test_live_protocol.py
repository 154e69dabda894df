"""What we send to OpenAI Live and read from it, with the official SDK's types as the judge."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.live import ClientEvent, ClientEventParam
from pydantic import BaseModel, TypeAdapter

from arivox.errors import ProtocolError, ProviderError
from arivox.providers.base import Brief, Tool, Utterance
from arivox.providers.openai_live import protocol
from arivox.providers.openai_live.errors import Error, ended
from arivox.providers.openai_live.protocol import NESTED

PARAMS: TypeAdapter[Any] = TypeAdapter(ClientEventParam)
MODELS: TypeAdapter[Any] = TypeAdapter(ClientEvent)
PLACES = Tool("look", "Look.", {"type": "object", "properties": {"where": {"type": "string"}}})
BRIEF = Brief('Say "Grüß Gott"\n\u2028', (Tool("end_call", "End it."), PLACES))


def sent(message: bytes) -> dict[str, Any]:
    """Return a message as JSON, having checked that the SDK knows every key and value of it."""
    event: dict[str, Any] = json.loads(message)
    PARAMS.validate_python(event)
    assert unknown(MODELS.validate_python(event)) == []
    return event


def unknown(value: Any) -> list[str]:
    """Return the keys in a validated message that the SDK does not know."""
    if isinstance(value, BaseModel):
        inner = [getattr(value, name) for name in type(value).model_fields]
        return [*(value.model_extra or ()), *unknown(inner)]
    return [key for one in value for key in unknown(one)] if isinstance(value, list) else []


def test_judge_finds_keys_that_are_not_there() -> None:
    event = json.loads(protocol.session_start("gpt-live-1", "ulaw", "marin", "gpt-5.6-luna", BRIEF))
    event["session"]["delegation"]["responses"]["tools"][0]["colour"] = "red"
    assert unknown(MODELS.validate_python(event)) == ["colour"]


def start(brief: Brief, law: str = "ulaw") -> dict[str, Any]:
    event = sent(protocol.session_start("gpt-live-1", law, "marin", "gpt-5.6-luna", brief))
    assert (event["type"], event["event_id"]) == ("session.start", "start")
    session: dict[str, Any] = event["session"]
    return session


# --- what we send ---


@pytest.mark.parametrize(("law", "wire"), [("ulaw", "audio/pcmu"), ("alaw", "audio/pcma")])
def test_session_start_says_everything(law: str, wire: str) -> None:
    assert start(BRIEF, law) == {
        "model": "gpt-live-1",
        "instructions": BRIEF.instructions,
        "audio": {"format": {"type": wire, "rate": 8000}, "output": {"voice": "marin"}},
        "delegation": {
            "type": "responses",
            "responses": {
                "model": "gpt-5.6-luna",
                "instructions": BRIEF.instructions,
                "tools": [
                    {
                        "type": "function",
                        "name": "end_call",
                        "description": "End it.",
                        "parameters": {"type": "object", "properties": {}},
                        "strict": False,
                    },
                    {
                        "type": "function",
                        "name": "look",
                        "description": "Look.",
                        "parameters": PLACES.parameters,
                        "strict": False,
                    },
                ],
            },
        },
    }


def test_session_without_tools_delegates_nothing() -> None:
    assert set(start(Brief("Talk."))) == {"model", "instructions", "audio"}
    assert "instructions" not in start(Brief(" ")), "the service has its own"


def test_history_is_told_as_it_was_said() -> None:
    history = (Utterance("agent", "Hello."), Utterance("caller", "Hi."), Utterance("agent", " "))
    assert start(Brief("Talk.", history=history))["input"] == [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi."}]},
    ]


def test_history_is_the_newest_that_the_service_takes() -> None:
    many = tuple(Utterance("caller", f"Word {number}.") for number in range(300))
    told = [item["content"][0]["text"] for item in start(Brief("Talk.", history=many))["input"]]
    assert told == [f"Word {number}." for number in range(172, 300)]
    long = tuple(Utterance("agent", f"{number} " + "x" * 3998) for number in range(20))
    told = [item["content"][0]["text"] for item in start(Brief("Talk.", history=long))["input"]]
    assert [text.split()[0] for text in told] == [str(number) for number in range(20 - len(told), 20)]
    assert 6000 < sum(protocol.tokens(text) for text in told) <= 8192


def test_instructions_that_are_too_long_are_told_in_our_words() -> None:
    start(Brief("x" * 4 * 16_384))
    with pytest.raises(ProviderError, match="about 16385 tokens, and 16384 are allowed") as caught:
        start(Brief("x" * 4 * 16_384 + "x"))
    assert (caught.value.code, caught.value.fatal) == ("instructions_too_long", True)


def test_session_update_changes_the_backend_only() -> None:
    event = sent(protocol.session_update(Brief("Other.", (Tool("go", "Go."),))))
    responses = event["session"]["delegation"]["responses"]
    assert (event["type"], event["session"]["delegation"]["type"]) == ("session.update", "responses")
    assert (set(responses), responses["instructions"]) == ({"instructions", "tools"}, "Other.")
    event = sent(protocol.session_update(Brief("Other.")))
    assert event["session"]["delegation"]["responses"]["tools"] == [], "tools that are gone are taken away"


@pytest.mark.parametrize("size", [0, 1, 2, 159, 160, 161])
def test_audio_is_sent_as_it_is(size: int) -> None:
    audio = bytes(range(256))[:size]
    event = sent(protocol.audio_append(audio))
    assert event["type"] == "session.input_audio.append"
    assert b64decode(event["audio"], validate=True) == audio


def test_small_messages() -> None:
    assert sent(protocol.session_close()) == {"type": "session.close"}
    assert sent(protocol.response_create()) == {"type": "response.create"}
    assert sent(protocol.instructions_append('"Hi"')) == {
        "type": "session.instructions.append",
        "content": '"Hi"',
        "delegation_id": None,
    }
    assert sent(protocol.function_call_output("call_1", "ü")) == {
        "type": "response.item.create",
        "item": {"type": "function_call_output", "call_id": "call_1", "output": "ü"},
    }


def test_messages_that_may_be_refused_have_names() -> None:
    named = [
        protocol.response_create("a"),
        protocol.instructions_append("Hi.", "a", "deleg_1"),
        protocol.function_call_output("call_1", "x", "a"),
    ]
    assert [sent(message)["event_id"] for message in named] == ["a"] * 3
    assert sent(named[1])["delegation_id"] == "deleg_1"


def test_session_can_be_started_without_a_voice_and_without_the_past() -> None:
    history = tuple(Utterance("caller", f"{number} " + "x" * 300) for number in range(200))
    brief = Brief("Be kind.", history=history)
    sizes = []
    for share in (1.0, 0.25, 0.0):
        session = sent(protocol.session_start("m", "ulaw", "", "b", brief, history=share))["session"]
        assert "output" not in session["audio"]
        said = session.get("input", [])
        assert not said or said[-1]["content"][0]["text"].startswith("199 "), "the newest"
        sizes.append(len(said))
    assert sizes[0] > 60
    assert sizes[1] == sizes[0] // 4
    assert sizes[2] == 0


# --- texts in parts ---


@settings(max_examples=100)
@given(
    st.lists(
        st.text(st.sampled_from("ab.!?。 \n\"'é漢🎈"), min_size=1, max_size=40), min_size=0, max_size=200
    ).map("".join)
)
def test_parts_hold_the_whole_text(text: str) -> None:
    parts = protocol.parts(text)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(part.strip() == part and part for part in parts)
    assert all(protocol.tokens(part) <= 500 for part in parts)


@given(st.text(st.sampled_from("ab.!? é漢🎈"), min_size=1, max_size=400))
def test_halves_hold_the_whole_text_until_it_is_short(text: str) -> None:
    halves = protocol.halves(text)
    assert "".join("".join(halves).split()) == "".join(text.split())
    if len(text.strip().encode()) > 64:
        assert len(halves) > 1
        assert max(len(half.encode()) for half in halves) < len(text.encode())


def test_parts_end_where_sentences_do() -> None:
    sentence = "This is sentence number {:03}, and it is as long as the others."
    text = " ".join(sentence.format(number) for number in range(100))
    parts = protocol.parts(text)
    assert len(parts) > 3
    assert all(part.startswith("This is") and part.endswith("others.") for part in parts)
    words = protocol.parts("word " * 1000)
    assert {token for part in words for token in part.split()} == {"word"}
    assert protocol.parts("Short.") == ["Short."]
    assert protocol.parts(" \n") == []


# --- what we read ---


def read(event: dict[str, Any]) -> tuple[str, Any]:
    return protocol.parse(json.dumps(event).encode())


def nested(event: dict[str, Any], delegation_id: Any = "deleg_1") -> tuple[str, Any]:
    return read({"type": "response.event", "delegation_id": delegation_id, "event": event})


def test_events_are_read() -> None:
    name, message = read({"type": "session.started", "session": {"id": "s", "expires_at": 17, "new": {}}})
    assert (name, message.session.expires_at) == ("session.started", 17)
    audio = b64encode(b"\x00\xff\x7f").decode()
    assert read({"type": "session.output_audio.delta", "delta": audio})[1].delta == b"\x00\xff\x7f"
    words = read({"type": "session.input_transcript.delta", "delta": " hi", "start_ms": 1, "end_ms": 2})[1]
    assert (words.delta, words.start_ms, words.end_ms) == (" hi", 1, 2)
    assert read({"type": "session.usage.updated", "usage": {"seconds": 1.5}})[1].usage.seconds == 1.5
    closed = read({"type": "session.closed", "reason": "expired", "usage": {"seconds": 2}})[1]
    assert (closed.reason, closed.usage.seconds) == ("expired", 2)
    assert read({"type": "session.updated", "session": 3}) == ("session.updated", None)


def test_events_of_the_backend_are_read() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}", "id": "fc"}
    name, message = nested({"type": "response.output_item.done", "output_index": 0, "item": call})
    assert name == NESTED + "response.output_item.done"
    assert (message.delegation_id, message.event.item.call_id) == ("deleg_1", "c")
    assert nested({"type": "response.created", "response": {"id": "r"}}, None)[1].delegation_id == ""
    name, message = nested({"type": "response.output_text.delta", "delta": 7})
    assert (name, message.type, message.event) == (
        NESTED + "response.output_text.delta",
        "response.output_text.delta",
        None,
    )
    # Items of other tools have other shapes.
    search = {"type": "tool_search_call", "arguments": {"query": "x"}}
    assert nested({"type": "response.output_item.done", "item": search})[1].event.item.call_id is None


@pytest.mark.parametrize(
    ("event", "code", "text"),
    [
        (
            {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "Oh."}}},
            "server_error",
            "Oh.",
        ),
        (
            {
                "type": "response.incomplete",
                "response": {"error": None, "incomplete_details": {"reason": "max_output_tokens"}},
            },
            "task_failed",
            "a task broke off: max_output_tokens",
        ),
        ({"type": "response.failed", "response": {}}, "task_failed", "a task broke off"),
        (
            {"type": "error", "code": "rate_limit_exceeded", "message": "Slow."},
            "rate_limit_exceeded",
            "Slow.",
        ),
    ],
)
def test_failures_of_the_backend_say_why(event: dict[str, Any], code: str, text: str) -> None:
    told = nested(event)[1].event
    error = (told if isinstance(told, Error) else told.as_error()).as_provider_error()
    assert (error.provider, error.code, error.message) == ("openai-live", code, text)


def test_name_that_only_looks_nested_is_not() -> None:
    assert read({"type": NESTED + "error", "code": "x"}) == (NESTED + "error", None)


def body(code: str | None, type_: str | None = "invalid_request_error", **more: Any) -> Error:
    """Return an error of the session."""
    error = {"code": code, "type": type_, "message": "Text.", "param": None, "client_event_id": "e", **more}
    message = read({"type": "error", "error": error})[1]
    assert message.refused == "e"
    assert isinstance(message.error, Error)
    return message.error


@pytest.mark.parametrize(
    ("code", "type_", "fatal", "lost"),
    [
        ("invalid_api_key", "invalid_request_error", True, False),
        ("invalid_model", "invalid_request_error", True, False),
        ("insufficient_quota", "insufficient_quota", True, False),
        ("rate_limit_exceeded", "insufficient_quota", True, False),
        ("wrong", "authentication_error", True, False),
        ("session_expired", "invalid_request_error", True, True),
        ("session_limit_reached", "invalid_request_error", True, True),
        ("invalid_value", "invalid_request_error", False, False),
        ("server_error", "server_error", False, False),
        (None, None, False, False),
    ],
)
def test_errors_are_told_apart(code: str | None, type_: str | None, fatal: bool, lost: bool) -> None:
    error = body(code, type_, param="a.b").as_provider_error()
    assert (error.provider, error.fatal, error.lost) == ("openai-live", fatal, lost)
    assert error.message == "Text. (a.b)"


def test_errors_say_how_to_ask_again() -> None:
    patient = body("rate_limit_exceeded", "rate_limit_error", message="Please try again in 2.5s.")
    assert patient.as_provider_error().retry_after_s == 2.5
    assert patient.failure
    for code in ("content_filter", "content_policy_violation", "invalid_prompt"):
        assert body(code).as_provider_error().rejected
        assert not body(code).failure
    assert body("string_above_max_length").too_long
    assert not body("rate_limit_exceeded").too_long


@pytest.mark.parametrize(
    ("code", "type_", "told"),
    [
        ("server_error", "server_error", "connect"),
        ("rate_limit_exceeded", "rate_limit_error", "connect"),
        ("session_limit_reached", "invalid_request_error", "connect"),
        (None, "server_error", "connect"),
        ("invalid_model", "invalid_request_error", "invalid_model"),
        ("invalid_value", "invalid_request_error", "invalid_value"),
        ("insufficient_quota", "insufficient_quota", "insufficient_quota"),
    ],
)
def test_refusal_of_a_session_lasts_or_does_not(code: str | None, type_: str, told: str) -> None:
    error = body(code, type_, message="Try again in 3 s.").as_refusal()
    assert (error.code, error.fatal, error.lost, error.retry_after_s) == (told, True, False, 3.0)


@pytest.mark.parametrize(
    ("code", "param", "message", "part"),
    [
        ("invalid_value", "session.audio.output.voice", "No.", "voice"),
        ("invalid_value", "session.voice", "No.", "voice"),
        ("invalid_value", None, "The voice 'nova' has been retired.", "voice"),
        ("string_above_max_length", "session.input", "No.", "history"),
        ("invalid_value", "session.input[3].content", "No.", "history"),
        ("invalid_value", None, "'session.input' is too long.", "history"),
        ("invalid_value", "session.input_audio", "No.", None),
        ("invalid_value", "session.delegation.responses.tools[0].parameters", "A voice tool.", None),
        ("invalid_model", "session.model", "No voice of this model.", None),
        ("server_error", None, "The voice failed.", None),
        ("string_above_max_length", "session.instructions", "No.", None),
    ],
)
def test_part_that_a_session_can_do_without(
    code: str, param: str | None, message: str, part: str | None
) -> None:
    assert body(code, code, param=param, message=message).optional_part == part


def test_ends_of_a_session_are_followed_by_another() -> None:
    for reason in ("expired", "content", "remote_hangup", "connection_lost", "close_requested", None, "new"):
        error = ended(reason)
        assert (error.fatal, error.lost, error.rejected) == (True, True, reason == "content")


def test_status_of_a_response_counts_more_than_the_event() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"type": "response.completed", "response": {"status": "completed"}}, "completed"),
        ({"type": "response.completed", "response": {"status": "cancelled"}}, "cancelled"),
        ({"type": "response.completed", "response": {"status": "in_progress"}}, "completed"),
        ({"type": "response.completed"}, "completed"),
        ({"type": "response.incomplete", "response": {}}, "incomplete"),
        ({"type": "response.cancelled", "response": None}, "cancelled"),
        ({"type": "response.done", "response": {"status": "failed"}}, "failed"),
        ({"type": "response.done"}, "completed"),
    ]
    for event, status in cases:
        message = nested(event)[1]
        assert message.event.status(message.type) == status


BAD = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"type":7}',
    b'{"delta":""}',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"type":"session.output_audio.delta"}',
    b'{"type":"session.output_audio.delta","delta":"%%%"}',
    b'{"type":"session.started"}',
    b'{"type":"session.started","session":[]}',
    b'{"type":"session.input_transcript.delta","delta":"x","start_ms":"1"}',
    b'{"type":"session.usage.updated","usage":{"seconds":"many"}}',
    b'{"type":"response.event"}',
    b'{"type":"response.event","event":7}',
    b'{"type":"response.event","event":{}}',
    b'{"type":"response.event","event":{"type":"response.output_item.done"}}',
    b'{"type":"error","error":"no"}',
]


@pytest.mark.parametrize("data", BAD, ids=range(len(BAD)))
def test_what_cannot_be_read_is_told(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="OpenAI Live: an event that cannot be read"):
        protocol.parse(data)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_garbage_is_read_or_told(data: bytes) -> None:
    try:
        protocol.parse(memoryview(data))
    except ProtocolError:
        pass


@given(
    st.sampled_from(sorted(protocol._DECODERS)),
    st.dictionaries(
        st.sampled_from(["session", "delta", "usage", "reason", "error", "event", "item", "response"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
            ),
            max_leaves=5,
        ),
    ),
)
def test_wrong_shapes_are_read_or_told(name: str, fields: dict[str, Any]) -> None:
    event = {"type": name.removeprefix(NESTED), **fields}
    if name.startswith(NESTED):
        event = {"type": "response.event", "event": event}
    try:
        read(event)
    except ProtocolError:
        pass
