"""What can be done with the legs of one call: hold the caller, dial somebody else, let them hear each other.

The caller and the AI's media channel are in one bridge. Who is on hold is taken out of it, so that neither
hears the other; who is dialled comes into it once the caller has left it, or with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import structlog

from arivox.asterisk.client import AriClient
from arivox.asterisk.messages import Channel
from arivox.asterisk.persist import attempt
from arivox.call.caller import Caller
from arivox.errors import AsteriskError, ChannelGoneError
from arivox.settings.destination import Destination

log = structlog.get_logger()

Answer = Literal["answered", "busy", "no_answer", "failed", "stopping"]
Sound = Literal["music", "ringing"]

HTTP_REFUSED: Final = 500
"""Asterisk's answer where it makes no channel."""

_BUSY: Final = frozenset({17})
_NO_ANSWER: Final = frozenset({0, 16, 18, 19, 20, 21, 31, 102})
_NO_COMMON_CODEC: Final = frozenset({58, 88})
_MARGIN_S: Final = 3.0  # Asterisk itself gives up after the time to ring
_HANG_UP_PAUSES_S: Final = (0.2, 0.5, 0.0)


class Legs:
    """The legs of one call. Every verb but ``drop`` raises AsteriskError."""

    def __init__(
        self,
        ari: AriClient,
        caller: Caller,
        call_id: str,
        expect_channel: Callable[[str], asyncio.Future[Channel]],
    ) -> None:
        self.bridge_id = f"arivox-{call_id}"
        self.media_id = f"arivox-{call_id}-media"
        self.on_hold = False
        self.untidy = False
        """Somebody who was dialled could not be hung up."""
        self._media_away = False
        self._ari = ari
        self._caller = caller
        self._expect_channel = expect_channel
        self._dialled = 0
        self._probes = 0
        self._out = ""  # the channel of the party that was dialled
        self._out_made: asyncio.Future[Channel] | None = None
        self._out_gone: asyncio.Future[int] | None = None
        self._rings = 0
        self._ringing = ""  # the playback that the caller may hear

    @property
    def media_away(self) -> bool:
        """Return whether we took the AI's media channel out of the bridge."""
        return self._media_away

    @property
    def out_id(self) -> str:
        """Return the channel of the party that was dialled; empty when there is none."""
        return self._out

    @property
    def out_made(self) -> bool:
        """Return whether Asterisk has made that channel."""
        made = self._out_made
        return bool(self._out and made and made.done() and not made.cancelled() and not made.exception())

    async def hold(self, sound: Sound, music: str) -> None:
        """Take the caller out of the bridge, and let them hear something meanwhile."""
        if self.on_hold:
            return
        # Before the requests: Asterisk may do what it never answers.
        self.on_hold = True
        await self._ari.remove_from_bridge(self.bridge_id, self._caller.id)
        if not self._caller.present:
            return
        if sound == "music":
            await self._ari.start_music(self._caller.id, music)
        else:
            self._rings += 1
            self._ringing = f"{self.bridge_id}-ring{self._rings}"
            await self._ari.play(self._caller.id, "tone:ring", self._ringing)

    async def unhold(self) -> None:
        """Bring the caller back into the bridge."""
        if not self.on_hold or not self._caller.present:
            return
        if self._ringing:
            await self.stop_ringing()
        else:
            await self._gone_is_fine(self._ari.stop_music(self._caller.id))
        if self._caller.present:  # they may have come back meanwhile, into another call
            await self._ari.add_to_bridge(self.bridge_id, self._caller.id)
            self.on_hold = False

    async def stop_ringing(self) -> None:
        """Stop what the caller hears while somebody is dialled; until then they cannot be sent anywhere."""
        if self._ringing and self._caller.present:
            await self._gone_is_fine(self._ari.stop_playback(self._ringing))
            self._ringing = ""

    async def take_back(self) -> None:
        """Let the caller and the AI hear each other again, whatever was under way."""
        await self.drop()
        if self._media_away:
            await self._ari.add_to_bridge(self.bridge_id, self.media_id)
            self._media_away = False
        await self.unhold()

    async def dial(self, destination: Destination, number: str, caller_id: str, ring_s: float) -> Answer:
        """Dial, and return how it was answered. An answered party waits in no bridge."""
        self._dialled += 1
        out = f"arivox-{self.bridge_id.removeprefix('arivox-')}-out{self._dialled}"
        entered = self._expect_channel(out)
        gone: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._out, self._out_gone = out, gone
        made = self._out_made = asyncio.ensure_future(
            self._ari.originate(
                out,
                destination.dial_string(number),
                caller_id=caller_id,
                originator=self._caller.id,
                timeout_s=ring_s,
            )
        )
        made.add_done_callback(_made)
        try:
            await asyncio.shield(made)
            async with asyncio.timeout(ring_s + _MARGIN_S):
                await asyncio.wait((entered, gone), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            await self.drop()
            return "no_answer"
        except AsteriskError as error:
            await self.drop()  # a channel may have been made nevertheless
            if error.status == HTTP_REFUSED and await self._stopping():
                log.warning(
                    "could not dial: a stop or restart of Asterisk is pending", destination=destination.name
                )
                return "stopping"
            log.warning("could not dial", destination=destination.name, error=str(error))
            return "failed"
        finally:
            entered.cancel()
        if not gone.done():
            return "answered"
        self._out = ""
        cause = gone.result()
        if cause in _NO_COMMON_CODEC:
            log.warning(
                "who was dialled has no codec in common with the caller that Asterisk can translate",
                destination=destination.name,
                hint="see allow= of their endpoint, and core show translation",
            )
        log.info("nobody answered", destination=destination.name, cause=cause)
        return "busy" if cause in _BUSY else "no_answer" if cause in _NO_ANSWER else "failed"

    async def _stopping(self) -> bool:
        """Return whether Asterisk makes no channels at all; of an unknown endpoint it says the same."""
        self._probes += 1
        probe = f"{self.bridge_id}-probe{self._probes}"
        try:
            await self._ari.external_media(probe, "127.0.0.1", 9, "ulaw")
        except AsteriskError as error:
            return error.status == HTTP_REFUSED
        await attempt("hang a probe up", self._ari.hang_up(probe))
        return False

    def leg_gone(self, channel_id: str, cause: int) -> None:
        """Hear that a channel of ours left Asterisk."""
        if channel_id == self._out and self._out_gone is not None and not self._out_gone.done():
            self._out_gone.set_result(cause)

    def out_replaced(self, channel_id: str) -> None:
        """Hear that another channel stands in the place of the dialled party's."""
        self._out = channel_id

    @property
    def out_gone(self) -> bool:
        """Return whether the party that was dialled has hung up."""
        return self._out_gone is not None and self._out_gone.done()

    async def whisper(self) -> None:
        """Let the party that was dialled and the AI hear each other; the caller is on hold."""
        await self._ari.add_to_bridge(self.bridge_id, self._out)

    async def connect(self) -> None:
        """Let caller and dialled party hear each other, and not the AI."""
        self._media_away = True
        await self._gone_is_fine(self._ari.remove_from_bridge(self.bridge_id, self.media_id))
        await self._ari.add_to_bridge(self.bridge_id, self._out)
        await self.unhold()

    async def drop(self) -> None:
        """Hang up who was dialled, if anybody. Where that fails, or is broken off, ``untidy`` is set."""
        out, self._out = self._out, ""
        if not out:
            return
        untidy, self.untidy = self.untidy, True
        if self._out_made is not None and not self._out_made.done():
            await asyncio.wait([self._out_made])  # to hang up must not overtake it
        # More than once: in the bridge they would hear what is not for them.
        for pause in _HANG_UP_PAUSES_S:
            if await attempt("hang the dialled party up", self._ari.hang_up(out)):
                self.untidy = untidy
                return
            await asyncio.sleep(pause)
        await attempt("part the dialled party", self._ari.remove_from_bridge(self.bridge_id, out))

    async def send_dtmf(self, digits: str) -> None:
        """Press keys towards the caller's side."""
        await self._ari.send_dtmf(self._caller.id, digits)

    async def _gone_is_fine(self, request: Awaitable[None]) -> None:
        try:
            await request
        except ChannelGoneError:
            pass  # it ended by itself


def _made(request: asyncio.Future[Channel]) -> None:
    # Nobody else may be left to hear of it.
    if not request.cancelled() and (error := request.exception()):
        log.debug("nobody was dialled", error=str(error))
