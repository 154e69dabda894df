"""The level of the caller's voice as the AI hears it, and bytes that nobody touches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hearing import RATE, sounding
from rig import Rig

from arivox.audio.format import ULAW
from arivox.audio.g711 import Law, Pcm, decode, encode
from arivox.emulator.script import Script
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance

pytestmark = pytest.mark.asterisk
HZ = 1013.0
TARGET_RMS = 0.15
TARGET_DBFS = 20 * math.log10(TARGET_RMS * math.sqrt(2))  # dBFS of AES17: a sine reads 3 dB above its RMS
LAWS: list[Law] = ["ulaw", "alaw"]


async def heard_by_ai(rig: Rig, said: Pcm, law: Law = "ulaw") -> tuple[bytes, bytes]:
    """Return the payload that the phone sent of ``said``, and all that reached the AI."""
    phone = await rig.dial(law=law)
    stage = await rig.stage(len(rig.timelines))
    await stage.wait_for("response.create")
    await stage.wait_audio(100)
    utterance = phone.play(said)
    await utterance.done()
    await stage.wait_audio(200)
    await phone.hangup()
    await rig.ended(len(rig.timelines) - 1)
    first = utterance.first_packet_at
    assert first is not None
    sent = b"".join(packet.payload for packet in phone.sent if packet.time >= first)
    assert stage.session.input_format.name == law
    return sent[: len(said)], bytes(stage.record.audio_received)


async def test_quiet_caller_is_raised_to_the_target(asterisk: AsteriskInstance) -> None:
    patient: dict[str, Any] = {"ask_again_s": 60, "first_audio_timeout_s": 300, "response_timeout_s": 300}
    async with Rig(asterisk, Script, target_rms=TARGET_RMS, max_gain=10.0, **patient) as rig:
        _, received = await heard_by_ai(rig, signal.tone(HZ, 3.5, level_dbfs=-30.0))
    # Where the machine held packets up for long, silence stands for them: it is not the caller's.
    voice = sounding(decode(received.replace(ULAW.silence * 160, b""), "ulaw"))
    assert len(voice) / RATE == pytest.approx(3.5, abs=0.02)
    assert signal.level_dbfs(voice[: RATE // 25]) == pytest.approx(-30.0, abs=1.5), (
        "no first word is blown up"
    )
    end = voice[-RATE // 2 :]
    assert signal.level_dbfs(end) == pytest.approx(TARGET_DBFS, abs=1.5)
    assert signal.snr_db(end[: RATE // 4], HZ) > 25, "raised without harm"


@pytest.mark.parametrize("law", LAWS)
async def test_gain_has_its_limit(asterisk: AsteriskInstance, law: Law) -> None:
    async with Rig(asterisk, Script, target_rms=TARGET_RMS) as rig:
        _, received = await heard_by_ai(rig, signal.tone(HZ, 1.5, level_dbfs=-35.0), law)
    end = sounding(decode(received, law), threshold_db=-45)[-RATE // 4 :]
    assert signal.level_dbfs(end) == pytest.approx(-35.0 + 6.0, abs=0.5), "MAX_GAIN is 2 by default"


async def test_loud_caller_and_a_silent_line_are_left_alone(asterisk: AsteriskInstance) -> None:
    hiss = np.random.default_rng(1).integers(-16, 16, RATE, np.int16)  # RMS 0.0003, below MIN_RMS
    async with Rig(asterisk, Script, target_rms=TARGET_RMS, max_gain=10.0) as rig:
        for said in (signal.tone(HZ, 1.0, level_dbfs=-8.0), hiss):
            sent, received = await heard_by_ai(rig, said)
            # As samples: mu-law has two codes for zero, and only one of them comes out of the encoder.
            assert decode(sent, "ulaw").tobytes() in decode(received, "ulaw").tobytes()


@pytest.mark.parametrize("law", LAWS)
async def test_without_a_target_the_bytes_are_those_the_phone_sent(
    asterisk: AsteriskInstance, law: Law
) -> None:
    every_code = decode(bytes(range(256)), law)
    noise = np.random.default_rng(2).permutation(np.tile(every_code, 40))
    async with Rig(asterisk, Script) as rig:
        sent, received = await heard_by_ai(rig, noise, law)
    assert sent == encode(noise, law)
    assert len(set(sent)) >= 255, "mu-law has two zeros, and the phone uses one"
    assert received.count(sent) == 1
