"""The protocol of one Live session, without sockets: the start, the stream, turns, delegation, refusals."""

import base64
import itertools
from typing import Any

import pytest
from live_oracle import AUDIO, PCMU, LiveDesk, assert_valid_client, audio_of, kinds, only

from arivox.audio.format import ALAW, SLIN16, SLIN24, ULAW
from arivox.emulator import sound
from arivox.emulator.behaviour import Behaviour
from arivox.emulator.echo import Echo, Talker
from arivox.emulator.openai.messages import RequestError
from arivox.emulator.openai_live import LiveOptions, LiveService
from arivox.emulator.record import Record
from arivox.emulator.session import Request

TOOL = {"type": "function", "name": "lookup", "description": "d", "parameters": {"properties": {"x": {}}}}
BACKEND: dict[str, Any] = {"type": "responses", "responses": {"model": "gpt-5.6-luna", "tools": [TOOL]}}
STATE = "You are a clinic.\nCurrent state: reason\nWhy do you call?"
TASK = [
    "session.delegation.created",
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
    "response.completed",
]
RESULT = ["response.created", "response.in_progress", "response.completed"]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def error(events: list[dict[str, Any]]) -> dict[str, Any]:
    assert kinds(events) == ["error"], events
    return dict(events[0]["error"])


def started(**session: Any) -> LiveDesk:
    desk = LiveDesk()
    assert kinds(desk.start(**session)) == ["session.started"]
    return desk


def instruct(desk: LiveDesk, content: str, **more: Any) -> list[dict[str, Any]]:
    event = {"type": "session.instructions.append", "content": content, "delegation_id": None, **more}
    return desk.tell(event)


def output(call_id: str, text: str = "found") -> dict[str, Any]:
    item = {"type": "function_call_output", "call_id": call_id, "output": text}
    return {"type": "response.item.create", "item": item}


def talk(desk: LiveDesk, ms: int = 600, silence_ms: int = 700) -> list[dict[str, Any]]:
    return desk.hear(sound.tone(ULAW, ms) + ULAW.silence * ULAW.bytes_for(silence_ms))


# The connection


def connect(headers: dict[str, str], query: dict[str, str] | None = None) -> tuple[Any, list[Any]]:
    """Open a session of a service that knows one key; return it and what it wrote."""
    wrote: list[Any] = []

    class Wire:
        def send(self, data: bytes, *, binary: bool = False) -> None:
            wrote.append(data)

        def close(self, code: int, reason: str) -> None:
            wrote.append((code, reason))

        def abort(self) -> None:
            raise AssertionError("nobody asked for it")

    service = LiveService({"sk-good"}, LiveOptions())
    assert service.serves("/v1/live/sessions")
    assert not service.serves("/v1/realtime")
    request = Request("/v1/live/sessions", query or {}, headers)
    session = service.open(request, Behaviour(), Wire(), Record(), lambda when: None)
    session.open(0.0)
    return session, wrote


def test_the_right_key_is_taken_and_nothing_is_said_before_the_start() -> None:
    session, wrote = connect({"authorization": "Bearer sk-good"})
    assert not session.closed
    assert wrote == []


@pytest.mark.parametrize(
    ("key", "query", "code", "reason"),
    [
        ("sk-bad", {}, 3000, "invalid_request_error.invalid_api_key"),
        ("sk-good", {"model": "gpt-live-1"}, 4000, "invalid_request_error.unknown_parameter"),
    ],
)
def test_a_bad_key_or_a_query_is_an_error_and_a_close(
    key: str, query: dict[str, str], code: int, reason: str
) -> None:
    session, wrote = connect({"authorization": f"Bearer {key}"}, query)
    assert session.closed
    assert reason.rpartition(".")[2].encode() in wrote[0]
    assert wrote[1:] == [(code, reason)]


# The start


def test_a_session_starts_with_every_default() -> None:
    [event] = LiveDesk().tell(
        {"type": "session.start", "event_id": "e", "session": {"model": "gpt-live-1", "instructions": "  "}}
    )
    assert event["client_event_id"] == "e"
    session = event["session"]
    assert session["id"].startswith("sess_")
    assert session["status"] == "active"
    assert session["audio"] == {"format": {"type": "audio/pcm", "rate": 24000}, "output": {"voice": "marin"}}
    assert session["delegation"] == {"type": "client", "acknowledgement_delay_ms": 0}
    assert session["instructions"].strip()
    assert (session["store"], session["triggers"]) == (False, [])


def test_everything_that_can_be_set_is_taken_and_shown() -> None:
    wanted: dict[str, Any] = {
        "model": "gpt-live-1",
        "instructions": "Be brief.",
        "audio": {"format": {"type": "audio/pcma", "rate": 8000}, "output": {"voice": "willow"}},
        "input": [
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "b"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "c"}]},
        ],
        "delegation": {
            "type": "responses",
            "acknowledgement_delay_ms": 200,
            "responses": {
                "model": "gpt-5.6-luna",
                "instructions": "Look it up.",
                "tools": [TOOL, {"type": "web_search"}],
                "tool_choice": "auto",
                "parallel_tool_calls": False,
                "reasoning": {"effort": "low"},
                "max_output_tokens": 500,
                "service_tier": "priority",
                "text": {"verbosity": "low"},
            },
        },
        "store": True,
        "safety_identifier": "caller",
        "triggers": [],
    }
    desk = LiveDesk()
    [event] = desk.tell({"type": "session.start", "session": wanted})
    assert {key: event["session"][key] for key in wanted} == wanted
    assert desk.session.tools == {"lookup": {"properties": {"x": {}}}}


def test_delegation_to_decisions_is_taken_with_its_own_delay() -> None:
    question = {"type": "predicate", "name": "angry", "instructions": "Angry?"}
    decisions = {"type": "decisions", "decisions": {"model": "m", "questions": [question]}}
    desk = started(delegation=decisions)
    assert desk.session.config.as_dict()["delegation"] == {"acknowledgement_delay_ms": 400, **decisions}
    assert desk.session.tools == {}


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"type": "audio/pcm", "rate": 16000}, SLIN16),
        ({"type": "audio/pcm", "rate": 24000}, SLIN24),
        (PCMU, ULAW),
        ({"type": "audio/pcma", "rate": 8000}, ALAW),
    ],
)
def test_one_format_is_for_both_directions(form: dict[str, Any], expected: Any) -> None:
    desk = started(audio={"format": form})
    assert desk.session.input_format is desk.session.output_format is expected
    speech = desk.session.create_response()
    audio = sound.tone(expected, 500)
    speech.say(audio, "", desk.now)
    desk.advance(2)
    assert audio_of(desk.events) == audio
    desk.hear(expected.silence * expected.rate, expected)
    assert desk.session.received_ms == pytest.approx(1000)


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"model": None}, "invalid_type", "session.model"),
        ({"model": "gpt-realtime-2.1"}, "invalid_model", "session.model"),
        ({"voice": "marin"}, "unknown_parameter", "session.voice"),
        ({"client": {}}, "unknown_parameter", "session.client"),
        ({"audio": {"input": {}}}, "unknown_parameter", "session.audio.input"),
        ({"audio": {"format": {"type": "audio/pcmu"}}}, "missing_required_parameter", None),
        (
            {"audio": {"format": {"type": "audio/pcm", "rate": 8000}}},
            "invalid_value",
            "session.audio.format.rate",
        ),
        ({"audio": {"format": "audio/pcmu"}}, "invalid_type", "session.audio.format"),
        ({"audio": {"output": {"voice": "bob"}}}, "invalid_value", "session.audio.output.voice"),
        ({"instructions": "x" * 4 * 16_385}, "string_above_max_length", "session.instructions"),
        ({"delegation": {"type": "nobody"}}, "invalid_value", "session.delegation.type"),
        ({"delegation": {"type": "responses"}}, "missing_required_parameter", None),
        ({"delegation": {"type": "responses", "responses": {}}}, "missing_required_parameter", None),
        ({"delegation": {"type": "decisions", "decisions": {}}}, "missing_required_parameter", None),
        (
            {"delegation": {"type": "responses", "responses": {"model": "m", "temperature": 1}}},
            "unknown_parameter",
            "session.delegation.responses.temperature",
        ),
        (
            {"delegation": {"type": "responses", "responses": {"model": "m", "tools": [{"type": "x"}]}}},
            "invalid_value",
            "session.delegation.responses.tools[0].type",
        ),
        (
            {
                "delegation": {
                    "type": "responses",
                    "responses": {"model": "m", "tools": [{**TOOL, "async": True}]},
                }
            },
            "unknown_parameter",
            "session.delegation.responses.tools[0].async",
        ),
        (
            {
                "delegation": {
                    "type": "responses",
                    "responses": {"model": "m", "tools": [{**TOOL, "name": "look up"}]},
                }
            },
            "invalid_value",
            "session.delegation.responses.tools[0].name",
        ),
        ({"input": [{"role": "user", "content": []}]}, "invalid_value", "session.input[0].content"),
        (
            {"input": [{"role": "system", "content": [{"text": ""}]}]},
            "invalid_value",
            "session.input[0].role",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "output_text", "text": ""}]}]},
            "invalid_value",
            "session.input[0].content[0].type",
        ),
        (
            {"input": [{"role": "assistant", "content": [{"type": "input_text", "text": ""}]}]},
            "invalid_value",
            "session.input[0].content[0].type",
        ),
        ({"input": [{"role": "user", "content": [{"text": ""}]}] * 129}, "invalid_value", "session.input"),
        (
            {"input": [{"role": "user", "content": [{"text": "x" * 400}]}] * 82},
            "string_above_max_length",
            "session.input",
        ),
    ],
)
def test_a_wrong_start_names_the_field_and_leaves_no_session(
    session: dict[str, Any], code: str, param: str | None
) -> None:
    desk = LiveDesk()
    wanted = {"model": "gpt-live-1", **session}
    got = error(desk.tell({"type": "session.start", "event_id": "e", "session": wanted}, valid=False))
    assert (got["code"], got["client_event_id"]) == (code, "e")
    assert param is None or got["param"] == param
    assert got["param"].startswith("session.")
    assert desk.closed == (4000, f"invalid_request_error.{code}")
    assert desk.session.closed


def test_limits_are_reached_without_error() -> None:
    history = [{"role": "user", "content": [{"text": "x" * 256}]}] * 128
    assert not started(instructions="x" * 4 * 16_384, input=history).session.closed


def test_a_start_without_a_session_is_fatal_too() -> None:
    desk = LiveDesk()
    got = error(desk.tell_raw(b'{"type":"session.start"}'))
    assert (got["code"], got["param"]) == ("missing_required_parameter", "session")
    assert desk.closed is not None


@pytest.mark.parametrize("model", ["gpt-live-1", "gpt-live-1.1"])
def test_models_that_are_known_are_taken(model: str) -> None:
    assert kinds(LiveDesk().start(model=model)) == ["session.started"]


def test_any_model_is_taken_where_none_is_named() -> None:
    desk = LiveDesk(options=LiveOptions(models=None))
    assert kinds(desk.start(model="of-mine"))[:1] == ["session.started"]


def test_nothing_is_taken_before_the_start_and_no_second_start() -> None:
    desk = LiveDesk()
    got = error(desk.tell({"type": "session.input_audio.append", "audio": "AAAA", "event_id": "a"}))
    assert (got["code"], got["client_event_id"]) == ("session_not_started", "a")
    assert error(desk.tell({"type": "session.close"}))["code"] == "session_not_started"
    assert desk.closed is None
    assert kinds(desk.start()) == ["session.started"]
    assert error(desk.start())["code"] == "session_already_started"
    assert desk.closed is None


def test_a_behaviour_may_keep_the_start_for_itself() -> None:
    desk = LiveDesk()
    desk.behaviour.greets = False
    assert desk.start() == []
    got = error(desk.tell({"type": "session.input_audio.append", "audio": "AAAA"}))
    assert got["code"] == "session_not_started", "it does not know yet that there is a session"
    assert error(instruct(desk, "Greet now."))["code"] == "session_not_started"
    desk.session.started()
    assert kinds(desk.events[2:]) == ["session.started"]
    assert kinds(instruct(desk, "Be kind.")) == ["session.instructions.appended"]


# Events that are not understood


@pytest.mark.parametrize(
    ("data", "code", "param"),
    [
        (b"{", "invalid_json", None),
        (b"\xff", "invalid_json", None),
        (b"[]", "invalid_event", None),
        (b"{}", "missing_required_parameter", "type"),
        (b'{"type":7}', "invalid_value", "type"),
        (b'{"type":"response.cancel","event_id":"e"}', "invalid_value", "type"),
        (b'{"type":"session.input_audio.append","event_id":"e"}', "missing_required_parameter", "audio"),
        (b'{"type":"session.input_audio.append","audio":"*"}', "invalid_value", "audio"),
        (b'{"type":"session.close","x":1}', "unknown_parameter", "x"),
        (
            b'{"type":"session.instructions.append","content":"x","event_id":"e"}',
            "missing_required_parameter",
            "delegation_id",
        ),
        (b'{"type":"decision.create","event_id":"e"}', "unsupported", "type"),
        (b'{"type":"decision.item.delete","item_id":"i"}', "unsupported", "type"),
    ],
)
def test_a_frame_that_makes_no_sense_is_an_error_and_no_end(
    data: bytes, code: str, param: str | None
) -> None:
    desk = started()
    got = error(desk.tell_raw(data))
    assert (got["code"], got.get("param")) == (code, param)
    assert got.get("client_event_id") == ("e" if b'"event_id":"e"' in data else None)
    assert kinds(instruct(desk, "go on")) == ["session.instructions.appended"]


def test_the_error_for_an_unknown_type_names_those_that_are_known() -> None:
    message = error(started().tell_raw(b'{"type":"nope"}'))["message"]
    assert "'nope'" in message
    assert "'session.input_audio.append'" in message


def test_a_binary_frame_is_refused() -> None:
    desk = started()
    desk.session.receive_binary(b"\0\1", desk.now)
    assert error(desk.events[1:])["code"] == "invalid_event"


# The stream


def test_speech_is_written_in_frames_at_real_time_with_its_words() -> None:
    desk = started()
    began = desk.now
    speech = desk.session.create_response()
    audio = sound.tone(ULAW, 1000)
    speech.say(audio, "One two three four.", desk.now)
    speech.end(desk.now)
    events = desk.events[1:] + desk.advance(2)
    assert audio_of(events) == audio
    assert set(kinds(events)) == {AUDIO, "session.output_transcript.delta"}
    frames = [
        (at, event) for at, event in zip(desk.times, desk.events, strict=True) if event["type"] == AUDIO
    ]
    assert len(frames) == 25
    for number, (at, event) in enumerate(frames):
        assert set(event) == {"type", "delta"}
        assert ULAW.ms(len(base64.b64decode(event["delta"]))) == 40
        assert at == pytest.approx(began + number * 0.04)
    words = only(events, "session.output_transcript.delta")
    assert [word["delta"] for word in words] == ["One ", "two ", "three ", "four."]
    assert speech.done


def test_words_stand_where_their_audio_does_on_the_timeline() -> None:
    desk = started()
    desk.hear(ULAW.silence * 8000)
    speech = desk.session.create_response()
    speech.say(sound.tone(ULAW, 400), "One two", desk.now)
    desk.hear(ULAW.silence * 8000)
    first, second = only(desk.events, "session.output_transcript.delta")
    assert (first["start_ms"], first["end_ms"]) == (1000, 1040)
    assert second["end_ms"] - second["start_ms"] == 40
    assert 1160 <= second["start_ms"] <= 1240
    speech.say(sound.tone(ULAW, 400), "three", desk.now)
    desk.advance(1)
    assert only(desk.events, "session.output_transcript.delta")[-1]["start_ms"] == 2000


def test_the_transcripts_of_two_utterances_do_not_run_together() -> None:
    desk = started()
    for text in ("Hello.", "Why do you call?"):
        speech = desk.session.create_response()
        speech.say(sound.tone(ULAW, 200), text, desk.now)
        speech.end(desk.now)
        desk.advance(1)
    words = only(desk.events, "session.output_transcript.delta")
    assert "".join(word["delta"] for word in words) == "Hello. Why do you call?"


def test_the_stream_is_unbroken_and_silent_between_utterances() -> None:
    desk = LiveDesk(options=LiveOptions(lead_ms=0))
    desk.start()
    began = desk.now
    desk.advance(0.53)
    speech = desk.session.create_response()
    said = sound.tone(ULAW, 500)
    speech.say(said, "Hi", desk.now)
    desk.advance(2.465)
    audio = audio_of(desk.events)
    # As much as time has passed, and not a frame more.
    assert 2995 <= ULAW.ms(len(audio)) <= 2995 + 40
    place = audio.index(said)
    assert 530 <= ULAW.ms(place) <= 570
    assert audio.replace(said, b"").strip(ULAW.silence) == b""
    sent = [at for at, event in zip(desk.times, desk.events, strict=True) if event["type"] == AUDIO]
    assert sent[0] == began
    assert max(b - a for a, b in itertools.pairwise(sent)) <= 0.0801


def test_without_silence_nothing_is_written_between_utterances() -> None:
    desk = started()
    assert desk.advance(4) == []
    desk.session.create_response().say(sound.tone(ULAW, 80), "", desk.now)
    assert kinds(desk.advance(0.1)) == [AUDIO]
    assert desk.advance(4) == []


def test_the_stream_may_be_ahead_of_real_time_by_the_lead() -> None:
    desk = LiveDesk(options=LiveOptions(lead_ms=100, frame_ms=20))
    desk.start()
    desk.advance(0)
    assert 100 <= ULAW.ms(len(audio_of(desk.events))) <= 120
    desk.session.create_response().say(sound.tone(ULAW, 3000), "", desk.now)
    desk.advance(2)
    assert 2100 <= ULAW.ms(len(audio_of(desk.events))) <= 2120


def test_a_burst_that_a_behaviour_asks_for_is_made_up_for_by_no_silence() -> None:
    desk = LiveDesk(options=LiveOptions(lead_ms=0))
    desk.start()
    speech = desk.session.create_response()
    speech.say(sound.tone(ULAW, 2000), "", desk.now, speed=float("inf"))
    desk.advance(1.9)
    assert len(audio_of(desk.events)) == ULAW.bytes_for(2000)
    speech.say(sound.tone(ULAW, 40), "", desk.now)
    desk.advance(0.04)
    assert audio_of(desk.events) == sound.tone(ULAW, 2000) + sound.tone(ULAW, 40)


def test_a_stream_that_was_held_up_does_not_make_up_for_it() -> None:
    desk = LiveDesk(options=LiveOptions(lead_ms=0))
    desk.start()
    desk.now += 60
    desk.session.tick(desk.now)
    assert len(only(desk.events, AUDIO)) == 1


# The caller


def test_a_turn_of_the_caller_is_found_and_answered() -> None:
    desk = LiveDesk(listens=True)
    desk.start()
    desk.hear(ULAW.silence * 8000)
    assert talk(desk) == []
    [turn] = desk.behaviour.turns
    assert (turn.start_ms, turn.end_ms) == (700, 2100)
    assert bytes(turn.audio) == ULAW.silence * 2400 + sound.tone(ULAW, 600) + ULAW.silence * 4000
    assert turn.audio_format is ULAW
    [want] = desk.behaviour.wants
    assert desk.session.active is want
    assert desk.session.last_turn is turn
    want.say(sound.tone(ULAW, 40), "", desk.now)
    assert desk.session.last_turn is None


def test_what_the_caller_said_is_transcribed_in_the_time_of_the_turn() -> None:
    desk = LiveDesk(listens=True)
    desk.start()
    for text in ("a bad  toothache", "Friday"):
        talk(desk)
        desk.session.transcribed(desk.behaviour.turns[-1], text)
        desk.behaviour.wants[-1].end(desk.now)
    words = only(desk.events, "session.input_transcript.delta")
    assert "".join(word["delta"] for word in words) == "a bad toothache Friday"
    first, second = desk.behaviour.turns
    assert (words[0]["start_ms"], words[2]["end_ms"]) == (first.start_ms, first.end_ms)
    assert words[0]["end_ms"] == words[1]["start_ms"] < words[1]["end_ms"] == words[2]["start_ms"]
    assert (words[3]["start_ms"], words[3]["end_ms"]) == (second.start_ms, second.end_ms)
    before = len(desk.events)
    desk.session.transcribed(second, "")
    assert len(desk.events) == before


def test_the_model_stops_by_itself_when_the_caller_speaks() -> None:
    desk = LiveDesk(listens=True, options=LiveOptions(lead_ms=0))
    desk.start()
    instruct(desk, "Greet the caller now.")
    [want] = desk.behaviour.wants
    want.say(sound.tone(ULAW, 60_000), "Very long", desk.now)
    want.end(desk.now)
    desk.hear(ULAW.silence * 4000)
    began = desk.now
    desk.hear(sound.tone(ULAW, 100))
    assert len(desk.behaviour.interruptions) == 1
    assert desk.behaviour.interruptions[0] - began <= 0.1
    assert want.done
    assert desk.session.active is None
    after = desk.hear(sound.tone(ULAW, 1000))
    assert set(kinds(after)) == {AUDIO}
    assert audio_of(after).strip(ULAW.silence) == b""
    assert len(audio_of(after)) == pytest.approx(ULAW.bytes_for(1000), abs=ULAW.bytes_for(40))


def test_nobody_listens_when_the_behaviour_does_not() -> None:
    desk = started()
    speech = desk.session.create_response()
    speech.say(sound.tone(ULAW, 5000), "", desk.now)
    talk(desk)
    assert not speech.done
    assert (desk.behaviour.turns, desk.behaviour.interruptions) == ([], [])


def test_a_muted_caller_is_heard_as_silence() -> None:
    desk = LiveDesk(listens=True)
    desk.start()
    [muted] = desk.tell({"type": "session.input_audio.mute", "event_id": "m"})
    assert (muted["type"], muted["client_event_id"]) == ("session.input_audio.muted", "m")
    talk(desk)
    assert desk.behaviour.turns == []
    assert desk.behaviour.heard_audio == ULAW.silence * ULAW.bytes_for(1300)
    assert bytes(desk.session.record.audio_received).startswith(sound.tone(ULAW, 600))
    assert desk.session.received_ms == pytest.approx(1300)
    assert kinds(desk.tell({"type": "session.input_audio.unmute"})) == ["session.input_audio.unmuted"]
    talk(desk)
    assert len(desk.behaviour.turns) == 1


def test_a_script_may_say_what_the_caller_does() -> None:
    desk = started()
    speech = desk.session.create_response()
    speech.say(sound.tone(ULAW, 5000), "", desk.now)
    desk.session.speech_started(desk.now)
    assert speech.done
    desk.hear(ULAW.silence * 800)
    turn = desk.session.speech_stopped(desk.now)
    assert (turn.start_ms, turn.end_ms) == (0, 100)
    assert len(desk.behaviour.wants) == 1


def test_history_that_ends_with_the_caller_is_a_turn_to_answer() -> None:
    history = [{"role": "user", "content": [{"text": "I have a toothache."}]}]
    turn = started(input=history).session.last_turn
    assert turn is not None
    assert (turn.text, turn.audio_format) == ("I have a toothache.", None)


# Appended text


@pytest.mark.parametrize("kind", ["instructions", "thinking", "commentary"])
def test_appended_text_is_kept_and_acknowledged_on_the_timeline(kind: str) -> None:
    desk = started()
    desk.hear(ULAW.silence * 8000)
    event = {"type": f"session.{kind}.append", "content": "x", "delegation_id": None, "event_id": "e"}
    [ack] = desk.tell(event)
    assert ack["type"] == f"session.{kind}.appended"
    assert (ack["start_ms"], ack["end_ms"], ack["client_event_id"]) == (1000, 1000, "e")
    assert desk.session.appended == ["x"]
    assert desk.behaviour.wants == []


@pytest.mark.parametrize("kind", ["instructions", "thinking", "commentary"])
def test_appended_text_is_limited(kind: str) -> None:
    desk = started()
    event = {"type": f"session.{kind}.append", "content": "x" * 2000, "delegation_id": None}
    assert kinds(desk.tell(event)) == [f"session.{kind}.appended"]
    got = error(desk.tell({**event, "content": "x" * 2001}))
    assert (got["code"], got["param"]) == ("string_above_max_length", "content")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Greet the caller now.", True),
        ('Now: Say: "Good-bye."', True),
        ("You know the name.", False),
        ("Current state: day\nWhich day?", False),
        ("Current state: day\nAsk now: Which day?", True),
    ],
)
def test_only_instructions_with_the_word_now_ask_for_speech(text: str, wanted: bool) -> None:
    desk = started()
    instruct(desk, text)
    assert [want.instructions for want in desk.behaviour.wants] == [text] * wanted
    desk.tell({"type": "session.thinking.append", "content": text, "delegation_id": None})
    assert len(desk.behaviour.wants) == wanted


def test_what_asks_for_speech_waits_until_nobody_speaks() -> None:
    desk = LiveDesk(listens=True)
    desk.start()
    instruct(desk, "Greet now.")
    instruct(desk, "Say it again now.")
    [first] = desk.behaviour.wants
    first.end(desk.now)
    assert [want.instructions for want in desk.behaviour.wants] == ["Greet now.", "Say it again now."]
    desk.hear(sound.tone(ULAW, 200))
    assert desk.behaviour.wants[1].done
    instruct(desk, "Good-bye now.")
    assert len(desk.behaviour.wants) == 2
    desk.hear(ULAW.silence * 8000)
    assert desk.behaviour.wants[2].instructions == "Good-bye now."
    desk.behaviour.wants[2].end(desk.now)
    assert desk.behaviour.wants[3].instructions == ""


def test_a_behaviour_that_does_not_answer_is_not_asked() -> None:
    desk = started(delegation=BACKEND)
    desk.behaviour.answers = False
    instruct(desk, "Greet now.")
    desk.tell({"type": "response.create"})
    assert desk.behaviour.wants == []


def test_the_newest_text_that_names_the_state_is_what_the_model_is_told() -> None:
    backend = {"type": "responses", "responses": {"model": "m", "instructions": "Look it up."}}
    desk = started(instructions=STATE, delegation=backend)
    assert desk.session.instructions == STATE
    update = {"type": "responses", "responses": {"instructions": "Current state: day\nWhich day?"}}
    [event] = desk.tell({"type": "session.update", "session": {"delegation": update}, "event_id": "u"})
    assert (event["type"], event["client_event_id"]) == ("session.updated", "u")
    assert event["session"]["delegation"]["responses"] == {"model": "m", **update["responses"]}  # type: ignore[dict-item]
    assert desk.session.instructions == "Current state: day\nWhich day?"
    instruct(desk, "Current state: end\nGood-bye.")
    instruct(desk, "Speak slowly.")
    assert desk.session.instructions == "Current state: end\nGood-bye."


def test_the_backend_may_be_told_the_state_from_the_start() -> None:
    backend = {"type": "responses", "responses": {"model": "m", "instructions": STATE}}
    assert started(instructions="Be kind.", delegation=backend).session.instructions == STATE


# Updates


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"instructions": "x"}, "unknown_parameter", "session.instructions"),
        ({"delegation": {"type": "client"}}, "invalid_value", "session.delegation.type"),
        (
            {"delegation": {"type": "responses", "responses": {"x": 1}}},
            "unknown_parameter",
            "session.delegation.responses.x",
        ),
        (
            {"delegation": {"type": "responses", "responses": {"instructions": STATE, "tools": [{}]}}},
            "invalid_value",
            "session.delegation.responses.tools[0].type",
        ),
    ],
)
def test_a_wrong_update_changes_nothing(session: dict[str, Any], code: str, param: str) -> None:
    desk = started(delegation=BACKEND)
    before = desk.session.config.as_dict()
    got = error(desk.tell({"type": "session.update", "session": session}, valid=False))
    assert (got["code"], got["param"]) == (code, param)
    assert desk.session.config.as_dict() == before
    assert STATE not in desk.session.instructions
    assert desk.closed is None


def test_an_update_changes_tools_delay_and_triggers() -> None:
    desk = started(delegation=BACKEND)
    tools = [{"type": "function", "name": "other"}]
    delegation = {"type": "responses", "acknowledgement_delay_ms": 300, "responses": {"tools": tools}}
    [event] = desk.tell({"type": "session.update", "session": {"delegation": delegation, "triggers": []}})
    assert event["session"]["delegation"] == {
        **delegation,
        "responses": {"model": "gpt-5.6-luna", "tools": tools},
    }
    assert desk.session.tools == {"other": {}}
    assert desk.session.create_response().tools == {"other": {}}


def test_there_is_one_trigger_for_each_kind_of_transcript() -> None:
    trigger = {
        "type": "decisions",
        "event_type": "session.input_transcript.delta",
        "decisions": {"questions": []},
    }
    desk = started(triggers=[trigger])
    got = error(desk.tell({"type": "session.update", "session": {"triggers": [trigger, trigger]}}))
    assert got["param"] == "session.triggers"
    [event] = desk.tell({"type": "session.update", "session": {"triggers": []}})
    assert event["session"]["triggers"] == []


# Delegation


def call(desk: LiveDesk) -> tuple[list[dict[str, Any]], str]:
    """Have the model call a function; return what was sent, and the call's id."""
    before = len(desk.events)
    speech = desk.session.create_response()
    call_id = speech.call("lookup", '{"x":"Ann Example"}', desk.now)
    speech.end(desk.now)
    return desk.events[before:], call_id


def test_a_call_is_delegated_and_its_output_spoken_about() -> None:
    desk = started(delegation=BACKEND)
    desk.hear(ULAW.silence * 8000)
    events, call_id = call(desk)
    assert kinds(events) == TASK
    delegation = events[0]["delegation"]
    assert (delegation["target"], events[0]["offset_ms"]) == ("responses", 1000)
    assert {event["delegation_id"] for event in events[1:]} == {delegation["id"]}
    nested = [event["event"] for event in events[1:]]
    assert [event["sequence_number"] for event in nested] == list(range(8))
    assert nested[0]["response"]["id"] == nested[-1]["response"]["id"] == delegation["response_id"]
    for snapshot in (nested[0]["response"], nested[-1]["response"]):
        assert (snapshot["output"], snapshot["tools"], snapshot["instructions"]) == ([], [], None)
        assert "input" not in snapshot
    assert nested[-1]["response"]["usage"]["output_tokens"] > 0
    assert "".join(event["delta"] for event in nested[3:5]) == '{"x":"Ann Example"}'
    item = nested[-2]["item"]
    assert {key: item[key] for key in ("type", "name", "call_id", "arguments", "status")} == {
        "type": "function_call",
        "name": "lookup",
        "call_id": call_id,
        "arguments": '{"x":"Ann Example"}',
        "status": "completed",
    }
    assert desk.session.active is None
    assert desk.tell(output(call_id)) == []
    assert desk.behaviour.wants == []
    result = desk.tell({"type": "response.create"})
    assert kinds(result) == RESULT
    assert {event["delegation_id"] for event in result} == {delegation["id"]}
    assert result[0]["event"]["response"]["id"] != delegation["response_id"]
    [want] = desk.behaviour.wants
    assert desk.session.active is want
    assert want.instructions == ""
    assert desk.session.backend is not None
    assert desk.session.backend.outputs == {call_id: "found"}


def test_a_task_goes_on_only_with_every_output() -> None:
    desk = started(delegation=BACKEND)
    speech = desk.session.create_response()
    calls = [speech.call("lookup", "{}", desk.now) for _ in range(2)]
    speech.end(desk.now)
    assert kinds(desk.events).count("session.delegation.created") == 1
    desk.tell(output(calls[1]))
    got = error(desk.tell({"type": "response.create", "event_id": "early"}))
    assert calls[0] in got["message"]
    assert got["client_event_id"] == "early"
    assert desk.behaviour.wants == []
    desk.tell(output(calls[0]))
    assert kinds(desk.tell({"type": "response.create"})) == RESULT
    assert len(desk.behaviour.wants) == 1


def test_a_result_that_comes_while_the_model_speaks_is_spoken_about_after_that() -> None:
    desk = started(delegation=BACKEND)
    speech = desk.session.create_response()
    call_id = speech.call("lookup", "{}", desk.now)
    speech.say(sound.tone(ULAW, 1000), "One moment", desk.now)
    speech.end(desk.now)
    assert "response.completed" in kinds(desk.events)
    desk.tell(output(call_id))
    assert kinds(desk.tell({"type": "response.create"})) == RESULT
    assert desk.behaviour.wants == []
    assert len(audio_of(desk.advance(2))) == ULAW.bytes_for(1000 - 40)
    assert len(desk.behaviour.wants) == 1


def test_a_result_that_comes_before_the_last_call_waits_for_it() -> None:
    desk = started(delegation=BACKEND)
    speech = desk.session.create_response()
    first = speech.call("lookup", "{}", desk.now)
    desk.tell(output(first))
    assert desk.tell({"type": "response.create"}) == []
    second = speech.call("lookup", "{}", desk.now)
    speech.end(desk.now)
    assert desk.behaviour.wants == []
    desk.tell(output(second))
    desk.tell({"type": "response.create"})
    assert len(desk.behaviour.wants) == 1


def test_an_interruption_does_not_take_back_what_was_delegated() -> None:
    desk = LiveDesk(listens=True)
    desk.start(delegation=BACKEND)
    speech = desk.session.create_response()
    call_id = speech.call("lookup", "{}", desk.now)
    desk.hear(sound.tone(ULAW, 200))
    assert speech.done
    assert kinds(desk.events)[-1] == "response.completed"
    assert desk.tell(output(call_id)) == []
    desk.tell({"type": "response.create"})
    assert desk.behaviour.wants == []
    desk.hear(ULAW.silence * 8000)
    assert len(desk.behaviour.wants) == 1


def test_audio_goes_on_during_a_call() -> None:
    desk = LiveDesk(options=LiveOptions(lead_ms=0))
    desk.start(delegation=BACKEND)
    desk.advance(1)
    call(desk)
    desk.advance(1)
    assert len(audio_of(desk.events)) == pytest.approx(ULAW.bytes_for(2000), abs=ULAW.bytes_for(40))


def test_the_client_may_ask_the_backend_to_work() -> None:
    desk = started(delegation=BACKEND)
    item = {"type": "message", "role": "user", "content": "Look again."}
    assert desk.tell({"type": "response.item.create", "item": item}) == []
    events = desk.tell({"type": "response.create"})
    assert kinds(events) == RESULT
    assert events[0]["delegation_id"] is None
    assert len(desk.behaviour.wants) == 1


@pytest.mark.parametrize(
    "item",
    [
        {"type": "function_call_output", "call_id": "call_x", "output": ""},
        {"type": "function_call_output", "output": ""},
    ],
)
def test_an_output_without_a_call_is_refused(item: dict[str, Any]) -> None:
    desk = started(delegation=BACKEND)
    got = error(desk.tell({"type": "response.item.create", "item": item}))
    assert got["param"] == "item.call_id"
    _, call_id = call(desk)
    desk.tell(output(call_id))
    assert error(desk.tell(output(call_id)))["param"] == "item.call_id"


def test_without_responses_delegation_there_is_no_backend_and_are_no_tools() -> None:
    desk = started()
    assert desk.session.tools == {}
    assert error(desk.tell({"type": "response.create"}))["param"] == "type"
    assert error(desk.tell(output("c")))["param"] == "type"
    with pytest.raises(RuntimeError, match="no tools"):
        desk.session.create_response().call("lookup", "{}", desk.now)


def test_a_client_delegation_is_answered_by_its_id() -> None:
    desk = started()
    task_id = desk.session.delegate()
    assert desk.events[-1]["delegation"] == {"id": task_id, "target": "client", "type": "delegation"}
    assert kinds(instruct(desk, "done", delegation_id=task_id)) == ["session.instructions.appended"]
    assert error(instruct(desk, "done", delegation_id="deleg_x"))["param"] == "delegation_id"


def test_a_delegation_of_the_backend_takes_no_appended_text() -> None:
    desk = started(delegation=BACKEND)
    events, _ = call(desk)
    got = error(instruct(desk, "x", delegation_id=events[0]["delegation"]["id"]))
    assert got["param"] == "delegation_id"
    assert desk.session.appended == []


# Fixtures


def test_a_fixture_is_played_as_it_is_and_nobody_speaks_meanwhile() -> None:
    desk = LiveDesk(listens=True)
    desk.start()
    speech = desk.session.create_response()
    speech.say(sound.tone(ULAW, 60_000), "", desk.now)
    before = len(desk.events)
    clip = sound.tone(SLIN24, 1000)
    event = {"type": "session.output_audio.fixture.play", "audio": b64(clip), "event_id": "f"}
    assert kinds(desk.tell(event))[0] == "session.output_audio.fixture.playing"
    assert desk.events[before]["client_event_id"] == "f"
    assert speech.done
    assert error(desk.tell(event))["code"] == "fixture_active"
    assert error(instruct(desk, "Speak now."))["code"] == "fixture_active"
    with pytest.raises(RequestError):
        desk.session.create_response()
    desk.hear(sound.tone(ULAW, 900))
    desk.advance(0.2)
    assert desk.behaviour.turns == []
    assert desk.behaviour.heard_audio == b""
    assert (kinds(desk.events)[-1], desk.events[-1]["client_event_id"]) == (
        "session.output_audio.fixture.played",
        "f",
    )
    audio = audio_of(desk.events[before:])
    assert ULAW.ms(len(audio)) == 1000
    assert audio == sound.encode(sound.resample(sound.decode(clip, SLIN24), 24000, 8000), ULAW)
    assert kinds(instruct(desk, "Speak now.")) == ["session.instructions.appended"]
    assert len(desk.behaviour.wants) == 1


@pytest.mark.parametrize("clip", [b"", bytes(3), bytes(48 * 30_000 + 2)])
def test_a_fixture_must_be_pcm_of_at_most_thirty_seconds(clip: bytes) -> None:
    desk = started()
    got = error(desk.tell({"type": "session.output_audio.fixture.play", "audio": b64(clip)}))
    assert got["param"] == "audio"


# The end


def test_the_client_closes_and_gets_the_final_usage() -> None:
    desk = started()
    speech = desk.session.create_response()
    speech.say(sound.tone(ULAW, 60_000), "", desk.now)
    desk.advance(2.5)
    [closed] = desk.tell({"type": "session.close", "event_id": "bye"})
    assert (closed["type"], closed["reason"]) == ("session.closed", "close_requested")
    assert closed["usage"] == {"seconds": 2.5}
    assert closed["session"]["id"] == desk.events[0]["session"]["id"]
    assert closed["client_event_id"] == "bye"
    assert desk.closed == (1000, "")
    assert speech.done
    assert desk.advance(10) == []


def test_usage_is_reported_as_it_grows() -> None:
    desk = LiveDesk(options=LiveOptions(continuous=False, usage_every=5))
    desk.start()
    usage = only(desk.advance(16), "session.usage.updated")
    assert [event["usage"]["seconds"] for event in usage] == [5, 10, 15]


def test_a_session_expires() -> None:
    desk = LiveDesk(options=LiveOptions(continuous=False, usage_every=9999, expires_after=1800))
    desk.start()
    assert desk.advance(1799) == []
    [closed] = desk.advance(2)
    assert (closed["type"], closed["reason"], closed["usage"]["seconds"]) == (
        "session.closed",
        "expired",
        1800,
    )
    assert desk.closed == (1000, "")


def test_a_failure_of_the_model_is_an_error_and_silence() -> None:
    desk = started()
    speech = desk.session.create_response()
    speech.say(sound.tone(ULAW, 5000), "", desk.now)
    before = len(desk.events)
    speech.fail("server_error", "Broken.", desk.now)
    got = error(desk.events[before:])
    assert (got["type"], got["code"], got["message"]) == ("server_error", "server_error", "Broken.")
    assert desk.session.active is None
    assert desk.advance(5) == []
    desk.session.info("data_channel_permissions", "None.")
    assert kinds(desk.events)[-1] == "info"


# Behaviours


def test_the_echo_comes_back_at_once_without_silence_in_it() -> None:
    desk = LiveDesk(echo := Echo(), options=LiveOptions(lead_ms=0))
    desk.start()
    echo.opened(desk.session, None, desk.now)  # type: ignore[arg-type]
    before = len(audio_of(desk.events))
    said = sound.marks(ULAW, 1000)
    for start in range(0, len(said), 160):
        piece = said[start : start + 160]
        got = desk.tell({"type": "session.input_audio.append", "audio": b64(piece)})
        assert audio_of(got) == piece
        desk.advance(0.02)
    assert audio_of(desk.events)[before:] == said


def test_the_talker_talks_when_it_is_asked_to() -> None:
    desk = LiveDesk(talker := Talker(chunk_ms=100, limit_ms=500, marked=True))
    talker.opened(desk.session, None, desk.now)  # type: ignore[arg-type]
    desk.start()
    instruct(desk, "Greet the caller now.")
    desk.advance(2)
    assert audio_of(desk.events) == sound.marks(ULAW, 500)
    assert desk.session.active is None


def test_behaviours_get_the_events_but_not_the_audio() -> None:
    desk = started()
    desk.hear(ULAW.silence * 800)
    instruct(desk, "x")
    assert [type(event).__name__ for event in desk.behaviour.events] == ["SessionStart", "InstructionsAppend"]
    assert desk.behaviour.heard_audio == ULAW.silence * 800


def test_the_record_knows_the_kinds_of_the_wire() -> None:
    desk = LiveDesk(options=LiveOptions(lead_ms=0))
    desk.session.record.keep_audio = False
    desk.start()
    desk.hear(ULAW.silence * 1600)
    record = desk.session.record
    assert record.received_count == {"session.start": 1, "session.input_audio.append": 10}
    assert record.sent_count["session.output_audio.delta"] == 6
    assert [frame.kind for frame in record] == ["session.start", "session.started"]
    assert record.audio_received == b""


def test_the_judge_of_clients_knows_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="delegation_id"):
        assert_valid_client({"type": "session.thinking.append", "content": "x"})
