"""The release of a caller: hung up, or given back to the dialplan, however long Asterisk is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import structlog

from arivox.asterisk.client import AriClient
from arivox.asterisk.persist import attempt, insist
from arivox.call.caller import Caller
from arivox.call.ending import STATUS_VARIABLE, EndReason
from arivox.call.legs import Legs
from arivox.errors import ArivoxError
from arivox.settings.settings import Settings

log = structlog.get_logger()

_FAILURE_MEDIA_S: Final = 2.0


class Release:
    """The release of one call's caller, and of what stands in Asterisk for the call."""

    def __init__(self, settings: Settings, ari: AriClient, caller: Caller, legs: Legs) -> None:
        self.untidy = False
        """Something may be left in Asterisk."""
        self._settings = settings
        self._ari = ari
        self._caller = caller
        self._legs = legs

    async def take_down(self, *, connected: bool) -> None:
        """Take down the bridge and the media channel; ``connected``: others talk in the bridge."""
        legs = self._legs
        if not connected:
            await legs.drop()
            await self._try("take the bridge down", self._ari.destroy_bridge(legs.bridge_id))
        await self._try("take the media channel down", self._ari.hang_up(legs.media_id))

    async def let_go(self, reason: EndReason, *, explain: bool) -> None:
        """Let the caller go, unless they are no longer ours. ``explain``: they have spoken with the agent."""
        if self._caller.released:
            return
        await self._insist("stop the ringing", self._legs.stop_ringing)
        # A call that never spoke goes on in the dialplan at once: there is nothing to explain.
        audible = explain and reason.failure and reason is not EndReason.SHUTDOWN
        if audible and self._caller.present and self._settings.failure_media != "none":
            await self._play_failure()
        if reason.failure or self._settings.after_call == "continue":
            await self._insist("set the status", lambda: self._set_status(reason))
            self._caller.let_go = True
            await self._insist("go on in the dialplan", self._send_on)
        else:
            self._caller.let_go = True
            await self._insist("hang up", lambda: self._ari.hang_up(self._caller.id))

    async def _send_on(self) -> None:
        place = self._caller.place
        if place is None:
            await self._ari.continue_in_dialplan(self._caller.id)
        else:
            await self._ari.continue_in_dialplan(self._caller.id, place.context, place.exten, place.priority)

    async def _set_status(self, reason: EndReason) -> None:
        await self._ari.set_variable(self._caller.id, STATUS_VARIABLE, reason.value)

    async def _play_failure(self) -> None:
        playback_id = f"{self._legs.bridge_id}-failure"
        try:
            await self._ari.play(self._caller.id, self._settings.failure_media, playback_id)
        except ArivoxError as error:
            log.warning("could not play", setting="FAILURE_MEDIA", error=str(error))
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FAILURE_MEDIA_S):
                    await self._caller.wait_gone()
        # After a failure too: it may play, and the caller cannot be sent on before it has stopped.
        await self._insist("stop the sound", lambda: self._ari.stop_playback(playback_id))

    async def _insist(self, what: str, request: Callable[[], Awaitable[None]]) -> None:
        """Make a request until Asterisk has heard it: without it the caller would sit in silence."""
        if not await insist(what, request, lambda: self._caller.present):
            self.untidy = True

    async def _try(self, what: str, request: Awaitable[None]) -> None:
        if not await attempt(what, request):
            self.untidy = True
