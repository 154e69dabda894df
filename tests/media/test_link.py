"""The RTP link on a fake socket: voice at once and once only, silence between, a schedule that holds."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
import structlog
from handpacer import HandPacer
from hypothesis import given, settings
from hypothesis import strategies as st
from linkdesk import ASTERISK, SILENCE, STRANGER, Desk, Wire, link_on

from arivox.audio.format import ULAW
from arivox.media.clock import SLOTS
from arivox.media.playout import Playout
from arivox.media.rtp.packet import build
from arivox.media.rtp.ports import PortRange


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk()
    monkeypatch.setattr("arivox.media.rtp.link.time", SimpleNamespace(monotonic=lambda: desk.pacer.now))
    return desk


def test_silence_is_sent_until_there_is_speech() -> None:
    desk = Desk()
    for slot in range(20):
        desk.pacer.to(slot + 0.2)
    assert [packet.payload for _, packet in desk.wire.sent] == [SILENCE] * 5
    assert not any(packet.marker for _, packet in desk.wire.sent)


@pytest.mark.parametrize("at", [8.1, 9.2, 10.6, 11.9])
def test_first_words_leave_at_once_and_the_lead_is_given_back(at: float) -> None:
    desk = Desk()
    desk.pacer.to(at)
    before = len(desk.wire.sent)
    speech = desk.speak(10)
    assert len(desk.wire.sent) == before + 1, "the first frame does not wait for the tick"
    assert desk.wire.sent[-1][1].marker
    for slot in range(12, 120):
        desk.pacer.to(slot + 0.1)
    times = [when for when, packet in desk.wire.sent if packet.payload[0] == 0x10]
    assert desk.voice == speech
    assert times[0] == pytest.approx(at)
    steps = [round(after - before) for before, after in pairwise(times[1:])]
    assert steps == [SLOTS] * 8, "from then on one frame every 20 ms"
    for answer in range(6):  # each may gain a lead; what was gained is given back in the silence after it
        start = 130 + 40 * answer + answer + at % 1
        desk.pacer.to(start)
        heard = len(desk.voice)
        desk.speak(2)
        assert len(desk.voice) == heard + 1
        for slot in range(30):
            desk.pacer.to(start + slot + 1)
        in_schedule(desk, start + 30, most=2 * SLOTS)


def test_speech_that_goes_on_keeps_the_beat() -> None:
    desk = Desk()
    desk.pacer.to(9.1)
    for _ in range(20):
        desk.speak(1)
        sent = len(desk.voice)
        desk.speak(1)  # the queue ran empty, but the last frame is still being played
        assert len(desk.voice) == sent
        for _ in range(2 * SLOTS):
            desk.pacer.to((desk.pacer.now - desk.pacer.time_of(0)) / 0.005 + 1)
        desk.playout.flush()
    times = [when for when, packet in desk.wire.sent if packet.payload[0] == 0x10]
    assert all(after - before > SLOTS - 0.5 for before, after in pairwise(times))


LATE = 2  # slots by which a frame may leave after its time, so that a word has no hole


@pytest.mark.parametrize("at", [8.1, 9.2, 10.6, 11.9])
@pytest.mark.parametrize("late", [0.1, 1.2, 1.9])
def test_speech_that_comes_at_its_own_pace_and_a_little_late_has_no_hole(at: float, late: float) -> None:
    desk = Desk()
    moments = [at + n * 2 * SLOTS + (late if n else 0.0) for n in range(25)]  # 40 ms at a time
    said: list[bytes] = []
    end = round(4 * moments[-1] + 160)
    for quarter in range(1, end + 1):
        desk.pacer.to(quarter / 4)
        while moments and moments[0] <= quarter / 4:
            moments.pop(0)
            said += desk.speak(2)
    packets = [packet.payload for _, packet in desk.wire.sent]
    first = packets.index(said[0])
    assert packets[first : first + len(said)] == said, "no silence between"
    times = [when for when, packet in desk.wire.sent if packet.payload[0] == 0x10]
    assert max(after - before for before, after in pairwise(times)) <= SLOTS + late + 1
    in_schedule(desk, end / 4)
    silence = [when for when, packet in desk.wire.sent if packet.payload == SILENCE][-4:]
    assert [round(b - a) for a, b in pairwise(silence)] == [SLOTS] * 3, "the beat is found again"


def test_speech_that_does_not_come_is_not_waited_for_long() -> None:
    desk = Desk()
    desk.pacer.to(8.1)
    desk.speak(1)
    for slot in range(9, 40):
        desk.pacer.to(slot + 0.1)
    times = [when for when, _ in desk.wire.sent if when > 8]
    assert max(after - before for before, after in pairwise(times)) <= 3 * SLOTS
    in_schedule(desk, 39.1)


steps = st.one_of(
    st.tuples(st.just("wait"), st.floats(0.05, 9)),
    st.tuples(st.just("speak"), st.integers(1, 6)),
    st.tuples(st.just("busy"), st.floats(0.05, 9)),
    st.tuples(st.just("flush"), st.just(0)),
    st.tuples(st.just("stall"), st.floats(25, 120)),
)


@settings(max_examples=200)
@given(st.lists(steps, max_size=40))
def test_no_frame_is_lost_doubled_or_extra(steps: list[tuple[str, float]]) -> None:
    desk = Desk()
    due: list[bytes] = []  # all that must leave, since the start
    answers = begun = 0
    at = 0.1
    desk.pacer.to(at)
    for step, amount in steps:
        if step == "speak":
            due += desk.speak(int(amount), f"answer{answers}")
        elif step == "flush":
            left = len(desk.voice)
            for cut in desk.playout.flush():
                assert cut.heard_ms == 20 * (left - begun), "what has left is what was heard"
            del due[left:]
            answers, begun = answers + 1, left
        else:
            at += amount
            desk.pacer.pass_to(at)
            if step != "busy":
                desk.pacer.run(desk.pacer.now)
                in_schedule(desk, at)
        assert -LATE <= desk.link._lead <= 2 * SLOTS
        assert desk.voice == due[: len(desk.voice)], "in order, each once"
    for _ in range(4 * (len(due) + 12)):
        at += 1
        desk.pacer.to(at)
    assert desk.voice == due
    in_schedule(desk, at, most=2 * SLOTS)
    packets = [packet for _, packet in desk.wire.sent]
    for before, after in pairwise(packets):
        assert (after.seq - before.seq) & 0xFFFF == 1
        assert (after.timestamp - before.timestamp) % 2**32 % 160 == 0
    assert [packet.payload for packet in packets] == desk.tape.agents
    assert desk.link.counters()["rtp_out_voice"] == len(due)


def in_schedule(desk: Desk, at: float, most: int = 3 * SLOTS) -> None:
    """Check that the stream, in media time, is hardly behind the clock and not far ahead of it."""
    packets = [packet for _, packet in desk.wire.sent]
    if not packets:
        assert at < desk.first
        return
    media = ((packets[-1].timestamp - packets[0].timestamp) % 2**32) // 160 * SLOTS + SLOTS
    ahead = desk.first + media - at
    assert -LATE < ahead <= most, f"{ahead} slots ahead"


def test_nothing_is_played_before_asterisk_is_known() -> None:
    desk = Desk(peer=None)
    speech = desk.speak(3)
    desk.pacer.to(40.1)
    assert desk.wire.sent == []
    assert desk.playout.queued_ms == 60, "the greeting waits"
    desk.link.receive(build(0, False, 1, 160, 7, SILENCE), ASTERISK)
    desk.pacer.to(60.1)
    assert desk.voice == speech


def test_speech_queued_before_the_start_leaves_with_it() -> None:
    pacer, playout = HandPacer(), Playout(ULAW)
    wire = Wire(pacer)
    link = link_on(wire, playout, pacer, PortRange("127.0.0.1", 12000, 12010))
    link.expect(ASTERISK)
    playout.push("item", b"\x10" * 320)
    link.wake()
    assert wire.sent == [], "not started"
    link.start(lambda audio: None)
    assert [packet.payload for _, packet in wire.sent] == [b"\x10" * 160]


def test_strangers_are_not_heard_and_are_named_once(desk: Desk) -> None:
    with structlog.testing.capture_logs() as lines:
        desk.link._log = structlog.get_logger()
        for number in range(150):
            desk.link.receive(build(0, False, number, 0, 1, b"\x11" * 160), STRANGER)
            desk.pacer.to(4 * number + 0.1)
    assert b"\x11" * 160 not in desk.heard
    assert desk.link.counters()["rtp_foreign"] == 150
    (line,) = lines
    assert line["log_level"] == "warning"
    assert (line["expected"], line["from_"]) == (ASTERISK, STRANGER)
    assert "RTP_SOURCE_CHECK" in line["hint"]


def test_mute_phone_is_heard_as_silence_as_long_as_the_time(desk: Desk) -> None:
    for slot in range(400):
        desk.pacer.to(slot + 0.1)
    assert desk.heard == [SILENCE] * 100
    assert b"".join(desk.tape.callers) == b"".join(desk.heard)
    assert desk.link.counters()["rtp_filled"] == 100


def play(desk: Desk, numbers: range, *, lost: range = range(0)) -> None:
    """Let Asterisk send a packet every 20 ms, just before the link's tick."""
    for number in numbers:
        desk.pacer.pass_to(4 * number + desk.first - 0.5)
        if number not in lost:
            data = build(0, False, number, number * 160, 7, b"\x11" * 160)
            desk.link.receive(data, ASTERISK)
        desk.pacer.to(4 * number + desk.first + 0.2)


def test_caller_is_heard_frame_by_frame(desk: Desk) -> None:
    play(desk, range(200))
    assert desk.heard == desk.tape.callers == [b"\x11" * 160] * 200
    assert desk.link.counters()["rtp_filled"] == 0


def test_what_came_while_the_process_was_busy_is_not_taken_for_missing(desk: Desk) -> None:
    play(desk, range(50))
    desk.wire.inbox = [build(0, False, number, number * 160, 7, b"\x11" * 160) for number in range(50, 65)]
    desk.pacer.to(4 * 64 + desk.first + 0.2)  # the timer is heard before the socket
    play(desk, range(65, 100))
    assert desk.heard == [b"\x11" * 160] * 100


def test_busy_machine_waits_a_little_longer_for_the_packets_of_others(desk: Desk) -> None:
    play(desk, range(50))
    desk.pacer.to(4 * 57 + desk.first + 0.2)  # nobody could do anything meanwhile, Asterisk neither
    for number in range(50, 60):
        desk.pacer.to(4 * 57 + desk.first + (number - 49))
        desk.link.receive(build(0, False, number, number * 160, 7, b"\x11" * 160), ASTERISK)
    play(desk, range(60, 100))
    assert desk.heard == [b"\x11" * 160] * 100
    desk.pacer.to(4 * 130)
    assert desk.heard[-20:] == [SILENCE] * 20, "a phone that stops is heard as silent all the same"


@pytest.mark.parametrize("lost", [1, 2, 3, 5, 15, 60])
def test_loss_does_not_change_the_length(desk: Desk, lost: int) -> None:
    play(desk, range(50 + lost + 45), lost=range(50, 50 + lost))
    assert abs(len(desk.heard) - (50 + lost + 45)) <= 1, "what is lost on the way lasts as long to the AI"
    assert desk.heard[-45:] == [b"\x11" * 160] * 45


def test_many_outages_do_not_add_up(desk: Desk) -> None:
    for outage in range(10):
        play(desk, range(40 * outage, 40 * outage + 40), lost=range(40 * outage + 10, 40 * outage + 20))
    assert abs(len(desk.heard) - 400) <= 2


def test_send_errors_are_counted_and_the_stream_goes_on(desk: Desk) -> None:
    desk.pacer.to(10.1)
    before = desk.wire.sent[-1][1]
    desk.wire.failing = True
    desk.pacer.to(22.1)
    desk.link._read()
    desk.wire.failing = False
    desk.link._read()
    desk.pacer.to(26.1)
    after = desk.wire.sent[-1][1]
    assert desk.link.counters()["rtp_send_errors"] == 3
    assert desk.link.counters()["rtp_receive_errors"] == 1
    assert (after.timestamp - before.timestamp) % 2**32 == 160 * 4, "time went on"


async def test_closing_twice_is_closing_once(desk: Desk) -> None:
    speech = desk.speak(3)
    await desk.link.close()
    await desk.link.close()
    desk.link.wake()
    desk.pacer.to(40.1)
    desk.link.receive(build(0, False, 1, 160, 7, SILENCE), ASTERISK)
    assert desk.wire.closed == 1
    assert desk.voice == speech[:1]
    assert desk.heard == []
