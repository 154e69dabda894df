"""How soon the caller hears the agent: after the answer, and after the AI's first delta in mid-call."""

from __future__ import annotations

import time
from typing import Final

import numpy as np

from arivox.testing import signal
from arivox.testing.phone import SipPhone
from bench.errors import BenchError
from bench.report import Limits, Result, Row, spread
from bench.testbed import Plan, Testbed

_ANSWERS: Final = 4
_HZ_TOLERANCE: Final = 20.0
_TAIL_MS: Final = 300.0


async def measure(bed: Testbed, plan: Plan) -> Result:
    """Measure in calls one after another. The AI speaks as soon as it is asked to."""
    after_answer: list[float] = []
    greeting: list[float] = []
    mid_call: list[float] = []
    for _ in range(2 if plan.quick else 6):
        await bed.ai.be("Greeter", answers=_ANSWERS)
        async with bed.calls(1) as (phone,):
            answered_at = time.monotonic()
            sounds = await _listen(phone)
        deltas = await bed.ai.notes("delta")
        delays = [(_onset(sounds, delta.value) - delta.at) * 1000 for delta in deltas]
        after_answer.append((_onset(sounds, signal.PROBES_HZ[0]) - answered_at) * 1000)
        greeting.append(delays[0])
        mid_call += delays[1:]
    answer, first, middle = spread(after_answer), spread(greeting), spread(mid_call)
    return Result(
        [
            Row(
                "answer to the agent's first sound, p50",
                answer["p50"],
                "ms",
                Limits(150.0, 60.0),
                f"max {answer['max']:.1f}; {answer['count']} calls",
            ),
            Row(
                "first delta of the AI to the first packet, p50",
                middle["p50"],
                "ms",
                Limits(21.0, 3.0),
                f"max {middle['max']:.1f}; {middle['count']} answers; greeting {first['p50']:.1f}",
            ),
        ],
        {"answer_to_sound_ms": answer, "delta_to_packet_ms": middle, "greeting_delta_to_packet_ms": first},
    )


async def _listen(phone: SipPhone) -> list[tuple[float, float]]:
    """Return when each sound of the call began, and its frequency."""
    try:
        await phone.wait_heard(after=0.0)
        for _ in range(_ANSWERS):
            await phone.wait_silence(100.0)
            await phone.wait_heard()
        await phone.wait_silence(_TAIL_MS)
    except TimeoutError as error:
        raise BenchError(str(error)) from error
    heard = phone.heard()
    sounds = []
    for start_ms, end_ms in signal.active_segments(heard.pcm):
        first, last = round(start_ms * 8), round(end_ms * 8)
        packet = int(heard.starts[np.searchsorted(heard.starts, first, "right") - 1])
        began = heard.arrival_of(first) + (first - packet) / 8000
        sounds.append((began, signal.dominant_frequency(heard.pcm[first:last])))
    return sounds


def _onset(sounds: list[tuple[float, float]], hz: float) -> float:
    for began, found in sounds:
        if abs(found - hz) < _HZ_TOLERANCE:
            return began
    raise BenchError(f"the caller did not hear the answer of {hz:.0f} Hz; of what was heard: {sounds}")
