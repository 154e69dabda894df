"""The protocol of one session of Gemini Live, without sockets: messages, refusals, audio, turns, handles."""

import base64
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from gemini_oracle import (
    STUDIO_MODEL,
    VERTEX_MODEL,
    Desk,
    assert_valid_client,
    assert_valid_server,
    fields,
    names,
)
from pydantic import ValidationError

from arivox.audio.format import SLIN16, SLIN24, AudioFormat
from arivox.emulator import sound
from arivox.emulator.gemini import (
    CONSTRAINED_PATH,
    STUDIO_PATH,
    VERTEX_PATH,
    Entrance,
    GeminiOptions,
    GeminiService,
    ModelTurn,
    TokenStore,
)
from arivox.emulator.gemini.audio import SLIN8, Intake
from arivox.emulator.gemini.messages import RefusedError
from arivox.emulator.gemini.models import MODELS
from arivox.emulator.gemini.resumption import Handles
from arivox.emulator.session import Request
from arivox.errors import ProtocolError

INVALID = "Request contains an invalid argument."
FUNCTION = {
    "name": "move_to_state",
    "description": "Move on.",
    "parameters": {"type": "OBJECT", "properties": {"next_state": {"type": "STRING", "enum": ["day"]}}},
}
DONE = ["serverContent(turnComplete)+usageMetadata"]
STATE = "You are a clinic.\nCurrent state: reason\nWhy do you call?"


def tools(**extra: Any) -> list[dict[str, Any]]:
    return [{"functionDeclarations": [{**FUNCTION, **extra}]}]


def system(text: str) -> dict[str, Any]:
    return {"parts": [{"text": text}]}


def turns(*texts: str, role: str = "user", complete: bool = True) -> dict[str, Any]:
    contents = [{"role": role, "parts": [{"text": text}]} for text in texts]
    return {"clientContent": {"turns": contents, "turnComplete": complete}}


def result(call_id: str | None, response: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    named = {} if call_id is None else {"id": call_id}
    entry = {**named, "name": "move_to_state", "response": response or {"output": "ok"}, **more}
    return {"toolResponse": {"functionResponses": [entry]}}


def audio_event(data: bytes, rate: int = 16000) -> dict[str, Any]:
    blob = {"data": base64.b64encode(data).decode(), "mimeType": f"audio/pcm;rate={rate}"}
    return {"realtimeInput": {"audio": blob}}


def append(desk: Desk, audio: bytes, form: AudioFormat = SLIN16, rate: int = 0) -> list[dict[str, Any]]:
    """Send ``audio`` in frames as a call does, one every 20 ms."""
    got = []
    frame = (rate or form.rate) // 50 * 2
    for start in range(0, len(audio), frame):
        got += desk.tell(audio_event(audio[start : start + frame], rate or form.rate))
        got += desk.advance(0.02)
    return got


def talk(
    desk: Desk, ms: int = 600, silence_ms: int = 700, form: AudioFormat = SLIN16
) -> list[dict[str, Any]]:
    return append(desk, sound.tone(form, ms) + form.silence * (form.rate * silence_ms // 1000), form)


def audio_of(events: list[dict[str, Any]]) -> bytes:
    parts = [part for content in fields(events, "modelTurn") for part in content["parts"]]
    assert {part["inlineData"]["mimeType"] for part in parts} <= {"audio/pcm;rate=24000"}
    return b"".join(base64.b64decode(part["inlineData"]["data"]) for part in parts)


def said(events: list[dict[str, Any]]) -> str:
    return "".join(piece["text"] for piece in fields(events, "outputTranscription"))


def speak(desk: Desk, ms: int = 2000, text: str = "One two three four.") -> bytes:
    """Begin to say something in the answer that is wanted."""
    audio = sound.tone(SLIN24, ms)
    desk.answer.say(audio, text, desk.now)
    desk.answer.end(desk.now)
    return audio


def ready(**kwargs: Any) -> Desk:
    desk = Desk(**kwargs)
    desk.set_up()
    assert desk.session.ready
    return desk


def refused(desk: Desk, *details: str, code: int = 1007) -> None:
    assert desk.closed is not None, "the session goes on"
    assert desk.closed[0] == code, desk.closed
    for detail in details:
        assert detail in desk.closed[1], desk.closed
    assert desk.session.closed


# The judges


def test_the_oracle_sees_what_the_sdk_would_drop() -> None:
    with pytest.raises(ValidationError):
        assert_valid_server({"serverContent": {"turnCompleted": True}})
    with pytest.raises(ValidationError):
        assert_valid_client({"setup": {"model": "m", "tools": [{"functions": []}]}})
    with pytest.raises(ValidationError):
        assert_valid_client({"setup": {"model": "m", "realtimeInputConfig": {"vad": True}}})
    with pytest.raises(AssertionError):
        assert_valid_client({"realtimeInput": {}, "setup": {}})
    with pytest.raises(AssertionError):
        assert_valid_client({"realtime_input": {"text": "x"}})
    with pytest.raises(AssertionError):
        assert_valid_client({"realtimeInput": {"audio": {"mimeType": "audio/pcm", "data": "AAH__g=="}}})


# Setup


def test_setup_is_answered_after_a_moment_by_setup_complete_first() -> None:
    desk = Desk()
    assert desk.tell({"setup": {"model": STUDIO_MODEL}}) == []
    assert desk.advance(0.01) == [{"setupComplete": {}}]
    assert desk.closed is None


def test_vertex_names_the_session() -> None:
    [event] = Desk(vertex=True).set_up()
    assert event["setupComplete"]["sessionId"]


def test_everything_that_can_be_set_is_taken() -> None:
    desk = Desk(vertex=True)
    desk.set_up(
        generationConfig={
            "responseModalities": ["AUDIO"],
            "temperature": 0.7,
            "topP": 0.95,
            "topK": 40,
            "maxOutputTokens": 8192,
            "seed": 1,
            "candidateCount": 1,
            "presencePenalty": 0,
            "frequencyPenalty": 0,
            "mediaResolution": "MEDIA_RESOLUTION_LOW",
            "speechConfig": {
                "voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}},
                "languageCode": "en-US",
            },
        },
        systemInstruction={"role": "user", "parts": [{"text": "Be brief."}]},
        tools=[*tools(behavior="BLOCKING"), {"googleSearch": {}}],
        realtimeInputConfig={
            "automaticActivityDetection": {
                "disabled": False,
                "startOfSpeechSensitivity": "START_SENSITIVITY_LOW",
                "endOfSpeechSensitivity": "END_SENSITIVITY_LOW",
                "prefixPaddingMs": 20,
                "silenceDurationMs": 400,
            },
            "activityHandling": "NO_INTERRUPTION",
            "turnCoverage": "TURN_INCLUDES_ONLY_ACTIVITY",
            "interimTranscriptTimestampEnabled": False,
        },
        inputAudioTranscription={"languageCodes": ["en-US"], "customVocabulary": ["Arivox"]},
        outputAudioTranscription={},
        sessionResumption={"transparent": True},
        contextWindowCompression={"triggerTokens": 25600, "slidingWindow": {"targetTokens": 12800}},
        historyConfig={"initialHistoryInClientContent": True},
        proactivity={"proactiveAudio": True},
        explicitVadSignal=True,
        safetySettings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
    )
    assert desk.session.ready, desk.closed
    assert desk.session.instructions == "Be brief."
    assert desk.session.tools == {"move_to_state": FUNCTION["parameters"]}
    setup = desk.session.setup
    assert setup is not None
    detection = setup.detection
    assert detection is not None
    assert (detection.threshold, detection.silence_duration_ms, setup.onset_ms) == (0.7, 400, 20)
    assert not setup.interrupts


def test_low_sensitivity_waits_longer_for_the_end_unless_told_how_long() -> None:
    def silence(**wanted: Any) -> int:
        desk = Desk()
        desk.set_up(realtimeInputConfig={"automaticActivityDetection": wanted})
        assert desk.session.setup is not None
        assert desk.session.setup.detection is not None
        return desk.session.setup.detection.silence_duration_ms

    assert silence() == 500
    assert silence(endOfSpeechSensitivity="END_SENSITIVITY_LOW") > 500
    assert silence(endOfSpeechSensitivity="END_SENSITIVITY_LOW", silenceDurationMs=300) == 300


@pytest.mark.parametrize("binary", [False, True])
def test_both_spellings_and_both_alphabets_are_understood(binary: bool) -> None:
    desk = Desk()
    properties = {"next_state": {"type": "STRING"}, "nextState": {"type": "STRING"}}
    function = {"name": "f", "parameters": {"type": "OBJECT", "properties": properties}}
    desk.tell_raw(
        msgspec.json.encode(
            {
                "setup": {
                    "model": STUDIO_MODEL,
                    "generation_config": {"response_modalities": ["AUDIO"], "speechConfig": None},
                    "system_instruction": {"parts": [{"text": "Be brief."}]},
                    "tools": [{"function_declarations": [function]}],
                    "realtimeInputConfig": {"automatic_activity_detection": {"silence_duration_ms": 250}},
                }
            }
        ),
        binary=binary,
    )
    desk.advance(0.01)
    assert desk.session.instructions == "Be brief."
    # The names of properties are the user's, whatever they look like.
    assert desk.session.tools["f"]["properties"] == properties
    assert desk.session.setup is not None
    assert desk.session.setup.detection is not None
    assert desk.session.setup.detection.silence_duration_ms == 250
    samples = bytes([0, 1, 255, 254])
    for text in ("AAH__g==", "AAH__g", "AAH//g=="):
        event = {"realtime_input": {"audio": {"data": text, "mime_type": "audio/pcm;rate=16000"}}}
        desk.tell_raw(msgspec.json.encode(event), binary=binary)
    assert bytes(desk.record.audio_received) == samples * 3
    assert desk.record.received_count["realtimeInput.audio"] == 3
    desk.tell_raw(b'{"client_content":{"turns":[{"parts":[{"text":"x"}]}],"turn_complete":null}}')
    desk.tell_raw(b'{"realtimeInput":{"audio":null,"text":"y"}}')
    assert [entry.text for entry in desk.session.conversation.entries] == ["x", "y"]
    # Audio is no event; the setup was one.
    assert [type(event).__name__ for event in desk.behaviour.events] == [
        "Setup",
        "ClientContent",
        "RealtimeInput",
    ]


@pytest.mark.parametrize(
    ("data", "details"),
    [
        (b"{", ["Invalid JSON payload received."]),
        (b"\xff", ["Invalid JSON payload received."]),
        (b"[]", ["Invalid JSON payload received."]),
        (b"{}", [INVALID]),
        (b'{"realtimeInput":{"text":"x"}}', [INVALID, "first message must be setup"]),
        (b'{"setup":{}}', [INVALID, "'setup.model' is required"]),
        (b'{"setup":{"model":"models/gemini-3.8-live"},"toolResponse":{}}', ["oneof field 'message_type'"]),
        (
            b'{"setup":{"model":"models/gemini-3.8-live","systemInstruction":{},"system_instruction":{}}}',
            ["'systemInstruction' is already set"],
        ),
    ],
)
def test_a_first_message_that_makes_no_sense_ends_the_connection(data: bytes, details: list[str]) -> None:
    desk = Desk()
    assert desk.tell_raw(data) == []
    refused(desk, *details)


@pytest.mark.parametrize(
    ("setup", "details"),
    [
        ({"voice": "Kore"}, ["Unknown name \"voice\" at 'setup'"]),
        (
            {"generationConfig": {"speech": {}}},
            ["Unknown name \"speech\" at 'setup.generationConfig'", "Cannot find field"],
        ),
        ({"tools": [{"functions": []}]}, ["Unknown name \"functions\" at 'setup.tools[0]'"]),
        (
            {"tools": tools(behavior="BLOCK")},
            ["Invalid value at 'setup.tools[0].functionDeclarations[0].behavior'", "BLOCK"],
        ),
        ({"tools": tools(name="a b")}, ["Invalid value at"]),
        ({"tools": [*tools(), *tools()]}, [INVALID, "duplicate", "move_to_state"]),
        ({"tools": tools(parametersJsonSchema={"type": "object"})}, [INVALID, "both kinds"]),
        (
            {"realtimeInputConfig": {"activityHandling": "INTERRUPT"}},
            ["Invalid value at 'setup.realtimeInputConfig.activityHandling'", "INTERRUPT"],
        ),
        (
            {"realtimeInputConfig": {"automaticActivityDetection": {"silenceDurationMs": -1}}},
            ["Invalid value at 'setup.realtimeInputConfig.automaticActivityDetection.silenceDurationMs'"],
        ),
        ({"generationConfig": {"temperature": 3}}, ["Invalid value at 'setup.generationConfig.temperature'"]),
        ({"generationConfig": {"responseModalities": ["TEXT"]}}, [INVALID, "responseModalities"]),
        ({"generationConfig": {"responseModalities": ["AUDIO", "TEXT"]}}, [INVALID, "responseModalities"]),
        ({"generationConfig": {"responseModalities": []}}, [INVALID, "responseModalities"]),
        ({"generationConfig": {"responseModalities": ["VOICE"]}}, ["Invalid value", "VOICE"]),
        (
            {
                "generationConfig": {
                    "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "marin"}}}
                }
            },
            [INVALID, "'marin' is not available"],
        ),
        ({"generationConfig": {"translationConfig": {}}}, [INVALID, "translationConfig"]),
        # Only on Vertex.
        ({"explicitVadSignal": True}, ['Unknown name "explicitVadSignal"']),
        ({"sessionResumption": {"transparent": True}}, ['Unknown name "transparent"']),
        ({"proactivity": {"proactiveAudio": False}}, [INVALID, "proactiveAudio"]),
    ],
)
def test_a_setup_that_is_wrong_ends_the_connection_and_the_reason_names_it(
    setup: dict[str, Any], details: list[str]
) -> None:
    desk = Desk()
    assert desk.set_up(valid=False, **setup) == []
    refused(desk, *details)


@pytest.mark.parametrize(
    ("setup", "details"),
    [
        ({"labels": {"a": "b"}}, ['Unknown name "labels"']),
        (
            {"realtimeInputConfig": {"turnCoverage": "TURN_INCLUDES_AUDIO_ACTIVITY_AND_ALL_VIDEO"}},
            [INVALID, "turnCoverage"],
        ),
        ({"contextWindowCompression": {"triggerTokens": "4999"}}, [INVALID, "triggerTokens"]),
    ],
)
def test_what_only_vertex_refuses(setup: dict[str, Any], details: list[str]) -> None:
    desk = Desk(vertex=True)
    desk.set_up(valid=False, **setup)
    refused(desk, *details)
    studio = Desk()
    studio.set_up(valid=False, **setup)
    assert studio.session.ready, studio.closed


EXTENDED = "models/gemini-3.8-live-extended-thinking"
LEGACY = "models/gemini-3.1-flash-live-preview"
NATIVE = "models/gemini-2.5-flash-native-audio-latest"


def thinking(**config: Any) -> dict[str, Any]:
    return {"generationConfig": {"thinkingConfig": config}}


@pytest.mark.parametrize(
    ("model", "setup", "detail"),
    [
        (STUDIO_MODEL, thinking(thinkingLevel="LOW"), "thinking is not supported"),
        (STUDIO_MODEL, thinking(includeThoughts=False), "thinking is not supported"),
        (EXTENDED, thinking(thinkingLevel="HIGH"), ""),
        (EXTENDED, thinking(thinkingLevel="MINIMAL"), "thinkingLevel: MINIMAL"),
        (EXTENDED, thinking(thinkingBudget=0), "thinkingBudget"),
        (LEGACY, thinking(thinkingLevel="MINIMAL"), ""),
        (NATIVE, thinking(thinkingBudget=0), ""),
        (NATIVE, thinking(thinkingLevel="LOW"), "thinkingLevel: LOW"),
        (STUDIO_MODEL, {"tools": tools(behavior="BLOCKING")}, ""),
        (STUDIO_MODEL, {"tools": tools(behavior="NON_BLOCKING")}, ""),
        (EXTENDED, {"tools": tools(behavior="BLOCKING")}, "BLOCKING is not supported"),
        (EXTENDED, {"tools": tools()}, ""),
        (LEGACY, {"tools": tools(behavior="NON_BLOCKING")}, "NON_BLOCKING is not supported"),
        (LEGACY, {"tools": tools()}, ""),
        (NATIVE, {"tools": tools(behavior="NON_BLOCKING")}, ""),
        (STUDIO_MODEL, {"proactivity": {"proactiveAudio": True}}, ""),
        (LEGACY, {"proactivity": {"proactiveAudio": True}}, "proactivity"),
        (NATIVE, {"proactivity": {"proactiveAudio": True}}, "v1alpha"),
        (STUDIO_MODEL, {"generationConfig": {"enableAffectiveDialog": True}}, "enableAffectiveDialog"),
        (LEGACY, {"generationConfig": {"enableAffectiveDialog": True}}, "enableAffectiveDialog"),
        (NATIVE, {"generationConfig": {"enableAffectiveDialog": True}}, "v1alpha"),
        (LEGACY, {"historyConfig": {"initialHistoryInClientContent": True}}, ""),
        (NATIVE, {"historyConfig": {"initialHistoryInClientContent": True}}, "historyConfig"),
    ],
)
def test_each_model_takes_what_it_can(model: str, setup: dict[str, Any], detail: str) -> None:
    desk = Desk()
    desk.set_up(model=model, **setup)
    if detail:
        refused(desk, detail)
    else:
        assert desk.session.ready, desk.closed


def test_the_previews_have_their_extras_in_v1alpha() -> None:
    desk = Desk(entrance=Entrance("studio", "v1alpha"))
    desk.set_up(
        model=NATIVE,
        proactivity={"proactiveAudio": True},
        generationConfig={"enableAffectiveDialog": True},
    )
    assert desk.session.ready, desk.closed


@pytest.mark.parametrize(
    ("vertex", "model"),
    [
        (False, "models/gemini-2.0-flash-live-001"),
        (False, "gemini-3.8-live"),
        (False, "models/gemini-live-2.5-flash-native-audio"),
        (False, VERTEX_MODEL),
        (True, STUDIO_MODEL),
        (True, "projects/p/locations/global/publishers/google/models/gemini-live-2.5-flash-native-audio"),
        (True, "publishers/google/models/gemini-3.1-flash-live-preview"),
    ],
)
def test_a_model_that_is_not_there(vertex: bool, model: str) -> None:
    desk = Desk(vertex=vertex)
    desk.set_up(model=model)
    expected = (
        f"Publisher Model `{model}` was not found" if vertex else f"{model} is not found for API version"
    )
    refused(desk, expected, code=1008)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_of_the_table_can_be_used(name: str) -> None:
    for backend in MODELS[name].backends:
        desk = Desk(vertex=backend == "vertex")
        prefix = (
            "models/" if backend == "studio" else "projects/p/locations/us-central1/publishers/google/models/"
        )
        desk.set_up(model=prefix + name)
        assert desk.session.ready, desk.closed


def test_nothing_may_be_sent_before_setup_complete() -> None:
    desk = Desk()
    desk.tell({"setup": {"model": STUDIO_MODEL}})
    desk.tell(audio_event(bytes(640)))
    refused(desk, INVALID, "before setupComplete")
    assert desk.advance(1) == []


def test_there_is_one_setup() -> None:
    desk = ready()
    desk.tell({"setup": {"model": STUDIO_MODEL}})
    refused(desk, "setup must be the first message and only the first")


@pytest.mark.parametrize(
    ("event", "detail"),
    [
        ({"response": {}}, 'Unknown name "response"'),
        ({"realtimeInput": {"audio": {"data": ""}}}, "'realtimeInput.audio.mimeType' is required"),
        (
            {"realtimeInput": {"audio": {"data": "*", "mimeType": "audio/pcm"}}},
            "Invalid value at 'realtimeInput.audio.data'",
        ),
        ({"realtimeInput": {"audio": {"data": "AAA=", "mimeType": "audio/pcmu"}}}, "audio/pcmu"),
        ({"realtimeInput": {"audio": {"data": "AAA=", "mimeType": "audio/pcm;rate=44100"}}}, "44100"),
        ({"realtimeInput": {"audio": {"data": "AAAA", "mimeType": "audio/pcm"}}}, "half a sample"),
        ({"realtimeInput": {"mediaChunks": [{"data": "AAA=", "mimeType": "audio/pcm"}]}}, "media_chunks"),
        ({"realtimeInput": {"activityStart": {}}}, "Explicit activity control is not supported"),
        ({"clientContent": {"turns": [{"role": "assistant"}]}}, "Invalid value at 'clientContent.turns"),
        ({"clientContent": {"turns": [{"role": "user"}]}}, "no parts"),
        (turns("x", role="system", complete=False), "Please use a valid role: user, model."),
        ({"toolResponse": {}}, "there are none"),
        (result("nobody"), "'nobody' is no call"),
        (result(None), "id is required"),
        (result("x", scheduling="INTERRUPTED"), "INTERRUPTED"),
    ],
)
def test_a_message_that_is_wrong_ends_the_connection(event: dict[str, Any], detail: str) -> None:
    desk = ready()
    desk.tell(event, valid=False)
    refused(desk, detail)
    assert desk.tell_raw(b"{}") == []


def test_the_records_kinds_are_those_of_the_protocol() -> None:
    desk = Desk(listens=True)
    desk.set_up(inputAudioTranscription={}, sessionResumption={}, tools=tools(behavior="BLOCKING"))
    desk.type("hello")
    speak(desk)
    desk.advance(0.2)
    desk.session.transcribed(desk.session.speech_stopped(desk.now), "hi")
    call = desk.answer.call("move_to_state", "{}", desk.now)
    desk.answer.end(desk.now)
    desk.tell(result(call))
    desk.answer.end(desk.now)
    desk.tell(audio_event(bytes(640)))
    desk.tell({"realtimeInput": {"audioStreamEnd": True}})
    desk.tell(turns("x"))
    desk.tell({"contextUpdate": {"tools": {}}})
    desk.session.go_away(50, desk.now)
    received = [frame.kind for frame in desk.record.received()]
    assert received == [
        "setup",
        "realtimeInput.text",
        "toolResponse",
        "realtimeInput.audio",
        "realtimeInput.audioStreamEnd",
        "clientContent",
        "contextUpdate",
    ]
    assert {
        "setupComplete",
        "sessionResumptionUpdate",
        "serverContent.modelTurn",
        "serverContent.outputTranscription",
        "serverContent.inputTranscription",
        "serverContent.interrupted",
        "serverContent.turnComplete",
        "serverContent.generationComplete",
        "toolCall",
        "goAway",
    } == {frame.kind for frame in desk.record.sent()}
    assert desk.record.sent("goAway")[0].event == {"goAway": {"timeLeft": "50s"}}


# The model's turn


def test_all_audio_and_all_words_arrive_and_the_turn_waits_for_its_playback() -> None:
    desk = ready()
    desk.type("hello")
    assert desk.answer.instructions == "hello"
    assert desk.session.last_turn is None
    began = desk.now
    audio = speak(desk, 4000)
    desk.advance(10)
    events = desk.events[1:]
    assert audio_of(events) == audio
    assert said(events) == "One two three four."
    assert len(fields(events, "outputTranscription")) > 1
    # Generated at four times real time, complete when it would have been heard.
    *_, last_audio, complete = desk.times
    assert last_audio - began == pytest.approx(1.0, abs=0.15)
    assert complete - began == pytest.approx(4.0, abs=0.01)
    assert names(events)[-2:] == [
        "serverContent(modelTurn+outputTranscription+generationComplete)",
        "serverContent(turnComplete)+usageMetadata",
    ]
    assert len(fields(events, "generationComplete")) == len(fields(events, "turnComplete")) == 1


def test_chunks_are_of_odd_sizes() -> None:
    desk = ready()
    desk.type("hello")
    speak(desk, 8000)
    desk.advance(20)
    parts = [content["parts"][0]["inlineData"]["data"] for content in fields(desk.events, "modelTurn")]
    sizes = [len(base64.b64decode(data)) for data in parts]
    assert 40 <= SLIN24.ms(sizes[0]) <= 80
    assert all(100 <= SLIN24.ms(size) <= 400 for size in sizes[1:-1])
    assert len(set(sizes)) > 5


def test_an_answer_that_ends_after_its_speech_says_so_by_itself() -> None:
    desk = ready()
    desk.type("hello")
    desk.answer.say(bytes(4800), "Yes", desk.now, speed=float("inf"))
    events = desk.events[1:]
    assert names(events) == [
        "serverContent(modelTurn)",
        "serverContent(modelTurn)",
        "serverContent(outputTranscription)",
    ]
    before = len(desk.events)
    desk.answer.end(desk.now)
    desk.advance(0.2)
    assert names(desk.events[before:]) == ["serverContent(generationComplete)", *DONE]


def test_an_answer_without_speech_is_over_at_once() -> None:
    desk = ready()
    desk.type("hello")
    before = len(desk.events)
    desk.answer.end(desk.now)
    assert names(desk.events[before:]) == ["serverContent(generationComplete)", *DONE]
    assert desk.answer.done


def test_the_next_answer_is_played_after_the_last() -> None:
    desk = ready()
    desk.type("hello")
    speak(desk, 1000)
    desk.advance(0.5)
    assert desk.session.active is None
    # A behaviour that goes on talking ends the turn that is only being played.
    desk.behaviour.responses.append(desk.session.create_response())
    assert names(desk.events)[-1:] == DONE
    began = desk.now
    speak(desk, 1000)
    with pytest.raises(ProtocolError):
        desk.session.create_response()
    desk.advance(10)
    assert desk.times[-1] - began == pytest.approx(1.5, abs=0.01)


def test_transcripts_of_speech_come_unasked_from_the_newest_models_only() -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        (STUDIO_MODEL, {}, "One two three four."),
        (LEGACY, {}, ""),
        (LEGACY, {"outputAudioTranscription": {}}, "One two three four."),
    ]
    for model, setup, expected in cases:
        desk = Desk()
        desk.set_up(model=model, **setup)
        desk.type("hello")
        audio = speak(desk)
        desk.advance(5)
        assert said(desk.events) == expected
        assert audio_of(desk.events) == audio


def test_a_server_that_does_not_transcribe() -> None:
    desk = Desk(options=GeminiOptions(transcribes=False), listens=True)
    desk.set_up(inputAudioTranscription={}, outputAudioTranscription={})
    talk(desk)
    desk.session.transcribed(desk.session.conversation.entries[0], "hello")
    speak(desk)
    desk.advance(5)
    assert not fields(desk.events, "outputTranscription")
    assert not fields(desk.events, "inputTranscription")
    assert audio_of(desk.events)


def test_the_limit_of_tokens_ends_an_answer() -> None:
    desk = Desk()
    desk.set_up(generationConfig={"maxOutputTokens": 25})
    desk.type("hello")
    speak(desk, 5000)
    desk.advance(10)
    assert 1000 <= SLIN24.ms(len(audio_of(desk.events))) < 1500
    assert said(desk.events).startswith("One")
    assert names(desk.events)[-2:] == ["serverContent(generationComplete)", *DONE]


def test_a_failure_of_the_service_closes_with_its_words() -> None:
    desk = ready()
    desk.type("hello")
    desk.answer.fail("server_error", "x", desk.now)
    refused(desk, "Internal error encountered.", code=1011)
    desk = ready()
    desk.type("hello")
    desk.answer.fail("insufficient_quota", "x", desk.now)
    refused(desk, "You exceeded your current quota", code=1011)
    desk.answer.say(bytes(480), "late", desk.now)
    desk.answer.end(desk.now)
    assert names(desk.events) == ["setupComplete"]


def test_a_call_that_is_no_json_ends_the_turn_only() -> None:
    desk = ready()
    desk.type("hello")
    desk.answer.call("move_to_state", "{oops", desk.now)
    assert fields(desk.events, "turnCompleteReason") == ["MALFORMED_FUNCTION_CALL"]
    assert desk.closed is None
    desk.type("again")
    assert desk.answer.instructions == "again"


# The caller


def test_a_spoken_turn_is_found_heard_and_answered() -> None:
    desk = Desk(listens=True)
    desk.set_up(inputAudioTranscription={})
    talk(desk)
    [turn] = desk.behaviour.turns
    assert turn.audio_format is SLIN16
    assert 600 <= SLIN16.ms(len(turn.audio)) <= 1400
    assert desk.session.last_turn is turn
    assert desk.answer.instructions == ""
    assert desk.session.active is desk.answer
    desk.session.transcribed(desk.session.conversation.entries[0], "a bad toothache")
    pieces = fields(desk.events, "inputTranscription")
    assert "".join(piece["text"] for piece in pieces) == "a bad toothache"
    assert len(pieces) == 3
    assert not any("finished" in piece for piece in pieces)
    assert turn.text == "a bad toothache"
    speak(desk)
    desk.advance(5)
    assert desk.session.last_turn is None
    assert names(desk.events)[-1:] == DONE


def test_vertex_marks_the_end_of_a_transcript_and_signals_activity() -> None:
    desk = Desk(listens=True, vertex=True)
    desk.set_up(inputAudioTranscription={}, explicitVadSignal=True)
    append(desk, bytes(32000))
    events = talk(desk)
    signals = [event["voiceActivity"] for event in events if "voiceActivity" in event]
    assert [signal["type"] for signal in signals] == ["ACTIVITY_START", "ACTIVITY_END"]
    start, end = (float(signal["audioOffset"].removesuffix("s")) for signal in signals)
    assert 0.6 <= start <= 1.0
    assert 1.6 <= end <= 2.4
    desk.session.transcribed(desk.session.conversation.entries[0], "yes please")
    assert [piece.get("finished") for piece in fields(desk.events, "inputTranscription")] == [None, True]


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 48000])
def test_every_rate_is_heard(rate: int) -> None:
    wide = AudioFormat("wide", rate, 2, b"\0\0")
    desk = Desk(listens=True)
    desk.set_up()
    tone = sound.tone(wide, 600) + bytes(2 * rate * 7 // 10)
    append(desk, tone, wide)
    [turn] = desk.behaviour.turns
    form = {8000: SLIN8, 16000: SLIN16, 24000: SLIN24, 48000: SLIN24}[rate]
    assert turn.audio_format is form is desk.session.input_format
    assert desk.session.received_ms == pytest.approx(1300, abs=1)
    assert bytes(desk.behaviour.heard_audio) == bytes(desk.record.audio_received)
    # What is heard is still the tone: its power is at 440 Hz.
    pcm = sound.decode(turn.audio, form).astype(float)
    spectrum = np.abs(np.fft.rfft(pcm))
    assert np.argmax(spectrum) * form.rate / len(pcm) == pytest.approx(440, abs=3)
    assert np.sqrt(np.mean(pcm[pcm != 0] ** 2)) == pytest.approx(0.3 * 32767 / 2**0.5, rel=0.05)


def test_48_khz_do_not_fold_back() -> None:
    wide = AudioFormat("wide", 48000, 2, b"\0\0")
    desk = ready()
    append(desk, sound.tone(wide, 500, hz=22000.0), wide)
    pcm = sound.decode(desk.record.audio_received, SLIN24).astype(float)
    assert np.sqrt(np.mean(pcm**2)) < 0.03 * 0.3 * 32767


def test_48_khz_sound_the_same_in_pieces_of_any_size() -> None:
    rng = np.random.default_rng(1)
    data = rng.integers(-8000, 8000, 4801).astype("<i2").tobytes()
    whole = Intake().take("audio/pcm;rate=48000", data)
    pieces = Intake()
    cuts = [0, 2, 8, 14, 500, 502, 1300, 5000, len(data)]
    parts = [pieces.take("audio/pcm;rate=48000", data[a:b]) for a, b in pairwise(cuts)]
    assert b"".join(parts) == whole
    assert len(whole) == len(data) // 4 * 2 + 2


def test_audio_without_a_rate_is_16_khz() -> None:
    desk = ready()
    desk.tell({"realtimeInput": {"audio": {"data": "AAAAAA==", "mimeType": "audio/pcm"}}})
    assert desk.session.received_ms == 0.125


def test_more_speech_may_be_wanted_before_a_turn_begins() -> None:
    def starts(padding: int) -> float:
        desk = Desk(listens=True)
        desk.set_up(realtimeInputConfig={"automaticActivityDetection": {"prefixPaddingMs": padding}})
        before = desk.now
        append(desk, sound.tone(SLIN16, 1000))
        return desk.behaviour.interruptions[0] - before

    assert starts(20) == pytest.approx(0.06, abs=0.03)
    assert starts(400) == pytest.approx(0.4, abs=0.03)


def test_speech_interrupts_generation() -> None:
    desk = Desk(listens=True)
    desk.set_up()
    desk.type("hello")
    speak(desk, 8000)
    desk.advance(0.5)
    before = len(desk.events)
    append(desk, sound.tone(SLIN16, 300))
    events = desk.events[before:]
    index = names(events).index("serverContent(interrupted)")
    assert names(events)[index:] == ["serverContent(interrupted)", *DONE]
    assert not fields(desk.events, "generationComplete")
    assert desk.answer.done
    assert len(desk.behaviour.interruptions) == 1
    assert "serverContent(modelTurn)" not in names(desk.advance(10))
    # The history holds what was sent, not what was meant.
    spoken = desk.session.conversation.entries[1]
    assert spoken.spoken_ms == pytest.approx(SLIN24.ms(len(audio_of(desk.events))))
    assert spoken.text == said(desk.events) != "One two three four."


def test_speech_interrupts_the_playback_of_what_was_generated() -> None:
    desk = Desk(listens=True)
    desk.set_up()
    desk.type("hello")
    speak(desk, 4000)
    desk.advance(2)
    assert desk.session.active is None
    assert "serverContent(turnComplete)+usageMetadata" not in names(desk.events)
    events = append(desk, sound.tone(SLIN16, 300))
    assert names(events) == ["serverContent(interrupted)", *DONE]
    assert names(desk.advance(10)) == []


def test_what_was_interrupted_is_not_played_any_more() -> None:
    desk = Desk(listens=True)
    desk.set_up()
    desk.type("hello")
    speak(desk, 20_000)
    desk.advance(6)
    assert desk.answer.done
    talk(desk)
    began = desk.now
    speak(desk, 1000)
    desk.advance(10)
    assert desk.times[-1] - began == pytest.approx(1.0, abs=0.01)


def test_speech_in_silence_interrupts_nothing() -> None:
    desk = Desk(listens=True)
    desk.set_up()
    assert append(desk, sound.tone(SLIN16, 300)) == []
    assert len(desk.behaviour.interruptions) == 1


def test_no_interruption_lets_the_model_finish_and_then_answer() -> None:
    desk = Desk(listens=True)
    desk.set_up(realtimeInputConfig={"activityHandling": "NO_INTERRUPTION"})
    desk.type("hello")
    first = desk.answer
    speak(desk, 4000)
    talk(desk)
    assert not fields(desk.events, "interrupted")
    assert len(desk.behaviour.turns) == 1
    assert desk.answer is first
    desk.advance(5)
    assert fields(desk.events, "turnComplete") == [True]
    assert desk.answer is not first
    assert desk.session.last_turn is desk.behaviour.turns[0]


def test_the_end_of_the_stream_ends_the_turn() -> None:
    desk = Desk(listens=True)
    desk.set_up()
    append(desk, sound.tone(SLIN16, 400))
    assert desk.behaviour.responses == []
    desk.tell({"realtimeInput": {"audioStreamEnd": True}})
    assert len(desk.behaviour.responses) == 1
    assert SLIN16.ms(len(desk.behaviour.turns[0].audio)) == pytest.approx(400, abs=20)
    speak(desk, 100)
    desk.advance(1)
    append(desk, bytes(32000))
    assert len(desk.behaviour.responses) == 1
    # The next audio opens the stream again.
    talk(desk)
    assert len(desk.behaviour.responses) == 2


def test_the_client_may_tell_the_turns_itself() -> None:
    desk = Desk()
    desk.set_up(realtimeInputConfig={"automaticActivityDetection": {"disabled": True}})
    append(desk, sound.tone(SLIN16, 300))
    desk.type("hello")
    speak(desk, 4000)
    desk.advance(0.1)
    events = desk.tell({"realtimeInput": {"activityStart": {}}})
    assert names(events) == ["serverContent(interrupted)", *DONE]
    audio = sound.tone(SLIN16, 500)
    append(desk, audio)
    desk.tell({"realtimeInput": {"activityEnd": {}}})
    [turn] = desk.behaviour.turns
    assert bytes(turn.audio) == audio
    assert desk.session.last_turn is turn
    assert len(desk.behaviour.responses) == 2
    kinds = [frame.kind for frame in desk.record.received()]
    assert {"realtimeInput.activityStart", "realtimeInput.activityEnd"} <= set(kinds)


@pytest.mark.parametrize("what", [{"audioStreamEnd": True}, {"activityEnd": {}}])
def test_what_makes_no_sense_with_turns_of_ones_own(what: dict[str, Any]) -> None:
    desk = Desk()
    desk.set_up(realtimeInputConfig={"automaticActivityDetection": {"disabled": True}})
    desk.tell({"realtimeInput": what})
    refused(desk, INVALID, next(iter(what)))


def test_old_models_take_media_chunks() -> None:
    desk = Desk()
    desk.set_up(model=NATIVE)
    chunk = {"data": "AAAAAA==", "mimeType": "audio/pcm;rate=16000"}
    desk.tell({"realtimeInput": {"mediaChunks": [chunk]}})
    assert len(desk.record.audio_received) == 4


def test_video_is_taken_and_not_looked_at() -> None:
    desk = ready()
    desk.tell({"realtimeInput": {"video": {"data": "AAAA", "mimeType": "image/jpeg"}}})
    assert desk.closed is None
    assert desk.record.received()[-1].kind == "realtimeInput.video"


# Text


def test_typed_text_does_not_interrupt_and_is_answered_next() -> None:
    desk = ready()
    desk.type("hello")
    first = desk.answer
    speak(desk, 2000)
    desk.advance(0.2)
    desk.type("Say: “Good night.”")
    desk.type("Now.")
    assert not fields(desk.events, "interrupted")
    assert desk.answer is first
    desk.advance(5)
    assert desk.answer is not first
    assert desk.answer.instructions == "Say: “Good night.”\nNow."


def test_typed_text_waits_for_a_caller_who_speaks() -> None:
    desk = Desk(listens=True)
    desk.set_up()
    append(desk, sound.tone(SLIN16, 300))
    desk.type("Say: “Hello?”")
    assert desk.behaviour.responses == []
    append(desk, bytes(2 * 16 * 700))
    # One answer to both; the caller's words ask for it.
    assert [answer.instructions for answer in desk.behaviour.responses] == [""]


def test_content_interrupts_and_asks() -> None:
    desk = ready()
    desk.type("hello")
    speak(desk, 4000)
    desk.advance(0.2)
    events = desk.tell(turns("Stop that."))
    assert names(events) == ["serverContent(interrupted)", *DONE]
    assert desk.answer.instructions == "Stop that."
    assert [entry.role for entry in desk.session.conversation.entries] == ["user", "model", "user"]


def test_content_that_is_not_complete_lets_the_answer_finish() -> None:
    desk = ready()
    desk.type("hello")
    audio = speak(desk, 2000)
    desk.advance(0.2)
    assert desk.tell(turns("By the way.", complete=False)) == []
    desk.advance(5)
    assert audio_of(desk.events) == audio
    assert len(desk.behaviour.responses) == 1
    assert desk.session.conversation.entries[-1].text == "By the way."


def test_a_typed_turn_is_never_taken_for_a_spoken_one() -> None:
    desk = Desk(listens=True)
    desk.set_up()
    talk(desk)
    assert desk.session.last_turn is not None
    desk.tell(turns("No, this."))
    assert desk.session.last_turn is None


def test_a_behaviour_that_does_not_answer_requests() -> None:
    desk = ready()
    desk.behaviour.answers = False
    desk.type("hello")
    desk.tell(turns("hello"))
    assert desk.behaviour.responses == []
    assert desk.session.active is None


def test_initial_history_is_answered_by_nothing() -> None:
    desk = Desk()
    desk.set_up(model=LEGACY, historyConfig={"initialHistoryInClientContent": True})
    event = turns("I have a toothache.", complete=False)
    event["clientContent"]["turns"].append({"role": "model", "parts": [{"text": "Since when?"}]})
    assert desk.tell(event) == []
    assert desk.tell(turns("Yesterday.")) == []
    assert desk.behaviour.responses == []
    assert [entry.role for entry in desk.session.conversation.entries] == ["user", "model", "user"]
    # From then on this model takes no more of it.
    desk.type("hello")
    assert len(desk.behaviour.responses) == 1
    desk.tell(turns("More."))
    refused(desk, INVALID, "clientContent")


def test_the_newest_model_takes_content_after_its_history() -> None:
    desk = Desk()
    desk.set_up(historyConfig={"initialHistoryInClientContent": True})
    desk.tell(turns("I have a toothache."))
    desk.tell(turns("Go on."))
    assert desk.answer.instructions == "Go on."


# Instructions and tools


def test_notes_that_tell_a_state_are_what_the_model_goes_by() -> None:
    desk = Desk()
    desk.set_up(systemInstruction=system(STATE), tools=tools(behavior="BLOCKING"))
    assert desk.session.instructions == STATE
    desk.type("How are you?")
    assert desk.session.instructions == STATE
    call = desk.answer.call("move_to_state", '{"next_state":"day"}', desk.now)
    desk.answer.end(desk.now)
    note = "Current state: day\nWhich day?"
    desk.tell(result(call, {"output": {"ok": True, "note": note}}))
    assert desk.session.instructions == note
    assert desk.session.last_turn is None
    assert desk.answer.instructions == ""
    desk.tell(turns("Now.\nCurrent state: name\nWho?", complete=False))
    assert desk.session.instructions == "Now.\nCurrent state: name\nWho?"
    desk.type("Current state: end\nBye.")
    assert desk.session.instructions == "Current state: end\nBye."


def test_context_update_works_on_vertex() -> None:
    desk = Desk(vertex=True)
    desk.set_up(systemInstruction=system(STATE), tools=tools())
    other = {"functionDeclarations": [{"name": "end_call"}]}
    update = {"systemInstruction": system("Be brief."), "tools": {"tools": [other]}}
    assert desk.tell({"contextUpdate": update}) == []
    assert desk.session.instructions == "Be brief."
    assert desk.session.tools == {"end_call": {}}
    desk.tell({"contextUpdate": {"systemInstruction": system(STATE)}})
    assert desk.session.instructions == STATE
    assert desk.session.tools == {"end_call": {}}
    desk.tell({"contextUpdate": {"tools": {}}})
    assert desk.session.tools == {}


def test_context_update_is_ignored_on_ai_studio_and_ends_old_models() -> None:
    desk = Desk()
    desk.set_up(systemInstruction=system(STATE), tools=tools())
    desk.tell({"contextUpdate": {"systemInstruction": system("Be brief."), "tools": {}}})
    assert desk.closed is None
    assert desk.session.instructions == STATE
    assert list(desk.session.tools) == ["move_to_state"]
    desk = Desk()
    desk.set_up(model=NATIVE)
    desk.tell({"contextUpdate": {"tools": {}}})
    refused(desk, INVALID, "contextUpdate")


@pytest.mark.parametrize(
    "model", [VERTEX_MODEL, VERTEX_MODEL.replace("3.8-live", "live-2.5-flash-native-audio")]
)
def test_a_system_turn_is_the_instruction_on_vertex(model: str) -> None:
    desk = Desk(vertex=True)
    desk.set_up(model=model, systemInstruction=system(STATE))
    note = "Current state: day\nWhich day?"
    assert desk.tell(turns(note, role="system", complete=False)) == []
    assert desk.session.instructions == note
    assert desk.session.conversation.entries == []
    desk.tell(turns("Be brief.", role="system", complete=False))
    assert desk.session.instructions == "Be brief."


# Calls


def calling(behavior: str | None = "BLOCKING", **kwargs: Any) -> tuple[Desk, str]:
    """A session whose model said a word and called a function."""
    desk = Desk(listens=True, **kwargs)
    extra = {"behavior": behavior} if behavior else {}
    desk.set_up(tools=tools(**extra), sessionResumption={})
    desk.type("hello")
    desk.answer.say(sound.tone(SLIN24, 400), "One moment.", desk.now, speed=float("inf"))
    call = desk.answer.call("move_to_state", '{"next_state":"day"}', desk.now)
    desk.answer.end(desk.now)
    return desk, call


def test_a_call_that_blocks_holds_the_turn_open() -> None:
    desk, call = calling()
    [event] = [event for event in desk.events if "toolCall" in event]
    expected = {"id": call, "name": "move_to_state", "args": {"next_state": "day"}}
    assert event["toolCall"]["functionCalls"] == [expected]
    first = desk.answer
    assert first.done
    assert names(desk.advance(30)) == []
    assert desk.tell(result(call)) == []
    assert desk.answer is not first
    speak(desk, 1000, "Which day?")
    desk.advance(5)
    # One turn: one end, one report of usage for both of its answers.
    assert len(fields(desk.events, "generationComplete")) == len(fields(desk.events, "turnComplete")) == 1
    usage = desk.events[-2]["usageMetadata"]
    assert {"modality": "AUDIO", "tokenCount": 35} in usage["responseTokensDetails"]
    assert said(desk.events) == "One moment.Which day?"


def test_all_calls_that_block_must_be_answered() -> None:
    desk = Desk()
    desk.set_up(tools=tools(behavior="BLOCKING"))
    desk.type("hello")
    one = desk.answer.call("move_to_state", "{}", desk.now)
    two = desk.answer.call("move_to_state", "{}", desk.now)
    desk.answer.end(desk.now)
    desk.tell(result(one))
    assert len(desk.behaviour.responses) == 1
    desk.tell(result(two))
    assert len(desk.behaviour.responses) == 2


def test_a_result_that_comes_while_the_answer_goes_on() -> None:
    desk = Desk()
    desk.set_up(tools=tools(behavior="BLOCKING"))
    desk.type("hello")
    call = desk.answer.call("move_to_state", "{}", desk.now)
    desk.tell(result(call))
    assert len(desk.behaviour.responses) == 1
    desk.answer.end(desk.now)
    assert len(desk.behaviour.responses) == 2
    assert not fields(desk.events, "turnComplete")
    desk.answer.end(desk.now)
    assert fields(desk.events, "turnComplete") == [True]


def test_speech_after_a_call_that_blocks_does_not_end_the_turn() -> None:
    desk = Desk()
    desk.set_up(tools=tools(behavior="BLOCKING"))
    desk.type("hello")
    call = desk.answer.call("move_to_state", "{}", desk.now)
    speak(desk, 1000)
    desk.advance(5)
    assert desk.answer.done
    assert not fields(desk.events, "generationComplete")
    desk.tell(result(call))
    desk.answer.end(desk.now)
    assert len(fields(desk.events, "generationComplete")) == 1


def test_speech_cancels_the_call_that_blocks() -> None:
    desk, call = calling()
    desk.advance(1)
    events = append(desk, sound.tone(SLIN16, 300))
    assert names(events)[:3] == ["toolCallCancellation", "serverContent(interrupted)", *DONE]
    assert events[0]["toolCallCancellation"] == {"ids": [call]}
    # A result that was on its way is lost, and harms nothing.
    assert desk.tell(result(call)) == []
    assert desk.closed is None
    assert len(desk.behaviour.responses) == 1


def test_speech_leaves_the_call_that_does_not_block() -> None:
    desk, call = calling("NON_BLOCKING")
    desk.advance(1)
    assert (
        names(desk.events)[-2:] == [*DONE, "sessionResumptionUpdate"][:1] or names(desk.events)[-1:] == DONE
    )
    events = talk(desk)
    assert "toolCallCancellation" not in names(events)
    assert len(desk.behaviour.responses) == 2
    speak(desk, 1000)
    desk.tell(result(call))
    assert len(desk.behaviour.responses) == 2
    desk.advance(5)
    assert len(desk.behaviour.responses) == 3


def test_functions_of_the_newest_model_do_not_block_unless_told() -> None:
    desk, _ = calling(None)
    desk.advance(1)
    assert fields(desk.events, "turnComplete") == [True]
    desk = Desk()
    desk.set_up(model=LEGACY, tools=tools())
    desk.type("hello")
    desk.answer.call("move_to_state", "{}", desk.now)
    desk.answer.end(desk.now)
    desk.advance(1)
    assert not fields(desk.events, "turnComplete")


@pytest.mark.parametrize(
    ("scheduling", "interrupted", "answers"),
    [(None, 0, 1), ("WHEN_IDLE", 0, 1), ("INTERRUPT", 1, 2), ("SILENT", 0, 1)],
)
def test_a_result_says_when_it_is_told(scheduling: str | None, interrupted: int, answers: int) -> None:
    desk = Desk()
    desk.set_up(tools=tools(behavior="NON_BLOCKING"))
    desk.type("hello")
    call = desk.answer.call("move_to_state", "{}", desk.now)
    speak(desk, 2000)
    desk.advance(0.1)
    more = {"scheduling": scheduling} if scheduling else {}
    desk.tell(result(call, {"note": "Current state: day\nx"}, **more))
    assert desk.session.instructions == "Current state: day\nx"
    assert len(fields(desk.events, "interrupted")) == interrupted
    assert len(desk.behaviour.responses) == answers
    desk.advance(5)
    assert len(desk.behaviour.responses) == (1 if scheduling == "SILENT" else 2)


def test_a_call_may_have_several_results() -> None:
    desk, call = calling("NON_BLOCKING")
    desk.advance(1)
    desk.tell(result(call, {"progress": 1}, willContinue=True))
    assert len(desk.behaviour.responses) == 2
    speak(desk, 100)
    desk.advance(1)
    desk.tell(result(call, {"output": "done"}))
    assert len(desk.behaviour.responses) == 3


def test_vertex_finds_the_call_of_a_result_by_its_name() -> None:
    desk, _ = calling(vertex=True)
    desk.tell(result(None))
    assert len(desk.behaviour.responses) == 2


def test_extended_thinking_says_when_it_is_idle() -> None:
    desk = Desk()
    desk.set_up(model=EXTENDED, tools=tools())
    desk.type("hello")
    call = desk.answer.call("move_to_state", "{}", desk.now)
    desk.answer.end(desk.now)
    assert fields(desk.events, "interactionStatus") == ["IN_PROGRESS"]
    desk.tell(result(call))
    speak(desk, 100)
    desk.advance(1)
    assert fields(desk.events, "interactionStatus") == ["IN_PROGRESS", "IDLE"]
    assert desk.events[-1]["usageMetadata"]["thoughtsTokenCount"] > 0
    call = desk.session.create_response().call("move_to_state", "{}", desk.now)
    desk.tell(result(call, scheduling="WHEN_IDLE"))
    refused(desk, INVALID, "scheduling")


# Usage


def test_usage_has_the_names_of_its_backend() -> None:
    reports = []
    for vertex in (False, True):
        desk = Desk(listens=True, vertex=vertex)
        desk.set_up(systemInstruction=system("Be brief."))
        talk(desk)
        speak(desk, 2000)
        desk.advance(5)
        reports.append(desk.events[-1]["usageMetadata"])
    studio, vertex_report = reports
    assert studio["responseTokenCount"] == vertex_report["candidatesTokenCount"] == 50
    details = studio["promptTokensDetails"]
    assert details == vertex_report["promptTokensDetails"]
    assert [entry["modality"] for entry in details] == ["TEXT", "AUDIO"]
    assert details[1]["tokenCount"] == pytest.approx(25 * 1.3, abs=8)
    counted = sum(entry["tokenCount"] for entry in details)
    # On Vertex the details explain the total, on AI Studio they do not.
    assert vertex_report["promptTokenCount"] == counted
    assert 25 <= studio["promptTokenCount"] - counted <= 220
    assert studio["totalTokenCount"] == studio["promptTokenCount"] + 50
    assert ("trafficType" in studio, "trafficType" in vertex_report) == (False, True)


def test_each_turn_counts_the_whole_context_again() -> None:
    desk = ready()
    for _ in range(2):
        desk.type("hello")
        speak(desk, 1000)
        desk.advance(5)
    first, second = (event["usageMetadata"] for event in desk.events if "usageMetadata" in event)
    assert second["promptTokenCount"] - first["promptTokenCount"] == 25 + 2


# Resumption


def handle_of(events: list[dict[str, Any]]) -> str:
    updates = [event["sessionResumptionUpdate"] for event in events if "sessionResumptionUpdate" in event]
    assert updates[-1]["resumable"]
    return str(updates[-1]["newHandle"])


def test_a_handle_brings_the_conversation_back() -> None:
    handles = Handles()
    desk = Desk(handles=handles)
    desk.set_up(systemInstruction=system(STATE), tools=tools(), sessionResumption={})
    desk.type("Current state: day\nWhich day?")
    # While the model speaks there is none.
    assert desk.events[-1] == {"sessionResumptionUpdate": {}}
    speak(desk, 500)
    events = desk.advance(5)
    assert names(events)[-2:] == [*DONE, "sessionResumptionUpdate"]
    handle = handle_of(desk.events)
    desk.type("This is not in it.")

    other = Desk(handles=handles, now=desk.now + 60)
    other.set_up(sessionResumption={"handle": handle})
    assert other.session.ready, other.closed
    assert other.session.instructions == "Current state: day\nWhich day?"
    assert list(other.session.tools) == ["move_to_state"]
    assert [entry.text for entry in other.session.conversation.entries] == [
        "Current state: day\nWhich day?",
        "One two three four.",
    ]
    assert handle_of(other.events) != handle
    # What happens there is not seen here, and the handle is good for another time.
    other.type("x")
    third = Desk(handles=handles, now=desk.now + 60)
    third.set_up(sessionResumption={"handle": handle}, systemInstruction=system("Be brief."), tools=[])
    assert len(third.session.conversation.entries) == 2
    assert third.session.tools == {}


def test_a_handle_that_is_not_good() -> None:
    handles = Handles()
    desk = Desk(handles=handles)
    desk.set_up(sessionResumption={})
    handle = handle_of(desk.events)
    for wanted, later, options in (
        ("nonsense", 0.0, None),
        (handle, 7201.0, None),
        (handle, 11.0, GeminiOptions(handle_ttl=10)),
    ):
        other = Desk(handles=handles, now=desk.now + later, options=options)
        other.set_up(sessionResumption={"handle": wanted})
        refused(other, "BidiGenerateContent session not found", code=1008)
    other = Desk(handles=handles, now=desk.now)
    other.set_up(model=LEGACY, sessionResumption={"handle": handle})
    refused(other, INVALID, "setup.model")


def test_a_service_that_takes_no_session_up() -> None:
    handles = Handles()
    desk = Desk(handles=handles)
    desk.set_up(sessionResumption={})
    handle = handle_of(desk.events)
    refusing = GeminiOptions(resume_refusal=(1011, "Internal error encountered."))
    other = Desk(handles=handles, now=desk.now, options=refusing)
    other.set_up(sessionResumption={"handle": handle})
    refused(other, "Internal error encountered.", code=1011)
    new = Desk(handles=handles, now=desk.now, options=refusing)
    new.set_up(sessionResumption={})
    assert new.session.ready
    hanging = Desk(handles=handles, now=desk.now, options=GeminiOptions(resume_hangs=True))
    hanging.set_up(sessionResumption={"handle": handle})
    hanging.advance(60)
    assert not hanging.session.ready
    assert not hanging.closed


def test_a_service_that_takes_a_session_up_once_its_connection_is_closed() -> None:
    handles = Handles()
    desk = Desk(handles=handles)
    desk.set_up(sessionResumption={})
    handle = handle_of(desk.events)
    options = GeminiOptions(one_at_a_time=True)
    other = Desk(handles=handles, now=desk.now, options=options)
    other.set_up(sessionResumption={"handle": handle})
    refused(other, "Internal error encountered.", code=1011)
    desk.session.lost()
    third = Desk(handles=handles, now=desk.now, options=options)
    third.set_up(sessionResumption={"handle": handle})
    assert third.session.ready


def test_there_is_no_handle_while_a_call_is_open() -> None:
    desk, call = calling("NON_BLOCKING")
    assert desk.session.open_calls == 1
    before = len(desk.events)
    desk.advance(1)
    assert fields(desk.events[before:], "turnComplete") == [True]
    assert "sessionResumptionUpdate" not in names(desk.events[before:])
    desk.tell(result(call))
    speak(desk, 100)
    assert handle_of(desk.advance(1))


def test_without_resumption_there_are_no_handles() -> None:
    handles = Handles()
    desk = Desk(handles=handles)
    desk.set_up()
    desk.type("hello")
    speak(desk)
    desk.advance(5)
    assert "sessionResumptionUpdate" not in names(desk.events)
    assert len(handles) == 0


def test_transparent_resumption_counts_the_messages() -> None:
    desk = Desk(vertex=True)
    [_, update] = desk.set_up(sessionResumption={"transparent": True})
    assert update["sessionResumptionUpdate"]["lastConsumedClientMessageIndex"] == "1"
    append(desk, bytes(1280))
    desk.type("hello")
    assert desk.events[-1]["sessionResumptionUpdate"] == {"lastConsumedClientMessageIndex": "4"}


# The end of a connection


def test_the_service_announces_the_end_and_resets_the_connection() -> None:
    desk = Desk(options=GeminiOptions(connection_limit=600, go_away_before=60))
    desk.set_up()
    desk.advance(539)
    assert names(desk.events) == ["setupComplete"]
    assert desk.advance(2) == [{"goAway": {"timeLeft": "60s"}}]
    desk.advance(58)
    assert not desk.aborted
    desk.advance(2)
    assert desk.aborted
    assert desk.session.closed
    assert desk.tell_raw(b'{"realtimeInput":{"text":"x"}}') == []


def test_the_end_may_be_announced_at_any_time() -> None:
    desk = ready()
    desk.type("hello")
    speak(desk, 60_000)
    desk.session.go_away(2.5, desk.now)
    assert desk.events[-1] == {"goAway": {"timeLeft": "2.5s"}}
    events = desk.advance(5)
    assert desk.aborted
    assert desk.answer.done
    assert 2 <= desk.times[-1] - desk.times[-len(events)] <= 2.5


@pytest.mark.parametrize("how", ["close", "abort"])
def test_nothing_is_written_after_the_end(how: str) -> None:
    desk = ready()
    if how == "close":
        desk.session.close(1011, "x")
        desk.session.close(1000, "y")
        assert desk.closed == (1011, "x")
    else:
        desk.session.abort(desk.now)
        desk.session.close(1000, "y")
        assert (desk.aborted, desk.closed) == (True, None)
    desk.session.write("", b'{\n  "goAway": {}\n}')
    assert names(desk.events) == ["setupComplete"]


def test_nothing_happens_after_the_socket_is_gone() -> None:
    desk = ready()
    desk.type("hello")
    speak(desk, 4000)
    desk.session.lost()
    desk.answer.end(desk.now)
    assert desk.advance(10) == []
    assert desk.session.closed
    assert "closed" in repr(desk.session)


# Admission


def request(path: str, headers: dict[str, str] | None = None, **query: str) -> Request:
    return Request(path, query, headers or {})


class Nowhere:
    def __init__(self) -> None:
        self.closed: tuple[int, str] | None = None
        self.sent: list[bytes] = []

    def send(self, data: bytes, *, binary: bool = False) -> None:
        self.sent.append(data)

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    def abort(self) -> None:
        pass


def enter(service: GeminiService, asked: Request, **setup: Any) -> int | tuple[int, str] | None:
    """Return the status or the close that a client gets; None when it is let in."""
    desk = Desk()
    wire = Nowhere()
    session = service.open(asked, desk.behaviour, wire, desk.record, lambda _: None)
    if isinstance(session, int):
        return session
    session.open(0.0)
    vertex = session.entrance.backend == "vertex"
    event = {"setup": {"model": VERTEX_MODEL if vertex else STUDIO_MODEL, **setup}}
    assert wire.closed is None, "refused before the setup"
    session.receive_text(msgspec.json.encode(event), 0.0)
    session.tick(1.0)
    assert session.ready is bool(wire.sent)
    return wire.closed


BAD_KEY = (1007, "API key not valid. Please pass a valid API key.")


@pytest.mark.parametrize("version", ["v1", "v1beta", "v1alpha"])
def test_a_key_of_ai_studio(version: str) -> None:
    service = GeminiService({"good"})
    path = STUDIO_PATH.format(version=version)
    assert service.serves(path)
    assert enter(service, request(path, {"x-goog-api-key": "good"})) is None
    assert enter(service, request(path, key="good")) is None
    assert enter(service, request(path, {"x-goog-api-key": "bad"})) == BAD_KEY
    assert enter(service, request(path)) == BAD_KEY
    assert enter(GeminiService(), request(path)) is None


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_a_token_of_vertex(version: str) -> None:
    store = TokenStore()
    service = GeminiService({"good"}, GeminiOptions(tokens=store))
    path = VERTEX_PATH.format(version=version)
    assert service.serves(path)
    assert enter(service, request(path, {"authorization": "Bearer good"})) is None
    assert enter(service, request(path, {"authorization": f"Bearer {store.grant()}"})) is None
    assert enter(service, request(path, {"x-goog-api-key": "good"})) is None
    assert enter(service, request(path, {"authorization": "Bearer bad"})) == 401
    assert enter(service, request(path)) == 401
    assert enter(GeminiService(), request(path)) == 401


@pytest.mark.parametrize(
    "path",
    [
        "/v1/realtime",
        STUDIO_PATH.format(version="v2"),
        STUDIO_PATH.format(version="v1beta1"),
        VERTEX_PATH.format(version="v1beta"),
    ],
)
def test_other_paths_are_not_served(path: str) -> None:
    assert not GeminiService().serves(path)


def test_an_ephemeral_token() -> None:
    now = 1000.0
    store = TokenStore(lambda: now)
    service = GeminiService({"good"}, GeminiOptions(tokens=store))
    path = CONSTRAINED_PATH.format(version="v1alpha")
    assert service.serves(path)

    def enter_with(name: str, **setup: Any) -> int | tuple[int, str] | None:
        return enter(service, request(path, {"authorization": f"Token {name}"}), **setup)

    once = store.mint().name
    assert enter_with(once) is None
    refusal = enter_with(once)
    assert isinstance(refusal, tuple)
    assert refusal[0] == 1008
    assert "used up" in refusal[1]
    assert once not in repr(store.ephemeral[once])
    assert enter(service, request(path, access_token=store.mint().name)) is None
    many = store.mint(uses=0, new_session_until=now + 10).name
    assert enter_with(many) is None
    assert enter_with(many) is None
    now += 11
    refusal = enter_with(many)
    assert isinstance(refusal, tuple)
    assert "expired" in refusal[1]
    for unknown in ("auth_tokens/x", "good", ""):
        refusal = enter_with(unknown)
        assert isinstance(refusal, tuple)
        assert refusal[0] == 1008
    assert enter(GeminiService(), request(path, {"authorization": "Token auth_tokens/x"})) is None


def test_a_token_fixes_the_setup() -> None:
    store = TokenStore(lambda: 0.0)
    fixed = {"model": STUDIO_MODEL, "systemInstruction": system("Be brief.")}
    token = store.mint(uses=0, setup=fixed)
    desk = Desk(entrance=Entrance("studio", "v1alpha", token=token), now=0.0)
    desk.set_up(systemInstruction=system("Be rude."), sessionResumption={})
    assert desk.session.instructions == "Be brief."
    assert handle_of(desk.events)
    desk = Desk(entrance=Entrance("studio", "v1alpha", token=token), now=0.0)
    desk.set_up(model=EXTENDED)
    refused(desk, INVALID, "the token is for")
    loose = store.mint(
        setup={**fixed, "generationConfig": {"temperature": 0.5}}, mask=["generationConfig.temperature"]
    )
    desk = Desk(entrance=Entrance("studio", "v1alpha", token=loose), now=0.0)
    desk.set_up(systemInstruction=system("Be rude."), generationConfig={"temperature": 1, "seed": 7})
    assert desk.session.instructions == "Be rude."
    assert desk.session.setup is not None
    generation = desk.session.setup.generation_config
    assert (generation.temperature, generation.seed) == (0.5, 7)


def test_a_token_that_fixes_the_resumption_takes_handles_all_the_same() -> None:
    handles = Handles()
    fixed = {"model": STUDIO_MODEL, "sessionResumption": {}}
    token = TokenStore(lambda: 1000.0).mint(setup=fixed, mask=["model", "sessionResumption"])
    entrance = Entrance("studio", "v1alpha", token=token)
    desk = Desk(entrance=entrance, handles=handles)
    desk.set_up()
    handle = handle_of(desk.events)
    again = Desk(entrance=entrance, handles=handles)
    again.set_up(sessionResumption={"handle": handle})
    assert again.session.ready, again.closed
    refused_desk = Desk(entrance=entrance, handles=handles)
    refused_desk.set_up(sessionResumption={"handle": "nonsense"})
    refused(refused_desk, "session not found", code=1008)


def test_a_token_ends_the_session_it_opened_and_resuming_does_not_use_it_up() -> None:
    store = TokenStore(lambda: 1000.0)
    handles = Handles()
    token = store.mint(expires_at=1100.0)
    entrance = Entrance("studio", "v1alpha", token=token)
    desk = Desk(entrance=entrance, handles=handles)
    desk.set_up(sessionResumption={})
    handle = handle_of(desk.events)
    desk.advance(90)
    again = Desk(entrance=entrance, handles=handles, now=1090.0)
    again.set_up(sessionResumption={"handle": handle})
    assert again.session.ready, again.closed
    desk.advance(20)
    refused(desk, "the token has expired", code=1008)


def test_resuming_leaves_the_uses_of_a_token() -> None:
    handles = Handles()
    entrance = Entrance("studio", "v1alpha", token=TokenStore(lambda: 1000.0).mint(uses=2))
    desk = Desk(entrance=entrance, handles=handles)
    desk.set_up(sessionResumption={})
    for resumption in ({"handle": handle_of(desk.events)}, {}):
        again = Desk(entrance=entrance, handles=handles)
        again.set_up(sessionResumption=resumption)
        assert again.session.ready, again.closed
    more = Desk(entrance=entrance, handles=handles)
    more.set_up()
    refused(more, "used up", code=1008)


def test_a_refusal_says_its_code_and_reason() -> None:
    error = RefusedError("No.", 1008)
    assert (error.code, error.reason) == (1008, "No.")
    assert "No." in str(error)


def test_a_response_of_the_session_is_a_model_turn() -> None:
    desk = ready()
    turn = desk.session.create_response()
    assert isinstance(turn, ModelTurn)
    assert desk.session.responses == [turn]
    turn.begin_speech()
    turn.push(bytes(480))
    turn.cancel("client_cancelled", desk.now)
    assert names(desk.events)[-2:] == ["serverContent(interrupted)", *DONE]
    with pytest.raises(RuntimeError):
        turn.push(bytes(480))
