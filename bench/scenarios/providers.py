"""The three kinds of AI beside each other, in one run: round trip, CPU, barge-in."""

from __future__ import annotations

import statistics
from typing import Any, Final

from bench import process
from bench.report import Limits, Result, Row
from bench.scenarios.barge_in import interrupt
from bench.scenarios.round_trip import echo
from bench.scenarios.talking import talk
from bench.testbed import AGENTS, Plan, Testbed

_FIRST: Final = "openai"
_LIVE: Final = "openai-live"
# What the others may take, where OpenAI Realtime takes 1: Gemini's audio must be resampled.
_LIMITS: Final = {"gemini": Limits(1.5, 1.2), "openai-live": Limits(1.1, 1.0)}
# OpenAI Live speaks at the pace of speech, the others several times faster.
_SPEED: Final = {"openai": 4.0, "gemini": 4.0, "openai-live": 1.0}
_CHUNK_MS: Final = 100  # OpenAI Live's, in the comparison; the least that OpenAI Realtime sends
_SMALL_CHUNK_MS: Final = 40
_PACKET_MS: Final = 20.0


async def measure(bed: Testbed, plan: Plan) -> Result:
    """Measure them in turn, round by round, so that the machine's moods meet all of them."""
    trips: dict[str, list[float]] = {name: [] for name in AGENTS}
    cpu: dict[str, list[float]] = {name: [] for name in AGENTS}
    small: list[float] = []
    cuts: dict[str, list[float]] = {name: [] for name in AGENTS}
    rss_mb = 0.0
    lost = 0
    # How the clocks of phone and service lie to each other is luck, of up to 5 ms: many rounds, and the mean.
    for _ in range(1 if plan.quick else 8):
        for name, extension in AGENTS.items():
            found = await echo(bed, plan.calls, 1, 3, extension)
            trips[name].append(found["total_ms"]["p50"])
            lost += len(found["lost"])
    for _ in range(1 if plan.quick else 3):
        for name in AGENTS:
            cpu[name].append(await _cpu_ms(bed, plan, name, _CHUNK_MS if name == _LIVE else 0))
            rss_mb = max(rss_mb, process.rss_mb(bed.service.pid))
        small.append(await _cpu_ms(bed, plan, _LIVE, _SMALL_CHUNK_MS))
    for _ in range(1 if plan.quick else 6):
        for name, extension in AGENTS.items():
            cut = await interrupt(bed, _SPEED[name], True, extension, paces=name == _LIVE)
            cuts[name].append(cut.last_packet_ms)
    rows = [
        *_compare(f"round trip, {plan.calls} calls, p50", trips),
        *_compare(f"CPU of the service per call-second, {plan.calls} calls", cpu),
        Row(
            f"  {_LIVE} in pieces of {_SMALL_CHUNK_MS} ms instead of {_CHUNK_MS}",
            statistics.fmean(small),
            "ms",
        ),
        *_compare("end of the agent's sound after the AI stops it", cuts, _PACKET_MS),
    ]
    numbers: dict[str, Any] = {
        "round_trip_ms": trips,
        "cpu_ms": cpu,
        "cpu_ms_small_pieces": small,
        "last_packet_ms": cuts,
        "rss_mb": rss_mb,
    }
    rows.append(Row("bursts lost, all three", lost, "", Limits(0.0, 0.0)))
    return Result(rows, numbers)


async def _cpu_ms(bed: Testbed, plan: Plan, name: str, chunk_ms: int) -> float:
    await bed.ai.be("Monologue", seconds=10.0, speed=_SPEED[name], chunk_ms=chunk_ms)
    async with bed.calls(plan.calls, AGENTS[name]) as phones:
        talked = await talk(bed, phones, min(plan.seconds, 3.0 if plan.quick else 8.0))
    return float(talked["cpu_ms"])


def _compare(what: str, found: dict[str, list[float]], added: float = 0.0) -> list[Row]:
    """Return each one's mean, and how it compares with the first; ``added`` is the same for all."""
    first = statistics.fmean(found[_FIRST]) + added
    rows = []
    for name, values in found.items():
        mean = statistics.fmean(values) + added
        spread = f"{min(values) + added:.1f} to {max(values) + added:.1f} in {len(values)} rounds"
        rows.append(Row(f"{what}: {name}", mean, "ms", note=spread))
        if name != _FIRST:
            rows.append(Row(f"  {name} where {_FIRST} is 1", round(mean / first, 3), "", _LIMITS[name]))
    return rows
