"""The demo's set: Asterisk, the emulated AI (unless a key is given), the service, and the call."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import structlog
from rich.console import Console

from arivox.conversation.tools.calendar import Calendar
from arivox.demo.caller import converse
from arivox.demo.screen import Screen
from arivox.emulator.voice import best_voice
from arivox.errors import ArivoxError, AsteriskError, ProviderError, SettingsError
from arivox.providers import registry
from arivox.providers.registry import Provider
from arivox.service import Service
from arivox.settings.settings import Settings, setting_fields
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.child import Child
from arivox.testing.phone import SipPhone
from arivox.testing.ports import free_udp_port

log = structlog.get_logger()

EXTENSION: Final = "700"
_EMULATOR_START_S: Final = 60.0
_LAST_TURN_S: Final = 30.0
_CALLER_VOICE: Final = "slt"


@dataclass(frozen=True)
class Options:
    """How the demo is run."""

    output: Path
    keep: bool = False
    sip_bind: str = "127.0.0.1"


async def run(settings: Settings, options: Options, console: Console) -> bool:
    """Run the demo. Return whether the conversation went as it should. Raises ArivoxError."""
    screen = Screen(console)
    async with AsyncExitStack() as stack:
        asterisk = AsteriskInstance(sip_bind=options.sip_bind, report=screen.note)
        stack.push_async_callback(asyncio.to_thread, asterisk.stop)
        await asyncio.to_thread(asterisk.start)
        screen.note(f"Asterisk {asterisk.version} is up.")
        # Before the emulator, which speaks with the same program: what is fetched is fetched in sight.
        voice = await asyncio.to_thread(best_voice, screen.note, _CALLER_VOICE)
        provider = registry.find(settings.ai_service_provider)
        settings = await _choose_ai(provider, _ai_only(settings), stack, screen)
        calendar = await asyncio.to_thread(_calendar, options.output / "calendar.db")
        settings = replace(
            settings,
            ari_url=asterisk.ari_url,
            ari_username=asterisk.ari_user,
            ari_password=asterisk.ari_password,
            ari_app_name=asterisk.app,
            rtp_server_port=free_udp_port() & ~1,
            rtp_server_port_last=0,
            enable_audio_recording=True,
            recordings_dir=options.output,
            memory_url=f"sqlite:///{options.output}/memory.db",
            memory_spool_dir=options.output / "spool",
            calendar_file=options.output / "calendar.db",
        )
        service = Service(settings, watchers=[screen.watch])
        serving = asyncio.create_task(service.run())
        stack.push_async_callback(_stop, service, serving)
        await _connected(service, serving)
        screen.note(f"The service is up. A caller dials {EXTENSION}:\n")
        phone = SipPhone(("127.0.0.1", asterisk.sip_port), user="5551234", display="Demo Caller")
        async with phone:
            status = await phone.call(EXTENSION)
            if status != 200:
                raise AsteriskError(f"the demo's call was refused with SIP status {status}")
            if not service.switchboard.calls:
                raise AsteriskError("the demo's call was over at once", hint="LOG_LEVEL=info shows why")
            call = service.switchboard.calls[0]
            try:
                await converse(phone, voice)
                if phone.state == "up":
                    await phone.wait_state("down", timeout=_LAST_TURN_S)
            except TimeoutError as error:
                console.print(f"The conversation came to a halt: {error}", style="red")
            if phone.state == "up":
                await phone.hangup()
        await _over(service)
        console.print()
        numbers = screen.summary(call.timeline)
        console.print(f"The call, caller left and agent right: [bold]{call.recording}[/]", soft_wrap=True)
        booked = [slot for slot in await asyncio.to_thread(calendar.booked) if slot[1] == call.id]
        for slot, _, _, reason in booked:
            console.print(f"Booked: [bold]{slot}[/], {reason}", soft_wrap=True)
        timeline = options.output / f"{call.id}.json"
        timeline.write_text(json.dumps(call.timeline.as_dict(), indent=1), encoding="utf-8")
        console.print(f"Its timeline: [bold]{timeline}[/]", soft_wrap=True)
        if options.keep:
            await _keep(asterisk, options, console)
    return numbers["answers of the agent"] not in (None, 0) and bool(booked)


def _calendar(path: Path) -> Calendar:
    """Return a calendar in which the time that the caller asks for first is taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    calendar = Calendar(path)
    calendar.book(calendar.find("on Wednesday", "around ten o'clock"), "", "", "somebody else")
    return calendar


def _ai_only(settings: Settings) -> Settings:
    """Return default settings with the user's choice of the AI.

    Everything else in their .env is about their own PBX and callers.
    """
    theirs = {
        item.name: getattr(settings, item.name)
        for item in setting_fields()
        if item.name.startswith(("openai_", "gemini_", "google_", "vad_"))
    }
    return Settings(log_level=settings.log_level, ai_service_provider=settings.ai_service_provider, **theirs)


async def _choose_ai(
    provider: Provider, settings: Settings, stack: AsyncExitStack, screen: Screen
) -> Settings:
    try:
        provider.check(settings)
    except SettingsError as error:
        screen.note(f"{error.setting} {error.problem}: an emulated {provider.title} on this machine answers.")
    else:
        screen.note(f"This call uses the real {provider.model(settings)} and costs money.")
        return settings
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="arivox-demo-")))
    output = folder / "emulator.log"
    output.touch()
    child = Child([sys.executable, "-m", "arivox", "emulate", "--port", "0"], output=output)
    stack.push_async_callback(asyncio.to_thread, child.stop)
    url = await _emulator_url(child, output, f"{provider.url_setting}=")
    emulated: dict[str, Any] = {provider.url_setting.lower(): url, provider.key_setting.lower(): "emulated"}
    defaults = Settings(log_level=settings.log_level, ai_service_provider=settings.ai_service_provider)
    return replace(defaults, **emulated)


async def _emulator_url(child: Child, output: Path, name: str) -> str:
    deadline = time.monotonic() + _EMULATOR_START_S
    while time.monotonic() < deadline:
        text = await asyncio.to_thread(output.read_text)
        for line in text.splitlines():
            if line.startswith(name):
                return line.removeprefix(name).strip()
        if child.exit_status is not None:
            raise ProviderError("the emulator", f"ended at once: {text[-2000:]}")
        await asyncio.sleep(0.05)
    raise ProviderError("the emulator", f"did not start within {_EMULATOR_START_S:g} s")


async def _connected(service: Service, serving: asyncio.Task[None]) -> None:
    connected = asyncio.create_task(service.switchboard.connected.wait())
    await asyncio.wait({serving, connected}, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    if not connected.done():
        connected.cancel()
        if serving.done():
            serving.result()
        raise AsteriskError("the service did not reach Asterisk")


async def _over(service: Service) -> None:
    while service.switchboard.calls:
        await asyncio.sleep(0.02)


async def _stop(service: Service, serving: asyncio.Task[None]) -> None:
    service.stop()
    try:
        await serving
    except ArivoxError as error:
        log.error("the service ended with an error", error=str(error))


async def _keep(asterisk: AsteriskInstance, options: Options, console: Console) -> None:
    host = "127.0.0.1" if options.sip_bind == "127.0.0.1" else os.uname().nodename
    console.print(
        "\nEverything stays up. Register a softphone:\n"
        f"  server    {host}:{asterisk.sip_port} (UDP or TCP)\n"
        f"  user      {asterisk.phone_user}\n"
        f"  password  {asterisk.phone_password}\n"
        f"then call {EXTENSION}. Ctrl-C ends it.",
        markup=False,
    )
    await asyncio.get_running_loop().create_future()
