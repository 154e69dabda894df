"""Whether a stream that never ends has fallen mute: pure, with time as a parameter."""

from __future__ import annotations

import pytest

from arivox.providers.openai_live.pulse import LOOK_S, MUTE_S, STEADY_S, Pulse


def looked(pulse: Pulse, until: float, start: float = 0.0, *, every: float = 0.0) -> float | None:
    """Look as often as is due; with ``every`` something arrives so often. Return when it was mute."""
    now, next_at = start, start
    while now <= until:
        while every and next_at <= now:
            pulse.heard(next_at)
            next_at += every
        if pulse.mute(now):
            return now
        now += LOOK_S
    return None


def test_stream_that_goes_on_is_not_mute() -> None:
    assert looked(Pulse(), 100, every=0.04) is None


def test_steady_stream_that_stops_is_mute_after_a_while() -> None:
    pulse = Pulse()
    assert looked(pulse, STEADY_S + 1, every=0.04) is None
    mute = looked(pulse, 100, STEADY_S + 1 + LOOK_S)
    assert mute == pytest.approx(STEADY_S + 1 + MUTE_S, abs=LOOK_S + 0.1)


def test_stream_that_has_not_come_for_long_may_stop() -> None:
    pulse = Pulse()
    assert looked(pulse, STEADY_S - 1, every=0.04) is None
    assert looked(pulse, 100, STEADY_S) is None


def test_stream_that_sends_no_silence_may_stop() -> None:
    pulse = Pulse()
    for utterance in range(10):
        assert looked(pulse, utterance * 8 + 4, utterance * 8, every=0.04) is None
        assert looked(pulse, utterance * 8 + 7.5, utterance * 8 + 4.5) is None
    assert looked(pulse, 200, 80) is None


def test_stall_of_our_own_is_not_taken_for_the_services() -> None:
    pulse = Pulse()
    assert looked(pulse, 20, every=0.04) is None
    assert not pulse.mute(30)
    pulse.heard(30.1)
    assert not pulse.mute(30.5)
