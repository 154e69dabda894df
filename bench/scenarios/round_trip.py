"""Caller to echoing AI and back: one call, many calls, twice as many."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from arivox.testing.pacer import TICK_S, Pacer
from arivox.testing.signal import PROBES_HZ
from bench.bursts import reached_ai, say_bursts
from bench.errors import BenchError
from bench.report import NONE_LEFT, Limits, Result, Row, spread
from bench.testbed import AGENT, Plan, Testbed

_LIMITS: Final = Limits(30.0, 15.0)


async def measure(bed: Testbed, plan: Plan) -> Result:
    """Measure the way up, the way down and both, and count bursts that never came back."""
    rows: list[Row] = []
    numbers: dict[str, Any] = {}
    for count, rounds in ((1, 8), (plan.calls, 3), (2 * plan.calls, 2)):
        trips = await echo(bed, count, phases(1 if plan.quick else rounds), 3)
        numbers[f"{count}_calls"] = trips
        calls = f"{count} call{'s' * (count > 1)}"
        total, up, down = trips["total_ms"], trips["up_ms"], trips["down_ms"]
        note = f"p99 {total['p99']:.1f}; up {up['p50']:.1f}, down {down['p50']:.1f}; {total['count']} bursts"
        limits = _LIMITS if count == plan.calls else None
        rows.append(Row(f"round trip, {calls}, p50", total["p50"], "ms", limits, note))
        if count > 1:
            rows.append(
                Row(f"bursts lost, {calls}", len(trips["lost"]), "", NONE_LEFT, _where(trips["lost"]))
            )
    return Result(rows, numbers)


def _where(lost: list[dict[str, Any]]) -> str:
    up = sum(not burst["reached_ai"] for burst in lost)
    return f"{up} on the way up, {len(lost) - up} on the way down" if lost else ""


def phases(rounds: int) -> list[float]:
    """Return where the phones' clock begins within a tick, in seconds, for so many rounds of calls.

    The service sends in slots of the same length: how long a frame waits for one hangs on both clocks.
    """
    return [TICK_S * (index + 0.5) / rounds for index in range(rounds)]


async def echo(
    bed: Testbed, count: int, phases: Sequence[float], bursts: int, extension: str = AGENT
) -> dict[str, Any]:
    """Have ``count`` callers say bursts to an AI that repeats them, in one round of calls for each phase.

    Raise BenchError where not one comes back.
    """
    totals: list[float] = []
    up: list[float] = []
    down: list[float] = []
    lost: list[dict[str, Any]] = []
    for phase in phases:
        Pacer.running().phase_s = phase
        await bed.ai.be("Repeater")
        async with bed.calls(count, extension) as phones:
            each = await asyncio.gather(
                *(say_bursts(phone, hz, bursts) for phone, hz in zip(phones, PROBES_HZ, strict=False))
            )
        Pacer.running().phase_s = None
        onsets = await bed.ai.notes("onset")
        for index, burst in ((index, burst) for of_one in each for index, burst in enumerate(of_one)):
            at_ai = reached_ai(burst, onsets)
            if burst.heard_at is None:
                lost.append({"hz": burst.hz, "burst": index, "reached_ai": at_ai is not None})
            elif at_ai is not None:
                totals.append((burst.heard_at - burst.said_at) * 1000)
                up.append((at_ai - burst.said_at) * 1000)
                down.append((burst.heard_at - at_ai) * 1000)
    if not totals:
        raise BenchError(f"not one burst came back from the AI, with {count} calls")
    return {
        "total_ms": spread(totals),
        "up_ms": spread(up),
        "down_ms": spread(down),
        "said": len(phases) * count * bursts,
        "lost": lost,
    }
