"""The machine's own noise: the same bursts through the Echo() of the dialplan, without service and AI."""

from __future__ import annotations

import asyncio

from arivox.testing.signal import PROBES_HZ
from bench import process
from bench.bursts import say_bursts
from bench.errors import BenchError
from bench.gaps import gaps
from bench.report import Result, Row, spread
from bench.testbed import ECHO, Plan, Testbed


async def measure(bed: Testbed, plan: Plan) -> Result:
    """Measure what Asterisk and the phones add, and what a call costs Asterisk here and now."""
    loop = asyncio.get_running_loop()
    async with bed.calls(plan.calls, ECHO) as phones:
        began, cpu = loop.time(), process.cpu_s(bed.asterisk.pid)
        said = await asyncio.gather(
            *(
                say_bursts(phone, hz, 3 if plan.quick else 8)
                for phone, hz in zip(phones, PROBES_HZ, strict=False)
            )
        )
        cpu, took = process.cpu_s(bed.asterisk.pid) - cpu, loop.time() - began
        heard = spread(gaps(phone.received for phone in phones))
        clock = spread(gaps(phone.sent for phone in phones))
    trip = spread(
        [(b.heard_at - b.said_at) * 1000 for of_one in said for b in of_one if b.heard_at is not None]
    )
    if not trip["count"]:
        raise BenchError("not one burst came back from Echo()")
    cpu_ms = round(cpu * 1000 / (took * plan.calls), 3)
    return Result(
        [
            Row(
                "round trip through Echo(), p50",
                trip["p50"],
                "ms",
                note=f"p99 {trip['p99']:.2f}; {plan.calls} calls",
            ),
            Row("packets of Echo(): gap p99", heard["p99"], "ms", note=f"max {heard['max']:.1f}"),
            Row("the phones' own clock: gap p99", clock["p99"], "ms", note=f"max {clock['max']:.1f}"),
            Row("CPU of Asterisk per call-second, Echo()", cpu_ms, "ms"),
        ],
        {"round_trip_ms": trip, "gap_ms": heard, "phone_clock_gap_ms": clock, "asterisk_cpu_ms": cpu_ms},
    )
