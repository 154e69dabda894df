"""ARI's messages, against what a real Asterisk 22 sent, and against what none should send."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.asterisk import messages
from arivox.asterisk.messages import (
    Application,
    ApplicationReplaced,
    Bridge,
    Channel,
    ChannelDestroyed,
    ChannelDtmfReceived,
    ChannelHangupRequest,
    ChannelHold,
    ChannelLeftBridge,
    ChannelStateChange,
    ChannelUnhold,
    OtherEvent,
    Playback,
    PlaybackFinished,
    StasisEnd,
    StasisStart,
    parse,
    parse_event,
)
from arivox.errors import ProtocolError

DATA = Path(__file__).parent.parent / "data"
CAPTURED = (DATA / "ari_events.jsonl").read_text(encoding="utf-8").splitlines()
KNOWN = {
    kind.__name__: kind
    for kind in (
        StasisStart,
        StasisEnd,
        ChannelHangupRequest,
        ChannelDestroyed,
        ChannelDtmfReceived,
        ChannelHold,
        ChannelUnhold,
        ChannelStateChange,
        ChannelLeftBridge,
        ApplicationReplaced,
        PlaybackFinished,
    )
}


def captured(kind: str, number: int = 0) -> Any:
    lines = [line for line in CAPTURED if json.loads(line)["type"] == kind]
    return parse_event(lines[number])


@pytest.mark.parametrize("line", CAPTURED, ids=lambda line: json.loads(line)["type"])
def test_every_captured_event_is_read(line: str) -> None:
    raw = json.loads(line)
    for data in (line, line.encode()):
        event = parse_event(data)
        assert type(event) is KNOWN.get(raw["type"], OtherEvent)
    if isinstance(event, OtherEvent):
        assert event.type == raw["type"]
        return
    assert (event.timestamp, event.application) == (raw["timestamp"], raw["application"])
    if "channel" in raw:
        channel: Channel = event.channel  # type: ignore[union-attr]
        assert (channel.id, channel.name, channel.state) == tuple(
            raw["channel"][k] for k in ("id", "name", "state")
        )


def test_all_events_we_know_were_captured() -> None:
    assert KNOWN.keys() - {"ApplicationReplaced"} <= {json.loads(line)["type"] for line in CAPTURED}


def test_another_connection_takes_the_application_over() -> None:
    event = parse_event(
        '{"type":"ApplicationReplaced","application":"bridge","timestamp":"2026-11-22T07:30:20"}'
    )
    assert isinstance(event, ApplicationReplaced)
    assert event.application == "bridge"


def test_call_enters_with_all_that_is_known_of_it() -> None:
    start = captured("StasisStart")
    assert isinstance(start, StasisStart)
    assert list(start.args) == ["viaoutws"]
    channel = start.channel
    assert (channel.state, channel.caller.number, channel.caller.name) == ("Ring", "tester", "")
    assert channel.protocol_id == "4ae89f17e7051300@127.0.0.1"
    assert (channel.dialplan.context, channel.dialplan.exten, channel.dialplan.priority) == (
        "from-sip",
        "701",
        1,
    )
    assert channel.channelvars == {}


def test_media_channel_enters_without_arguments() -> None:
    start = captured("StasisStart", 1)
    assert start.channel.name.startswith("UnicastRTP/")
    assert list(start.args) == []


def test_transfer_by_the_telephone_names_whom_it_replaces() -> None:
    starts = [captured("StasisStart", number) for number in range(3)]
    assert [start.replace_channel for start in starts[:2]] == [None, None]
    start = starts[2]
    assert (start.channel.state, list(start.args), start.channel.dialplan.exten) == ("Down", [], "601")
    replaced = start.replace_channel
    assert replaced.caller.number == "tester"
    assert replaced.dialplan.exten == "701"
    assert replaced.dialplan.stasis_args == ("some", "args"), "what the dialplan wanted of the call"


def test_channel_that_leaves_a_bridge() -> None:
    left = captured("ChannelLeftBridge")
    assert left.channel.name.startswith("PJSIP/")
    assert left.channel.id not in left.bridge.channels
    assert len(left.bridge.channels) == 1


def test_hang_up_with_and_without_a_cause() -> None:
    assert captured("ChannelHangupRequest").cause == 32
    assert parse_event('{"type":"ChannelHangupRequest","channel":{"id":"1"}}').cause is None  # type: ignore[union-attr]
    destroyed = captured("ChannelDestroyed")
    assert (destroyed.cause, destroyed.cause_txt) == (16, "Normal Clearing")


def test_digit_and_playback() -> None:
    digit = captured("ChannelDtmfReceived")
    assert (digit.digit, digit.duration_ms) == ("3", 180)
    assert captured("PlaybackFinished").playback.state == "done"


def test_external_media_names_asterisks_address() -> None:
    channel = parse((DATA / "ari_external_media_reply.json").read_bytes(), Channel)
    assert channel.state == "Down"
    assert channel.channelvars["UNICASTRTP_LOCAL_ADDRESS"] == "127.0.0.1"
    assert int(channel.channelvars["UNICASTRTP_LOCAL_PORT"]) == 30006


ANSWERS = {
    Bridge: '{"id":"b1","technology":"simple_bridge","bridge_type":"mixing","channels":["c1"],"name":"n"}',
    Playback: '{"id":"p1","media_uri":"tone:ring","target_uri":"channel:c1","state":"queued"}',
    Application: '{"name":"bridge","channel_ids":["c1"],"bridge_ids":[],"endpoint_ids":[],"device_names":[]}',
}


@pytest.mark.parametrize(("kind", "body"), ANSWERS.items())
def test_answers_are_read_and_new_fields_let_through(kind: type[Any], body: str) -> None:
    found = parse(body.encode(), kind)
    assert isinstance(found, kind)
    assert "1" in repr(found) or "bridge" in repr(found)


def test_lists_of_messages_are_not_shared() -> None:
    one, two = parse(b'{"id":"a"}', Bridge), parse(b'{"id":"b"}', Bridge)
    one.channels.append("x")
    assert two.channels == []


@pytest.mark.parametrize("file", sorted((DATA / "ari_malformed").iterdir()), ids=lambda file: file.stem)
def test_malformed(file: Path) -> None:
    with pytest.raises(ProtocolError, match="ARI: an event that cannot be read"):
        parse_event(file.read_bytes())


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{}", b'{"id":7}', b"<html>", b"\xff", b'{"id":"\xff"}']
)
def test_answer_that_cannot_be_read(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="ARI: an answer that cannot be read"):
        parse(body, Channel)


@pytest.mark.parametrize("what", ["event", "answer"])
def test_nested_too_deep(what: str) -> None:
    data = b'{"type":"Dial","id":"1","x":' + b"[" * 100_000
    with pytest.raises(ProtocolError):
        parse_event(data) if what == "event" else parse(data, Channel)


@settings(max_examples=150)
@given(st.sampled_from(CAPTURED), st.integers(0, 900), st.binary(max_size=4), st.booleans())
def test_damaged_events_are_read_or_refused(line: str, at: int, junk: bytes, replace: bool) -> None:
    data = line.encode()
    damaged = data[:at] + junk + data[at + (len(junk) if replace else 0) :]
    try:
        event = parse_event(damaged)
    except ProtocolError:
        return
    assert isinstance(event, messages.AnyEvent)


@given(st.binary(max_size=100) | st.text(max_size=100))
def test_any_text_or_bytes_are_read_or_refused(data: bytes | str) -> None:
    try:
        parse_event(data)
    except ProtocolError:
        return
