"""What we send to OpenAI Realtime, with the official SDK's types as the judge."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any
from urllib.parse import parse_qs, urlsplit

from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.realtime import RealtimeClientEventParam
from pydantic import TypeAdapter

from arivox.providers.base import Brief, Tool
from arivox.providers.openai import protocol
from arivox.providers.openai.protocol import SessionOptions

CLIENT: TypeAdapter[Any] = TypeAdapter(RealtimeClientEventParam)
BRIEF = Brief(
    'Say "Grüß Gott"\n\u2028', (Tool("end_call", "End it."), Tool("move", "Move.", {"type": "object"}))
)


def sent(message: bytes) -> dict[str, Any]:
    """Return a message as JSON, having checked that the SDK knows every key and value of it."""
    event: dict[str, Any] = json.loads(message)
    assert CLIENT.validate_python(event) == event, "the SDK drops keys that it does not know"
    return event


options = st.builds(
    SessionOptions,
    audio=st.sampled_from(["ulaw", "alaw", "pcm"]),
    voice=st.sampled_from(["marin", "cedar", "alloy"]),
    speed=st.floats(0.25, 1.5),
    vad=st.sampled_from(["server_vad", "semantic_vad"]),
    threshold=st.floats(0, 1),
    prefix_padding_ms=st.integers(0, 1000),
    silence_duration_ms=st.integers(0, 3000),
    eagerness=st.sampled_from(["auto", "low", "medium", "high"]),
    transcription_model=st.sampled_from(["", "gpt-transcribe", "whisper-1"]),
    language=st.sampled_from(["", "de"]),
    noise_reduction=st.sampled_from(["", "near_field", "far_field"]),
    reasoning_effort=st.sampled_from(["", "low", "high"]),
)


@settings(max_examples=25)
@given(options)
def test_session_update_is_one_the_sdk_knows(options: SessionOptions) -> None:
    event = sent(protocol.session_update(options, BRIEF, "ga", "configure"))
    session = event["session"]
    assert (event["type"], event["event_id"], session["type"]) == ("session.update", "configure", "realtime")
    assert session["instructions"] == BRIEF.instructions
    assert [tool["name"] for tool in session["tools"]] == ["end_call", "move"]
    both = session["audio"]
    wanted = {"ulaw": {"type": "audio/pcmu"}, "alaw": {"type": "audio/pcma"}}
    expected = wanted.get(options.audio, {"type": "audio/pcm", "rate": 24000})
    assert both["input"]["format"] == both["output"]["format"] == expected
    assert (both["output"]["voice"], both["output"]["speed"]) == (options.voice, options.speed)
    detection = both["input"]["turn_detection"]
    assert detection["type"] == options.vad
    assert detection["interrupt_response"] is detection["create_response"] is True
    assert ("threshold" in detection) == (options.vad == "server_vad")
    assert ("reasoning" in session) == bool(options.reasoning_effort), "not all models know it"
    assert (both["input"].get("transcription") is None) == (not options.transcription_model)


def test_every_other_message_is_one_the_sdk_knows() -> None:
    assert sent(protocol.brief_update(BRIEF, "ga"))["session"].keys() == {
        "type", "instructions", "tools", "tool_choice",
    }  # fmt: skip
    assert sent(protocol.response_create()) == {"type": "response.create"}
    created = sent(protocol.response_create("Say good-bye."))
    assert created["response"] == {"instructions": "Say good-bye."}
    assert sent(protocol.response_cancel()) == {"type": "response.cancel"}
    truncated = sent(protocol.item_truncate("item_1", 1480))
    assert (truncated["item_id"], truncated["content_index"], truncated["audio_end_ms"]) == (
        "item_1",
        0,
        1480,
    )
    assert sent(protocol.item_delete("item_1"))["item_id"] == "item_1"
    item = sent(protocol.function_call_output("call_1", '{"ok":true}'))["item"]
    assert (item["type"], item["call_id"], item["output"]) == (
        "function_call_output",
        "call_1",
        '{"ok":true}',
    )


@given(st.binary(max_size=2000))
def test_append_carries_the_audio(audio: bytes) -> None:
    event = sent(protocol.append(audio))
    assert event["type"] == "input_audio_buffer.append"
    assert b64decode(event["audio"], validate=True) == audio


def test_beta_session_is_flat() -> None:
    chosen = SessionOptions(audio="alaw", transcription_model="whisper-1", language="de")
    session = json.loads(protocol.session_update(chosen, BRIEF, "beta", "e"))["session"]
    assert session["input_audio_format"] == session["output_audio_format"] == "g711_alaw"
    assert session["modalities"] == ["text", "audio"]
    assert session["input_audio_transcription"] == {"model": "whisper-1", "language": "de"}
    assert session["turn_detection"]["type"] == "server_vad"
    assert not {"type", "audio", "output_modalities"} & session.keys()
    assert "type" not in json.loads(protocol.brief_update(BRIEF, "beta"))["session"]


def test_headers_and_url() -> None:
    assert protocol.headers("sk-1", "ga") == {"Authorization": "Bearer sk-1"}
    assert protocol.headers("", "ga") == {}
    assert protocol.headers("sk-1", "beta")["OpenAI-Beta"] == "realtime=v1"
    url = protocol.url_with_model("wss://host/v1/realtime?intent=a%20b&empty=", "gpt realtime&x")
    assert urlsplit(url)[:3] == ("wss", "host", "/v1/realtime")
    assert parse_qs(urlsplit(url).query, keep_blank_values=True) == {
        "intent": ["a b"], "empty": [""], "model": ["gpt realtime&x"],
    }  # fmt: skip
    assert protocol.url_with_model("ws://h/x?model=mine", "other") == "ws://h/x?model=mine"
