"""The events connection to Asterisk breaks, the service is killed, or Asterisk will not have it."""

from __future__ import annotations

import asyncio
import os
import signal as signals
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hearing import RATE, hear_fallback, milliwatt_seconds, sounding
from rig import Rig, SteadyEcho, until
from wire import LOST, UNHEARD, UNREACHABLE, Wire, cut_off, mend

from arivox.asterisk.client import AriClient
from arivox.emulator.script import Script
from arivox.emulator.server import EmulatorServer
from arivox.errors import AsteriskError
from arivox.testing import ports, signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.phone import SipPhone

pytestmark = pytest.mark.asterisk
HZ = 1013.0


def assert_unbroken(phone: SipPhone, seconds: float) -> None:
    """Assert that a tone was heard with no gap but what a busy machine makes."""
    heard = sounding(phone.heard().pcm)
    assert len(heard) / RATE == pytest.approx(seconds, abs=0.2)
    assert signal.dominant_frequency(heard[80:-80]) == pytest.approx(HZ, abs=1)
    gaps = [length for _, length in signal.dropouts(heard[80:-80], HZ)]
    assert max(gaps, default=0.0) < 200
    assert sum(gaps) < 200
    assert max(phone.gaps()) < 200, "packets come all the time"


@pytest.mark.parametrize("how", ["dropped", "cut for a while"])
async def test_audio_goes_on_without_events(asterisk: AsteriskInstance, how: str) -> None:
    expected = [LOST] if how == "dropped" else [LOST, UNREACHABLE]
    async with (
        Wire(asterisk) as wire,
        Rig(asterisk, SteadyEcho, ari_url=wire.url, expect_log=expected) as rig,
    ):
        phone = await rig.dial()
        await phone.wait_heard(predicate=lambda pcm: len(pcm) > 0)
        said = phone.play(signal.tone(HZ, 3.0))
        await phone.wait_heard()
        if how == "dropped":
            wire.drop()
            await until(lambda: bool(rig.logged(LOST)), "the loss")
        else:
            await cut_off(rig, wire)
            await until(lambda: wire.refused >= 2, "attempts to reconnect")
        await mend(rig, wire)
        await said.done()
        await phone.wait_silence(200)
        assert [call.channel.caller.number for call in rig.calls] == [phone.user], "the call is the same"
        await phone.hangup()
        assert await rig.ended() == "caller_hangup"
        assert len(rig.timelines) == 1
        assert_unbroken(phone, 3.0)
        assert len(rig.logged(LOST)) == 1
        retries = [line["level"] for line in rig.logged(UNREACHABLE)]
        assert bool(retries) == (how != "dropped")
        assert retries.count("error") <= 1, "the loss is told once, not at each attempt"


async def test_hang_up_without_events_is_found_after_the_reconnect(asterisk: AsteriskInstance) -> None:
    async with (
        Wire(asterisk) as wire,
        Rig(asterisk, SteadyEcho, ari_url=wire.url, expect_log=[LOST, UNREACHABLE]) as rig,
    ):
        leaver, stayer = await rig.dial(), await rig.dial()
        await until(lambda: all(line.find("media.up") for line in rig.timelines), "the media")
        await cut_off(rig, wire)
        await leaver.hangup()
        await until(lambda: wire.refused >= 2, "attempts to reconnect")
        assert len(rig.calls) == 2, "nobody can know yet"
        await mend(rig, wire)
        assert await rig.ended(0) == "caller_hangup"
        assert [call.channel.caller.number for call in rig.calls] == [stayer.user]
        assert rig.service.ports.in_use == 1
        # The stayer's and its media: the other's media channel goes.
        async with asyncio.timeout(5):
            while len((await rig.console("core show channels concise")).splitlines()) != 2:
                pass
        begun = time.monotonic()
        stayer.play(signal.tone(HZ, 0.3))
        await stayer.wait_heard(after=begun)


async def test_new_caller_without_events_falls_to_the_dialplan(asterisk: AsteriskInstance) -> None:
    async with (
        Wire(asterisk) as wire,
        Rig(asterisk, SteadyEcho, ari_url=wire.url, expect_log=[LOST, UNREACHABLE]) as rig,
    ):
        await cut_off(rig, wire)
        phone = await rig.dial()
        await phone.wait_state("down", timeout=6)
        assert milliwatt_seconds(phone.heard().pcm) > 1.5
        assert rig.timelines == []
        await mend(rig, wire)
        again = await rig.dial()
        await again.wait_heard(predicate=lambda pcm: len(pcm) > 0)
        again.play(signal.tone(613.0, 0.3))
        await again.wait_heard()
        await again.wait_silence(150)
        assert signal.tone_level_db(sounding(again.heard().pcm), 613.0) > -20, "served as ever"


async def test_ai_that_fails_without_asterisk_costs_no_caller(asterisk: AsteriskInstance) -> None:
    """A network that takes both away: the caller goes on in the dialplan as soon as Asterisk can be told."""
    failed = "a request to Asterisk failed"  # what is tried once, and what is insisted on
    expected = [LOST, UNREACHABLE, failed, "the AI failed", "could not play", "sweeping an orphaned"]
    async with Wire(asterisk) as wire, Rig(asterisk, Script, ari_url=wire.url, expect_log=expected) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await until(lambda: bool(rig.timelines[0].find("media.up")), "the media")
        await cut_off(rig, wire)
        await stage.close(3000, "invalid_request_error.invalid_api_key")
        await until(lambda: bool(rig.logged(UNHEARD)), "an attempt to let the caller go")
        assert phone.state == "up"
        await mend(rig, wire)
        await hear_fallback(phone, timeout=8)
        assert await rig.ended() == "provider_failed"
        assert await rig.status_of() == "provider_failed"
        assert len(rig.timelines) == 1
        await until(lambda: bool(rig.logged("sweeping an orphaned bridge")), "what is left")


async def test_sound_of_a_failure_holds_no_caller(asterisk: AsteriskInstance) -> None:
    """Asterisk goes away while it plays: until that is stopped, the caller goes nowhere."""
    expected = [LOST, UNREACHABLE, UNHEARD, "the AI failed"]
    async with Wire(asterisk) as wire, Rig(asterisk, Script, ari_url=wire.url, expect_log=expected) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await until(lambda: bool(rig.timelines[0].find("media.up")), "the media")
        await stage.close(3000, "invalid_request_error.invalid_api_key")
        await phone.wait_heard(predicate=lambda pcm: signal.tone_level_db(pcm, 480) > -30)
        await cut_off(rig, wire)
        await until(lambda: bool(rig.logged(UNHEARD)), "an attempt to stop the sound")
        await mend(rig, wire)
        await hear_fallback(phone, timeout=8)
        assert await rig.ended() == "provider_failed"
        assert await rig.status_of() == "provider_failed"


@asynccontextmanager
async def program(
    asterisk: AsteriskInstance, emulator: EmulatorServer, folder: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """``arivox run`` in a folder, as a process of its own, once it is ready; killed at the end."""
    first, last = ports.free_udp_range(40)
    own = {
        "ARI_URL": asterisk.ari_url,
        "ARI_USERNAME": asterisk.ari_user,
        "ARI_PASSWORD": asterisk.ari_password,
        "ARI_APP_NAME": asterisk.app,
        "OPENAI_REALTIME_URL": emulator.url,
        "OPENAI_API_KEY": "sk-test",
        "RTP_SERVER_PORT": str(first),
        "RTP_SERVER_PORT_LAST": str(last),
    }
    command = (sys.executable, "-m", "arivox", "run")
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=os.environ | own, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(15):
            async for line in process.stderr:
                if b"connected to Asterisk" in line:
                    break
            else:
                raise AssertionError("arivox run ended before it was connected")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_restarted_service_sweeps_and_serves_what_a_killed_one_left(
    asterisk: AsteriskInstance, tmp_path: Path
) -> None:
    async with (
        EmulatorServer(SteadyEcho) as emulator,
        SipPhone(("127.0.0.1", asterisk.sip_port), user="leftover") as phone,
    ):
        async with program(asterisk, emulator, tmp_path) as process:
            assert await phone.call("710") == 200  # Stasis(arivox,provider=openai)
            await phone.wait_heard(predicate=lambda pcm: len(pcm) > 0)
            phone.play(signal.tone(HZ, 0.3))
            await phone.wait_heard()
            process.send_signal(signals.SIGKILL)
            await process.wait()
        assert phone.state == "up"
        orphans = (await asyncio.to_thread(asterisk.cli, "core show channels concise")).splitlines()
        assert len(orphans) == 2, "the caller waits, beside a media channel that nobody has"
        async with Rig(
            asterisk,
            SteadyEcho,
            ai_service_provider="gemini",
            expect_log=[
                "sweeping an orphaned channel",
                "sweeping an orphaned bridge",
                "a caller was left alone; serving them",
            ],
        ) as rig:
            await until(
                lambda: bool(rig.timelines) and bool(rig.timelines[0].find("media.up")), "the new call"
            )
            assert rig.timelines[0].find("provider.chosen")[0].data["name"] == "openai", (
                "as the dialplan says"
            )
            begun = time.monotonic()
            phone.play(signal.tone(613.0, 0.4))
            await phone.wait_heard(after=begun)
            await phone.wait_silence(200)
            heard = sounding(phone.heard_between(begun, time.monotonic()).pcm)
            assert signal.tone_level_db(heard, 613.0) > -20
            channels = (await rig.console("core show channels concise")).splitlines()
            bridges = [
                line for line in (await rig.console("bridge show all")).splitlines()[1:] if line.strip()
            ]
            assert (len(channels), len(bridges)) == (2, 1)
            await phone.hangup()
            assert await rig.ended() == "caller_hangup"


async def test_wrong_password_ends_the_service(asterisk: AsteriskInstance) -> None:
    with pytest.raises(AsteriskError, match="ARI_USERNAME and ARI_PASSWORD") as caught:
        await Rig(asterisk, Script, ari_password="no-such-password").__aenter__()
    assert caught.value.status == 401
    assert "ari.conf" in str(caught.value)
    assert "no-such-password" not in str(caught.value)


async def test_application_taken_over_ends_the_service(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, SteadyEcho) as rig:
        phone = await rig.dial()
        await phone.wait_heard(predicate=lambda pcm: len(pcm) > 0)
        async with AriClient(
            asterisk.ari_url, asterisk.ari_user, asterisk.ari_password, asterisk.app
        ) as other:
            up = asyncio.Event()
            listening = asyncio.create_task(other.listen(lambda _: None, up.set))
            try:
                async with asyncio.timeout(5):
                    await up.wait()
                with pytest.raises(
                    AsteriskError, match=f"took the Stasis application '{asterisk.app}' over"
                ) as caught:
                    await rig.service_end()
                assert "ARI_APP_NAME" in str(caught.value)
                # The caller is not left in silence.
                assert await rig.ended() == "shutdown"
                await phone.wait_state("down", timeout=6)
                assert milliwatt_seconds(phone.heard().pcm) > 1.5
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
