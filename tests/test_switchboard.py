"""Callers who enter and leave while the switchboard asks Asterisk who is there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import repeat
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from arivox import comparison, switchboard
from arivox.asterisk import persist
from arivox.asterisk.messages import (
    Application,
    Bridge,
    Channel,
    ChannelHangupRequest,
    Dialplan,
    StasisEnd,
    StasisStart,
)
from arivox.call.ending import EndReason
from arivox.errors import AsteriskError
from arivox.switchboard import Switchboard

CALLER = Channel("1.1", dialplan=Dialplan(app_name="Stasis", app_data="arivox,provider=gemini"))
LEAVES = StasisEnd(timestamp="", channel=CALLER)
ENTERS = StasisStart(timestamp="", args=["provider=gemini"], channel=CALLER)


class FakeAri:
    """Lists who is there once it is let; notes what is asked of it."""

    url, app = "http://asterisk", "arivox"

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.here = [CALLER.id]
        self.bridged: dict[str, list[str]] = {}
        self.foreign: list[Bridge] = []
        self.lists = 0
        self.stale = 0  # so many lists hold those who have left
        self.sent_on: list[str] = []
        self.hung_up: list[str] = []
        self.destroyed: list[str] = []
        self.away = 0  # so many requests fail
        self.stuck: set[str] = set()  # nothing can be done about these

    async def application(self) -> Application:
        self.lists += 1
        listed = [CALLER.id] if self.lists <= self.stale else list(self.here)
        await self.let.wait()
        return Application("arivox", channel_ids=listed)

    async def bridges(self) -> list[Bridge]:
        ours = [Bridge(one, self.app, channels=list(members)) for one, members in self.bridged.items()]
        return [*ours, *self.foreign]

    async def channel(self, channel_id: str) -> Channel:
        return Channel(channel_id, state="Up", dialplan=CALLER.dialplan)

    async def set_variable(self, channel_id: str, name: str, value: str) -> None:
        pass

    async def continue_in_dialplan(self, channel_id: str) -> None:
        self._do(self.sent_on, channel_id)

    async def hang_up(self, channel_id: str) -> None:
        self._do(self.hung_up, channel_id)

    async def destroy_bridge(self, bridge_id: str) -> None:
        self._do(self.destroyed, bridge_id)
        self.bridged.pop(bridge_id, None)

    def _do(self, done: list[str], name: str) -> None:
        if name in self.stuck:
            raise AsteriskError("no answer in time")
        if self.away:
            self.away -= 1
            raise AsteriskError("no answer in time")
        done.append(name)
        if name in self.here:
            self.here.remove(name)


class FakeCall:
    """Goes on until it is over."""

    released = False
    untidy = False

    def __init__(self, channel: Channel, args: Sequence[str], number: int) -> None:
        self.id = str(number)
        self.bridge_id = f"arivox-1{number:07d}"
        self.media_id = f"{self.bridge_id}-media"
        self.leg_ids: tuple[str, ...] = ()
        self.legs: Any = SimpleNamespace(out_id="")
        self.legs.out_replaced = lambda name: setattr(self.legs, "out_id", name)
        self.line = SimpleNamespace(hold=lambda: None, unhold=lambda: None, state=lambda channel: None)
        self.channel = channel
        self.args = tuple(args)
        self.replaced: Channel | None = None
        self.looked = 0
        self.over = asyncio.Event()
        self.gone: list[str] = []

    async def run(self) -> None:
        await self.over.wait()

    async def look_again(self) -> None:
        self.looked += 1

    def caller_replaced(self, channel: Channel) -> None:
        self.channel = channel

    def caller_gone(self) -> None:
        self.released = True
        self.gone.append("caller")

    def leg_gone(self, channel_id: str, cause: int) -> None:
        self.gone.append(channel_id)

    def end(self, reason: EndReason) -> None:
        pass


class Desk:
    """A switchboard between the two."""

    def __init__(self, max_calls: int = 5) -> None:
        self.ari = FakeAri()
        self.calls: list[FakeCall] = []
        self.board = Switchboard(self.ari, self._new_call, max_calls)  # type: ignore[arg-type]

    def _new_call(self, channel: Channel, args: Sequence[str], replaced: Channel | None) -> Any:
        self.calls.append(FakeCall(channel, args, len(self.calls) + 1))
        self.calls[-1].replaced = replaced
        return self.calls[-1]

    async def served(self, count: int) -> None:
        """Wait until so many calls were made."""
        async with asyncio.timeout(5):
            while len(self.calls) < count:
                await asyncio.sleep(0)

    async def settle(self, *, but: int = 0) -> None:
        """Wait until no more than the tasks of so many calls are left."""
        async with asyncio.timeout(5):
            while len(tasks := self.board._tasks) > but:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    async def compares(self, *, but: int = 0) -> None:
        """Let the switchboard compare notes with Asterisk, as after each connect."""
        self.ari.let.set()
        self.board.on_up()
        await self.settle(but=but)


SUCCESSOR = Channel("1.2", "Local/601@from-sip-0;1", state="Down", dialplan=Dialplan(exten="601"))
TAKES_OVER = StasisStart(timestamp="", channel=SUCCESSOR, replace_channel=CALLER)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_BETWEEN_LISTS_S", 0.0)
    monkeypatch.setattr(switchboard, "_PART_AFTER_S", 0.0)
    monkeypatch.setattr(switchboard, "_LOOK_S", 0.0)
    monkeypatch.setattr(comparison, "_LOOK_AGAIN_S", 0.0)
    monkeypatch.setattr(comparison, "_LEAVING_S", 0.0)
    monkeypatch.setattr(persist, "delays", lambda first, most: repeat(0.0))
    monkeypatch.setattr(comparison, "delays", lambda first, most: repeat(0.0))


async def test_caller_who_waits_is_served_as_the_dialplan_says() -> None:
    desk = Desk()
    desk.ari.let.set()
    desk.board.on_up()
    await desk.served(1)
    (call,) = desk.calls
    assert call.args == ("provider=gemini",)


async def test_caller_who_comes_in_meanwhile_is_served_once() -> None:
    desk = Desk()
    with structlog.testing.capture_logs() as log:
        desk.board.on_up()
        desk.board.on_event(ENTERS)
        desk.ari.let.set()
        await desk.settle(but=1)
    assert len(desk.calls) == 1
    assert [line for line in log if line["log_level"] == "warning"] == []


@pytest.mark.parametrize("stale", [1, 2, 3])
@pytest.mark.parametrize("told", ["never", "early", "late"])
@pytest.mark.parametrize("lost", [False, True])
async def test_caller_whose_call_ends_meanwhile_is_not_served_again(
    stale: int, told: str, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are on their way out of the application: to serve or to refuse them would skip a line there.

    That they have left may be told before the call is over, after it, or never, and the events connection
    may be another by then.
    """
    monkeypatch.setattr(comparison, "_LEAVING_S", 3600.0)
    desk = Desk()
    desk.ari.stale = stale
    desk.board.on_up()
    desk.board.on_event(ENTERS)
    if told == "early":
        desk.board.on_event(LEAVES)
    desk.calls[0].over.set()
    desk.ari.here.clear()
    await desk.settle(but=1)
    if told == "late":
        desk.board.on_event(LEAVES)
    if lost:
        desk.board.on_down()
        desk.board.on_up()
    desk.ari.let.set()
    await desk.settle()
    assert len(desk.calls) == 1
    assert desk.ari.sent_on == []


async def test_caller_who_is_refused_meanwhile_is_refused_once() -> None:
    desk = Desk(max_calls=0)
    desk.board.on_up()
    desk.board.on_event(ENTERS)
    await desk.settle(but=1)
    desk.ari.let.set()
    await desk.settle()
    assert desk.ari.sent_on == [CALLER.id]


async def test_caller_who_leaves_while_they_are_looked_for_is_not_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An operator redirects them: Asterisk still knows the channel."""
    desk = Desk()
    look = desk.ari.channel

    async def channel(channel_id: str) -> Channel:
        desk.board.on_event(LEAVES)
        return await look(channel_id)

    monkeypatch.setattr(desk.ari, "channel", channel)
    await desk.compares()
    assert desk.calls == []


async def test_caller_who_stands_in_one_list_of_two_has_not_left() -> None:
    """Asterisk tells of an entry before it lists it."""
    desk = Desk()
    desk.board.on_event(ENTERS)
    desk.ari.here.clear()
    desk.board.on_up()
    await asyncio.sleep(0)  # it asks for the first list
    assert desk.ari.lists == 1
    desk.ari.here.append(CALLER.id)
    desk.ari.let.set()
    await desk.settle(but=1)
    assert desk.calls[0].gone == []


async def test_refusal_is_repeated_until_asterisk_hears_it() -> None:
    desk = Desk(max_calls=0)
    desk.ari.away = 3
    desk.board.on_event(ENTERS)
    await desk.settle()
    assert desk.ari.sent_on == [CALLER.id]


async def test_caller_who_comes_back_is_served_each_time() -> None:
    """A dialplan that tries again: to have let them go once does not bar them."""
    desk = Desk()
    for count in (1, 2, 3):
        desk.board.on_event(ENTERS)
        desk.calls[-1].over.set()
        await desk.settle()
        desk.board.on_event(LEAVES)
        assert len(desk.calls) == count


async def test_caller_who_comes_back_has_left_the_call_before() -> None:
    """Else what that call still asks for the caller would be done to them in the next one."""
    desk = Desk()
    desk.board.on_event(ENTERS)
    desk.board.on_event(ENTERS)
    assert [call.gone for call in desk.calls] == [["caller"], []]


@pytest.mark.parametrize("full", [False, True])
async def test_caller_who_comes_back_while_their_call_winds_up(full: bool) -> None:
    """Their own call takes no place from them, and if they are refused they are let go."""
    desk = Desk(max_calls=1)
    desk.board.on_event(ENTERS)
    desk.board.on_event(LEAVES)
    if full:
        desk.board.refuse_callers()
    desk.board.on_event(ENTERS)
    await desk.settle(but=1 if full else 2)
    assert len(desk.calls) == (1 if full else 2)
    assert desk.ari.sent_on == ([CALLER.id] if full else [])


@pytest.mark.parametrize("over", ["before", "after"])
async def test_caller_who_came_back_unheard_is_served(over: str) -> None:
    """They were sent on before the events were lost or after, and entered again while they were."""
    desk = Desk()
    desk.board.on_event(ENTERS)
    if over == "after":
        desk.board.on_down()
    desk.calls[0].over.set()
    await desk.settle()
    if over == "before":
        desk.board.on_down()
    desk.ari.let.set()
    desk.board.on_up()
    await desk.served(2)


async def test_caller_who_came_back_unheard_while_their_call_winds_up_is_served() -> None:
    desk = Desk()
    desk.board.on_event(ENTERS)
    (call,) = desk.calls
    call.released = True
    desk.ari.let.set()
    desk.board.on_up()
    while desk.ari.lists < 5:
        await asyncio.sleep(0)
    assert desk.calls == [call]
    call.over.set()
    await desk.served(2)


async def test_caller_whose_entry_is_heard_of_late_is_served_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """But what is heard of later than that is another entry."""
    monkeypatch.setattr(switchboard, "_LATE_S", 3600.0)
    desk = Desk()
    desk.ari.let.set()
    desk.board.on_up()
    await desk.served(1)
    desk.board.on_event(ENTERS)
    assert [call.gone for call in desk.calls] == [[]]
    desk.board.on_event(ENTERS)
    assert [call.gone for call in desk.calls] == [["caller"], []]


async def test_shut_down_sends_on_who_comes_in_the_middle_of_it() -> None:
    desk = Desk()
    desk.board.on_event(ENTERS)
    ending = asyncio.create_task(desk.board.shut_down(5.0))
    await asyncio.sleep(0)
    late = Channel("1.2", dialplan=CALLER.dialplan)
    desk.board.on_event(StasisStart(timestamp="", args=[], channel=late))
    desk.calls[0].over.set()
    await ending
    assert desk.ari.sent_on == [late.id]


PAIR = "arivox-00000002"
OUT = Channel(f"{PAIR}-out1")


def talking(*members: str) -> Desk:
    """Return a desk beside which these talk in a bridge; nobody here knows of it."""
    desk = Desk()
    desk.ari.here = list(members)
    desk.ari.bridged[PAIR] = list(members)
    desk.ari.let.set()
    return desk


async def test_pair_is_not_cut_for_want_of_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asterisk goes away in the middle of it."""
    desk = talking("1.9", OUT.id)

    async def bridges() -> list[Bridge]:
        desk.board.on_down()
        raise AsteriskError("no answer in time")

    monkeypatch.setattr(desk.ari, "bridges", bridges)
    desk.board.on_up()
    await desk.settle()
    assert desk.ari.hung_up == desk.ari.destroyed == []
    assert desk.calls == []


async def test_pair_is_found_again() -> None:
    desk = talking(CALLER.id, OUT.id)
    await desk.compares()
    assert desk.board.pairs == 1
    assert desk.calls == []
    desk.board.on_event(StasisEnd(timestamp="", channel=OUT))
    await desk.settle()
    assert (desk.ari.hung_up, desk.ari.destroyed) == ([CALLER.id], [PAIR])


async def test_agent_who_talks_to_a_colleague_is_no_pair() -> None:
    desk = talking(f"{PAIR}-media", OUT.id)
    await desk.compares()
    assert desk.board.pairs == 0
    assert set(desk.ari.hung_up) == {f"{PAIR}-media", OUT.id}
    assert desk.ari.destroyed == [PAIR]


async def test_pair_of_whom_one_leaves_while_it_is_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knew of the pair when the event came: the other one would be alone for ever."""
    desk = talking(CALLER.id, OUT.id)
    ask = desk.ari.application

    async def application() -> Application:
        answer = await ask()
        if desk.ari.lists == 2:
            desk.board.on_event(StasisEnd(timestamp="", channel=OUT))
        return answer

    monkeypatch.setattr(desk.ari, "application", application)
    desk.board.on_up()
    await desk.settle()
    assert desk.board.pairs == 0
    assert CALLER.id in desk.ari.hung_up
    assert desk.calls == []


async def test_pair_connected_while_the_list_is_on_its_way_is_not_cut() -> None:
    desk = Desk()
    desk.ari.stale = 2  # the colleague is in no list yet
    desk.board.on_up()
    await asyncio.sleep(0)
    desk.board.connect(PAIR, CALLER.id, OUT.id)
    desk.ari.let.set()
    await desk.settle()
    assert desk.board.pairs == 1
    assert desk.ari.hung_up == []


async def test_pair_that_both_left_unheard() -> None:
    """One of them was redirected, and is somewhere else in Asterisk now: they are not ours to hang up."""
    desk = Desk()
    desk.board.connect(PAIR, OUT.id, CALLER.id)
    desk.ari.here.clear()
    await desk.compares()
    assert desk.board.pairs == 0
    assert desk.ari.hung_up == []


async def test_caller_who_comes_back_has_left_their_pair() -> None:
    desk = Desk()
    desk.board.connect(PAIR, CALLER.id, OUT.id)
    desk.board.on_event(ENTERS)
    await desk.settle(but=1)
    assert desk.ari.hung_up == [OUT.id]
    assert desk.board.pairs == 0
    desk.board.on_event(StasisEnd(timestamp="", channel=OUT))
    await desk.settle(but=1)
    assert desk.calls[0].gone == []


async def test_one_left_of_a_pair_who_comes_back_is_not_hung_up() -> None:
    desk = Desk()
    desk.board.connect(PAIR, CALLER.id, OUT.id)
    desk.ari.stuck.add(CALLER.id)
    desk.board.on_event(StasisEnd(timestamp="", channel=OUT))
    await asyncio.sleep(0)
    desk.board.on_event(LEAVES)
    desk.ari.stuck.clear()
    desk.board.on_event(ENTERS)
    await desk.settle(but=1)
    assert desk.ari.hung_up == []


async def test_end_of_a_transferred_call_is_no_leave() -> None:
    """Its caller stays, as one of a pair; the other one has just hung up, and Asterisk is slow."""
    desk = Desk()
    desk.board.on_event(ENTERS)
    desk.board.connect(PAIR, CALLER.id, OUT.id)
    desk.ari.stuck.add(CALLER.id)
    desk.board.on_event(StasisEnd(timestamp="", channel=OUT))
    await asyncio.sleep(0)
    desk.calls[0].over.set()
    await desk.settle(but=1)
    desk.ari.stuck.clear()
    await desk.settle()
    assert desk.ari.hung_up == [CALLER.id]


async def test_pair_that_an_operator_redirects_goes_where_it_was_sent() -> None:
    """They leave one after the other; to hang the second one up would cut them off in the dialplan."""
    desk = Desk()
    desk.board.connect(PAIR, CALLER.id, OUT.id)
    desk.board.on_event(StasisEnd(timestamp="", channel=OUT))
    await asyncio.sleep(0)
    desk.board.on_event(LEAVES)
    await desk.settle()
    assert desk.ari.hung_up == []


async def test_colleague_who_was_found_before_their_entry_is_heard_of_stays() -> None:
    desk = Desk()
    desk.board.on_event(ENTERS)
    (call,) = desk.calls
    out = Channel(f"{call.bridge_id}-out1")
    call.legs.out_id = out.id
    entered = desk.board.expect_channel(out.id)
    desk.ari.here.append(out.id)
    desk.ari.let.set()
    desk.board.on_up()
    await entered
    desk.board.on_event(StasisStart(timestamp="", args=[], channel=out))
    desk.board.connect(call.bridge_id, CALLER.id, out.id)
    call.over.set()
    await desk.settle()
    desk.board.on_event(StasisStart(timestamp="", args=[], channel=out))
    await desk.settle()
    assert desk.ari.hung_up == []


async def test_caller_whom_asterisk_does_not_let_go_is_not_served_over_and_over() -> None:
    """It refuses to send them on, and each call would cost a session of an AI."""
    desk = Desk()
    desk.ari.let.set()
    desk.board.on_up()
    await desk.served(1)
    desk.calls[0].untidy = True
    desk.calls[0].over.set()
    while desk.ari.lists < 10:
        await asyncio.sleep(0)
    assert len(desk.calls) == 1
    desk.ari.here.clear()
    await desk.settle()


async def test_shut_down_does_not_wait_for_an_asterisk_that_is_away() -> None:
    desk = Desk()
    desk.board.connect(PAIR, CALLER.id, OUT.id)
    desk.ari.stuck.add(CALLER.id)
    desk.board.on_event(StasisEnd(timestamp="", channel=OUT))
    with structlog.testing.capture_logs() as log:
        await desk.board.shut_down(5.0)
    assert [line for line in log if line["log_level"] == "error"] == []


async def test_one_left_of_a_pair_is_hung_up_however_long_it_takes() -> None:
    desk = Desk()
    desk.board.connected.set()
    desk.board.connect(PAIR, CALLER.id, OUT.id)
    desk.ari.away = 3
    desk.board.on_event(StasisEnd(timestamp="", channel=OUT))
    await desk.settle()
    assert (desk.ari.hung_up, desk.ari.destroyed) == ([CALLER.id], [PAIR])


async def test_far_half_of_a_local_channel_is_no_caller() -> None:
    desk = Desk()
    desk.ari.here = [OUT.id, f"{OUT.id};2"]
    await desk.compares()
    assert desk.calls == []
    assert desk.ari.hung_up == [OUT.id], "the other half ends with it"


async def test_media_channel_that_comes_after_its_call_is_hung_up() -> None:
    """Asterisk made it so late that the request to take it down found nothing."""
    desk = Desk()
    desk.board.on_up()
    desk.board.on_event(ENTERS)
    desk.calls[0].over.set()
    await desk.settle(but=1)
    desk.board.on_event(StasisStart(timestamp="", args=[], channel=Channel(desk.calls[0].media_id)))
    await desk.settle(but=1)
    assert desk.ari.hung_up == [desk.calls[0].media_id]
    desk.board.on_down()
    desk.ari.let.set()


async def test_legs_that_vanished_unheard() -> None:
    desk = Desk()
    desk.board.on_event(ENTERS)
    (call,) = desk.calls
    call.leg_ids = (call.media_id, f"{call.bridge_id}-out1")
    desk.ari.here.append(call.media_id)
    await desk.compares(but=1)
    assert call.gone == [f"{call.bridge_id}-out1"]


async def test_channel_that_entered_unheard() -> None:
    desk = Desk()
    desk.board.on_event(ENTERS)
    (call,) = desk.calls
    out = f"{call.bridge_id}-out1"
    call.leg_ids = (out,)
    entered = desk.board.expect_channel(out)
    desk.ari.here.append(out)
    desk.ari.let.set()
    desk.board.on_up()
    async with asyncio.timeout(5):
        assert (await entered).id == out
    assert call.gone == []


async def test_what_untidy_calls_left_is_taken_down_once() -> None:
    desk = Desk(max_calls=50)
    desk.board.on_up()
    for number in range(40):
        caller = Channel(f"2.{number}", dialplan=CALLER.dialplan)
        desk.board.on_event(StasisStart(timestamp="", args=[], channel=caller))
    for call in desk.calls:
        call.untidy = True
        desk.ari.bridged[call.bridge_id] = []
        call.over.set()
    desk.ari.here.clear()
    desk.ari.let.set()
    await desk.settle()
    assert sorted(desk.ari.destroyed) == sorted(call.bridge_id for call in desk.calls)
    assert desk.ari.lists <= 6


@pytest.mark.parametrize("members", [["9.1", "arivox-deadbeef-media"], ["9.1", "arivox-deadbeef-out1"], []])
async def test_bridges_of_another_arivox_are_left_alone(members: list[str]) -> None:
    desk = Desk()
    desk.ari.foreign.append(Bridge("arivox-deadbeef", "arivox-2", channels=members))
    desk.ari.here = [f"{PAIR}-media"]
    desk.ari.let.set()
    for _ in range(2):
        desk.board.on_up()
        await desk.settle()
    assert (desk.ari.destroyed, desk.board.pairs) == ([], 0)
    assert set(desk.ari.hung_up) == {f"{PAIR}-media"}


async def test_channel_that_cannot_be_hung_up_keeps_no_caller_waiting() -> None:
    desk = Desk()
    orphan = f"{PAIR}-media"
    desk.ari.here = [orphan, CALLER.id]
    desk.ari.stuck.add(orphan)
    desk.ari.let.set()
    desk.board.on_up()
    await desk.served(1)
    desk.board.on_down()


async def test_colleague_whom_nobody_waits_for_any_more_is_hung_up() -> None:
    """They answered unheard, after they had been given up."""
    desk = Desk()
    desk.board.on_event(ENTERS)
    (call,) = desk.calls
    out = f"{call.bridge_id}-out1"
    desk.ari.here.append(out)
    await desk.compares(but=1)
    assert desk.ari.hung_up == [out]


async def test_colleague_who_answers_before_the_request_to_dial_is_answered_stays() -> None:
    desk = Desk()
    desk.board.on_event(ENTERS)
    (call,) = desk.calls
    call.legs.out_id = f"{call.bridge_id}-out1"
    desk.ari.here.append(call.legs.out_id)
    await desk.compares(but=1)
    assert desk.ari.hung_up == []


async def test_caller_and_legs_that_are_gone_together_have_hung_up() -> None:
    """So an Asterisk that was restarted looks: the call ends for the first that it is told of."""
    desk = Desk()
    desk.board.on_event(ENTERS)
    (call,) = desk.calls
    call.leg_ids = (call.media_id,)
    desk.ari.here.clear()
    await desk.compares(but=1)
    assert call.gone == ["caller", call.media_id]


@pytest.mark.parametrize("first", ["the new one enters", "the old one leaves"])
async def test_call_goes_on_with_whom_the_telephone_puts_in_the_caller_s_place(first: str) -> None:
    """Also where every place is taken: it is no new call."""
    desk = Desk(max_calls=1)
    desk.board.on_event(ENTERS)
    for event in (TAKES_OVER, LEAVES) if first == "the new one enters" else (LEAVES, TAKES_OVER):
        desk.board.on_event(event)
    (call,) = desk.calls
    assert (call.gone, call.channel) == ([], SUCCESSOR)
    assert [one.id for one in desk.board.calls] == [call.id]
    await desk.settle(but=1)
    assert (call.gone, desk.ari.sent_on, desk.ari.hung_up) == ([], [], [])
    desk.board.on_event(ChannelHangupRequest(channel=SUCCESSOR))
    assert call.gone == ["caller"]


async def test_caller_who_leaves_without_a_hang_up_and_is_not_replaced_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(switchboard, "_SUCCESSOR_S", 0.0)
    desk = Desk()
    desk.board.on_event(ENTERS)
    desk.board.on_event(LEAVES)
    async with asyncio.timeout(5):
        while not desk.calls[0].gone:
            await asyncio.sleep(0)


async def test_telephone_that_does_not_hang_up_after_its_transfer_is_hung_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(switchboard, "_SEE_OFF_S", 0.0)
    desk = Desk()
    desk.board.on_event(ENTERS)
    desk.board.on_event(TAKES_OVER)
    await desk.settle(but=1)
    assert desk.ari.hung_up == [CALLER.id]
    assert desk.calls[0].gone == []


@pytest.mark.parametrize("known", ["never", "over"])
async def test_who_takes_the_place_of_somebody_unknown_is_served_as_the_dialplan_said(known: str) -> None:
    """Of the one who is replaced: the channel that comes was not sent here by a dialplan."""
    desk = Desk()
    if known == "over":
        desk.board.on_event(ENTERS)
        desk.calls[0].released = True
    desk.board.on_event(TAKES_OVER)
    call = desk.calls[-1]
    assert (call.channel.id, call.channel.state, call.args) == ("1.2", "Down", ("provider=gemini",))
    assert call.channel.dialplan == CALLER.dialplan
    assert call.replaced == CALLER


async def test_who_takes_the_place_of_somebody_unknown_is_hung_up_where_nobody_can_serve_them() -> None:
    """In the dialplan the other half of their channel would be connected with itself."""
    desk = Desk(max_calls=0)
    desk.board.connected.set()
    desk.board.on_event(TAKES_OVER)
    await desk.settle()
    assert (desk.ari.sent_on, desk.ari.hung_up) == ([], [SUCCESSOR.id])


@pytest.mark.parametrize("replaced", [CALLER, OUT])
async def test_pair_of_which_one_is_replaced_goes_on(replaced: Channel) -> None:
    desk = Desk()
    desk.board.connect(PAIR, CALLER.id, OUT.id)
    desk.board.on_event(StasisStart(channel=SUCCESSOR, replace_channel=replaced))
    desk.board.on_event(StasisEnd(channel=replaced))
    await desk.settle()
    assert (desk.calls, desk.ari.hung_up, desk.board.pairs) == ([], [], 1)
    desk.board.connected.set()
    stays = OUT if replaced is CALLER else CALLER
    desk.board.on_event(StasisEnd(channel=SUCCESSOR))
    await desk.settle()
    assert (desk.ari.hung_up, desk.board.pairs) == ([stays.id], 0)


async def test_colleague_whose_telephone_hands_the_ai_on_is_replaced() -> None:
    """Before the caller and they were connected."""
    desk = Desk()
    desk.board.on_event(ENTERS)
    (call,) = desk.calls
    out = Channel(f"{call.bridge_id}-out1")
    call.legs.out_id = out.id
    desk.board.on_event(StasisStart(channel=SUCCESSOR, replace_channel=out))
    assert (call.legs.out_id, len(desk.calls)) == (SUCCESSOR.id, 1)
    desk.board.on_event(StasisEnd(channel=SUCCESSOR))
    assert call.gone == [SUCCESSOR.id]


@pytest.mark.parametrize("stays", [False, True])
async def test_successor_who_was_not_heard_of_is_found_in_the_call_s_bridge(stays: bool) -> None:
    desk = Desk()
    desk.board.on_event(ENTERS)
    (call,) = desk.calls
    desk.ari.here = [SUCCESSOR.id, call.media_id, *([CALLER.id] if stays else [])]
    desk.ari.bridged[call.bridge_id] = [SUCCESSOR.id, call.media_id]
    desk.ari.let.set()
    desk.board.on_up()
    async with asyncio.timeout(5):
        while call.channel.id != SUCCESSOR.id:
            await asyncio.sleep(0)
    assert (call.gone, desk.calls) == ([], [call])
    desk.board.on_down()


async def test_calls_are_looked_at_after_each_connect() -> None:
    """A hold, or its end, may have been told while nobody heard it."""
    desk = Desk()
    desk.board.on_event(ENTERS)
    for count in (1, 2):
        await desk.compares(but=1)
        assert desk.calls[0].looked == count
