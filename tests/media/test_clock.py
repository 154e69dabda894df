"""The pacer: ticks on absolute deadlines, late ones caught up within a bound, never shifted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from handpacer import HandPacer
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.media.clock import SLOT_S, SLOTS, Pacer

CATCH_UP = 20 + SLOTS  # slots of lateness up to which nothing is given up


class Client:
    """Writes down its ticks, in slots after the pacer's start."""

    due = 0

    def __init__(self, pacer: HandPacer, on_tick: Callable[[], None] = lambda: None) -> None:
        self.ticks: list[int] = []
        self.given_up: list[int] = []
        self._pacer = pacer
        self._on_tick = on_tick

    def tick(self, now: float) -> None:
        self.ticks.append(round((now - self._pacer.time_of(0)) / SLOT_S))
        self._on_tick()

    def stalled(self, ticks: int) -> None:
        self.given_up.append(ticks)

    def broken(self) -> None:
        raise AssertionError("its ticks do not fail")


def added(pacer: HandPacer, count: int = 1) -> list[Client]:
    clients = [Client(pacer) for _ in range(count)]
    for client in clients:
        pacer.add(client)
    return clients


def test_ticks_come_every_20_ms_at_the_slots_own_time() -> None:
    pacer = HandPacer()
    (client,) = added(pacer)
    first = client.due
    for slot in range(41):
        pacer.to(slot + 0.2)
    assert client.ticks == list(range(first, 41, 4))
    assert pacer.late_slots == pacer.lost_slots == 0


@settings(max_examples=100)
@given(late=st.lists(st.integers(1, CATCH_UP), min_size=1, max_size=30))
def test_late_ticks_are_all_made_up(late: list[int]) -> None:
    pacer = HandPacer()
    clients = added(pacer, 5)
    firsts = [client.due for client in clients]
    pacer.to(0.3)
    at = 0
    for slots in late:
        at += slots
        pacer.to(at + 0.3)
    for client, first in zip(clients, firsts, strict=True):
        assert client.ticks == list(range(first, at + 1, SLOTS))
        assert client.given_up == []
    assert pacer.lost_slots == 0


@settings(max_examples=150)
@given(steps=st.lists(st.integers(1, 12) | st.integers(1, 400), min_size=1, max_size=25))
def test_stalls_are_told_and_never_shift_the_stream(steps: list[int]) -> None:
    pacer = HandPacer()
    clients = added(pacer, 6)
    firsts = [client.due for client in clients]
    at = 0
    for step in steps:
        at += step
        before = [len(client.ticks) for client in clients]
        pacer.to(at + 0.4)
        for client, count in zip(clients, before, strict=True):
            assert len(client.ticks) - count <= CATCH_UP // SLOTS + 1, "one wake-up makes a bounded burst"
    for client, first in zip(clients, firsts, strict=True):
        due = len(range(first, at + 1, SLOTS))
        assert len(client.ticks) + sum(client.given_up) == due, "every tick was made or told as given up"
        assert all((tick - first) % SLOTS == 0 for tick in client.ticks), "the phase is kept"
        assert client.ticks == sorted(set(client.ticks))
        assert all(ticks > 0 for ticks in client.given_up)


def test_stall_beyond_the_bound_catches_up_the_last_100_ms() -> None:
    pacer = HandPacer()
    (client,) = added(pacer)
    pacer.to(0.1)
    pacer.to(1000.1)
    assert len(client.ticks) in (5, 6)
    assert client.ticks[-1] > 996
    assert client.given_up == [len(range(client.ticks[0] % SLOTS, 1001, SLOTS)) - len(client.ticks)]
    assert pacer.lost_slots == pytest.approx(1000 - 20, abs=SLOTS)


def test_clients_spread_over_the_slots() -> None:
    pacer = HandPacer()
    clients = added(pacer, 42)
    sizes = [sum(client.due % SLOTS == slot for client in clients) for slot in range(SLOTS)]
    assert sorted(sizes) == [10, 10, 11, 11]
    gone = [client for client in clients if client.due % SLOTS == 2]
    for client in gone:
        pacer.remove(client)
    assert {client.due % SLOTS for client in added(pacer, len(gone))} == {2}, "freed slots fill first"


def test_move_changes_the_next_tick_and_the_phase() -> None:
    pacer = HandPacer()
    client, other = added(pacer, 2)
    pacer.to(8.1)
    before = list(client.ticks)
    pacer.move(client, 13)
    assert client.due == 13
    pacer.to(30.1)
    assert client.ticks == [*before, 13, 17, 21, 25, 29]
    assert len(other.ticks) == len(range(other.ticks[0], 31, SLOTS)), "others are not touched"
    pacer.move(client, 41)  # same phase, three ptimes later
    pacer.to(50.1)
    assert client.ticks[-3:] == [41, 45, 49]


def test_clients_may_come_and_go_inside_a_tick() -> None:
    pacer = HandPacer()
    comers: list[Client] = []

    def once() -> None:
        pacer.remove(leaver)
        comers.append(Client(pacer))
        pacer.add(comers[0])

    leaver = Client(pacer, once)
    pacer.add(leaver)
    (stayer,) = added(pacer)
    pacer.to(60.1)
    pacer.to(80.1)
    assert len(leaver.ticks) == 1
    assert comers[0].ticks[0] in range(leaver.ticks[0] + 1, leaver.ticks[0] + SLOTS + 1)
    assert comers[0].ticks[-1] > 76
    assert stayer.ticks[-1] > 76


def test_removed_client_is_not_ticked_in_the_same_slot() -> None:
    pacer = HandPacer()
    first = Client(pacer, lambda: pacer.remove(second))
    pacer.add(first)
    second = Client(pacer)
    pacer.add(second)
    pacer.move(second, first.due)
    pacer.to(20.1)
    assert first.ticks[-1] == 20
    assert second.ticks == []


def test_removing_a_stranger_does_nothing() -> None:
    pacer = HandPacer()
    (client,) = added(pacer)
    pacer.remove(Client(pacer))
    pacer.remove(client)
    pacer.remove(client)
    pacer.to(50.1)
    assert client.ticks == []


def test_pause_without_clients_is_no_stall() -> None:
    pacer = HandPacer()
    (client,) = added(pacer)
    pacer.to(4.1)
    pacer.remove(client)
    pacer.pass_to(10_000.1)
    (later,) = added(pacer)
    pacer.to(10_008.1)
    assert later.given_up == []
    assert later.ticks[0] > 10_000
    assert len(later.ticks) == 2


class Counter:
    """Sets an event after some ticks, by the real clock."""

    due = 0

    def __init__(self, ticks: int) -> None:
        self.lateness: list[float] = []
        self.done = asyncio.Event()
        self._left = ticks

    def tick(self, now: float) -> None:
        self.lateness.append(time.monotonic() - now)
        self._left -= 1
        if self._left <= 0:
            self.done.set()

    def stalled(self, ticks: int) -> None:
        self._left -= ticks - 1
        self.tick(time.monotonic())

    def broken(self) -> None:
        raise AssertionError("its ticks do not fail")


@pytest.mark.parametrize("timerfd", [True, False], ids=["timerfd", "loop"])
async def test_the_real_timer_ticks_and_stops(timerfd: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not timerfd:

        def no_timer(first: float, interval: float) -> int:
            raise OSError("no timerfd here")

        monkeypatch.setattr("arivox.media.clock.open_timerfd", no_timer)
    pacer = Pacer()
    begun = time.monotonic()
    client = Counter(6)
    pacer.add(client)
    async with asyncio.timeout(10):
        await client.done.wait()
    assert time.monotonic() - begun >= 0.1 - 0.001, "six ticks take five ptimes"
    assert all(late >= -0.0001 for late in client.lateness), "no tick comes before its time"
    pacer.remove(client)
    seen = len(client.lateness)
    again = Counter(2)
    pacer.add(again)  # the timer starts anew after the last client left
    async with asyncio.timeout(10):
        await again.done.wait()
    pacer.close()
    pacer.close()
    assert len(client.lateness) == seen


class Faulty(Counter):
    """Raises at its third tick."""

    broke = False

    def tick(self, now: float) -> None:
        super().tick(now)
        if len(self.lateness) == 3:
            raise ValueError("a bug")

    def broken(self) -> None:
        self.broke = True


def test_a_client_that_fails_is_stopped_and_the_others_go_on() -> None:
    pacer = HandPacer()
    faulty, others = Faulty(0), [Counter(0) for _ in range(8)]
    for client in (faulty, *others):
        pacer.add(client)
    for slot in range(100):
        pacer.to(slot + 0.1)
    assert faulty.broke
    assert len(faulty.lateness) == 3
    assert {len(other.lateness) for other in others} == {25}
