"""The second opinion works: a caller on the PJSIP stack hears the echo of what it says."""

from __future__ import annotations

from pathlib import Path

import pjsip
import pytest
from hearing import joined

from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance

pytestmark = [pytest.mark.asterisk, pjsip.NEEDS_PJSIP]


@pytest.mark.parametrize("codec", ["PCMU", "PCMA"])
async def test_full_stack_hears_its_echo(asterisk: AsteriskInstance, tmp_path: Path, codec: str) -> None:
    said = joined(signal.silence(0.3), signal.tone(1013, 1.0), signal.silence(2.0))
    uri = f"sip:600@127.0.0.1:{asterisk.sip_port}"
    call = await pjsip.call(uri, said, tmp_path, "--seconds", "2", "--codec", codec, "--dtmf", "15")
    assert call.status == 0
    assert [event["name"] for event in call.of("codec")] == [codec]
    assert "".join(event["digit"] for event in call.of("digit")) == "15"
    (statistics,) = call.of("statistics")
    assert statistics["lost"] == 0
    ((start, end),) = signal.active_segments(call.heard, min_ms=200)
    tone = call.heard[round(start * 8) : round(end * 8)]
    assert signal.dominant_frequency(tone) == pytest.approx(1013, abs=1)
    assert end - start > 600, "the digits take the place of the tone while they last"


async def test_call_that_is_refused_ends_with_status_1(asterisk: AsteriskInstance, tmp_path: Path) -> None:
    uri = f"sip:999@127.0.0.1:{asterisk.sip_port}"
    call = await pjsip.call(uri, signal.silence(0.1), tmp_path)
    assert call.status == 1
    assert call.events[-1]["status"] == 404
