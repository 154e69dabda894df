"""``arivox run`` is told to end in mid-call: its callers are sent on, and nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal as signals
import sys
from pathlib import Path
from typing import Any

import pytest

from arivox.audio.g711 import Pcm
from arivox.emulator.echo import Talker
from arivox.emulator.server import EmulatorServer
from arivox.testing import ports, signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.phone import SipPhone

pytestmark = pytest.mark.asterisk
AGENT_HZ = 1000.0
FALLBACK_HZ = 1004.0


def seconds_of(pcm: Pcm, *, fallback: bool) -> float:
    """Return how long the fallback's tone is heard, or the agent's: they are 4 Hz apart."""
    window = 4000
    count = 0
    for start in range(0, len(pcm) - window + 1, window // 4):
        piece = pcm[start : start + window]
        if signal.level_dbfs(piece) > -30:
            count += (signal.dominant_frequency(piece) > (AGENT_HZ + FALLBACK_HZ) / 2) == fallback
    return count * window / 4 / 8000


async def asterisk_holds(asterisk: AsteriskInstance) -> list[str]:
    """Return the channels and bridges there are."""
    channels = await asyncio.to_thread(asterisk.cli, "core show channels concise")
    bridges = await asyncio.to_thread(asterisk.cli, "bridge show all")
    return channels.split() + [line for line in bridges.splitlines()[1:] if line.strip()]


@pytest.mark.parametrize("number", [signals.SIGTERM, signals.SIGINT])
async def test_callers_are_sent_on(
    asterisk: AsteriskInstance, tmp_path: Path, number: signals.Signals
) -> None:
    first, last = ports.free_udp_range(40)
    async with (
        EmulatorServer(Talker) as emulator,
        SipPhone(("127.0.0.1", asterisk.sip_port), user="one") as one,
        SipPhone(("127.0.0.1", asterisk.sip_port), user="two") as two,
    ):
        own = {
            "ARI_URL": asterisk.ari_url,
            "ARI_USERNAME": asterisk.ari_user,
            "ARI_PASSWORD": asterisk.ari_password,
            "ARI_APP_NAME": asterisk.app,
            "OPENAI_REALTIME_URL": emulator.url,
            "OPENAI_API_KEY": "sk-test",
            "RTP_SERVER_PORT": str(first),
            "RTP_SERVER_PORT_LAST": str(last),
            "LOG_FORMAT": "json",
            "LOG_LEVEL": "info",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "arivox",
            "run",
            cwd=tmp_path,
            env=os.environ | own,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stderr is not None
            log: list[dict[str, Any]] = []
            async with asyncio.timeout(20):
                while not log or log[-1]["event"] != "connected to Asterisk":
                    log.append(json.loads(await process.stderr.readline()))
                assert set(await asyncio.gather(one.call("700"), two.call("700"))) == {200}
                await asyncio.gather(one.wait_heard(), two.wait_heard())
                process.send_signal(number)
                _, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0
        log += [json.loads(line) for line in err.splitlines()]
        for phone in (one, two):
            await phone.wait_state("down", timeout=6)
            heard = phone.heard().pcm
            assert seconds_of(heard, fallback=True) > 1.3
            assert seconds_of(heard, fallback=False) < 3
        async with asyncio.timeout(3):
            while await asterisk_holds(asterisk):
                await asyncio.sleep(0.05)
    assert [line["reason"] for line in log if line["event"] == "call ended"] == ["shutdown"] * 2
    assert log[-1]["event"] == "arivox stopped"
    assert [line for line in log if line["level"] in ("warning", "error")] == []
    assert all(ports.udp_port_free(port) for port in range(first, last + 1))
