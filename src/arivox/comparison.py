"""Comparing notes with Asterisk: what it holds, and what we know of. It does not replay lost events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import structlog

from arivox.asterisk.client import AriClient
from arivox.asterisk.messages import Channel
from arivox.asterisk.persist import persist
from arivox.backoff import delays
from arivox.call.call import Call
from arivox.errors import ArivoxError
from arivox.roster import FAR_HALF, OURS, OUT, Pair, Roster

log = structlog.get_logger()

# What has just begun or ended may stand in one of two lists, or its event may be on the way.
_BETWEEN_LISTS_S: Final = 0.3
# Asterisk answers before it lets a channel go, and may list it for a moment.
_LEAVING_S: Final = 1.0
_LOOK_AGAIN_S: Final = 1.0
_ADOPT_AGAIN_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Held:
    """What Asterisk holds of ours."""

    channel_ids: frozenset[str]
    bridges: dict[str, tuple[str, ...]]
    """Who is in them."""


class Board(Protocol):
    """What the switchboard does about what was found."""

    connected: asyncio.Event

    def admit(self, channel: Channel, args: Sequence[str]) -> None:
        """Serve a caller, or send them on."""

    def replace(self, call: Call, channel: Channel) -> None:
        """Go on with a call whose caller's telephone has put another channel in its place."""

    def part(self, pair: Pair, left: Collection[str]) -> None:
        """Hang up who is left of two who talked with each other."""

    def connect(self, bridge_id: str, *channel_ids: str) -> None:
        """Take over a bridge whose channels talk to each other."""

    def sweep(self, channel_id: str, *, known: bool = False) -> None:
        """Hang up a channel of ours that nobody needs. ``known``: it is no surprise."""

    async def destroy(self, bridge_id: str) -> None:
        """Take a bridge down."""

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        """Run something beside the rest."""

    def spawn_once(self, work: Callable[[], Coroutine[Any, Any, Any]], name: str) -> None:
        """Run something beside the rest, unless it runs already."""


class Comparison:
    """Puts right what ``roster`` says by what Asterisk holds."""

    def __init__(self, ari: AriClient, roster: Roster, board: Board) -> None:
        self._ari = ari
        self._roster = roster
        self._board = board
        self._comparing = False
        self._compare_again = False

    def begin(self) -> None:
        """Compare notes with Asterisk; once more, if that is under way."""
        self._compare_again = True
        if not self._comparing:
            self._comparing = True
            self._board.spawn(self._compare_all(), "reconcile")

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
        calls, pairs = dict(self._roster.calls), set(self._roster.pairs.values())
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
        await self._find_successors(second, calls)
        self._miss(listed, calls, pairs, legs)
        self._find_pairs(second, asked)
        in_doubt = False
        for channel_id in sorted(first.channel_ids & second.channel_ids - self._roster.pairs.keys()):
            if OURS.match(channel_id):
                self._account_for(channel_id)
            elif not (
                FAR_HALF.match(channel_id)
                or channel_id in self._roster.leaving
                or self._roster.speaks_with(channel_id) is not None
            ):
                call = self._roster.calls.get(channel_id)
                leaving = self._roster.left_since(channel_id, asked - _LEAVING_S)
                adopted = self._roster.adopted_since(channel_id, asked - _ADOPT_AGAIN_S)
                if call is None and not leaving and not adopted:
                    self._board.spawn(self._adopt(channel_id, asked), f"adopt {channel_id}")
                elif call is None or call.released:
                    in_doubt = True  # on their way out, back unheard, or kept in by an Asterisk that refuses
        for bridge_id in self._orphaned(second) & self._orphaned(first):
            log.warning("sweeping an orphaned bridge", bridge=bridge_id)
            self._board.spawn_once(partial(self._board.destroy, bridge_id), f"sweep {bridge_id}")
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
                ours = [one for one in bridges if one.name == self._ari.app and OURS.match(one.id)]
                return _Held(channel_ids, {one.id: tuple(one.channels) for one in ours})
            await asyncio.sleep(delay)
            if not self._board.connected.is_set():
                break
        return None

    def _agrees(self, held: _Held, calls: Mapping[str, Call], legs: Sequence[tuple[Call, str]]) -> bool:
        """Return whether Asterisk holds what we know of, and nothing else."""
        callers = {channel_id for channel_id, call in calls.items() if not call.released}
        known = {*callers, *(leg_id for _, leg_id in legs), *self._roster.pairs}
        return (
            known == held.channel_ids and known.isdisjoint(self._roster.expected) and not self._orphaned(held)
        )

    def _miss(
        self,
        listed: Collection[str],
        calls: Mapping[str, Call],
        pairs: Iterable[Pair],
        legs: Iterable[tuple[Call, str]],
    ) -> None:
        """Take those for gone who were there before, and whom Asterisk does not list."""
        for pair in pairs:
            left = {one for one in pair.channel_ids if one not in listed}
            if left and self._roster.pairs.get(pair.channel_ids[0]) is pair:
                self._board.part(pair, left)
        for channel_id, call in calls.items():
            if channel_id not in listed and call.channel.id == channel_id:
                if not call.released:
                    log.info("a caller left while Asterisk was out of reach", call=call.id)
                call.caller_gone()
        for call, leg_id in legs:
            if leg_id not in listed:
                call.leg_gone(leg_id, 0)

    async def _find_successors(self, held: _Held, calls: Mapping[str, Call]) -> None:
        """Go on with those who stand in a call's bridge in the place of its caller, after a transfer."""
        for channel_id, call in calls.items():
            members = held.bridges.get(call.bridge_id, ())
            others = {one for one in members if not OURS.match(one)} & held.channel_ids
            if channel_id in members or len(others) != 1:
                continue
            (other,) = others
            unknown = not self._roster.calls.keys() & {other} and self._roster.speaks_with(other) is None
            channel = await self._look_for(other) if unknown else None
            if channel is not None and call.channel.id == channel_id and not call.released:
                self._board.replace(call, channel)

    def _orphaned(self, held: _Held) -> set[str]:
        """Return those of our bridges that belong to no call, and in which nobody talks as far as we know."""
        talking = {pair.bridge_id for pair in self._roster.pairs.values()}
        return {one for one in held.bridges.keys() - talking if self._roster.owner(one) is None}

    def _find_pairs(self, held: _Held, asked: float) -> None:
        """Take bridges over in which a caller still talks to whom they were transferred to."""
        for bridge_id in self._orphaned(held):
            members = held.bridges[bridge_id]
            ours = [member for member in members if OURS.match(member)]
            # With our media channel it is the AI that talks to a colleague: nobody goes on with that. Whom a
            # colleague's telephone put in the colleague's place has a channel that is not ours.
            if len(members) != 2 or len(ours) > 1 or not all(map(OUT.match, ours)):
                continue
            log.info("a transferred call goes on", bridge=bridge_id)
            self._board.connect(bridge_id, *members)
            # One who left since then was told of when nobody knew of the pair.
            if left := {one for one in members if self._roster.left_since(one, asked)}:
                self._board.part(self._roster.pairs[members[0]], left)

    def _account_for(self, channel_id: str) -> None:
        """See to a channel of ours that Asterisk holds."""
        call = self._roster.owner(channel_id)
        if channel_id in self._roster.expected:
            self._board.spawn_once(partial(self._enter_late, channel_id), f"enter {channel_id}")
        elif self._roster.known_end(channel_id):
            self._board.sweep(channel_id, known=True)  # it may be on its way out
        elif call is None or (OUT.match(channel_id) and not self._roster.dialled(channel_id)):
            self._board.sweep(channel_id)

    async def _look_for(self, channel_id: str) -> Channel | None:
        """Return a channel; None when it is gone, or Asterisk away."""
        try:
            return await persist(
                "look for a channel", lambda: self._ari.channel(channel_id), self._board.connected.is_set
            )
        except ArivoxError as error:
            log.debug("a channel of the application is gone", channel=channel_id, error=str(error))
            return None

    async def _enter_late(self, channel_id: str) -> None:
        """Take note of a channel that is awaited and whose entry was not heard of."""
        channel = await self._look_for(channel_id)
        expected = self._roster.expected.get(channel_id)
        if channel is not None and channel.state == "Up" and expected is not None and not expected.done():
            expected.set_result(channel)

    async def _adopt(self, channel_id: str, asked: float) -> None:
        """Serve a caller who waits in the application and whom nobody serves."""
        channel = await self._look_for(channel_id)
        if channel is None or channel_id in self._roster.calls or channel_id in self._roster.leaving:
            return
        if self._roster.left_since(channel_id, asked):
            return
        log.warning("a caller was left alone; serving them", channel=channel.id)
        self._roster.note_adopted(channel_id)
        self._board.admit(channel, channel.dialplan.stasis_args)
