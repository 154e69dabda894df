"""Phones that call a real Asterisk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from arivox.audio.g711 import Law
from arivox.testing import phone as phones
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.phone import SipPhone
from arivox.testing.recording import PATIENT_MS

pytestmark = pytest.mark.asterisk


@pytest.fixture
def server(asterisk: AsteriskInstance) -> tuple[str, int]:
    return "127.0.0.1", asterisk.sip_port


@pytest.fixture
async def caller(server: tuple[str, int]) -> AsyncIterator[SipPhone]:
    async with SipPhone(server) as phone:
        yield phone
    assert phone.protocol_errors == []


@pytest.fixture
async def peer(asterisk: AsteriskInstance, server: tuple[str, int]) -> AsyncIterator[SipPhone]:
    """The phone that extension 650 rings."""
    await console(asterisk, "dialplan add extension 650,1,Dial,PJSIP/peer,20 into from-sip replace")
    async with SipPhone(server, user="peer", port=asterisk.peer_port) as phone:
        yield phone
    assert phone.protocol_errors == []


async def console(asterisk: AsteriskInstance, command: str) -> str:
    return await asyncio.to_thread(asterisk.cli, command)


async def hear_own_tone(phone: SipPhone, freq: float, seconds: float = 1.0) -> None:
    """Say a tone to an echo and hear it back whole."""
    said = phone.play(signal.tone(freq, seconds))
    await phone.wait_heard()
    await said.done()
    await phone.wait_silence(60)
    heard = phone.heard(PATIENT_MS)
    assert heard.missing() == []
    ((start, end),) = signal.active_segments(heard.pcm)
    sound = heard.pcm[round(start * 8) + 8 : round(end * 8) - 8]
    assert end - start == pytest.approx(seconds * 1000, abs=1)
    assert signal.snr_db(sound, freq) > 35
    assert signal.dropouts(sound, freq) == []


@pytest.mark.parametrize(("codecs", "spoken"), [(("ulaw",), 0), (("alaw",), 8), (("alaw", "ulaw"), 0)])
async def test_echo_is_heard_whole(server: tuple[str, int], codecs: tuple[Law, ...], spoken: int) -> None:
    async with SipPhone(server, codecs=codecs) as phone:
        assert await phone.call("600") == 200
        await hear_own_tone(phone, 1013)
        await phone.hangup()
    # Of several, Asterisk takes the one that its own endpoint prefers.
    assert {packet.payload_type for packet in [*phone.sent, *phone.received]} == {spoken}
    assert phone.protocol_errors == []


async def test_milliwatt_is_1004_hz(caller: SipPhone) -> None:
    assert await caller.call("601") == 200
    start = await caller.wait_heard()
    await caller.wait_heard(after=start + 0.5)
    heard = caller.heard_between(start, start + 0.5)
    assert signal.dominant_frequency(heard.pcm) == pytest.approx(1004, abs=0.5)


async def test_digits_come_back_from_the_echo_and_hash_ends_it(caller: SipPhone) -> None:
    assert await caller.call("600") == 200
    await caller.dtmf("159*", duration_ms=100)
    await caller.dtmf("#", duration_ms=100)
    await caller.wait_state("down")
    assert caller.heard_digits().startswith("159*")


async def test_hang_up_by_the_server_tells_its_reason(asterisk: AsteriskInstance, caller: SipPhone) -> None:
    assert await caller.call("600") == 200
    await console(asterisk, "channel request hangup all")
    await caller.wait_state("down")
    assert caller.bye_reason is not None
    assert caller.bye_reason.startswith("Q.850;cause=")


async def test_unknown_extension_is_404(caller: SipPhone) -> None:
    assert await caller.call("999") == 404
    assert caller.state == "down"


async def test_password_is_given_when_asked(asterisk: AsteriskInstance, server: tuple[str, int]) -> None:
    async with SipPhone(server, user=asterisk.phone_user, password=asterisk.phone_password) as phone:
        assert await phone.register() == 200
        assert f"sip:{asterisk.phone_user}@127.0.0.1:{phone.address[1]}" in await console(
            asterisk, "pjsip show contacts"
        )
        assert await phone.call("600") == 200
        await phone.hangup()
    assert f"127.0.0.1:{phone.address[1]}" not in await console(asterisk, "pjsip show contacts")


async def test_wrong_password_is_refused(asterisk: AsteriskInstance, server: tuple[str, int]) -> None:
    async with SipPhone(server, user=asterisk.phone_user, password="wrong") as phone:
        assert await phone.register() == 401
        assert await phone.call("600") == 401


async def test_peer_rings_answers_talks_and_hangs_up(caller: SipPhone, peer: SipPhone) -> None:
    calling = asyncio.create_task(caller.call("650"))
    await peer.wait_incoming()
    await caller.wait_state("ringing")
    peer.answer()
    assert await calling == 200
    caller.play(signal.tone(613, 0.3))
    peer.play(signal.tone(1813, 0.3))
    await asyncio.gather(caller.wait_heard(), peer.wait_heard())
    await asyncio.gather(caller.wait_silence(60), peer.wait_silence(60))
    assert signal.dominant_frequency(caller.heard().pcm) == pytest.approx(1813, abs=3)
    assert signal.dominant_frequency(peer.heard().pcm) == pytest.approx(613, abs=3)
    await peer.hangup()
    await caller.wait_state("down")


async def test_cancel_while_the_peer_rings(caller: SipPhone, peer: SipPhone) -> None:
    calling = asyncio.create_task(caller.call("650"))
    await peer.wait_incoming()
    await caller.wait_state("ringing")
    await caller.cancel()
    assert await calling == 487
    await peer.wait_state("down")


async def test_sound_before_the_answer_is_heard(asterisk: AsteriskInstance, caller: SipPhone) -> None:
    for priority, application in ((1, "Progress"), (2, "Milliwatt")):
        await console(asterisk, f"dialplan add extension 651,{priority},{application} into from-sip replace")
    calling = asyncio.create_task(caller.call("651"))
    start = await caller.wait_heard()
    await caller.wait_heard(after=start + 0.2)
    assert caller.state == "ringing"
    assert signal.dominant_frequency(caller.heard().pcm) == pytest.approx(1004, abs=3)
    await caller.cancel()
    assert await calling == 487


async def test_busy_peer_is_486_for_the_caller(caller: SipPhone, peer: SipPhone) -> None:
    peer.plan = phones.BUSY
    assert await caller.call("650") == 486


async def test_hold_and_back(caller: SipPhone, peer: SipPhone) -> None:
    peer.plan = phones.ANSWER
    assert await caller.call("650") == 200
    assert await caller.hold() == 200
    assert await caller.unhold() == 200
    peer.play(signal.tone(613, 0.2))
    await caller.wait_heard()


async def test_blind_transfer_by_the_phone(caller: SipPhone, peer: SipPhone) -> None:
    peer.plan = phones.ANSWER
    assert await caller.call("650") == 200
    caller.play(signal.tone(613, 0.1))
    # Before the two are bridged, Asterisk accepts a REFER and fails it later.
    await peer.wait_heard()
    assert await peer.refer("601") == 202
    await caller.wait_heard()
    assert signal.dominant_frequency(caller.heard().pcm) == pytest.approx(1004, abs=5)


async def test_silent_phone_is_still_in_its_call(caller: SipPhone) -> None:
    assert await caller.call("600") == 200
    await caller.wait_heard(predicate=lambda _: True)
    caller.mute()
    await caller.wait_silence(200)
    quiet = len(caller.received)
    caller.unmute()
    await caller.wait_heard(predicate=lambda _: True)
    caller.talker.change_ssrc()
    await hear_own_tone_after_pause(caller)
    assert len(caller.received) > quiet


async def hear_own_tone_after_pause(phone: SipPhone) -> None:
    said = phone.play(signal.tone(1013, 0.4))
    arrived = await phone.wait_heard()
    await said.done()
    await phone.wait_silence(60)
    heard = phone.heard_between(arrived, arrived + 0.39, PATIENT_MS)
    assert signal.dropouts(heard.pcm, 1013) == []


async def test_ten_phones_hear_themselves_and_nobody_else(server: tuple[str, int]) -> None:
    freqs = signal.PROBES_HZ[:10]

    async def talk(freq: float) -> None:
        async with SipPhone(server, user=f"tester{freq:.0f}") as phone:
            assert await phone.call("600") == 200
            await phone.play(signal.tone(freq, 2.0)).done()
            await phone.wait_silence(60)
            await phone.hangup()
            in_call.append((freq, phone))

    in_call: list[tuple[float, SipPhone]] = []
    await asyncio.gather(*(talk(freq) for freq in freqs))
    for freq, phone in in_call:
        heard = phone.heard(PATIENT_MS)
        ((start, end),) = signal.active_segments(heard.pcm)
        sound = heard.pcm[round(start * 8) + 8 : round(end * 8) - 8]
        assert end - start == pytest.approx(2000, abs=1)
        assert signal.snr_db(sound, freq) > 35
        assert signal.dropouts(sound, freq) == []
        for other in freqs:
            if other != freq:
                assert signal.tone_level_db(sound, other) < -55
