"""The ledger against a naive one: not a byte lost or doubled, whatever the order of events."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from arivox.audio.format import ULAW
from arivox.media.playout import Playout

FRAME = 160
SILENCE = ULAW.silence


@dataclass
class Heap:
    """What a naive model remembers of one item: counts of bytes."""

    received: int = 0
    sent: int = 0
    heard: int = 0
    done: bool = False
    cut: bool = False


@dataclass
class Model:
    """A ledger that keeps one entry for each byte."""

    queue: list[tuple[str, int]] = field(default_factory=list)
    items: dict[str, Heap] = field(default_factory=dict)
    last: str = ""
    held: int = 0

    def take(self, size: int) -> bytes:
        taken, self.queue = self.queue[:size], self.queue[size:]
        for name, _ in taken:
            self.items[name].sent += 1
        self.held = 0
        return bytes(value for _, value in taken)


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.started: list[str] = []
        self.drained = 0
        self.playout = Playout(
            ULAW, limit_ms=400, on_started=self.started.append, on_drained=self._count_drained
        )
        self.model = Model()
        self.expected_started: list[str] = []
        self.expected_drained = 0
        self.overflow = self.late = self.written = 0
        self.generation = 0

    def _count_drained(self) -> None:
        self.drained += 1

    def _name(self, which: int) -> str:
        return f"item{self.generation + which}"

    # Four items arrive interleaved; the window of names moves on, as answers do.
    @rule(
        which=st.integers(0, 3),
        size=st.sampled_from([160, 320, 480]) | st.integers(0, 40) | st.integers(0, 900),
    )
    def push(self, which: int, size: int) -> None:
        name = self._name(which)
        data = bytes((self.written + n) % 251 for n in range(size))
        taken = self.playout.push(name, data)
        if not size:
            assert taken
            return
        item = self.model.items.setdefault(name, Heap())
        if item.cut:
            assert not taken
            self.late += size
        elif len(self.model.queue) + size > 400 * 8:
            assert not taken
            self.overflow += size
        else:
            assert taken
            self.written += size
            item.received += size
            self.model.queue += [(name, value) for value in data]
            self.model.last = name

    @rule(which=st.integers(0, 3))
    def finish(self, which: int) -> None:
        self.playout.finish(self._name(which))
        if self._name(which) in self.model.items:
            self.model.items[self._name(which)].done = True

    @rule()
    def next_answer(self) -> None:
        self.generation += 1

    @rule(confirm=st.booleans())
    def next_frame(self, confirm: bool) -> None:
        model = self.model
        frame = self.playout.next_frame()
        waiting = len(model.queue)
        expected: bytes | None = None
        if 0 < waiting < FRAME and not model.items[model.last].done and model.held < 2:
            model.held += 1
        elif waiting:
            before = {name for name, item in model.items.items() if item.sent}
            first = list(dict.fromkeys(name for name, _ in model.queue[:FRAME]))
            self.expected_started += [name for name in first if name not in before]
            expected = model.take(FRAME).ljust(FRAME, SILENCE)
            self.expected_drained += not model.queue
        assert frame == expected
        if confirm:
            self.confirm()

    @rule()
    def confirm(self) -> None:
        self.playout.confirm()
        for item in self.model.items.values():
            item.heard = item.sent

    @rule()
    def flush(self) -> None:
        cuts = self.playout.flush()
        expected = []
        for name, item in self.model.items.items():
            if not item.cut and not (item.done and item.heard == item.received):
                item.cut = True
                expected.append((name, item.heard // 8, item.received // 8))
            item.received = item.sent
        self.model.queue.clear()
        self.model.held = 0
        assert [cut.item_id for cut in cuts] == [name for name, *_ in expected]
        for cut, (_, heard_ms, received_ms) in zip(cuts, expected, strict=True):
            assert (cut.heard_ms, cut.received_ms) == (heard_ms, received_ms)
        assert not self.playout.playing
        assert self.playout.next_frame() is None, "after a flush nothing old comes out"

    @invariant()
    def ledger_is_the_model(self) -> None:
        playout, model = self.playout, self.model
        for name, item in model.items.items():
            heard, sent = playout.heard_ms(name), playout.sent_ms(name)
            received = playout.received_ms(name)
            assert heard <= sent <= received
            bytes_of = (item.heard, item.sent, item.received)
            assert [heard * 8, sent * 8, received * 8] == pytest.approx(bytes_of), name
        assert playout.queued_ms == pytest.approx(len(model.queue) / 8)
        assert playout.playing == bool(model.queue)
        assert playout.heard_total_ms * 8 == pytest.approx(sum(item.heard for item in model.items.values()))
        assert self.started == self.expected_started
        assert self.drained == self.expected_drained
        assert (playout.overflow_bytes, playout.late_bytes) == (self.overflow, self.late)


def test_any_interleaving_agrees_with_a_naive_ledger() -> None:
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=80,
            stateful_step_count=40,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
