"""Every channel that enters the Stasis application: callers become calls, our own media channels are awaited,
and what nobody owns is swept.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
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
from arivox.asterisk.persist import insist, persist
from arivox.backoff import delays
from arivox.call.call import Call
from arivox.call.ending import STATUS_VARIABLE, EndReason
from arivox.errors import ArivoxError

log = structlog.get_logger()

_OURS: Final = re.compile(r"(arivox-[0-9a-f]{8})(-media|-out\d+)?$")
_OUT: Final = re.compile(r"arivox-[0-9a-f]{8}-out\d+$")
# The other half of a Local channel that we dialled: it ends with ours.
_FAR_HALF: Final = re.compile(r"arivox-[0-9a-f]{8}-out\d+;2$")
_REMEMBERED: Final = 1024
# What has just begun or ended may stand in one of two lists, or its event may be on the way.
_BETWEEN_LISTS_S: Final = 0.3
# Asterisk answers before it lets a channel go, and may list it for a moment.
_LEAVING_S: Final = 1.0
_LOOK_AGAIN_S: Final = 1.0
_LATE_S: Final = 1.0  # an event may come so much later than a list
_ADOPT_AGAIN_S: Final = 30.0
_BREAK_OFF_S: Final = 3.0
_NEVER: Final = float("-inf")

NewCall = Callable[[Channel, Sequence[str]], Call]


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two channels that talk to each other in a bridge."""

    bridge_id: str
    channel_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Held:
    """What Asterisk holds of ours."""

    channel_ids: frozenset[str]
    bridges: dict[str, tuple[str, ...]]
    """Who is in them."""


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
        # Calls that have just ended, by what the names begin with: their last events may be on the way.
        self._ended: deque[str] = deque(maxlen=_REMEMBERED)
        # Channels that Asterisk is being told to let go, and when others left or were let go.
        self._leaving: set[str] = set()
        self._left_at: dict[str, float] = {}
        self._adopted_at: dict[str, float] = {}  # callers whose entry was not heard of
        self._comparing = False
        self._compare_again = False
        self._tasks: set[asyncio.Task[Any]] = set()
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
            log.error("something did not end in time", task=task.get_name())
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_BREAK_OFF_S)

    # --- AriClient.listen ---

    def on_up(self) -> None:
        """Reconcile with Asterisk: while we were away it replayed nothing."""
        log.info("connected to Asterisk", ari_url=self._ari.url, app=self._ari.app)
        self.connected.set()
        self._reconcile()

    def on_down(self) -> None:
        """Remember that events are missing. Calls and their audio go on without them."""
        self.connected.clear()

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
            # Answered at the moment when it was given up; or found, before this was heard of.
            if channel.id not in self._pairs and not self._dialled(channel.id):
                self._sweep(channel.id)
        elif _OURS.match(channel.id):
            if self._known_end(channel.id):
                # Made after its call had ended, or before: then it is being hung up.
                self._sweep(channel.id, known=True)
            elif self._owner(channel.id) is None:
                self._sweep(channel.id)
        else:
            call = self._calls.get(channel.id)
            adopted_at = self._adopted_at.pop(channel.id, _NEVER)
            if call is not None and not call.released and time.monotonic() - adopted_at < _LATE_S:
                return  # this is the entry after which we found them
            # They come back, by a transfer or a dialplan that tries again: their earlier stay is over.
            if call is not None:
                call.caller_gone()
            if (pair := self._pairs.get(channel.id)) is not None:
                self._part(pair, {channel.id})
            self._admit(channel, args)

    def _left(self, channel: Channel, cause: int | None) -> None:
        self._note_left(channel.id)
        if (pair := self._pairs.get(channel.id)) is not None:
            self._part(pair, {channel.id})
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

    def _dialled(self, channel_id: str) -> bool:
        """Return whether a call has dialled this channel, and not given it up."""
        call = self._owner(channel_id)
        return call is not None and call.legs.out_id == channel_id

    def _note_left(self, channel_id: str) -> None:
        _note(self._left_at, channel_id)

    def _known_end(self, name: str) -> bool:
        ours = _OURS.match(name)
        return ours is not None and ours[1] in self._ended

    def _part(self, pair: _Pair, left: Collection[str]) -> None:
        """Hang up who is left of two who talked with each other."""
        for channel_id in pair.channel_ids:
            self._pairs.pop(channel_id, None)
        others = [channel_id for channel_id in pair.channel_ids if channel_id not in left]
        log.info("a transferred call is over", bridge=pair.bridge_id)
        work = self._take_down(pair.bridge_id, others, time.monotonic())
        self._spawn(work, f"part {pair.bridge_id}")

    async def _take_down(self, bridge_id: str, channel_ids: Sequence[str], began: float) -> None:
        for channel_id in channel_ids:
            # Both may have been redirected, and Asterisk would hang up who is elsewhere, too.
            here = partial(self._stays, channel_id, began)
            with self._letting_go(channel_id):
                await asyncio.sleep(_BETWEEN_LISTS_S)
                await insist("hang up who is left", partial(self._ari.hang_up, channel_id), here)
        await self._destroy(bridge_id)

    def _stays(self, channel_id: str, since: float) -> bool:
        """Return whether a channel has not left, and it is worth while to insist on something for it."""
        if self._shutting_down and not self.connected.is_set():
            return False
        return not self._left_since(channel_id, since)

    def _left_since(self, channel_id: str, moment: float) -> bool:
        return self._left_at.get(channel_id, _NEVER) >= moment

    def _admit(self, channel: Channel, args: Sequence[str]) -> None:
        others = len(self._calls.keys() - {channel.id})
        if self._shutting_down or others >= self._max_calls:
            reason = EndReason.SHUTDOWN if self._shutting_down else EndReason.BUSY
            log.warning("a caller is sent on to the dialplan", reason=reason.value, calls=others)
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
                # Who was transferred has not left, but stays as one of a pair.
                if call.channel.id not in self._pairs.keys() | self._leaving:
                    self._note_left(call.channel.id)
            self._call_ended.set()
            self._by_name.pop(call.bridge_id, None)
            self._ended.append(call.bridge_id)
            if call.untidy and self.connected.is_set():
                self._reconcile()
            for name in [name for name in self._expected if name.startswith(call.bridge_id)]:
                self._expected.pop(name).cancel()

    async def _refuse(self, channel_id: str, reason: EndReason) -> None:
        def wanted() -> bool:
            return (call := self._calls.get(channel_id)) is None or call.released

        say_why = partial(self._ari.set_variable, channel_id, STATUS_VARIABLE, reason.value)
        send_on = partial(self._ari.continue_in_dialplan, channel_id)
        with self._letting_go(channel_id):
            await insist("set the status", say_why, wanted)
            await insist("go on in the dialplan", send_on, wanted)

    @contextmanager
    def _letting_go(self, channel_id: str) -> Iterator[None]:
        self._leaving.add(channel_id)
        try:
            yield
        finally:
            self._leaving.discard(channel_id)
            self._note_left(channel_id)

    # --- what Asterisk holds ---

    def _reconcile(self) -> None:
        """Compare notes with Asterisk; once more, if that is under way."""
        self._compare_again = True
        if not self._comparing:
            self._comparing = True
            self._spawn(self._compare_all(), "reconcile")

    async def _compare_all(self) -> None:
        try:
            while self._compare_again:
                self._compare_again = False
                if await self._compare():
                    await asyncio.sleep(_LOOK_AGAIN_S)
                    self._compare_again = True
        finally:
            self._comparing = False

    async def _compare(self) -> bool:
        """Put right what we know by what Asterisk holds. Return whether to do it again.

        Who came or left in the last moment may or may not stand in a list: two are asked for.
        """
        # What begins from now on need not be in the lists.
        calls, pairs = dict(self._calls), set(self._pairs.values())
        legs = [(call, leg_id) for call in calls.values() for leg_id in call.leg_ids]
        first = await self._held()
        if first is None or self._agrees(first, calls, legs):
            return False  # without an answer the next connection asks again
        await asyncio.sleep(_BETWEEN_LISTS_S)
        asked = time.monotonic()
        second = await self._held()
        if second is None:
            return False
        listed = first.channel_ids | second.channel_ids
        self._miss(listed, calls, pairs, legs)
        self._find_pairs(second, asked)
        in_doubt = False
        for channel_id in sorted(first.channel_ids & second.channel_ids - self._pairs.keys()):
            if _OURS.match(channel_id):
                self._account_for(channel_id)
            elif not _FAR_HALF.match(channel_id) and channel_id not in self._leaving:
                call = self._calls.get(channel_id)
                leaving = self._left_since(channel_id, asked - _LEAVING_S)
                adopted = self._adopted_at.get(channel_id, _NEVER) >= asked - _ADOPT_AGAIN_S
                if call is None and not leaving and not adopted:
                    self._spawn(self._adopt(channel_id, asked), f"adopt {channel_id}")
                elif call is None or call.released:
                    in_doubt = True  # on their way out, back unheard, or kept in by an Asterisk that refuses
        for bridge_id in self._orphaned(second) & self._orphaned(first):
            log.warning("sweeping an orphaned bridge", bridge=bridge_id)
            self._spawn_once(partial(self._destroy, bridge_id), f"sweep {bridge_id}")
        return in_doubt

    async def _held(self) -> _Held | None:
        """Return what Asterisk holds; None when it is away."""
        # Unlike ``persist`` after refusals too: nobody else would find who was left.
        for delay in delays(0.2, 5.0):
            try:
                bridges = await self._ari.bridges()
                channel_ids = frozenset((await self._ari.application()).channel_ids)
            except ArivoxError as error:
                log.error("could not ask Asterisk for our calls; trying again", error=str(error))
            else:
                ours = [one for one in bridges if one.name == self._ari.app and _OURS.match(one.id)]
                return _Held(channel_ids, {one.id: tuple(one.channels) for one in ours})
            await asyncio.sleep(delay)
            if not self.connected.is_set():
                break
        return None

    def _agrees(self, held: _Held, calls: Mapping[str, Call], legs: Sequence[tuple[Call, str]]) -> bool:
        """Return whether Asterisk holds what we know of, and nothing else."""
        callers = {channel_id for channel_id, call in calls.items() if not call.released}
        known = {*callers, *(leg_id for _, leg_id in legs), *self._pairs}
        return known == held.channel_ids and known.isdisjoint(self._expected) and not self._orphaned(held)

    def _miss(
        self,
        listed: Collection[str],
        calls: Mapping[str, Call],
        pairs: Iterable[_Pair],
        legs: Iterable[tuple[Call, str]],
    ) -> None:
        """Take those for gone who were there before, and whom Asterisk does not list."""
        for pair in pairs:
            left = {one for one in pair.channel_ids if one not in listed}
            if left and self._pairs.get(pair.channel_ids[0]) is pair:
                self._part(pair, left)
        for channel_id, call in calls.items():
            if channel_id not in listed:
                if not call.released:
                    log.info("a caller left while Asterisk was out of reach", call=call.id)
                call.caller_gone()
        for call, leg_id in legs:
            if leg_id not in listed:
                call.leg_gone(leg_id, 0)

    def _orphaned(self, held: _Held) -> set[str]:
        """Return those of our bridges that belong to no call, and in which nobody talks as far as we know."""
        talking = {pair.bridge_id for pair in self._pairs.values()}
        return {one for one in held.bridges.keys() - talking if self._owner(one) is None}

    def _find_pairs(self, held: _Held, asked: float) -> None:
        """Take bridges over in which a caller still talks to whom they were transferred to."""
        for bridge_id in self._orphaned(held):
            members = held.bridges[bridge_id]
            ours = [member for member in members if _OURS.match(member)]
            # With our media channel it is the AI that talks to a colleague: nobody goes on with that.
            if len(members) != 2 or len(ours) != 1 or not _OUT.match(ours[0]):
                continue
            log.info("a transferred call goes on", bridge=bridge_id)
            self.connect(bridge_id, *members)
            # One who left since then was told of when nobody knew of the pair.
            if left := {one for one in members if self._left_since(one, asked)}:
                self._part(self._pairs[members[0]], left)

    def _account_for(self, channel_id: str) -> None:
        """See to a channel of ours that Asterisk holds."""
        call = self._owner(channel_id)
        if channel_id in self._expected:
            self._spawn_once(partial(self._enter_late, channel_id), f"enter {channel_id}")
        elif self._known_end(channel_id):
            self._sweep(channel_id, known=True)  # it may be on its way out
        elif call is None or (_OUT.match(channel_id) and not self._dialled(channel_id)):
            self._sweep(channel_id)

    async def _look_for(self, channel_id: str) -> Channel | None:
        """Return a channel; None when it is gone, or Asterisk away."""
        try:
            return await persist(
                "look for a channel", lambda: self._ari.channel(channel_id), self.connected.is_set
            )
        except ArivoxError as error:
            log.debug("a channel of the application is gone", channel=channel_id, error=str(error))
            return None

    async def _enter_late(self, channel_id: str) -> None:
        """Take note of a channel that is awaited and whose entry was not heard of."""
        channel = await self._look_for(channel_id)
        expected = self._expected.get(channel_id)
        if channel is not None and channel.state == "Up" and expected is not None and not expected.done():
            expected.set_result(channel)

    async def _adopt(self, channel_id: str, asked: float) -> None:
        """Serve a caller who waits in the application and whom nobody serves."""
        channel = await self._look_for(channel_id)
        if channel is None or channel_id in self._calls or channel_id in self._leaving:
            return
        if self._left_since(channel_id, asked):
            return
        log.warning("a caller was left alone; serving them", channel=channel.id)
        _note(self._adopted_at, channel_id)
        self._admit(channel, channel.dialplan.stasis_args)

    def _sweep(self, channel_id: str, *, known: bool = False) -> None:
        """Hang up a channel of ours that nobody needs. ``known``: it is no surprise."""
        if not known:
            log.warning("sweeping an orphaned channel", channel=channel_id)
        # Without a connection nobody insists: the next one sweeps what is left.
        hang_up = partial(self._ari.hang_up, channel_id)
        self._spawn_once(partial(insist, "hang up", hang_up, self.connected.is_set), f"sweep {channel_id}")

    async def _destroy(self, bridge_id: str) -> None:
        destroy = partial(self._ari.destroy_bridge, bridge_id)
        await insist("take a bridge down", destroy, self.connected.is_set)

    def _spawn_once(self, work: Callable[[], Coroutine[Any, Any, Any]], name: str) -> None:
        if not any(task.get_name() == name for task in self._tasks):
            self._spawn(work(), name)

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the switchboard failed", task=task.get_name(), exc_info=error)


def _note(times: dict[str, float], channel_id: str) -> None:
    """Note the time; what is oldest is forgotten."""
    times.pop(channel_id, None)
    times[channel_id] = time.monotonic()
    if len(times) > _REMEMBERED:
        del times[next(iter(times))]
