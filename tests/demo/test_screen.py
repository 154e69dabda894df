"""What the demo shows of a call."""

from __future__ import annotations

import io

from rich.console import Console

from arivox.call.timeline import Timeline
from arivox.demo.screen import Screen, summarise


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def play() -> tuple[str, Timeline, Screen]:
    """Show a short call; return the screen's text and the call's timeline."""
    output, clock = io.StringIO(), Clock()
    screen = Screen(Console(file=output, width=200))
    timeline = Timeline("7f3a", clock=clock, watchers=(screen.watch,))

    def at(moment: float, kind: str, **data: str | int | float | None) -> None:
        clock.now = 100 + moment
        timeline.add(kind, **data)

    at(0.00, "call.started", caller="5551234", exten="700")
    at(0.01, "call.answered")
    at(0.02, "provider.ready", ms=15)
    at(0.05, "agent.speaks", item="item_1", latency_ms=None)
    at(0.30, "agent.said", item="item_1", text="Hello.")
    at(2.00, "caller.speech_started")
    at(2.00, "barge_in", item="item_1", heard_ms=1950, received_ms=4000, told=True)
    at(3.00, "caller.speech_stopped")
    at(3.10, "caller.said", text="yes please")
    at(3.20, "state", before="greeting", after="gathering_reason")
    at(3.30, "agent.said", item="item_2", text="Why?")
    at(3.42, "agent.speaks", item="item_2", latency_ms=420)
    at(5.00, "call.ended", reason="completed")
    at(5.01, "call.counters", seconds=5.0, rtp_in=250, rtp_lost=0, rtp_out=251)
    return output.getvalue(), timeline, screen


def test_conversation_is_shown_line_by_line() -> None:
    text, _, _ = play()
    lines = [line.split() for line in text.splitlines()]
    assert ["0.05", "s", "agent", "Hello."] in lines, "words that come late stand where the sound began"
    assert ["3.42", "s", "agent", "Why?", "(420", "ms", "after", "the", "caller)"] in lines
    assert ["2.00", "s", "caller", "yes", "please"] in lines
    assert any("1950 ms of 4000 ms were heard" in line for line in text.splitlines())
    assert any("greeting -> gathering_reason" in line for line in text.splitlines())


def test_ai_that_is_not_told_and_one_that_changes_its_connection() -> None:
    output = io.StringIO()
    screen = Screen(Console(file=output, width=200))
    timeline = Timeline("7f3a", clock=Clock(), watchers=(screen.watch,))
    timeline.add("barge_in", item="item_1", heard_ms=100, received_ms=400, told=False)
    timeline.add("provider.reconnected", cause="goAway", resumed=True, gap_ms=0)
    first, second = output.getvalue().splitlines()
    assert first.endswith("interrupts: 100 ms of 400 ms were heard")
    assert second.endswith("[AI] goes on over another connection (goAway)")


def test_summary_counts_what_was_heard() -> None:
    _, timeline, _ = play()
    numbers = summarise(timeline)
    assert numbers["answer to the agent's first sound, ms"] == 40
    assert numbers["end of the caller's turn to the agent's answer, median ms"] == 420
    assert numbers["interruptions"] == 1
    assert numbers["heard of the interrupted answer, ms"] == 1950
    assert numbers["RTP packets in / lost"] == "250 / 0"


def test_summary_of_a_call_that_failed_at_once() -> None:
    timeline = Timeline("7f3a")
    timeline.add("call.started", caller="", exten="700")
    numbers = summarise(timeline)
    assert numbers["answers of the agent"] == 0
    assert numbers["answer to the agent's first sound, ms"] is None
