"""Which codecs Asterisk can translate, found out by trying: ARI has no list of them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from arivox.asterisk.client import AriClient
from arivox.asterisk.codecs import in_bridge
from arivox.asterisk.messages import AnyEvent, StasisStart
from arivox.errors import AsteriskError

_WAIT_S: Final = 2.0
_SETTLED_S: Final = 0.1  # a channel that cannot be in a bridge has left it a millisecond later


async def untranslatable(ari: AriClient, codecs: Iterable[str]) -> frozenset[str]:
    """Return those codecs between which and mu-law Asterisk has no way. Raises AsteriskError.

    For each, two media channels without a caller are put into a bridge. ``ari`` needs an application of its
    own. A codec that Asterisk does not know at all, as those of pictures, is not among them.
    """
    trial = _Trial(ari)
    listening = asyncio.ensure_future(ari.listen(trial.on_event, trial.up.set))
    waiting = asyncio.ensure_future(trial.up.wait())
    try:
        first = asyncio.FIRST_COMPLETED
        await asyncio.wait({listening, waiting}, timeout=_WAIT_S, return_when=first)
        if listening.done():
            listening.result()
        if not trial.up.is_set():
            raise AsteriskError("ARI's events WebSocket does not open")
        return frozenset([codec for codec in codecs if not await trial.translates(codec)])
    finally:
        listening.cancel()
        waiting.cancel()
        await asyncio.gather(listening, waiting, return_exceptions=True)


class _Trial:
    def __init__(self, ari: AriClient) -> None:
        self.up = asyncio.Event()
        self._ari = ari
        self._entered: dict[str, asyncio.Event] = {}

    def on_event(self, event: AnyEvent) -> None:
        """Hear of a channel that has entered."""
        if isinstance(event, StasisStart) and event.channel.id in self._entered:
            self._entered[event.channel.id].set()

    async def translates(self, codec: str) -> bool:
        """Return whether two channels stay in a bridge, of which one speaks the codec."""
        ari, bridge_id = self._ari, f"arivox-doctor-{secrets.token_hex(4)}"
        theirs, ours = f"{bridge_id}-theirs", f"{bridge_id}-ours"
        try:
            try:
                await self._enter(theirs, codec)
            except AsteriskError:
                return True  # nobody can call with it
            await self._enter(ours, "ulaw")
            await ari.create_bridge(bridge_id)
            await ari.add_to_bridge(bridge_id, theirs, ours)
            await asyncio.sleep(_SETTLED_S)
            return await in_bridge(ari, bridge_id, ours) and await in_bridge(ari, bridge_id, theirs)
        finally:
            for request in (ari.hang_up(theirs), ari.hang_up(ours), ari.destroy_bridge(bridge_id)):
                with suppress(AsteriskError):
                    await request

    async def _enter(self, channel_id: str, codec: str) -> None:
        entered = self._entered[channel_id] = asyncio.Event()
        await self._ari.external_media(channel_id, "127.0.0.1", 9, codec)
        try:
            async with asyncio.timeout(_WAIT_S):
                await entered.wait()
        except TimeoutError:
            raise AsteriskError("a media channel did not enter the application") from None
