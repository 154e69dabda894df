"""The commands as a user runs them: what they print, write and return."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

import arivox
from arivox import doctor
from arivox.conversation import prompts
from arivox.emulator.echo import Echo
from arivox.emulator.server import EmulatorServer
from arivox.settings import settings
from arivox.settings.settings import Settings
from arivox.testing import ports
from arivox.testing.asterisk import AsteriskInstance

TIMEOUT_S = 20.0
OURS = re.compile(r"^(ARI|RTP|OPENAI|VAD|REDIS|LOG|MAX|PROMPTS|AI)_")


@dataclass(frozen=True)
class Ended:
    """A command that ended."""

    status: int
    out: str
    err: str


def environment(**own: str) -> dict[str, str]:
    """Return this process's environment with no settings of Arivox but ``own``."""
    return {name: value for name, value in os.environ.items() if not OURS.match(name)} | own


async def run(*arguments: str, cwd: Path, **own: str) -> Ended:
    """Run ``arivox`` to its end, with the settings ``own``."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "arivox",
        *arguments,
        cwd=cwd,
        env=environment(**own),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


def of_asterisk(asterisk: AsteriskInstance, emulator: EmulatorServer) -> dict[str, str]:
    """Return settings with which everything is in order."""
    first, last = ports.free_udp_range(100)
    return {
        "ARI_URL": asterisk.ari_url,
        "ARI_USERNAME": asterisk.ari_user,
        "ARI_PASSWORD": asterisk.ari_password,
        "ARI_APP_NAME": asterisk.app,
        "OPENAI_REALTIME_URL": emulator.url,
        "OPENAI_LIVE_URL": emulator.live_url,
        "OPENAI_API_KEY": "sk-right",
        "GEMINI_LIVE_URL": emulator.gemini_url,
        "GEMINI_API_KEY": "sk-right",
        "RTP_SERVER_PORT": str(first),
        "RTP_SERVER_PORT_LAST": str(last),
    }


async def test_version_and_help(tmp_path: Path) -> None:
    version, about, nothing = await asyncio.gather(
        run("--version", cwd=tmp_path), run("--help", cwd=tmp_path), run(cwd=tmp_path)
    )
    assert (version.status, version.out, version.err) == (0, f"arivox {arivox.__version__}\n", "")
    assert about.status == 0
    for command in ("run", "demo", "doctor", "init", "emulate"):
        assert re.search(rf"\b{command}\b", about.out)
        assert re.search(rf"\b{command}\b", nothing.out + nothing.err), (
            "without a command it says which there are"
        )


# --- run ---

ARI = {"ARI_USERNAME": "u", "ARI_PASSWORD": "hidden-password"}
BAD_SETTINGS = {
    "nothing set": ({}, "ARI_USERNAME"),
    "no key": (ARI, "OPENAI_API_KEY"),
    "no key of Google's": (ARI | {"AI_SERVICE_PROVIDER": "gemini"}, "GEMINI_API_KEY"),
    "no such provider": (ARI | {"AI_SERVICE_PROVIDER": "parrot"}, "AI_SERVICE_PROVIDER"),
    "port is no number": (ARI | {"RTP_SERVER_PORT": "many"}, "RTP_SERVER_PORT"),
    "host that does not resolve": (
        ARI | {"ARI_URL": "http://nowhere.invalid:8088", "OPENAI_API_KEY": "sk-hidden"},
        "ARI_URL",
    ),
    "no such prompts": (ARI | {"OPENAI_API_KEY": "sk-hidden", "PROMPTS_FILE": "none.yaml"}, "PROMPTS_FILE"),
}


async def test_run_with_bad_settings_names_the_setting(tmp_path: Path) -> None:
    async def judge(name: str, own: dict[str, str], setting: str) -> None:
        ended = await run("run", cwd=tmp_path, **own)
        assert ended.status == 2, name
        assert f"error: {setting}" in ended.err, name
        assert "Traceback" not in ended.err, name
        assert "hidden" not in ended.out + ended.err, name

    cases = list(BAD_SETTINGS.items())
    for start in range(0, len(cases), 4):
        await asyncio.gather(*(judge(name, *case) for name, case in cases[start : start + 4]))


async def test_settings_file_that_is_not_there(tmp_path: Path) -> None:
    ended = await run("run", "--env-file", "nowhere.env", cwd=tmp_path)
    assert ended.status == 2
    assert "nowhere.env" in ended.err
    assert "Traceback" not in ended.err


async def test_brackets_in_a_setting_are_shown_as_they_are(tmp_path: Path) -> None:
    ended = await run("run", cwd=tmp_path, RTP_SERVER_PORT="[/x]")
    assert ended.status == 2
    assert "error: RTP_SERVER_PORT (in the environment): '[/x]' is not a whole number" in ended.err
    assert "Traceback" not in ended.err


# --- init ---


async def test_init_writes_files_that_work(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    ended = await run(
        "init", str(folder), "--ari-url", "http://192.0.2.7:8088", "--ari-app-name", "bot", cwd=tmp_path
    )
    assert ended.status == 0
    assert ended.err == ""
    loaded = settings.load(environ={}, env_file=folder / ".env", yaml_file=None)
    assert loaded.warnings == []
    found = loaded.settings
    assert (found.ari_url, found.ari_username, found.ari_app_name) == (
        "http://192.0.2.7:8088",
        "arivox",
        "bot",
    )
    assert len(found.ari_password) >= 16
    assert found.prompts_file == folder / "prompts.yaml"
    assert prompts.load(folder / "prompts.yaml", ["openai"]) == prompts.load(None, ["openai"])
    ari, dialplan = ((folder / "asterisk" / name).read_text() for name in ("ari.conf", "extensions.conf"))
    assert f"[{found.ari_username}]" in ari
    assert found.ari_password in ari
    assert "Stasis(bot" in dialplan
    assert "@" not in re.sub(r"(?m)^\s*;.*$", "", ari + dialplan), "no placeholder is left"
    for secret in (folder / ".env", folder / "asterisk" / "ari.conf"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    # All that is left to do is the key.
    started = await run("run", cwd=folder)
    assert started.status == 2
    assert "error: OPENAI_API_KEY is not set" in started.err.replace(": is", " is")


async def test_init_does_not_overwrite_unless_told(tmp_path: Path) -> None:
    (tmp_path / "prompts.yaml").write_text("mine")
    ended = await run("init", str(tmp_path), cwd=tmp_path)
    assert ended.status == 2
    assert "prompts.yaml" in ended.err.replace("\n", "")
    assert "--force" in ended.err
    assert "Traceback" not in ended.err
    assert os.listdir(tmp_path) == ["prompts.yaml"], "nothing is written by halves"
    assert (tmp_path / "prompts.yaml").read_text() == "mine"
    forced = await run("init", str(tmp_path), "--force", cwd=tmp_path)
    assert forced.status == 0
    assert prompts.load(tmp_path / "prompts.yaml", ["openai"]).states


# --- doctor ---


@pytest.mark.asterisk
async def test_doctor_finds_everything_in_order(asterisk: AsteriskInstance, tmp_path: Path) -> None:
    async with EmulatorServer(Echo, api_keys={"sk-right"}) as emulator:
        ended = await run("doctor", cwd=tmp_path, **of_asterisk(asterisk, emulator))
    assert ended.status == 0, ended.out + ended.err
    assert "Everything is in order." in ended.out
    for name in ("prompts", "RTP ports", "ARI", "modules", "RTP in", "RTP out", "openai"):
        assert re.search(rf"^ok +{name} ", ended.out, re.MULTILINE), name
    assert asterisk.version.split("-")[0] in ended.out
    assert asterisk.ari_password not in ended.out + ended.err
    assert (await asyncio.to_thread(asterisk.cli, "core show channels concise")).split() == []


def assert_to_mend(ended: Ended, pattern: str) -> None:
    """Assert that the doctor found what ``pattern`` says, and no more than that went wrong."""
    assert ended.status == 1, ended.out + ended.err
    assert re.search(pattern, ended.out, re.MULTILINE), ended.out
    assert "to mend." in ended.out
    assert not re.search("sesame|sk-wrong|sk-right", ended.out + ended.err)
    assert ended.err == ""


@pytest.mark.asterisk
async def test_doctor_says_what_to_mend(asterisk: AsteriskInstance, tmp_path: Path) -> None:
    async with EmulatorServer(Echo, api_keys={"sk-right"}) as emulator:
        good = of_asterisk(asterisk, emulator)
        password, key, silent = await asyncio.gather(
            run("doctor", cwd=tmp_path, **good | {"ARI_PASSWORD": "sesame"}),
            run("doctor", cwd=tmp_path, **good | {"OPENAI_API_KEY": "sk-wrong"}),
            run("doctor", cwd=tmp_path, **good | {"ARI_URL": f"http://127.0.0.1:{ports.free_tcp_port()}"}),
        )
    assert_to_mend(password, r"^failed +ARI +.*\n +-> .*ari\.conf")
    assert re.search(r"^skipped +RTP ", password.out, re.MULTILINE)
    assert re.search(r"^ok +openai ", password.out, re.MULTILINE), "the rest is checked all the same"
    assert_to_mend(key, r"^failed +openai +.*\n +-> .*OPENAI_API_KEY")
    assert re.search(r"^ok +RTP out ", key.out, re.MULTILINE)
    assert_to_mend(silent, r"^failed +ARI +.*\n +-> Is Asterisk running")


@pytest.mark.asterisk
async def test_doctor_checks_the_provider_that_is_chosen(asterisk: AsteriskInstance, tmp_path: Path) -> None:
    async with EmulatorServer(Echo, api_keys={"sk-right"}) as emulator:
        good = of_asterisk(asterisk, emulator)
        gemini, live, key, model, voice = await asyncio.gather(
            run("doctor", "--provider", "gemini", cwd=tmp_path, **good),
            run("doctor", "--provider=openai-live", cwd=tmp_path, **good),
            run(
                "doctor",
                cwd=tmp_path,
                **good | {"AI_SERVICE_PROVIDER": "gemini", "GEMINI_API_KEY": "sk-wrong"},
            ),
            run("doctor", "--provider=gemini", cwd=tmp_path, **good | {"GEMINI_MODEL_NAME": "gemini-parrot"}),
            run("doctor", "--provider=openai-live", cwd=tmp_path, **good | {"OPENAI_VOICE_ID": "robot"}),
        )
        left_out = await run(
            "doctor", cwd=tmp_path, **good | {"OPENAI_TRANSCRIPTION_MODEL": "gpt-live-transcribe"}
        )
    assert re.search(r"^ok +gemini +gemini-3\.8-live opened a session", gemini.out, re.MULTILINE), gemini.out
    assert re.search(r"^ok +openai-live +gpt-live-1\.1 opened a session", live.out, re.MULTILINE), live.out
    assert "Everything is in order." in gemini.out
    assert "Everything is in order." in live.out
    assert_to_mend(key, r"^failed +gemini +.*\n +-> .*GEMINI_API_KEY")
    assert_to_mend(model, r"^failed +gemini +.*\n +-> .*GEMINI_MODEL_NAME")
    assert_to_mend(left_out, r"^failed +openai +.*goes without OPENAI_TRANSCRIPTION_MODEL.*\n +-> .*OPENAI_")
    assert_to_mend(voice, r"^failed +openai-live +.*session\.audio\.output\.voice.*\n +-> .*OPENAI_")


@pytest.mark.asterisk
async def test_doctor_finds_the_ports_taken(asterisk: AsteriskInstance, tmp_path: Path) -> None:
    first, last = ports.free_udp_range(2)
    async with EmulatorServer(Echo) as emulator:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", first))
            own = {"RTP_SERVER_PORT": str(first), "RTP_SERVER_PORT_LAST": str(last)}
            ended = await run("doctor", cwd=tmp_path, **of_asterisk(asterisk, emulator) | own)
    assert_to_mend(ended, rf"^failed +RTP ports +.*{first}-{last}.*RTP_SERVER_PORT")


# --- emulate ---


async def emulate_until(number: signal.Signals, cwd: Path) -> Ended:
    """Run ``arivox emulate``, open a session, and send it ``number``; return what it wrote from then on."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "arivox",
        "emulate",
        "--port=0",
        "--behaviour=echo",
        "--api-key=sk-only",
        cwd=cwd,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            assert process.stdout is not None
            lines = [(await process.stdout.readline()).decode() for _ in range(4)]
            match = re.fullmatch(r"OPENAI_REALTIME_URL=(ws://127\.0\.0\.1:\d+/v1/realtime)\n", lines[0])
            assert match, lines
            assert [line.partition("=")[0] for line in lines[1:3]] == ["OPENAI_LIVE_URL", "GEMINI_LIVE_URL"]
            assert lines[3].startswith("listening on port ")
            async with (
                aiohttp.ClientSession(headers={"Authorization": "Bearer sk-only"}) as http,
                http.ws_connect(f"{match[1]}?model=gpt-realtime-2.1") as client,
            ):
                assert (await client.receive_json())["type"] == "session.created"
                process.send_signal(number)
                out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def test_emulate_serves_until_a_signal(tmp_path: Path) -> None:
    ends = await asyncio.gather(
        emulate_until(signal.SIGTERM, tmp_path), emulate_until(signal.SIGINT, tmp_path)
    )
    assert set(ends) == {Ended(0, "", "")}


async def test_emulate_on_a_taken_port_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = await run("emulate", "--behaviour", "echo", "--port", port, cwd=tmp_path)
    assert ended.status == 2
    assert port in ended.err
    assert "Traceback" not in ended.err


async def test_doctor_looks_at_the_tools_of_the_prompts(tmp_path: Path) -> None:
    file = tmp_path / "prompts.yaml"
    file.write_text("common: {states: {a: {prompt: A, next: end, tools: [transfer_call]}}}")
    first = await anext(doctor.examine(Settings(prompts_file=file)))
    assert (first.name, first.state) == ("prompts", "warning")
    assert "transfer_call; calls can be transferred nowhere" in first.text
    reachable = Settings(prompts_file=file, transfer_to="sales=PJSIP/200")
    assert (await anext(doctor.examine(reachable))).state == "ok"
    file.write_text("common: {states: {a: {prompt: A, tools: [order]}}}")
    broken = await anext(doctor.examine(reachable))
    assert (broken.state, "'order' is not a tool" in broken.text) == ("failed", True)
