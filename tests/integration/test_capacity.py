"""More callers than the service can serve."""

from __future__ import annotations

import asyncio
import time

import pytest
from hearing import assert_whole, hear_fallback
from rig import Rig, until

from arivox.emulator import sound
from arivox.emulator.script import Script
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.marked import MarkedStream

pytestmark = pytest.mark.asterisk
GREETING = MarkedStream(0.6)


async def assert_greeted(rig: Rig, count: int) -> None:
    """Assert that a new caller, whose AI is the ``count``-th, is served."""
    phone = await rig.dial()
    stage = await rig.stage(count)
    await stage.wait_for("response.create")
    await stage.say(sound.encode(GREETING.pcm(), stage.session.output_format))
    await phone.wait_heard()
    await phone.wait_silence(150)
    assert_whole(phone.heard().pcm, GREETING)
    await phone.hangup()


async def test_caller_for_whom_no_port_is_left(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, port_count=4, expect_log=["a caller cannot be served"]) as rig:
        assert len(range(rig.settings.rtp_server_port, rig.settings.rtp_server_port_last + 1, 2)) == 2
        first, second = await rig.dial(), await rig.dial()
        await until(lambda: rig.service.ports.in_use == 2, "both ports in use")
        begun = time.monotonic()
        third = await rig.dial()
        heard = await third.wait_heard()
        assert heard - begun < 3
        await hear_fallback(third, after=begun)
        assert await rig.ended(2) == "no_ports"
        assert await rig.status_of() == "no_ports"
        assert rig.timelines[2].find("call.answered") == []
        (error,) = rig.logged("a caller cannot be served")
        assert f"{rig.settings.rtp_server_port}-{rig.settings.rtp_server_port_last}" in error["error"]
        assert "RTP_SERVER_PORT_LAST" in error["error"]
        assert len(rig.emulator.sessions) == 2, "nobody pays for an AI that cannot be heard"
        await first.hangup()
        await rig.ended(0)
        await assert_greeted(rig, 3)
        assert second.state == "up"


async def test_port_that_another_program_holds_is_passed_over(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, port_count=4) as rig:
        loop = asyncio.get_running_loop()
        address = ("127.0.0.1", rig.settings.rtp_server_port)
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=address)
        try:
            await assert_greeted(rig, 1)
            await rig.ended(0)
            await assert_greeted(rig, 2)
            await rig.ended(1)
        finally:
            transport.close()


async def test_callers_beyond_max_calls_are_sent_on(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, max_calls=1, expect_log=["sent on to the dialplan"]) as rig:
        first = await rig.dial()
        second = await rig.dial()
        await hear_fallback(second)
        assert await rig.status_of() == "busy"
        assert len(rig.timelines) == 1
        refused = await rig.open_phone()
        assert await refused.call("703") >= 400
        await first.hangup()
        await rig.ended(0)
        await assert_greeted(rig, 2)
