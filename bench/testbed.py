"""What every scenario stands on: Asterisk, the service, the AI, the store, and phones that call."""

from __future__ import annotations

import asyncio
import gc
import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from arivox.testing import ports
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.pacer import Pacer
from arivox.testing.phone import SipPhone
from arivox.testing.redis_server import RedisServer
from bench import process
from bench.ai import Ai
from bench.errors import BenchError
from bench.service import ServiceProcess

AGENT: Final = "700"
AGENTS: Final = {"openai": "710", "gemini": "711", "openai-live": "712"}
"""Extensions of the providers."""
ECHO: Final = "600"
_SPREAD_S: Final = 0.02  # callers do not dial in step, and so meet any phase of the packet clocks
_SETTLE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    calls: int = 10
    seconds: float = 20.0
    quick: bool = False


class Testbed:
    """Asterisk, the service and the AI, each a process of its own; an async context manager.

    ``directory`` takes the logs of the service and of the AI.
    """

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.asterisk = AsteriskInstance()
        self.ai = Ai(directory / "ai.log")
        self.store: RedisServer
        self.service: ServiceProcess
        self.dialled = 0
        """Calls made to the agent so far."""
        self.sockets_before = 0
        """UDP sockets of the service before the first call."""
        self._plan = plan
        self._directory = directory
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        self._stack.push_async_callback(asyncio.to_thread, self.asterisk.stop)
        starting = asyncio.create_task(asyncio.to_thread(self.asterisk.start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await starting  # a thread cannot be cancelled, and a half-started Asterisk not be stopped
            raise
        await self._stack.enter_async_context(self.ai)
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="arivox-bench-")))
        self.store = RedisServer(folder)
        await asyncio.to_thread(self.store.start)
        self._stack.callback(self.store.kill)
        most = 2 * self._plan.calls + 4
        first, last = ports.free_udp_range(4 * most)
        settings = {
            "ARI_URL": self.asterisk.ari_url,
            "ARI_USERNAME": self.asterisk.ari_user,
            "ARI_PASSWORD": self.asterisk.ari_password,
            **self.ai.urls,
            "MEMORY_URL": self.store.url,
            "OPENAI_API_KEY": "none-needed",
            "GEMINI_API_KEY": "none-needed",
            "MAX_CALLS": str(most),
            "RTP_SERVER_PORT": str(first),
            "RTP_SERVER_PORT_LAST": str(last),
        }
        self.service = await self._stack.enter_async_context(ServiceProcess(settings, self._directory))
        self.sockets_before = process.udp_sockets(self.service.pid)

    @asynccontextmanager
    async def calls(self, count: int, extension: str = AGENT) -> AsyncIterator[list[SipPhone]]:
        """Have ``count`` phones call ``extension``; all have been answered, and hang up at the end.

        Raise BenchError where a call is not answered.
        """
        gc.collect()
        async with AsyncExitStack() as stack:
            server = ("127.0.0.1", self.asterisk.sip_port)
            phones = [
                await stack.enter_async_context(SipPhone(server, user=f"caller{index}"))
                for index in range(count)
            ]
            Pacer.running().worst_lateness_s = 0.0
            await asyncio.gather(*(self._dial(phone, extension) for phone in phones))
            yield phones
            await asyncio.gather(*(phone.hangup() for phone in phones))
        if extension != ECHO:
            # The next calls shall not meet the end of these.
            await self.service.wait_event("call ended", count=self.dialled, timeout=_SETTLE_S)

    async def _dial(self, phone: SipPhone, extension: str) -> None:
        await asyncio.sleep(random.uniform(0, _SPREAD_S))
        self.dialled += extension != ECHO
        try:
            status = await phone.call(extension)
        except TimeoutError as error:
            raise BenchError(str(error)) from error
        if status != 200:
            raise BenchError(f"a call to {extension} was answered with SIP status {status}")
