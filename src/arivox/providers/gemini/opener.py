"""Opens the connections of a session: how long an attempt may take, and what helps after a refusal."""

from __future__ import annotations

import asyncio
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
        self._refusals = 0
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
        limit_s = min(_RESUME_S, self._timeout_s / 3) if handle else self._timeout_s
        try:
            await connection.open(url, headers, setup, limit_s)
        except SetupRefusedError as error:
            self._refused(error, handle, beside=beside)
            raise
        except ProviderError as error:
            if handle and error.code == "timeout":
                error.code = "connect"  # it was given less time than there is
            raise
        if history:
            connection.send(protocol.history(history, self._traits))
        return connection

    def _refused(self, error: SetupRefusedError, handle: str, *, beside: bool) -> None:
        """See what another attempt needs: ``connect`` is the code of an error after which one is made."""
        if handle:
            if not beside or error.code in HANDLE_GONE:
                self.resumption.refused(error.code)
                error.code = "connect"
        elif self._taken and not beside and error.code not in LASTING:
            # The service has taken the like of it before.
            self._refusals += 1
            if self._refusals < _MOST_REFUSALS:
                error.code = "connect"
