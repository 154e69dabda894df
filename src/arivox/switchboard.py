"""Every channel that enters the Stasis application: callers become calls, our own media channels are awaited,
and what nobody owns is swept.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import structlog

from arivox.asterisk.client import AriClient
from arivox.asterisk.messages import (
    AnyEvent,
    Channel,
    ChannelDestroyed,
    ChannelDtmfReceived,
    ChannelHangupRequest,
    StasisEnd,
    StasisStart,
)
from arivox.backoff import delays
from arivox.call import Call
from arivox.ending import STATUS_VARIABLE, EndReason
from arivox.errors import ArivoxError, ChannelGoneError

log = structlog.get_logger()

_OURS: Final = re.compile(r"arivox-[0-9a-f]{8}(-media)?$")
_REMEMBERED: Final = 256

NewCall = Callable[[Channel, Sequence[str]], Call]


class Switchboard:
    """Finds the call of each event. Give its methods to ``AriClient.listen``."""

    def __init__(self, ari: AriClient, new_call: NewCall, max_calls: int) -> None:
        self._ari = ari
        self._new_call = new_call
        self._max_calls = max_calls
        self._calls: dict[str, Call] = {}
        self._by_media: dict[str, Call] = {}
        self._expected: dict[str, asyncio.Future[Channel]] = {}
        # Media channels of calls that have just ended: their last events may still be on the way.
        self._ended: deque[str] = deque(maxlen=_REMEMBERED)
        self._tasks: set[asyncio.Task[None]] = set()
        self._shutting_down = False
        self.connected = asyncio.Event()
        self.served = 0

    @property
    def calls(self) -> tuple[Call, ...]:
        """Return the calls in progress."""
        return tuple(self._calls.values())

    def expect_channel(self, channel_id: str) -> asyncio.Future[Channel]:
        """Return a future of the channel's entry. Arm it before the channel is asked for."""
        future: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
        self._expected[channel_id] = future
        future.add_done_callback(lambda _: self._expected.pop(channel_id, None))
        return future

    async def shut_down(self, timeout_s: float) -> None:
        """Refuse new callers, end all calls, and wait until everything is taken down."""
        self._shutting_down = True
        for call in self.calls:
            call.end(EndReason.SHUTDOWN)
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=timeout_s)
            for task in left:
                log.error("a call did not end in time", task=task.get_name())
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    # --- AriClient.listen ---

    def on_up(self) -> None:
        """Reconcile with Asterisk: while we were away it replayed nothing."""
        log.info("connected to Asterisk", ari_url=self._ari.url, app=self._ari.app)
        self.connected.set()
        self._spawn(self._reconcile(), "reconcile")

    def on_down(self) -> None:
        """Remember that events are missing. Calls and their audio go on without them."""
        self.connected.clear()

    def on_event(self, event: AnyEvent) -> None:
        """Pass one event to where it belongs."""
        match event:
            case StasisStart(channel=channel, args=args):
                self._entered(channel, args)
            case ChannelHangupRequest(channel=channel) | StasisEnd(channel=channel):
                self._left(channel)
            case ChannelDestroyed(channel=channel):
                self._left(channel)
            case ChannelDtmfReceived(channel=channel, digit=digit):
                call = self._calls.get(channel.id)
                if call is not None:
                    call.dtmf(digit)
            case _:
                pass

    # --- inside ---

    def _entered(self, channel: Channel, args: Sequence[str]) -> None:
        expected = self._expected.get(channel.id)
        if expected is not None:
            if not expected.done():
                expected.set_result(channel)
        elif _OURS.match(channel.id):
            if channel.id not in self._by_media and channel.id not in self._ended:
                self._spawn(self._sweep_channel(channel.id), f"sweep {channel.id}")
        elif (call := self._calls.get(channel.id)) is None or call.released:
            # A released channel may come back: a transfer, or a dialplan that tries again.
            self._admit(channel, args)

    def _left(self, channel: Channel) -> None:
        if (call := self._calls.get(channel.id)) is not None:
            call.caller_gone()
        elif (call := self._by_media.get(channel.id)) is not None:
            call.media_gone()

    def _admit(self, channel: Channel, args: Sequence[str]) -> None:
        if self._shutting_down or len(self._calls) >= self._max_calls:
            reason = EndReason.SHUTDOWN if self._shutting_down else EndReason.BUSY
            log.warning("a caller is sent on to the dialplan", reason=reason.value, calls=len(self._calls))
            self._spawn(self._refuse(channel.id, reason), f"refuse {channel.id}")
            return
        call = self._new_call(channel, args)
        self._calls[channel.id] = call
        self._by_media[call.media_id] = call
        self.served += 1
        self._spawn(self._run(call), f"call {call.id}")

    async def _run(self, call: Call) -> None:
        try:
            await call.run()
        finally:
            if self._calls.get(call.channel.id) is call:
                del self._calls[call.channel.id]
            self._by_media.pop(call.media_id, None)
            self._ended.append(call.media_id)
            if (expected := self._expected.pop(call.media_id, None)) is not None:
                expected.cancel()

    async def _refuse(self, channel_id: str, reason: EndReason) -> None:
        try:
            await self._ari.set_variable(channel_id, STATUS_VARIABLE, reason.value)
            await self._ari.continue_in_dialplan(channel_id)
        except ChannelGoneError:
            pass  # hung up meanwhile
        except ArivoxError as error:
            log.error("could not send a caller on to the dialplan", error=str(error))

    async def _reconcile(self) -> None:
        for delay in delays(0.2, 5.0):
            # Callers who enter while the answer is on its way are not in it.
            before = dict(self._calls)
            try:
                held = await self._ari.application()
                break
            except ArivoxError as error:
                log.error("could not ask Asterisk for our calls; trying again", error=str(error))
            await asyncio.sleep(delay)
            if not self.connected.is_set():
                return  # the next connection asks again
        present = set(held.channel_ids)
        for channel_id, call in before.items():
            if channel_id not in present:
                log.info("a caller left while Asterisk was out of reach", call=call.id)
                call.caller_gone()
        bridges = {call.bridge_id for call in self._calls.values()}
        for channel_id in held.channel_ids:
            if _OURS.match(channel_id):
                if channel_id not in self._by_media and channel_id not in self._expected:
                    await self._sweep_channel(channel_id)
            elif channel_id not in self._calls:
                await self._adopt(channel_id)
        for bridge_id in held.bridge_ids:
            if _OURS.match(bridge_id) and bridge_id not in bridges:
                log.warning("sweeping an orphaned bridge", bridge=bridge_id)
                await self._swept(self._ari.destroy_bridge(bridge_id))

    async def _adopt(self, channel_id: str) -> None:
        """Serve a caller who waits in the application and whom nobody serves."""
        try:
            channel = await self._ari.channel(channel_id)
        except ArivoxError as error:
            log.debug("a channel of the application is gone", channel=channel_id, error=str(error))
            return
        if channel_id not in self._calls:
            log.warning("a caller was left alone; serving them", channel=channel.id)
            self._admit(channel, ())

    async def _sweep_channel(self, channel_id: str) -> None:
        log.warning("sweeping an orphaned media channel", channel=channel_id)
        await self._swept(self._ari.hang_up(channel_id))

    async def _swept(self, request: Coroutine[Any, Any, None]) -> None:
        try:
            await request
        except ChannelGoneError:
            pass  # it ended by itself
        except ArivoxError as error:
            log.error("could not sweep", error=str(error))

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the switchboard failed", task=task.get_name(), exc_info=error)
