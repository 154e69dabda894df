"""Opens the connections of a session: how long an attempt may take, and what helps after a refusal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from arivox.errors import ProviderError
from arivox.providers.base import Brief, Utterance
from arivox.providers.gemini import protocol
from arivox.providers.gemini.closes import HANDLE_GONE, SetupRefusedError
from arivox.providers.gemini.connection import Connection
from arivox.providers.gemini.endpoint import Endpoint
from arivox.providers.gemini.models import Traits
from arivox.providers.gemini.protocol import PROVIDER, SetupOptions
from arivox.providers.gemini.resumption import Resumption
from arivox.providers.opening import open_in_time
from arivox.providers.refusal import LASTING
from arivox.settings.settings import Settings

_RESUME_S: Final = 2.0  # a session that is taken up answers in less than one
_NEW_S: Final = (
    1.5  # nor does a new one in mid-call take longer: the caller waits, and the next attempt may do
)
_SLOWER: Final = 3.0  # times what the first one took, at a service that is slow
_MOST_REFUSALS: Final = 3  # of new sessions, in mid-call


class Opener:
    """Makes connections that are set up.

    ``connection`` makes one that is not open; ``brief`` and ``history`` are what its session is told then.
    """

    def __init__(
        self,
        settings: Settings,
        options: SetupOptions,
        traits: Traits,
        connection: Callable[[str, Brief], Connection],
        brief: Callable[[], Brief],
        history: Callable[[], Sequence[Utterance]],
    ) -> None:
        self.resumption = Resumption()
        self._endpoint = Endpoint(settings)
        self._timeout_s = settings.provider_connect_timeout_s
        self._options = options
        self._traits = traits
        self._connection = connection
        self._brief = brief
        self._history = history
        self._taken = False  # the service has taken a session of this call
        self._took_s = 0.0  # so long at most
        self._hung = 0  # new sessions in a row whose set-up was not answered
        self._refusals = 0  # in a row, since then

    async def open(self, *, beside: bool = False) -> Connection:
        """Return a connection that is set up; attempts are made while time allows. Raises ProviderError.

        ``beside`` another one a refusal is told at once: the service may take the session up only when the
        other is closed.
        """
        opened: list[Connection] = []

        async def attempt() -> None:
            opened.append(await self._attempt(beside=beside))

        if beside:
            opened.append(await self._beside())
        else:
            await open_in_time(PROVIDER, self._timeout_s, attempt)
        self._taken = True
        self._refusals = self._hung = 0
        return opened[0]

    async def _beside(self) -> Connection:
        try:
            async with asyncio.timeout(self._timeout_s):
                handle = self.resumption.handle
                try:
                    return await self._attempt(beside=True)
                except SetupRefusedError:
                    if self.resumption.handle == handle:
                        raise
                return await self._attempt(beside=True)  # a new session
        except TimeoutError:
            raise ProviderError(
                PROVIDER, f"no session within {self._timeout_s:g} s", code="timeout"
            ) from None

    async def _attempt(self, *, beside: bool) -> Connection:
        handle, brief = self.resumption.handle, self._brief()
        url, headers = await self._endpoint.open()
        history = () if handle else tuple(self._history())
        seeded = bool(history) and self._traits.seeded_history
        connection = self._connection(handle, brief)
        setup = protocol.setup(self._options, self._traits, brief, handle, seeded=seeded)
        limit_s = self._limit_s(handle)
        begun = time.monotonic()
        try:
            await connection.open(url, headers, setup, limit_s)
        except SetupRefusedError as error:
            self._refused(error, handle, beside=beside)
            if error.code == "timeout" and limit_s < self._timeout_s:
                error.code = "connect"  # it was given less time than there is
            raise
        except ProviderError as error:
            if error.code == "timeout" and limit_s < self._timeout_s:
                error.code = "connect"
            raise
        self._took_s = max(self._took_s, time.monotonic() - begun)
        if history:
            connection.send(protocol.history(history, self._traits))
        return connection

    def _limit_s(self, handle: str) -> float:
        """Return how long the next attempt may take."""
        usual = _RESUME_S if handle else _NEW_S
        if not handle and (not self._taken or self._hung):
            return self._timeout_s
        return min(max(usual, _SLOWER * self._took_s), self._timeout_s / 3)

    def _refused(self, error: SetupRefusedError, handle: str, *, beside: bool) -> None:
        """See what another attempt needs: ``connect`` is the code of an error after which one is made."""
        if handle:
            if not beside or error.code in HANDLE_GONE:
                self.resumption.refused(error.code)
                error.code = "connect"
        elif error.code == "timeout":
            self._hung += 1
        elif self._taken and not beside and error.code not in LASTING:
            # The service has taken the like of it before.
            self._refusals += 1
            if self._refusals < _MOST_REFUSALS:
                error.code = "connect"
