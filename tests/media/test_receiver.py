"""Who may send to a call, and what is made of what they send."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.audio.format import ALAW, ULAW
from arivox.media.rtp.packet import build
from arivox.media.rtp.receiver import RtpReceiver

ASTERISK = ("127.0.0.1", 30000)
STRANGER = ("127.0.0.1", 30001)
FRAME = b"\x01" * 160


def datagram(seq: int, *, payload_type: int = 0, ssrc: int = 1, payload: bytes = FRAME) -> bytes:
    return build(payload_type, False, seq, seq * 160, ssrc, payload)


def test_only_the_named_address_is_heard() -> None:
    receiver = RtpReceiver(ULAW, ASTERISK)
    assert receiver.receive(datagram(1), STRANGER, 0.0) == []
    assert receiver.receive(datagram(1), ("127.0.0.2", 30000), 0.0) == []
    assert receiver.receive(datagram(1), ASTERISK, 0.0) == [FRAME]
    assert receiver.receive(b"junk", STRANGER, 0.0) == []
    assert receiver.counters.foreign == 3
    assert receiver.counters.malformed == 0, "a stranger's junk is not Asterisk's fault"
    assert receiver.last_foreign == STRANGER
    assert receiver.peer == ASTERISK


def test_first_valid_sender_is_learned_and_kept() -> None:
    receiver = RtpReceiver(ULAW, None)
    assert receiver.receive(b"junk", STRANGER, 0.0) == []
    assert receiver.receive(datagram(1, payload_type=111), STRANGER, 0.0) == []
    assert receiver.peer is None, "neither junk nor a foreign payload type decides"
    assert receiver.receive(datagram(1), ASTERISK, 0.0) == [FRAME]
    assert receiver.receive(datagram(2), STRANGER, 0.0) == []
    assert receiver.peer == ASTERISK
    assert receiver.counters.foreign == 1


def test_other_payload_types_are_counted_and_comfort_noise_is_not() -> None:
    receiver = RtpReceiver(ALAW, ASTERISK)
    assert receiver.receive(datagram(1, payload_type=8), ASTERISK, 0.0) == [FRAME]
    assert receiver.receive(datagram(2, payload_type=0), ASTERISK, 0.0) == []
    assert receiver.receive(datagram(2, payload_type=13, payload=b"\x40"), ASTERISK, 0.0) == []
    assert receiver.receive(datagram(2, payload_type=101), ASTERISK, 0.0) == []
    assert receiver.counters.other_payload == 2
    assert receiver.receive(datagram(2, payload_type=8), ASTERISK, 0.0) == [FRAME]


def test_losses_come_out_of_poll() -> None:
    receiver = RtpReceiver(ULAW, ASTERISK)
    receiver.receive(datagram(1), ASTERISK, 0.0)
    assert receiver.poll(0.02) == []
    assert receiver.receive(datagram(3), ASTERISK, 0.04) == []
    assert receiver.poll(0.06) == []
    assert len(receiver.poll(0.081)) == 2
    assert receiver.counters.jitter.lost == 1


def test_packet_without_payload_is_no_audio() -> None:
    receiver = RtpReceiver(ULAW, ASTERISK)
    heard = receiver.receive(datagram(1), ASTERISK, 0.0)
    heard += receiver.receive(datagram(2, payload=b""), ASTERISK, 0.02)
    heard += receiver.receive(datagram(4), ASTERISK, 0.06)
    heard += receiver.poll(0.2)
    assert all(heard), "an empty frame would be sent to the AI as an empty append"
    assert sum(map(len, heard)) == 4 * 160


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.binary(max_size=40), st.integers(0, 65535).map(datagram)),
            st.sampled_from([ASTERISK, STRANGER]),
            st.floats(0, 0.1),
        ),
        max_size=40,
    ),
    st.sampled_from([ASTERISK, None]),
)
def test_every_datagram_is_counted_once(
    stream: list[tuple[bytes, tuple[str, int], float]], peer: tuple[str, int] | None
) -> None:
    receiver = RtpReceiver(ULAW, peer)
    now = 0.0
    comfort_noise = 0
    for data, source, step in stream:
        now += step
        receiver.receive(data, source, now)
        receiver.poll(now)
        comfort_noise += len(data) >= 12 and data[1] & 0x7F == 13
    counters = receiver.counters
    counted = counters.packets + counters.foreign + counters.malformed + counters.other_payload
    assert len(stream) - comfort_noise <= counted <= len(stream)
