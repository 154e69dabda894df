"""The set-up of a call: what Asterisk tells of it, and what is made for it in Asterisk."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import structlog

from arivox.asterisk.messages import Channel
from arivox.audio.format import ALAW, ULAW, AudioFormat
from arivox.call.caller import Caller
from arivox.call.context import CallContext
from arivox.call.legs import HTTP_REFUSED, Legs
from arivox.call.timeline import Timeline
from arivox.conversation.prompts import Prompts
from arivox.conversation.state import CHANNEL
from arivox.errors import AsteriskError, ChannelGoneError
from arivox.media.rtp.link import RtpLink
from arivox.providers.registry import Provider

log = structlog.get_logger()

T = TypeVar("T")

_LOOK_S: Final = 0.05
_AWAY: Final = frozenset({"Down", "Dialing", "Ringing"})
"""States of a channel at whose far end a telephone is called: it answers itself."""

_NO_CHANNEL: Final = (
    "Is a stop or restart of Asterisk pending (core stop gracefully)? It makes no new channels then. "
    "If not: is chan_rtp loaded?"
)

PROVIDER_ARGUMENT: Final = "provider="
PROVIDER_VARIABLE: Final = "ARIVOX_PROVIDER"


class Setup:
    """The set-up of one call. ``args`` are those of ``Stasis()``."""

    def __init__(
        self,
        call_id: str,
        caller: Caller,
        args: Sequence[str],
        context: CallContext,
        legs: Legs,
        timeline: Timeline,
        replaced: Channel | None = None,
    ) -> None:
        """``replaced``: in whose place the caller is; what the dialplan has set is that channel's."""
        self._call_id = call_id
        self._caller = caller
        self._args = tuple(args)
        self._context = context
        self._settings = context.settings
        self._ari = context.ari
        self._legs = legs
        self._timeline = timeline
        self._replaced = replaced
        self._creating: set[asyncio.Task[Any]] = set()

    # --- what Asterisk tells ---

    async def audio(self) -> AudioFormat:
        """Return what the media link speaks: the caller's own law, or that of the settings."""
        codec = self._settings.audio_codec
        if codec == "auto":
            native = await self._ari.variable(self._caller.id, "CHANNEL(audionativeformat)")
            # With several codecs agreed on, the first is the one in use.
            codec = "alaw" if native.strip("()").split("|")[0] == "alaw" else "ulaw"
        return ALAW if codec == "alaw" else ULAW

    async def provider(self) -> tuple[Provider, Prompts]:
        """Return the AI of this call: by the argument of Stasis(), the channel variable, or the settings."""
        for argument in self._args:
            if argument.strip().lower().startswith(PROVIDER_ARGUMENT):
                return self._context.choose_provider(argument.strip()[len(PROVIDER_ARGUMENT) :], argument)
        name = await self._variable(PROVIDER_VARIABLE)
        return self._context.choose_provider(name, PROVIDER_VARIABLE)

    async def variables(self, prompts: Prompts) -> dict[str, str]:
        """Return what the prompts may speak of from the start."""
        channel = self._caller.channel
        names = prompts.channel_variables
        values = await asyncio.gather(*(self._variable(name) for name in names))
        return {
            "call.id": self._call_id,
            "call.exten": channel.dialplan.exten,
            "caller.number": channel.caller.number,
            "caller.name": channel.caller.name,
            **{f"{CHANNEL}{name}": value for name, value in zip(names, values, strict=True)},
        }

    async def _variable(self, name: str) -> str:
        value = await self._ari.variable(self._caller.id, name)
        if not value and self._replaced is not None:
            with suppress(ChannelGoneError):  # their telephone may have hung up
                value = await self._ari.variable(self._replaced.id, name)
        return value

    # --- what is made ---

    async def ring(self) -> None:
        """Let the caller's telephone ring; somebody who is being called themselves is not told."""
        if self._caller.channel.state not in _AWAY:
            await self._ari.ring(self._caller.id)

    async def media(self, link: RtpLink, audio: AudioFormat) -> None:
        """Answer, make the media channel and the bridge, and join the two. Raises AsteriskError."""
        ari, legs = self._ari, self._legs
        await self._lifted()
        entered = self._context.expect_channel(legs.media_id)
        _, external, _ = await asyncio.gather(
            self._create(self._answer()),
            self._create(self._external(link, audio)),
            self._create(ari.create_bridge(legs.bridge_id)),
        )
        link.expect(self._asterisk_address(external))
        try:
            async with asyncio.timeout(self._settings.ari_request_timeout_s):
                await entered
        except TimeoutError:
            raise AsteriskError(
                "the media channel did not enter the application", hint="Is res_stasis loaded?"
            ) from None
        await self._create(ari.add_to_bridge(legs.bridge_id, self._caller.id, legs.media_id))

    async def _lifted(self) -> None:
        """Return once there is somebody to answer: who takes somebody's place may not be there yet."""
        state = self._caller.channel.state
        while state in _AWAY:
            await asyncio.sleep(_LOOK_S)
            state = (await self._ari.channel(self._caller.id)).state

    async def settled(self) -> None:
        """Return once every request is answered that makes something in Asterisk."""
        if self._creating:
            await asyncio.wait(self._creating)

    async def _external(self, link: RtpLink, audio: AudioFormat) -> Channel:
        try:
            return await self._ari.external_media(
                self._legs.media_id, self._context.rtp_host, link.port, audio.name
            )
        except AsteriskError as error:
            if error.status != HTTP_REFUSED:
                raise
            raise AsteriskError(
                "Asterisk makes no media channel",
                status=error.status,
                request=error.request,
                hint=_NO_CHANNEL,
            ) from error

    async def _answer(self) -> None:
        await self._ari.answer(self._caller.id)
        self._timeline.add("call.answered")

    def _asterisk_address(self, external: Channel) -> tuple[str, int] | None:
        if self._settings.rtp_source_check == "learn":
            return None
        if external.rtp_address is None:
            log.warning("Asterisk did not name its RTP address; the first sender is accepted")
        return external.rtp_address

    def _create(self, request: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Begin a request whose effect must not be lost sight of: it is awaited even if we are cancelled."""
        task = asyncio.ensure_future(request)
        self._creating.add(task)
        task.add_done_callback(self._created)
        return asyncio.shield(task)

    def _created(self, task: asyncio.Task[Any]) -> None:
        self._creating.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("a request of the set-up failed", error=str(error))
