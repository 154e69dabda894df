"""Calls of a full SIP stack (PJSIP), which shares no code with our phones."""

from __future__ import annotations

from pathlib import Path

import pjsip
import pytest
from hearing import joined, sounding
from rig import Rig, SteadyEcho

from arivox.emulator import sound
from arivox.emulator.script import Script, Stage
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.marked import MarkedStream

pytestmark = [pytest.mark.asterisk, pjsip.NEEDS_PJSIP]
GOODBYE = MarkedStream(1.5)


def uri(asterisk: AsteriskInstance, extension: str = "700") -> str:
    return f"sip:{extension}@127.0.0.1:{asterisk.sip_port}"


@pytest.mark.parametrize(("codec", "user"), [("PCMU", "tester"), ("PCMA", "alawphone")])
async def test_tone_comes_back_and_the_caller_hangs_up(
    asterisk: AsteriskInstance, tmp_path: Path, codec: str, user: str
) -> None:
    said = joined(signal.silence(0.5), signal.tone(1013, 1.5), signal.silence(1.0))
    async with Rig(asterisk, SteadyEcho) as rig:
        call = await pjsip.call(
            uri(asterisk), said, tmp_path, "--seconds", "2.7", "--codec", codec, "--user", user
        )
        assert await rig.ended() == "caller_hangup"
    assert call.status == 0
    assert [event["name"] for event in call.of("codec")] == [codec]
    (statistics,) = call.of("statistics")
    assert (statistics["lost"], statistics["reordered"]) == (0, 0)
    assert statistics["jitter_ms"] < 5
    tone = sounding(call.heard)
    # Its own jitter buffer conceals packets that a busy machine delivers late, and then plays them, too.
    assert len(tone) / 8000 == pytest.approx(1.5, abs=0.1)
    inner = tone[400:-400]
    assert signal.dominant_frequency(inner) == pytest.approx(1013, abs=1)
    assert [fault for fault in signal.dropouts(inner, 1013) if fault[1] > 60] == []


async def test_agent_speaks_its_last_word_and_hangs_up(asterisk: AsteriskInstance, tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.wait_for("response.create")
        audio = sound.encode(GOODBYE.pcm(), stage.session.output_format)
        await stage.say(audio, speed=10, end=False)
        await stage.call("end_call", {})

    async with Rig(asterisk, lambda: Script(scenario)) as rig:
        call = await pjsip.call(uri(asterisk), signal.silence(0.1), tmp_path, "--seconds", "8")
        assert await rig.ended() == "completed"
    assert call.status == 0
    assert call.of("statistics") == [], "the service hung up first"
    heard = sounding(call.heard)
    # Its own jitter buffer may conceal a packet that a busy machine delivered late.
    assert [gap for _, gap in GOODBYE.jumps(heard) if abs(gap) > 60] == []
    assert GOODBYE.position_ms(heard) == pytest.approx(1500, abs=100)
