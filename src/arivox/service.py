"""The composition root: builds the parts, runs them, drains and stops them."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

import structlog

from arivox.asterisk.client import AriClient
from arivox.asterisk.messages import Channel
from arivox.call.call import Call
from arivox.call.context import CallContext
from arivox.call.timeline import Watcher
from arivox.conversation import prompts
from arivox.conversation.memory.spool import Spool
from arivox.conversation.memory.store import make as make_store
from arivox.conversation.memory.writer import Writer
from arivox.conversation.prompts import Prompts
from arivox.conversation.tools.box import ToolBox
from arivox.conversation.tools.calendar import Calendar
from arivox.errors import SettingsError
from arivox.media.clock import Pacer
from arivox.media.rtp.ports import PortRange
from arivox.providers import registry
from arivox.providers.base import SessionFactory
from arivox.providers.registry import Provider
from arivox.providers.socket import tls_context
from arivox.settings.settings import Settings
from arivox.switchboard import Switchboard

log = structlog.get_logger()

_SHUT_DOWN_S: Final = 10.0
_LAST_TURNS_S: Final = 3.0


def rtp_addresses(settings: Settings) -> tuple[str, str]:
    """Return the address to bind for RTP, and the one Asterisk is told. Raises SettingsError."""
    host = urlsplit(settings.ari_url).hostname or ""
    try:
        asterisk = socket.getaddrinfo(host, 80, socket.AF_INET, socket.SOCK_DGRAM)[0][4]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(asterisk)  # sends nothing; the kernel picks the address facing Asterisk
            ours = str(probe.getsockname()[0])
    except OSError as error:
        raise SettingsError("ARI_URL", f"cannot resolve {host!r} ({error})") from error
    advertised = settings.rtp_server_ip_for_asterisk or settings.rtp_server_ip
    if advertised in ("", "0.0.0.0"):
        advertised = ours
    bind = settings.rtp_server_ip or ("127.0.0.1" if ours.startswith("127.") else "0.0.0.0")
    return bind, advertised


class Service:
    """Arivox itself: serves the calls of one Stasis application until it is told to stop."""

    def __init__(
        self,
        settings: Settings,
        *,
        watchers: Sequence[Watcher] = (),
        new_session: SessionFactory | None = None,
    ) -> None:
        """Check what can be checked without a network. Raises SettingsError.

        ``new_session`` stands in for the sessions of every provider.
        """
        settings.require_ari()
        self.settings = settings
        self._watchers = tuple(watchers)
        self._new_session = new_session
        self.toolbox = ToolBox(settings.tools_file, Calendar(settings.calendar_file))
        self._chosen: dict[str, tuple[Provider, Prompts]] = {}
        self.choose_provider(settings.ai_service_provider, "AI_SERVICE_PROVIDER")
        self._bind, self._rtp_host = rtp_addresses(settings)
        self._stop = asyncio.Event()
        self._stop_at_once = asyncio.Event()
        self.pacer = Pacer()
        self.ports = PortRange(self._bind, *settings.rtp_ports)
        self.ari = AriClient(
            settings.ari_url,
            settings.ari_username,
            settings.ari_password,
            settings.ari_app_name,
            timeout_s=settings.ari_request_timeout_s,
        )
        store = make_store(settings)
        self.memory = Writer(store, Spool(settings.memory_spool_dir)) if store is not None else None
        """What writes conversations to the store; None: none is kept."""
        self._store = store.where if store is not None else "none"
        self.switchboard = Switchboard(self.ari, self._new_call, settings.max_calls)
        self._executor = ThreadPoolExecutor(1, "arivox-disk")

    def stop(self) -> None:
        """Ask the service to end, after DRAIN_S at most; asked again, at once.

        Safe in a signal handler of the loop.
        """
        if self._stop.is_set():
            self._stop_at_once.set()
        self._stop.set()
        self.switchboard.refuse_callers()

    async def run(self, on_ready: Callable[[], None] | None = None) -> None:
        """Serve until ``stop``. ``on_ready`` is called once Asterisk is connected.

        Raises AsteriskError when Asterisk refuses us for good.
        """
        await asyncio.to_thread(tls_context)
        # A full collection would stop the audio of all calls for tens of milliseconds; what lives from here
        # on is small.
        gc.collect()
        gc.freeze()
        board = self.switchboard
        first, last = self.settings.rtp_ports
        log.info(
            "arivox starts",
            provider=self.settings.ai_service_provider,
            app=self.settings.ari_app_name,
            rtp=f"{self._bind}:{first}-{last}",
            rtp_for_asterisk=self._rtp_host,
            store=self._store,
        )
        if self.memory is not None:
            self.memory.start()
        try:
            async with self.ari:
                listening = asyncio.ensure_future(self.ari.listen(board.on_event, board.on_up, board.on_down))
                stopping = asyncio.ensure_future(self._stop.wait())
                ready = asyncio.ensure_future(self._announce(on_ready))
                try:
                    await asyncio.wait({listening, stopping}, return_when=asyncio.FIRST_COMPLETED)
                    if self.settings.drain_s and not listening.done():
                        await self._drain(listening)
                    await board.shut_down(_SHUT_DOWN_S)
                    if listening.done():
                        listening.result()
                finally:
                    for task in (listening, stopping, ready):
                        task.cancel()
                    await asyncio.gather(listening, stopping, ready, return_exceptions=True)
        finally:
            if self.memory is not None:
                await self.memory.close(_LAST_TURNS_S)
            await self.toolbox.close()
            self.pacer.close()
            self._executor.shutdown(wait=False)
            log.info("arivox stopped", calls=board.served)

    async def _drain(self, listening: asyncio.Future[None]) -> None:
        """Let the calls in progress go on for a while, unless Asterisk or who stops us ends them."""
        board, longest_s = self.switchboard, self.settings.drain_s
        log.info("no more callers are taken", calls=len(board.calls), wait_s=longest_s)
        drained = asyncio.ensure_future(board.drain())
        hurried = asyncio.ensure_future(self._stop_at_once.wait())
        ends: tuple[asyncio.Future[Any], ...] = (drained, hurried)
        try:
            await asyncio.wait({listening, *ends}, timeout=longest_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)

    def choose_provider(self, name: str, where: str) -> tuple[Provider, Prompts]:
        """Return the provider of that name, or the service's own, and its prompts.

        Raises SettingsError, which names ``where`` the name stood, or the setting that it lacks.
        """
        provider = registry.find(name or self.settings.ai_service_provider, where)
        if provider.name not in self._chosen:
            if self._new_session is None:
                provider.check(self.settings)
            else:
                provider = replace(provider, new_session=self._new_session)
            loaded = prompts.load(self.settings.prompts_file, provider.sections, self.toolbox.facts)
            self._chosen[provider.name] = (provider, loaded)
        return self._chosen[provider.name]

    async def _announce(self, on_ready: Callable[[], None] | None) -> None:
        await self.switchboard.connected.wait()
        if on_ready is not None:
            on_ready()

    def _new_call(self, channel: Channel, args: Sequence[str], replaced: Channel | None) -> Call:
        context = CallContext(
            settings=self.settings,
            ari=self.ari,
            pacer=self.pacer,
            ports=self.ports,
            rtp_host=self._rtp_host,
            executor=self._executor,
            choose_provider=self.choose_provider,
            expect_channel=self.switchboard.expect_channel,
            toolbox=self.toolbox,
            connect=self.switchboard.connect,
            watchers=self._watchers,
            memory=self.memory,
        )
        return Call(channel, args, context, replaced)
