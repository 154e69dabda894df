"""Phones that call each other: no server between them, real sockets, real time."""

from __future__ import annotations

import asyncio
import socket
import time
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import uvloop

from arivox.errors import ArivoxError, SettingsError
from arivox.testing import phone as phones
from arivox.testing import signal, talker
from arivox.testing.mediasocket import MediaSocket
from arivox.testing.pacer import Pacer
from arivox.testing.phone import AnswerPlan, SipPhone
from arivox.testing.recording import PATIENT_MS
from arivox.testing.sdp import Direction

NOWHERE = ("127.0.0.1", 9)
FREQ = 1013.0


@pytest.fixture
async def bob() -> AsyncIterator[SipPhone]:
    async with SipPhone(NOWHERE, user="bob", plan=phones.ANSWER, codecs=("alaw", "ulaw")) as phone:
        yield phone
    assert phone.protocol_errors == []


@pytest.fixture
async def alice(bob: SipPhone) -> AsyncIterator[SipPhone]:
    async with SipPhone(bob.address, user="alice") as phone:
        yield phone
    assert phone.protocol_errors == []


async def test_what_one_says_the_other_hears(alice: SipPhone, bob: SipPhone) -> None:
    assert await alice.call("bob") == 200
    await bob.wait_state("up")
    utterance = alice.play(signal.tone(FREQ, 0.6))
    arrived = await bob.wait_heard()
    left = await utterance.done()
    assert utterance.first_packet_at is not None
    assert 0 <= arrived - utterance.first_packet_at < 0.02
    # The pacer knows how far a busy machine held it up.
    late = Pacer.running().worst_lateness_s
    assert left - utterance.first_packet_at == pytest.approx(0.58, abs=0.02 + late)
    assert await bob.wait_silence(60) - left < 0.02
    await alice.hangup()
    heard = bob.heard(PATIENT_MS)
    ((start, end),) = signal.active_segments(heard.pcm)
    sound = heard.pcm[round(start * 8) + 8 : round(end * 8) - 8]
    assert end - start == pytest.approx(600, abs=1)
    assert signal.snr_db(sound, FREQ) > 35
    assert signal.dropouts(sound, FREQ) == []
    assert heard.missing() == []
    assert signal.active_segments(bob.heard_between(arrived - 0.2, arrived).pcm) == []
    assert len(bob.gaps()) == len(bob.received) - 1


async def test_first_codec_that_both_speak_is_spoken(alice: SipPhone, bob: SipPhone) -> None:
    await alice.call("bob")
    assert bob.talker.law == alice.talker.law == "ulaw"
    await alice.hangup()
    async with SipPhone(bob.address, codecs=("alaw", "ulaw")) as carol:
        await carol.call("bob")
        assert bob.talker.law == carol.talker.law == "alaw"


async def test_call_without_a_shared_codec_is_refused_with_488(bob: SipPhone) -> None:
    async with SipPhone(NOWHERE, plan=phones.ANSWER, codecs=("ulaw",)) as deaf:
        async with SipPhone(deaf.address, codecs=("alaw",)) as caller:
            assert await caller.call("x") == 488
        assert [str(error) for error in deaf.protocol_errors] == [
            "SDP: offer of ('alaw',) meets a phone with ('ulaw',)"
        ]


async def test_digits_arrive_in_order(alice: SipPhone, bob: SipPhone) -> None:
    await alice.call("bob")
    await alice.dtmf("15#A", duration_ms=60, gap_ms=40)
    await alice.hangup()
    assert bob.heard_digits() == "15#A"


async def test_busy_no_answer_and_late_answer(alice: SipPhone, bob: SipPhone) -> None:
    bob.plan = phones.BUSY
    assert await alice.call("bob") == 486
    assert alice.state == bob.state == "down"
    bob.plan = AnswerPlan(status=480, ring_s=0.05)
    assert await alice.call("bob") == 480
    bob.plan = AnswerPlan(status=200, ring_s=0.05)
    assert await alice.call("bob") == 200


async def test_scripted_answer_and_rejection(alice: SipPhone, bob: SipPhone) -> None:
    bob.plan = phones.NO_ANSWER
    for verb, status in ((bob.answer, 200), (lambda: bob.reject(603), 603)):
        calling = asyncio.create_task(alice.call("bob"))
        request = await bob.wait_incoming()
        await alice.wait_state("ringing")
        assert request.method == "INVITE"
        verb()
        assert await calling == status
        await alice.hangup()
        await bob.wait_state("down")
    with pytest.raises(TimeoutError, match=r"alice down .* incoming call did not come within 0.01 s"):
        await alice.wait_incoming(timeout=0.01)
    with pytest.raises(RuntimeError, match="no call to answer"):
        bob.answer()


async def test_cancelled_call_ends_in_487(alice: SipPhone, bob: SipPhone) -> None:
    bob.plan = phones.NO_ANSWER
    calling = asyncio.create_task(alice.call("bob"))
    await alice.wait_state("ringing")
    await alice.cancel()
    assert await calling == 487
    await bob.wait_state("down")


async def test_call_that_is_not_answered_in_time_is_given_up(alice: SipPhone, bob: SipPhone) -> None:
    bob.plan = phones.NO_ANSWER
    with pytest.raises(TimeoutError, match=r"an answer to INVITE did not come within 0.1 s"):
        await alice.call("bob", timeout=0.1)
    await bob.wait_state("down")
    await alice.wait_state("down")


async def test_hold_silences_both_sides_until_it_ends(alice: SipPhone, bob: SipPhone) -> None:
    await alice.call("bob")
    await bob.wait_heard(-130.0, predicate=lambda _: True)
    assert await alice.hold() == 200
    assert bob.remote is not None
    assert bob.remote.direction == "sendonly"
    sent = len(alice.sent), len(bob.sent)
    with pytest.raises(TimeoutError):
        await bob.wait_heard(predicate=lambda _: True, timeout=0.1)
    assert (len(alice.sent), len(bob.sent)) == sent
    assert await alice.unhold() == 200
    await bob.wait_heard(predicate=lambda _: True)
    await alice.wait_heard(predicate=lambda _: True)


@pytest.mark.parametrize(("direction", "answer"), [("sendonly", "recvonly"), ("inactive", "inactive")])
async def test_hold_offers_a_direction_and_sends_nothing(
    alice: SipPhone, bob: SipPhone, direction: Direction, answer: Direction
) -> None:
    await alice.call("bob")
    await bob.wait_heard(-130.0, predicate=lambda _: True)
    assert await alice.hold(direction) == 200
    assert bob.remote is not None
    assert alice.remote is not None
    assert (bob.remote.direction, alice.remote.direction) == (direction, answer)
    sent = len(alice.sent)
    with pytest.raises(TimeoutError):
        await bob.wait_heard(predicate=lambda _: True, timeout=0.1)
    assert len(alice.sent) == sent
    assert await alice.unhold() == 200
    await bob.wait_heard(predicate=lambda _: True)


async def test_transfer_is_recorded_and_reported(alice: SipPhone, bob: SipPhone) -> None:
    bob.transfer_status = None
    await alice.call("bob")
    assert await alice.refer("601") == 202
    assert bob.transfer_targets == [f"sip:601@127.0.0.1:{bob.address[1]}"]
    assert alice.transfer_reports == []
    bob.report_transfer(180)
    bob.report_transfer(200)
    await bob.hangup()  # its answer comes behind the reports
    assert alice.transfer_reports == [180, 200]


async def test_hang_up_ends_the_speech_and_the_next_call_is_clean(alice: SipPhone, bob: SipPhone) -> None:
    await alice.call("bob")
    cut = alice.play(signal.tone(FREQ, 10.0))
    await bob.wait_heard()
    await bob.hangup()
    await alice.wait_state("down")
    with pytest.raises(ArivoxError):
        await cut.done()
    await alice.call("bob")
    assert alice.sent == bob.received == []
    await bob.wait_heard(predicate=lambda _: True)
    with pytest.raises(RuntimeError, match="in a call"):
        await alice.call("bob")


async def test_muted_phone_sends_nothing(alice: SipPhone, bob: SipPhone) -> None:
    alice.mute()
    await alice.call("bob")
    await alice.wait_heard(predicate=lambda _: True)
    assert alice.sent == bob.received == []
    alice.unmute()
    await bob.wait_heard(predicate=lambda _: True)


async def test_damage_on_purpose_is_what_arrives(alice: SipPhone, bob: SipPhone) -> None:
    fates = {3: talker.LOST, 5: talker.DOUBLED, 7: talker.SWAPPED}
    alice.talker.impairment = fates.get
    await alice.call("bob")
    await alice.play(signal.tone(FREQ, 0.4)).done()
    await alice.hangup()
    first = alice.sent[0].sequence
    order = [packet.sequence - first & 0xFFFF for packet in bob.received]
    assert order[:11] == [0, 1, 2, 4, 5, 5, 6, 8, 7, 9, 10]
    assert bob.heard(PATIENT_MS).missing() == [(60.0, 20.0)]
    assert alice.said().missing() == []


async def test_both_sides_of_a_call_are_saved(alice: SipPhone, bob: SipPhone, tmp_path: Path) -> None:
    await alice.call("bob")
    await asyncio.gather(alice.play(signal.tone(613, 0.2)).done(), bob.play(signal.tone(1813, 0.2)).done())
    await alice.wait_silence(40)
    await alice.hangup()
    alice.save_wav(tmp_path / "call.wav")
    with wave.open(str(tmp_path / "call.wav")) as file:
        frames = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert signal.dominant_frequency(frames[:, 0]) == pytest.approx(613, abs=3)
    assert signal.dominant_frequency(frames[:, 1]) == pytest.approx(1813, abs=3)


async def test_stalled_loop_catches_up_and_its_clock_does_not_shift(alice: SipPhone, bob: SipPhone) -> None:
    await alice.call("bob")
    await bob.wait_heard(predicate=lambda _: True)
    before, start = len(alice.sent), alice.sent[-1].time
    time.sleep(0.13)  # noqa: ASYNC251  # the stall is what is tested
    await bob.wait_heard(predicate=lambda _: True)
    await bob.wait_heard(predicate=lambda _: True, after=time.monotonic() + 0.05)
    sent = len(alice.sent) - before
    assert sent == pytest.approx((alice.sent[-1].time - start) / 0.02, abs=1.5)
    assert Pacer.running().worst_lateness_s > 0.1


async def test_arrival_is_told_by_the_kernel_not_by_the_reader() -> None:
    arrivals: list[float] = []
    done = asyncio.Event()

    def receive(_data: bytes, _source: tuple[str, int], arrival: float) -> None:
        arrivals.append(arrival)
        done.set()

    media = MediaSocket("127.0.0.1", 0, receive)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sent = time.monotonic()
        sender.sendto(b"x", media.address)
    time.sleep(0.05)  # noqa: ASYNC251  # the reader is late on purpose
    await done.wait()
    media.close()
    assert media.timestamps
    assert arrivals == [pytest.approx(sent, abs=0.01)]


async def test_pacer_serves_several_periods_and_stops_with_its_last_user() -> None:
    pacer = Pacer.running()
    counts = {10: 0, 20: 0, 40: 0}
    seen: dict[int, int] = {}
    done = asyncio.Event()

    def count(period: int) -> None:
        counts[period] += 1
        if counts[40] == 5 and not seen:
            seen.update(counts)
            done.set()

    subscriptions = [pacer.subscribe(lambda p=period: count(p), period) for period in counts]  # type: ignore[misc]
    await done.wait()
    for subscription in subscriptions:
        subscription.close()
        subscription.close()
    assert seen[20] in (8, 9), "in four periods of 40 ms"
    assert seen[10] in (16, 17)
    with pytest.raises(ValueError, match="7 ms"):
        pacer.subscribe(lambda: None, 7)


async def test_port_in_use_is_named(bob: SipPhone) -> None:
    with pytest.raises(SettingsError, match=f"127.0.0.1:{bob.address[1]} cannot be bound"):
        async with SipPhone(NOWHERE, port=bob.address[1]):
            pass


def test_phones_work_on_uvloop() -> None:
    async def main() -> None:
        async with SipPhone(NOWHERE, plan=phones.ANSWER) as bob, SipPhone(bob.address) as alice:
            assert await alice.call("bob") == 200
            await alice.play(signal.tone(FREQ, 0.2)).done()
            await bob.wait_silence(40)
            ((start, end),) = signal.active_segments(bob.heard(PATIENT_MS).pcm)
            assert end - start == pytest.approx(200, abs=1)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
