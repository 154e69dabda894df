"""Every channel that enters the Stasis application: callers become calls, our own media channels are awaited,
and what nobody owns is swept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import Any, Final

import msgspec
import structlog

from arivox.asterisk.client import AriClient
from arivox.asterisk.messages import (
    AnyEvent,
    Channel,
    ChannelDestroyed,
    ChannelDtmfReceived,
    ChannelHangupRequest,
    ChannelHold,
    ChannelLeftBridge,
    ChannelStateChange,
    ChannelUnhold,
    StasisEnd,
    StasisStart,
)
from arivox.asterisk.persist import insist
from arivox.call.call import Call
from arivox.call.ending import STATUS_VARIABLE, EndReason
from arivox.comparison import Comparison
from arivox.roster import OURS, OUT, Pair, Roster

log = structlog.get_logger()

_PART_AFTER_S: Final = 0.3  # who has been redirected may be told to have left before they come in again
_LATE_S: Final = 1.0  # an event may come so much later than a list
_BREAK_OFF_S: Final = 3.0
_SUCCESSOR_S: Final = 0.1  # who takes somebody's place may be heard of so much later than of who left it
_SEE_OFF_S: Final = 10.0  # a telephone hangs up by itself once its transfer is through
_LOOK_S: Final = 0.2

NewCall = Callable[[Channel, Sequence[str], Channel | None], Call]
"""Makes a call of a channel, the arguments of Stasis(), and the channel that it stands in the place of."""


class Switchboard:
    """Finds the call of each event. Give its methods to ``AriClient.listen``."""

    def __init__(self, ari: AriClient, new_call: NewCall, max_calls: int) -> None:
        self._ari = ari
        self._new_call = new_call
        self._max_calls = max_calls
        self._roster = Roster()
        self._comparison = Comparison(ari, self._roster, self)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._shutting_down = False
        self._call_ended = asyncio.Event()
        self.connected = asyncio.Event()
        self.served = 0

    @property
    def calls(self) -> tuple[Call, ...]:
        """Return the calls in progress."""
        return tuple(self._roster.calls.values())

    def expect_channel(self, channel_id: str) -> asyncio.Future[Channel]:
        """Return a future of the channel's entry. Arm it before the channel is asked for."""
        future: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
        self._roster.expected[channel_id] = future
        future.add_done_callback(lambda _: self._roster.expected.pop(channel_id, None))
        return future

    def connect(self, bridge_id: str, *channel_ids: str) -> None:
        """Take over a bridge whose channels talk to each other: when one leaves, the other is hung up.

        Such a pair goes on talking when we stop, and is found again when we come back.
        """
        pair = Pair(bridge_id, channel_ids)
        for channel_id in channel_ids:
            self._roster.pairs[channel_id] = pair

    @property
    def pairs(self) -> int:
        """Return how many pairs of connected parties there are."""
        return len({pair.bridge_id for pair in self._roster.pairs.values()})

    def refuse_callers(self) -> None:
        """Send every new caller on to the dialplan from now on."""
        self._shutting_down = True

    async def drain(self) -> None:
        """Return once the calls in progress have ended."""
        while self._roster.calls:
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
            log.error("something did not end in time", task=task.get_name())
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_BREAK_OFF_S)

    # --- AriClient.listen ---

    def on_up(self) -> None:
        """Reconcile with Asterisk: while we were away it replayed nothing."""
        log.info("connected to Asterisk", ari_url=self._ari.url, app=self._ari.app)
        self.connected.set()
        self._comparison.begin()
        for call in self.calls:
            self.spawn_once(call.look_again, f"look at {call.id}")

    def on_down(self) -> None:
        """Remember that events are missing. Calls and their audio go on without them."""
        self.connected.clear()

    def on_event(self, event: AnyEvent) -> None:
        """Pass one event to where it belongs."""
        match event:
            case StasisStart(channel=channel, replace_channel=Channel() as replaced, args=args):
                self._took_over(channel, replaced, args)
            case StasisStart(channel=channel, args=args):
                self._entered(channel, args)
            case ChannelHangupRequest(channel=channel, cause=cause):
                self._left(channel, cause or None)
            case StasisEnd(channel=channel):
                self._moved(channel)
            case ChannelDestroyed(channel=channel, cause=cause):
                self._left(channel, cause)
            case ChannelDtmfReceived(channel=channel, digit=digit):
                call = self._roster.calls.get(channel.id)
                if call is not None:
                    call.dtmf(digit)
            case ChannelHold(channel=channel):
                if (call := self._roster.calls.get(channel.id)) is not None:
                    call.line.hold()
            case ChannelUnhold(channel=channel):
                if (call := self._roster.calls.get(channel.id)) is not None:
                    call.line.unhold()
            case ChannelLeftBridge(bridge=bridge, channel=channel):
                if (call := self._roster.owner(bridge.id)) is not None:
                    call.left_bridge(channel.id)
            case ChannelStateChange(channel=channel):
                if (call := self._roster.calls.get(channel.id)) is not None:
                    call.line.state(channel)
            case _:
                pass

    # --- inside ---

    def _took_over(self, channel: Channel, replaced: Channel, args: Sequence[str]) -> None:
        """See to a channel that stands in the place of another, whose telephone has transferred its call."""
        roster = self._roster
        if (pair := roster.pairs.get(replaced.id)) is not None:
            for channel_id in pair.channel_ids:
                roster.pairs.pop(channel_id, None)
            self.connect(
                pair.bridge_id, *(channel.id if one == replaced.id else one for one in pair.channel_ids)
            )
        elif (call := roster.calls.get(replaced.id)) is not None and not call.released:
            self.replace(call, channel)
        elif (call := roster.speaks_with(replaced.id)) is not None:
            call.legs.out_replaced(channel.id)
        else:
            # Nobody knows of that call, or it is over: as the dialplan wanted it for who is replaced.
            known = msgspec.structs.replace(channel, dialplan=replaced.dialplan)
            self._entered(known, args or replaced.dialplan.stasis_args, replaced)
            return
        self._see_off(replaced.id)

    def replace(self, call: Call, channel: Channel) -> None:
        """Go on with a call whose caller's telephone has put another channel in its place."""
        old, calls = call.channel.id, self._roster.calls
        if calls.get(old) is call:
            del calls[old]
        calls[channel.id] = call
        call.caller_replaced(channel)

    def _see_off(self, channel_id: str) -> None:
        """Hang up a channel that was replaced, unless its telephone does it."""
        since = time.monotonic() - _LATE_S
        self.spawn_once(partial(self._hang_up_late, channel_id, since), f"see off {channel_id}")

    async def _hang_up_late(self, channel_id: str, since: float) -> None:
        with self._roster.letting_go(channel_id):
            give_up = time.monotonic() + _SEE_OFF_S
            while time.monotonic() < give_up and not self._shutting_down:
                await asyncio.sleep(_LOOK_S)
                if self._roster.left_since(channel_id, since):
                    return
            log.info("a telephone that has transferred its call stays; hanging it up", channel=channel_id)
            here = partial(self._stays, channel_id, since)
            await insist("hang up who was replaced", partial(self._ari.hang_up, channel_id), here)

    def _entered(self, channel: Channel, args: Sequence[str], replaced: Channel | None = None) -> None:
        expected = self._roster.expected.get(channel.id)
        if expected is not None:
            if not expected.done():
                expected.set_result(channel)
        elif OUT.match(channel.id):
            # Answered at the moment when it was given up; or found, before this was heard of.
            if channel.id not in self._roster.pairs and not self._roster.dialled(channel.id):
                self.sweep(channel.id)
        elif OURS.match(channel.id):
            if self._roster.known_end(channel.id):
                # Made after its call had ended, or before: then it is being hung up.
                self.sweep(channel.id, known=True)
            elif self._roster.owner(channel.id) is None:
                self.sweep(channel.id)
        else:
            call = self._roster.calls.get(channel.id)
            late = self._roster.adopted_since(channel.id, time.monotonic() - _LATE_S)
            self._roster.entry_heard(channel.id)
            if call is not None and not call.released and late:
                return  # this is the entry after which we found them
            # They come back, by a transfer or a dialplan that tries again: their earlier stay is over.
            if call is not None:
                call.caller_gone()
            if (pair := self._roster.pairs.get(channel.id)) is not None:
                self.part(pair, {channel.id})
            self.admit(channel, args, replaced)

    def _moved(self, channel: Channel) -> None:
        """Hear that a channel left the application, with or without having hung up."""
        call = self._roster.calls.get(channel.id)
        if call is None or call.released:
            self._left(channel, 0)
            return
        # Nobody has hung up: where their telephone transfers the call, who takes their place may come next.
        asyncio.get_running_loop().call_later(_SUCCESSOR_S, self._left_for_good, call, channel)

    def _left_for_good(self, call: Call, channel: Channel) -> None:
        if self._roster.calls.get(channel.id) in (call, None):
            self._left(channel, 0)

    def _left(self, channel: Channel, cause: int | None) -> None:
        self._roster.note_left(channel.id)
        if (pair := self._roster.pairs.get(channel.id)) is not None:
            self.part(pair, {channel.id})
        if (call := self._roster.calls.get(channel.id)) is not None:
            call.caller_gone()
        elif (
            call := self._roster.owner(channel.id) or self._roster.speaks_with(channel.id)
        ) is not None and (
            # Why a leg was not answered stands in its last event, if the far end has not said it before.
            channel.id == call.media_id or cause is not None
        ):
            call.leg_gone(channel.id, cause or 0)

    def part(self, pair: Pair, left: Collection[str]) -> None:
        """Hang up who is left of two who talked with each other."""
        for channel_id in pair.channel_ids:
            self._roster.pairs.pop(channel_id, None)
        others = [channel_id for channel_id in pair.channel_ids if channel_id not in left]
        log.info("a transferred call is over", bridge=pair.bridge_id)
        work = self._take_down(pair.bridge_id, others, time.monotonic())
        self.spawn(work, f"part {pair.bridge_id}")

    async def _take_down(self, bridge_id: str, channel_ids: Sequence[str], began: float) -> None:
        for channel_id in channel_ids:
            # Both may have been redirected, and Asterisk would hang up who is elsewhere, too.
            here = partial(self._stays, channel_id, began)
            with self._roster.letting_go(channel_id):
                await asyncio.sleep(_PART_AFTER_S)
                await insist("hang up who is left", partial(self._ari.hang_up, channel_id), here)
        await self.destroy(bridge_id)

    def _stays(self, channel_id: str, since: float) -> bool:
        """Return whether a channel has not left, and it is worth while to insist on something for it."""
        if self._shutting_down and not self.connected.is_set():
            return False
        return not self._roster.left_since(channel_id, since)

    def admit(self, channel: Channel, args: Sequence[str], replaced: Channel | None = None) -> None:
        """Serve a caller, or send them on to the dialplan.

        ``replaced`` is in whose place they are: the channel variables of the dialplan are that one's.
        """
        others = len(self._roster.calls.keys() - {channel.id})
        if self._shutting_down or others >= self._max_calls:
            reason = EndReason.SHUTDOWN if self._shutting_down else EndReason.BUSY
            name = f"refuse {channel.id}"
            if replaced is None:
                log.warning("a caller is sent on to the dialplan", reason=reason.value, calls=others)
                self.spawn(self._refuse(channel.id, reason), name)
            else:
                log.warning("whom a telephone has transferred is hung up", reason=reason.value, calls=others)
                self.spawn(self._turn_away(channel.id), name)
            return
        call = self._new_call(channel, args, replaced)
        self._roster.calls[channel.id] = call
        self._roster.by_name[call.bridge_id] = call
        self.served += 1
        self.spawn(self._run(call), f"call {call.id}")

    async def _run(self, call: Call) -> None:
        try:
            await call.run()
        finally:
            if self._roster.calls.get(call.channel.id) is call:
                del self._roster.calls[call.channel.id]
                # Who was transferred has not left, but stays as one of a pair.
                if call.channel.id not in self._roster.pairs.keys() | self._roster.leaving:
                    self._roster.note_left(call.channel.id)
            self._call_ended.set()
            self._roster.by_name.pop(call.bridge_id, None)
            self._roster.ended.append(call.bridge_id)
            if call.untidy and self.connected.is_set():
                self._comparison.begin()
            for name in [name for name in self._roster.expected if name.startswith(call.bridge_id)]:
                self._roster.expected.pop(name).cancel()

    async def _refuse(self, channel_id: str, reason: EndReason) -> None:
        def wanted() -> bool:
            return (call := self._roster.calls.get(channel_id)) is None or call.released

        say_why = partial(self._ari.set_variable, channel_id, STATUS_VARIABLE, reason.value)
        send_on = partial(self._ari.continue_in_dialplan, channel_id)
        with self._roster.letting_go(channel_id):
            await insist("set the status", say_why, wanted)
            await insist("go on in the dialplan", send_on, wanted)

    def sweep(self, channel_id: str, *, known: bool = False) -> None:
        """Hang up a channel of ours that nobody needs. ``known``: it is no surprise."""
        if not known:
            log.warning("sweeping an orphaned channel", channel=channel_id)
        # Without a connection nobody insists: the next one sweeps what is left.
        hang_up = partial(self._ari.hang_up, channel_id)
        self.spawn_once(partial(insist, "hang up", hang_up, self.connected.is_set), f"sweep {channel_id}")

    async def destroy(self, bridge_id: str) -> None:
        """Take a bridge down."""
        destroy = partial(self._ari.destroy_bridge, bridge_id)
        await insist("take a bridge down", destroy, self.connected.is_set)

    def spawn_once(self, work: Callable[[], Coroutine[Any, Any, Any]], name: str) -> None:
        """Run something beside the rest, unless it runs already."""
        if not any(task.get_name() == name for task in self._tasks):
            self.spawn(work(), name)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        """Run something beside the rest; ``shut_down`` waits for it."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    async def _turn_away(self, channel_id: str) -> None:
        # In the dialplan they would be connected with themselves: the other end of their channel runs there.
        with self._roster.letting_go(channel_id):
            await insist("hang up", partial(self._ari.hang_up, channel_id), self.connected.is_set)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the switchboard failed", task=task.get_name(), exc_info=error)
