"""Every channel that enters the Stasis application: callers become calls, our own media channels are awaited,
and what nobody owns is swept.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
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
from arivox.asterisk.persist import persist
from arivox.backoff import delays
from arivox.call import Call
from arivox.ending import STATUS_VARIABLE, EndReason
from arivox.errors import ArivoxError, ChannelGoneError

log = structlog.get_logger()

_OURS: Final = re.compile(r"(arivox-[0-9a-f]{8})(-media|-out\d+)?$")
_OUT: Final = re.compile(r"arivox-[0-9a-f]{8}-out\d+$")
_REMEMBERED: Final = 256
# The event of a caller who has just come in may be on its way when Asterisk already lists them.
_ON_THE_WAY_S: Final = 0.3
_BREAK_OFF_S: Final = 3.0

NewCall = Callable[[Channel, Sequence[str]], Call]


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two channels that talk to each other in a bridge."""

    bridge_id: str
    channel_ids: tuple[str, ...]


class Switchboard:
    """Finds the call of each event. Give its methods to ``AriClient.listen``."""

    def __init__(self, ari: AriClient, new_call: NewCall, max_calls: int) -> None:
        self._ari = ari
        self._new_call = new_call
        self._max_calls = max_calls
        self._calls: dict[str, Call] = {}
        self._by_name: dict[str, Call] = {}  # by what the names of its bridge and channels begin with
        self._pairs: dict[str, _Pair] = {}  # by both channels
        self._expected: dict[str, asyncio.Future[Channel]] = {}
        # Media channels of calls that have just ended: their last events may still be on the way.
        self._ended: deque[str] = deque(maxlen=_REMEMBERED)
        # Callers who have left, or whom Asterisk was told to let go: a list that it made before may still be
        # on the way, even when the event of their leave has come.
        self._let_go: deque[str] = deque(maxlen=_REMEMBERED)
        self._tasks: set[asyncio.Task[None]] = set()
        self._shutting_down = False
        self._call_ended = asyncio.Event()
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

    def connect(self, bridge_id: str, *channel_ids: str) -> None:
        """Take over a bridge whose channels talk to each other: when one leaves, the other is hung up.

        Such a pair goes on talking when we stop, and is found again when we come back.
        """
        pair = _Pair(bridge_id, channel_ids)
        for channel_id in channel_ids:
            self._pairs[channel_id] = pair

    @property
    def pairs(self) -> int:
        """Return how many pairs of connected parties there are."""
        return len({pair.bridge_id for pair in self._pairs.values()})

    def refuse_callers(self) -> None:
        """Send every new caller on to the dialplan from now on."""
        self._shutting_down = True

    async def drain(self) -> None:
        """Return once the calls in progress have ended."""
        while self._calls:
            self._call_ended.clear()
            await self._call_ended.wait()

    async def shut_down(self, timeout_s: float) -> None:
        """Refuse new callers, end all calls, and wait until everything is taken down.

        What has not ended after ``timeout_s`` is broken off, and given three seconds more.
        """
        self.refuse_callers()
        for call in self.calls:
            call.end(EndReason.SHUTDOWN)
        give_up = time.monotonic() + timeout_s
        while self._tasks and (left_s := give_up - time.monotonic()) > 0:
            await asyncio.wait(self._tasks, timeout=left_s)
        left = set(self._tasks)
        for task in left:
            log.error("a call did not end in time", task=task.get_name())
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_BREAK_OFF_S)

    # --- AriClient.listen ---

    def on_up(self) -> None:
        """Reconcile with Asterisk: while we were away it replayed nothing."""
        log.info("connected to Asterisk", ari_url=self._ari.url, app=self._ari.app)
        self.connected.set()
        self._spawn(self._reconcile(), "reconcile")

    def on_down(self) -> None:
        """Remember that events are missing. Calls and their audio go on without them."""
        self.connected.clear()
        self._let_go.clear()  # who comes back is not told any more

    def on_event(self, event: AnyEvent) -> None:
        """Pass one event to where it belongs."""
        match event:
            case StasisStart(channel=channel, args=args):
                self._entered(channel, args)
            case ChannelHangupRequest(channel=channel, cause=cause):
                self._left(channel, cause or None)
            case StasisEnd(channel=channel):
                self._left(channel, 0)
            case ChannelDestroyed(channel=channel, cause=cause):
                self._left(channel, cause)
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
        elif _OUT.match(channel.id):
            # Answered at the moment when it was given up.
            self._spawn(self._sweep_channel(channel.id), f"sweep {channel.id}")
        elif _OURS.match(channel.id):
            if self._owner(channel.id) is None and not self._known_end(channel.id):
                self._spawn(self._sweep_channel(channel.id), f"sweep {channel.id}")
        elif (call := self._calls.get(channel.id)) is None or call.released:
            # A released channel may come back: a transfer, or a dialplan that tries again.
            self._admit(channel, args)

    def _left(self, channel: Channel, cause: int | None) -> None:
        if (pair := self._pairs.get(channel.id)) is not None:
            self._part(pair, channel.id)
        if (call := self._calls.get(channel.id)) is not None:
            call.caller_gone()
        elif (call := self._owner(channel.id)) is not None and (
            # Why a leg was not answered stands in its last event, if the far end has not said it before.
            channel.id == call.media_id or cause is not None
        ):
            call.leg_gone(channel.id, cause or 0)

    def _owner(self, name: str) -> Call | None:
        """Return the call that made a channel or a bridge of ours."""
        ours = _OURS.match(name)
        return self._by_name.get(ours[1]) if ours is not None else None

    def _known_end(self, name: str) -> bool:
        ours = _OURS.match(name)
        return ours is not None and ours[1] in self._ended

    def _part(self, pair: _Pair, left: str) -> None:
        """One of two who talked with each other has hung up."""
        for channel_id in pair.channel_ids:
            self._pairs.pop(channel_id, None)
        others = [channel_id for channel_id in pair.channel_ids if channel_id != left]
        log.info("a transferred call is over", bridge=pair.bridge_id)
        self._spawn(self._take_down(pair.bridge_id, others), f"part {pair.bridge_id}")

    async def _take_down(self, bridge_id: str, channel_ids: Sequence[str]) -> None:
        for channel_id in channel_ids:
            await self._swept(self._ari.hang_up(channel_id))
        await self._swept(self._ari.destroy_bridge(bridge_id))

    def _admit(self, channel: Channel, args: Sequence[str]) -> None:
        if self._shutting_down or len(self._calls) >= self._max_calls:
            reason = EndReason.SHUTDOWN if self._shutting_down else EndReason.BUSY
            log.warning("a caller is sent on to the dialplan", reason=reason.value, calls=len(self._calls))
            self._spawn(self._refuse(channel.id, reason), f"refuse {channel.id}")
            return
        call = self._new_call(channel, args)
        self._calls[channel.id] = call
        self._by_name[call.bridge_id] = call
        self.served += 1
        self._spawn(self._run(call), f"call {call.id}")

    async def _run(self, call: Call) -> None:
        try:
            await call.run()
        finally:
            if self._calls.get(call.channel.id) is call:
                del self._calls[call.channel.id]
            self._call_ended.set()
            self._by_name.pop(call.bridge_id, None)
            self._ended.append(call.bridge_id)
            self._let_go.append(call.channel.id)
            if call.untidy and self.connected.is_set():
                self._spawn(self._reconcile(), "reconcile")
            for name in [name for name in self._expected if name.startswith(call.bridge_id)]:
                self._expected.pop(name).cancel()

    async def _refuse(self, channel_id: str, reason: EndReason) -> None:
        async def send_on() -> None:
            await self._ari.set_variable(channel_id, STATUS_VARIABLE, reason.value)
            await self._ari.continue_in_dialplan(channel_id)

        self._let_go.append(channel_id)
        try:
            await persist("refuse a caller", send_on, lambda: channel_id not in self._calls)
        except ChannelGoneError:
            pass  # hung up meanwhile
        except ArivoxError as error:
            log.error("could not send a caller on to the dialplan", error=str(error))

    async def _reconcile(self) -> None:
        # Unlike ``persist`` after refusals too: nobody else would find who was left.
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
        for pair in set(self._pairs.values()):
            if left := next((one for one in pair.channel_ids if one not in present), None):
                self._part(pair, left)
        for bridge_id in self._orphaned(held.bridge_ids):
            if not await self._find_pair(bridge_id):
                return  # the next connection asks again
        for channel_id, call in before.items():
            if channel_id not in present:
                if not call.released:
                    log.info("a caller left while Asterisk was out of reach", call=call.id)
                call.caller_gone()
        alone = []
        for channel_id in held.channel_ids:
            if channel_id in self._pairs:
                continue
            if _OURS.match(channel_id):
                if self._owner(channel_id) is None and channel_id not in self._expected:
                    await self._sweep_channel(channel_id)
            elif channel_id not in self._calls:
                alone.append(channel_id)
        for bridge_id in self._orphaned(held.bridge_ids):
            log.warning("sweeping an orphaned bridge", bridge=bridge_id)
            await self._swept(self._ari.destroy_bridge(bridge_id))
        if alone:
            await asyncio.sleep(_ON_THE_WAY_S)
        for channel_id in alone:
            self._spawn(self._adopt(channel_id), f"adopt {channel_id}")

    def _orphaned(self, bridge_ids: Sequence[str]) -> list[str]:
        """Return those of our bridges that belong to no call, and in which nobody talks as far as we know."""
        talking = {pair.bridge_id for pair in self._pairs.values()}
        ours = (bridge_id for bridge_id in bridge_ids if _OURS.match(bridge_id))
        return [one for one in ours if self._owner(one) is None and one not in talking]

    async def _find_pair(self, bridge_id: str) -> bool:
        """Take a bridge over in which a caller still talks to whom they were transferred to.

        Return whether it is known now what the bridge is: to take it for an orphan would cut them off.
        """
        try:
            bridge = await persist(
                "look into a bridge", lambda: self._ari.bridge(bridge_id), self.connected.is_set
            )
        except ArivoxError as error:
            log.debug("a bridge is gone", bridge=bridge_id, error=str(error))
            return True
        if bridge is None:
            return False
        ours = [member for member in bridge.channels if _OURS.match(member)]
        # With our media channel it is the AI that talks to a colleague: nobody goes on with that.
        if len(bridge.channels) == 2 and len(ours) == 1 and _OUT.match(ours[0]):
            log.info("a transferred call goes on", bridge=bridge_id)
            self.connect(bridge_id, *bridge.channels)
        return True

    async def _adopt(self, channel_id: str) -> None:
        """Serve a caller who waits in the application and whom nobody serves."""
        try:
            channel = await persist(
                "look for a caller", lambda: self._ari.channel(channel_id), self.connected.is_set
            )
        except ArivoxError as error:
            log.debug("a channel of the application is gone", channel=channel_id, error=str(error))
            return
        if channel is not None and channel_id not in self._calls and channel_id not in self._let_go:
            log.warning("a caller was left alone; serving them", channel=channel.id)
            self._admit(channel, channel.dialplan.stasis_args)

    async def _sweep_channel(self, channel_id: str) -> None:
        log.warning("sweeping an orphaned channel", channel=channel_id)
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
