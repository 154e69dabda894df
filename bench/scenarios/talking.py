"""All agents talk all the time, all callers stream: CPU and memory of the service, packets at the callers."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from arivox.testing import signal
from arivox.testing.phone import SipPhone
from arivox.testing.recording import packet_level_dbfs
from bench import process
from bench.behaviours import LOUD_DBFS
from bench.errors import BenchError
from bench.gaps import gaps
from bench.report import Limits, Result, Row, spread
from bench.testbed import Plan, Testbed

_ANSWER_S: Final = 10.0
_SPEED: Final = 4.0  # an AI sends 3 to 10 times faster than real time
_UNDER_WAY_S: Final = 1.0
_CPU: Final = Limits(6.0, 2.5)
_GAP: Final = Limits(25.0, 21.0)
_MEMORY: Final = Limits(120.0, 70.0)


async def measure(bed: Testbed, plan: Plan) -> Result:
    """Measure with many calls, and with twice as many."""
    seconds = min(plan.seconds, 3.0) if plan.quick else plan.seconds
    idle_mb = process.rss_mb(bed.service.pid)
    rows: list[Row] = []
    numbers: dict[str, Any] = {"rss_before_mb": round(idle_mb, 1)}
    for count in (plan.calls, 2 * plan.calls):
        await bed.ai.be("Monologue", seconds=_ANSWER_S, speed=_SPEED)
        async with bed.calls(count) as phones:
            found = await talk(bed, phones, seconds)
        numbers[f"{count}_calls"] = found
        twice = count > plan.calls
        asterisk_ms = found["asterisk_cpu_ms"]
        note = f"{found['cpu_ms'] / asterisk_ms:.2f} of what the call costs Asterisk ({asterisk_ms:.2f} ms)"
        limits = None if twice else _CPU
        rows.append(
            Row(f"CPU of the service per call-second, {count} calls", found["cpu_ms"], "ms", limits, note)
        )
        gap, clock = found["gap_ms"], found["phone_clock_gap_ms"]
        note = f"p50 {gap['p50']:.2f}, max {gap['max']:.1f}; the phones' own clock p99 {clock['p99']:.1f}"
        limits = _GAP if twice else None
        rows.append(Row(f"packets to the caller: gap p99, {count} calls", gap["p99"], "ms", limits, note))
        limits = _MEMORY if twice else None
        note = f"before {idle_mb:.0f}"
        rows.append(Row(f"memory of the service (RSS), {count} calls", found["rss_mb"], "MB", limits, note))
    return Result(rows, numbers)


async def talk(bed: Testbed, phones: list[SipPhone], seconds: float) -> dict[str, Any]:
    """Measure for ``seconds``, while agents and callers talk all the time."""
    for phone, hz in zip(phones, signal.PROBES_HZ, strict=False):
        phone.play(signal.tone(hz, seconds + 2 * _UNDER_WAY_S))
    await asyncio.gather(*(_hear(phone) for phone in phones))
    await asyncio.sleep(_UNDER_WAY_S)
    service, asterisk = bed.service.pid, bed.asterisk.pid
    loop = asyncio.get_running_loop()
    marks = [(len(phone.received), len(phone.sent)) for phone in phones]
    began, cpu, asterisk_cpu = loop.time(), process.cpu_s(service), process.cpu_s(asterisk)
    await asyncio.sleep(seconds)
    took = loop.time() - began
    cpu, asterisk_cpu = process.cpu_s(service) - cpu, process.cpu_s(asterisk) - asterisk_cpu
    rss_mb = process.rss_mb(service)
    heard = [phone.received[first:] for phone, (first, _) in zip(phones, marks, strict=True)]
    said = [phone.sent[first:] for phone, (_, first) in zip(phones, marks, strict=True)]
    call_seconds = len(phones) * took
    return {
        "seconds": round(took, 3),
        "cpu_ms": round(cpu * 1000 / call_seconds, 3),
        "cpu_share": round(cpu / took, 4),
        "asterisk_cpu_ms": round(asterisk_cpu * 1000 / call_seconds, 3),
        "rss_mb": round(rss_mb, 1),
        "gap_ms": spread(gaps(heard)),
        "phone_clock_gap_ms": spread(gaps(said)),
        # The agents never pause: packets without their voice are holes.
        "packets_without_voice": sum(
            packet_level_dbfs(packet) < LOUD_DBFS for packets in heard for packet in packets
        ),
        "packets": sum(map(len, heard)),
        "packets_expected": round(call_seconds * 50),
    }


async def _hear(phone: SipPhone) -> None:
    try:
        await phone.wait_heard(after=0.0)
    except TimeoutError as error:
        raise BenchError(str(error)) from error
