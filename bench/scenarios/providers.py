"""The three kinds of AI beside each other, in one run: round trip, CPU, barge-in."""

from __future__ import annotations

import statistics
from typing import Any, Final, NamedTuple

from bench import process
from bench.behaviours import NEXT_ANSWER_EARLY_S
from bench.report import Limits, Result, Row
from bench.scenarios.barge_in import interrupt
from bench.scenarios.round_trip import echo, phases
from bench.scenarios.talking import talk
from bench.testbed import AGENTS, Plan, Testbed

_FIRST: Final = "openai"
_LIVE: Final = "openai-live"
# What the others may take, where OpenAI Realtime takes 1: Gemini's audio must be resampled.
_LIMITS: Final = {"gemini": Limits(1.5, 1.2), "openai-live": Limits(1.1, 1.0)}
# OpenAI Live speaks at the pace of speech, the others several times faster.
_SPEED: Final = {"openai": 4.0, "gemini": 4.0, "openai-live": 1.0}
# The same from all: how much comes in one message is the far end's choice, and costs as much as the protocol.
_CHUNK_MS: Final = 100
_SMALL_CHUNK_MS: Final = 40
_PACKET_MS: Final = 20.0
_ANSWER_S: Final = 5.5


class _Cpu(NamedTuple):
    """What one call-second cost in one round, in milliseconds."""

    service_ms: float
    asterisk_ms: float


async def measure(bed: Testbed, plan: Plan) -> Result:
    """Measure them in turn, round by round, so that the machine's moods meet all of them."""
    trips: dict[str, list[float]] = {name: [] for name in AGENTS}
    cpu: dict[str, list[_Cpu]] = {name: [] for name in AGENTS}
    small: list[_Cpu] = []
    cuts: dict[str, list[float]] = {name: [] for name in AGENTS}
    rss_mb = 0.0
    lost = 0
    for phase in phases(1 if plan.quick else 8):
        for name, extension in AGENTS.items():
            found = await echo(bed, plan.calls, [phase], 3, extension)
            trips[name].append(found["total_ms"]["p50"])
            lost += len(found["lost"])
    for _ in range(1 if plan.quick else 6):
        for name in AGENTS:
            cpu[name].append(await _cpu(bed, plan, name, _CHUNK_MS))
            rss_mb = max(rss_mb, process.rss_mb(bed.service.pid))
        small.append(await _cpu(bed, plan, _LIVE, _SMALL_CHUNK_MS))
    for _ in range(1 if plan.quick else 6):
        for name, extension in AGENTS.items():
            cut = await interrupt(bed, _SPEED[name], True, extension, paces=name == _LIVE)
            cuts[name].append(cut.last_packet_ms)
    rows = [
        *_compare(f"round trip, {plan.calls} calls, p50", trips),
        *_compare_cpu(f"CPU of the service per call-second, {plan.calls} calls", cpu),
        _cpu_row(f"  {_LIVE} in pieces of {_SMALL_CHUNK_MS} ms instead of {_CHUNK_MS}", small),
        *_compare("end of the agent's sound after the AI stops it", cuts, _PACKET_MS),
    ]
    numbers: dict[str, Any] = {
        "round_trip_ms": trips,
        "cpu": cpu,
        "cpu_small_pieces": small,
        "last_packet_ms": cuts,
        "rss_mb": rss_mb,
    }
    rows.append(Row("bursts lost, all three", lost, "", Limits(0.0, 0.0)))
    return Result(rows, numbers)


async def _cpu(bed: Testbed, plan: Plan, name: str, chunk_ms: int) -> _Cpu:
    await bed.ai.be("Monologue", seconds=_ANSWER_S, speed=_SPEED[name], chunk_ms=chunk_ms)
    async with bed.calls(plan.calls, AGENTS[name]) as phones:
        # As long as it takes from one answer to the next: each comes much faster than it is played.
        talked = await talk(bed, phones, _ANSWER_S - NEXT_ANSWER_EARLY_S)
    return _Cpu(talked["cpu_ms"], talked["asterisk_cpu_ms"])


def _compare(what: str, found: dict[str, list[float]], added: float = 0.0) -> list[Row]:
    """Return each one's mean, and how it compares with the first; ``added`` is the same for all."""
    first = statistics.fmean(found[_FIRST]) + added
    rows = []
    for name, values in found.items():
        mean = statistics.fmean(values) + added
        spread = f"{min(values) + added:.1f} to {max(values) + added:.1f} in {len(values)} rounds"
        rows.append(Row(f"{what}: {name}", mean, "ms", note=spread))
        if name != _FIRST:
            rows.append(_ratio(name, mean / first))
    return rows


def _compare_cpu(what: str, found: dict[str, list[_Cpu]]) -> list[Row]:
    """Return each one's median, and how it compares with the first.

    What slows the service down for a while, slows Asterisk too, whose work is the same with each: so compared
    is what the service takes where Asterisk takes 1 in the same seconds.
    """
    rows = []
    first = _share(found[_FIRST])
    for name, values in found.items():
        rows.append(_cpu_row(f"{what}: {name}", values))
        if name != _FIRST:
            rows.append(_ratio(name, _share(values) / first))
    return rows


def _cpu_row(what: str, values: list[_Cpu]) -> Row:
    note = f"{_share(values):.2f} of what the calls cost Asterisk"
    return Row(what, statistics.median(value.service_ms for value in values), "ms", note=note)


def _share(values: list[_Cpu]) -> float:
    return statistics.median(value.service_ms / value.asterisk_ms for value in values)


def _ratio(name: str, ratio: float) -> Row:
    return Row(f"  {name} where {_FIRST} is 1", round(ratio, 3), "", _LIMITS[name])
