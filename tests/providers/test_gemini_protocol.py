"""Gemini's messages: what we send fits the model and Google's own types, what we are sent is read whatever it
holds.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from gemini_oracle import assert_valid_client

from arivox.errors import ProtocolError
from arivox.providers.base import Brief, Tool, Utterance
from arivox.providers.gemini import protocol
from arivox.providers.gemini.models import Backend, traits_of
from arivox.providers.gemini.protocol import SetupOptions

MOVE = Tool(
    "move_to_state",
    "Move on.",
    {"type": "object", "properties": {"state": {"type": "string", "enum": ["day"]}}, "required": ["state"]},
)
END = Tool("end_call", "End the call.")
BRIEF = Brief("You are a clinic.\nCurrent state: reason", (MOVE, END), "Current state: reason")
MODELS: dict[str, Backend] = {
    "gemini-3.8-live": "studio",
    "gemini-3.8-live-extended-thinking": "studio",
    "gemini-3.1-flash-live-preview": "studio",
    "gemini-2.5-flash-native-audio-preview-12-2025": "studio",
    "gemini-live-2.5-flash-native-audio": "vertex",
}


def sent(data: bytes) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(data)
    assert len(message) == 1, "one key at the top, no more"
    assert_valid_client(message)
    return message


def set_up(model: str, brief: Brief = BRIEF, **options: Any) -> dict[str, Any]:
    handle = options.pop("handle", "")
    seeded = options.pop("seeded", False)
    chosen = SetupOptions(model=f"models/{model}", **options)
    data = protocol.setup(chosen, traits_of(model), brief, handle, seeded=seeded)
    setup: dict[str, Any] = sent(data)["setup"]
    return setup


# --- what we send ---


@pytest.mark.parametrize("model", MODELS)
def test_setup_is_what_a_phone_call_needs(model: str) -> None:
    setup = set_up(model, backend=MODELS[model])
    assert setup["generationConfig"]["responseModalities"] == ["AUDIO"]
    assert setup["systemInstruction"]["parts"] == [{"text": BRIEF.instructions}]
    listening = setup["realtimeInputConfig"]
    assert listening["turnCoverage"] == "TURN_INCLUDES_ONLY_ACTIVITY"
    assert listening["activityHandling"] == "START_OF_ACTIVITY_INTERRUPTS"
    assert listening["automaticActivityDetection"] == {"disabled": False}
    assert setup["inputAudioTranscription"] == {}
    assert setup["outputAudioTranscription"] == {}
    assert setup["sessionResumption"] == {}
    assert setup["contextWindowCompression"] == {"slidingWindow": {}}
    assert setup.get("explicitVadSignal", False) is (MODELS[model] == "vertex")
    for refused in ("proactivity", "historyConfig"):
        assert refused not in setup
    assert "enableAffectiveDialog" not in setup["generationConfig"]
    assert "languageCode" not in setup["generationConfig"]["speechConfig"]


THINKING: dict[str, dict[str, Any] | None] = {
    "gemini-3.8-live": None,
    "gemini-3.8-live-extended-thinking": {"thinkingLevel": "LOW"},
    "gemini-3.1-flash-live-preview": {"thinkingLevel": "LOW"},
    "gemini-2.5-flash-native-audio-preview-12-2025": {"thinkingBudget": 512},
    "gemini-live-2.5-flash-native-audio": {"thinkingBudget": 512},
}


@pytest.mark.parametrize("model", MODELS)
def test_thinking_is_said_as_the_model_takes_it(model: str) -> None:
    assert set_up(model, thinking_level="low")["generationConfig"].get("thinkingConfig") == THINKING[model]
    assert "thinkingConfig" not in set_up(model)["generationConfig"]


BEHAVIOURS: dict[str, str | None] = {
    "gemini-3.8-live": "BLOCKING",
    "gemini-3.8-live-extended-thinking": "NON_BLOCKING",
    "gemini-3.1-flash-live-preview": None,
    "gemini-2.5-flash-native-audio-preview-12-2025": "BLOCKING",
    "gemini-live-2.5-flash-native-audio": "BLOCKING",
}


@pytest.mark.parametrize("model", MODELS)
def test_functions_are_declared_as_the_model_takes_them(model: str) -> None:
    [declared] = set_up(model)["tools"]
    move, end = declared["functionDeclarations"]
    assert move["parametersJsonSchema"] == MOVE.parameters
    assert "parametersJsonSchema" not in end, "an object without properties is refused"
    assert {move.get("behavior"), end.get("behavior")} == {BEHAVIOURS[model]}
    assert "tools" not in set_up(model, Brief("x"))


def test_settings_are_in_the_setup() -> None:
    setup = set_up(
        "gemini-3.8-live",
        voice="Puck",
        language="de-DE",
        start_sensitivity="low",
        end_sensitivity="high",
        prefix_padding_ms=0,
        silence_duration_ms=640,
        handle="h1",
        seeded=True,
    )
    speech = setup["generationConfig"]["speechConfig"]
    assert speech["voiceConfig"]["prebuiltVoiceConfig"]["voiceName"] == "Puck"
    assert setup["inputAudioTranscription"] == {"languageCodes": ["de-DE"]}
    assert setup["realtimeInputConfig"]["automaticActivityDetection"] == {
        "disabled": False,
        "startOfSpeechSensitivity": "START_SENSITIVITY_LOW",
        "endOfSpeechSensitivity": "END_SENSITIVITY_HIGH",
        "prefixPaddingMs": 0,
        "silenceDurationMs": 640,
    }
    assert setup["sessionResumption"] == {"handle": "h1"}
    assert setup["historyConfig"] == {"initialHistoryInClientContent": True}


def test_model_that_is_not_known_is_taken_for_the_newest() -> None:
    assert traits_of("gemini-9-live") is traits_of("gemini-3.8-live")
    assert traits_of("models/gemini-3.8-live-extended-thinking").idle_status
    assert traits_of("gemini-3.8-live-001") is traits_of("gemini-3.8-live")


def test_audio_is_joined_right() -> None:
    pcm = bytes(range(256))
    message = sent(protocol.audio(protocol.audio_head(8000), pcm))
    audio = message["realtimeInput"]["audio"]
    assert base64.b64decode(audio["data"], validate=True) == pcm
    assert audio["mimeType"] == "audio/pcm;rate=8000"


@pytest.mark.parametrize(("model", "complete"), [("gemini-3.8-live", True), (list(MODELS)[3], False)])
def test_history_goes_in_the_way_of_the_model(model: str, complete: bool) -> None:
    said = [Utterance("agent", "Why do you call?"), Utterance("caller", "A toothache.")]
    content = sent(protocol.history(said, traits_of(model)))["clientContent"]
    assert content["turnComplete"] is complete
    assert content["turns"] == [
        {"role": "model", "parts": [{"text": "Why do you call?"}]},
        {"role": "user", "parts": [{"text": "A toothache."}]},
    ]


def test_ways_to_change_what_the_agent_is_told() -> None:
    update = sent(protocol.context_update(BRIEF, traits_of("gemini-3.8-live")))["contextUpdate"]
    assert update["systemInstruction"]["parts"] == [{"text": BRIEF.instructions}]
    assert len(update["tools"]["tools"][0]["functionDeclarations"]) == 2
    none = sent(protocol.context_update(Brief("x"), traits_of("gemini-3.8-live")))["contextUpdate"]
    assert none["tools"] == {}, "no tools any more, rather than the old ones"
    note = sent(protocol.note("Be brief.", "system"))["clientContent"]
    assert note == {"turns": [{"role": "system", "parts": [{"text": "Be brief."}]}], "turnComplete": False}
    assert sent(protocol.text("Speak now."))["realtimeInput"] == {"text": "Speak now."}


@pytest.mark.parametrize(
    ("output", "response"),
    [
        ('{"ok": true}', {"ok": True}),
        ('{"error": "no"}', {"error": "no"}),
        ("[1, 2]", {"output": [1, 2]}),
        ("plain", {"output": "plain"}),
        ("[" * 3000, {"output": "[" * 3000}),
    ],
)
def test_result_of_a_tool_is_an_object(output: str, response: dict[str, Any]) -> None:
    answer = sent(protocol.tool_response("c1", "look", output))["toolResponse"]["functionResponses"]
    assert answer == [{"id": "c1", "name": "look", "response": response}]
    noted = sent(protocol.tool_response("c1", "look", output, "Now ask."))["toolResponse"]
    assert noted["functionResponses"][0]["response"] == {**response, "note": "Now ask."}


# --- what we are sent ---


def test_everything_at_once_is_read() -> None:
    message = protocol.parse(
        json.dumps(
            {
                "serverContent": {
                    "modelTurn": {
                        "role": "model",
                        "parts": [
                            {"thought": True, "text": "hm"},
                            {"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": "AAH//g=="}},
                        ],
                    },
                    "outputTranscription": {"text": "Yes."},
                    "inputTranscription": {"text": "No.", "languageCode": "en"},
                    "generationComplete": True,
                    "turnComplete": True,
                    "nextYear": {"x": 1},
                },
                "usageMetadata": {"totalTokenCount": 3},
                "toolCall": {"functionCalls": [{"id": "a", "name": "look", "args": {"x": 1}}]},
                "toolCallCancellation": {"ids": ["b"]},
                "goAway": {"timeLeft": "50s"},
                "sessionResumptionUpdate": {"newHandle": "h", "resumable": True},
                "voiceActivity": {"type": "ACTIVITY_START", "audioOffset": "1.2s"},
                "somethingNew": [],
            },
            indent=2,
        ).encode()
    )
    content = message.server_content
    assert content is not None
    assert content.model_turn is not None
    assert content.model_turn.parts is not None
    blob = content.model_turn.parts[1].inline_data
    assert blob is not None
    assert blob.data == b"\x00\x01\xff\xfe"
    assert content.generation_complete
    assert content.turn_complete
    assert message.usage_metadata == {"totalTokenCount": 3}
    assert message.go_away is not None
    assert message.go_away.seconds == 50
    assert message.session_resumption_update is not None
    assert message.session_resumption_update.new_handle == "h"
    assert message.tool_call_cancellation is not None
    assert message.tool_call_cancellation.ids == ["b"]


@pytest.mark.parametrize("left", [None, "", "soon", "-3s", "nan"])
def test_time_left_that_cannot_be_read_is_none(left: str | None) -> None:
    message = protocol.parse(json.dumps({"goAway": {"timeLeft": left}}).encode())
    assert message.go_away is not None
    assert message.go_away.seconds == 0


GARBAGE = [
    b"",
    b"[]",
    b"{",
    b"\xff\xfe",
    b'{"serverContent": 7}',
    b'{"serverContent": {"modelTurn": {"parts": [{"inlineData": {"data": "!!"}}]}}}',
    b'{"toolCall": {"functionCalls": [{"name": []}]}}',
    b"[" * 5000,
    b'{"serverContent": {"interrupted": "yes"}}',
]


@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_told_as_such(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="Gemini Live"):
        protocol.parse(data)


@pytest.mark.parametrize(
    "data",
    [b"{}", b'{"serverContent": null}', b'{"serverContent": {"modelTurn": null, "interrupted": null}}'],
)
def test_what_is_empty_is_nothing(data: bytes) -> None:
    assert protocol.parse(data).tool_call is None


def test_usage_of_both_spellings_adds_up() -> None:
    total: dict[str, int] = {}
    protocol.add_usage(
        total,
        {
            "promptTokenCount": 10,
            "responseTokenCount": 5,
            "promptTokensDetails": [
                {"modality": "AUDIO", "tokenCount": 8},
                {"modality": "TEXT", "tokenCount": 2},
            ],
            "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 5}],
            "totalTokenCount": 15,
        },
    )
    protocol.add_usage(
        total,
        {
            "promptTokenCount": 20,
            "candidatesTokenCount": 7,
            "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 7}, "?", {"modality": "TEXT"}],
            "trafficType": "ON_DEMAND",
            "thoughtsTokenCount": "?",
        },
    )
    assert total == {
        "prompt_tokens": 30,
        "response_tokens": 12,
        "prompt_audio_tokens": 8,
        "prompt_text_tokens": 2,
        "response_audio_tokens": 12,
        "total_tokens": 15,
    }
