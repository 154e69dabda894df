"""A ``.env`` as people write it: refused with the line at fault, or read in full."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from arivox.emulator.script import Script
from arivox.emulator.server import EmulatorServer
from arivox.testing import ports
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.phone import SipPhone

TIMEOUT_S = 30.0
OURS = re.compile(r"^(ARI|RTP|OPENAI|VAD|REDIS|LOG|MAX|PROMPTS|AI)_")


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


async def started(*arguments: str, cwd: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "arivox",
        *arguments,
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if not OURS.match(name)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(*arguments: str, cwd: Path) -> Ended:
    """Run ``arivox`` to its end, with no settings but those of the files in ``cwd``."""
    process = await started(*arguments, cwd=cwd)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


ARI = "ARI_USERNAME=u\nARI_PASSWORD=hidden-password\nOPENAI_API_KEY=sk-hidden\nARI_URL=http://127.0.0.1:1\n"
REFUSED = {
    "quotes within quotes": 'OPENAI_SYSTEM_INSTRUCTION="You are "hidden" of the bakery."\n',
    "apostrophe": "OPENAI_SYSTEM_INSTRUCTION='You're hidden of the bakery.'\n",
    "several lines": "OPENAI_SYSTEM_INSTRUCTION=You are Anna,\nand hidden.\n",
    "not closed": 'OPENAI_SYSTEM_INSTRUCTION="You are hidden.\n',
}


@pytest.mark.parametrize("command", ["run", "doctor"])
async def test_line_that_cannot_be_read_ends_the_command(tmp_path: Path, command: str) -> None:
    async def judge(name: str, line: str) -> None:
        folder = tmp_path / name
        folder.mkdir()
        (folder / ".env").write_text(ARI + line)
        ended = await run(command, cwd=folder)
        assert ended.status == 2, name
        at = 6 if name == "several lines" else 5
        assert ended.err.startswith(f"error: OPENAI_SYSTEM_INSTRUCTION (in .env, line {at}): "), name
        assert ended.err.count("\n") == 1, "no stray message of a library"
        assert ended.out == ""
        assert "hidden" not in ended.err

    await asyncio.gather(*(judge(*case) for case in REFUSED.items()))


async def test_yaml_that_cannot_be_read_ends_the_command(tmp_path: Path) -> None:
    (tmp_path / "arivox.yaml").write_text("max_calls: 3\nopenai_system_instruction: Say: hidden\n")
    for ended in await asyncio.gather(run("run", cwd=tmp_path), run("doctor", cwd=tmp_path)):
        assert ended.status == 2
        assert ended.err.startswith("error: arivox.yaml: is not valid YAML in line 2")
        assert "hidden" not in ended.err


async def test_doctor_tells_what_run_would(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        f"{ARI}OPENAI_SYSTEM_INSTRUCTION=Call extension #5 or # 6\nMAX_CALLS=3\nMAX_CALLS=4\nLOG_LEVEL=warn\n"
    )
    ended = await run("doctor", cwd=tmp_path)
    assert "OPENAI_SYSTEM_INSTRUCTION (in .env, line 5) is cut off at the #" in ended.err
    assert "MAX_CALLS (in .env) stands there twice, in lines 6 and 7" in ended.err
    assert "LOG_LEVEL" not in ended.err


@pytest.mark.asterisk
async def test_agent_is_told_the_whole_of_what_the_file_says(
    asterisk: AsteriskInstance, tmp_path: Path
) -> None:
    """A file with a byte order mark, Windows line ends, a text of several lines and the scripts' level."""
    first, last = ports.free_udp_range(10)
    async with (
        EmulatorServer(Script) as emulator,
        SipPhone(("127.0.0.1", asterisk.sip_port), user="baker") as phone,
    ):
        lines = [
            f"ARI_URL={asterisk.ari_url}",
            f"export ARI_USERNAME={asterisk.ari_user}",
            f"ARI_PASSWORD='{asterisk.ari_password}'",
            f"ARI_APP_NAME={asterisk.app}  # of the dialplan",
            f"OPENAI_REALTIME_URL={emulator.url}",
            "OPENAI_API_KEY=sk-test",
            'OPENAI_SYSTEM_INSTRUCTION="You are Anna, the \\"baker\\".',
            "",
            "It's #1 in town # really.\"",
            f"RTP_SERVER_PORT={first}",
            f"RTP_SERVER_PORT_LAST={last}",
            "LOG_LEVEL=verbose",
            "LOG_FORMAT=json",
            "MEMORY_URL=none",
        ]
        (tmp_path / ".env").write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
        process = await started("run", cwd=tmp_path)
        try:
            assert process.stderr is not None
            async with asyncio.timeout(TIMEOUT_S):
                log = b""
                while b"connected to Asterisk" not in log:
                    log += await process.stderr.readline()
                assert await phone.call("700") == 200
                session = await emulator.wait_session(1)
                while not session.record.received("session.update"):
                    await asyncio.sleep(0.02)
                await phone.hangup()
        finally:
            process.terminate()
            await process.communicate()
    update = session.record.received("session.update")[0].event
    assert 'You are Anna, the "baker".\n\nIt\'s #1 in town # really.' in update["session"]["instructions"]
    warnings = [line for line in log.decode().splitlines() if '"warning"' in line]
    assert len(warnings) == 2
    assert "ARI_APP_NAME (in .env, line 4) is cut off" in warnings[0]
    assert "LOG_LEVEL (in .env, line 12)" in warnings[1]
