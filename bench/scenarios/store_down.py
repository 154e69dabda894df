"""The store of conversations dies in mid-call: what callers hear of it, and what it holds afterwards."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

import redis.asyncio as redis

from arivox.testing.phone import SipPhone
from bench.gaps import gaps
from bench.report import NONE_LEFT, Limits, Result, Row, spread
from bench.testbed import Plan, Testbed

_DOWN_S: Final = 30.0
_QUICK_S: Final = 3.0
_ANSWER_S: Final = 2.0
_CAUGHT_UP_S: Final = 30.0
_POLL_S: Final = 0.2
_RATIO: Final = Limits(1.05, 1.01)


async def measure(bed: Testbed, plan: Plan) -> Result:
    """Measure the gaps with the store up, down, and back; then compare what it holds with what was said."""
    seconds = _QUICK_S if plan.quick else _DOWN_S
    await bed.ai.be("Counter", seconds=_ANSWER_S)
    async with bed.calls(plan.calls) as phones:
        await asyncio.gather(*(phone.wait_heard(after=0.0) for phone in phones))
        up = await _gaps(phones, seconds)
        await asyncio.to_thread(bed.store.kill)
        down = await _gaps(phones, seconds)
        await asyncio.to_thread(bed.store.start)
        back = await _gaps(phones, seconds / 2)
    answers = await bed.ai.notes("answer")
    said = len(answers) - plan.calls  # the last of each call may not have been heard to its end
    wrong, twice, turns = await _compare(bed, said)
    rows = [
        Row(f"gap p99 with the store down {seconds:.0f} s", down["p99"], "ms", note=f"max {down['max']:.1f}"),
        Row("  where with the store up it is 1", round(down["p99"] / up["p99"], 3), "", _RATIO),
        Row("  when it is back", round(back["p99"] / up["p99"], 3), "", _RATIO),
        Row("turns missing or out of order afterwards", wrong, "", NONE_LEFT, f"of {turns}"),
        Row("turns stored twice", twice, "", NONE_LEFT),
    ]
    return Result(rows, {"up_ms": up, "down_ms": down, "back_ms": back, "turns": turns})


async def _gaps(phones: list[SipPhone], seconds: float) -> dict[str, float]:
    marks = [len(phone.received) for phone in phones]
    await asyncio.sleep(seconds)
    return spread(gaps(phone.received[mark:] for phone, mark in zip(phones, marks, strict=True)))


async def _compare(bed: Testbed, said: int) -> tuple[int, int, int]:
    """Return how many turns are missing or not in order, how many are there twice, and how many there are.

    The AI numbers its answers: what is kept of a call must be 1, 2, 3 and so on.
    """
    client = redis.from_url(bed.store.url, decode_responses=True)
    lists: list[list[int]] = []
    try:
        for _ in range(round(_CAUGHT_UP_S / _POLL_S)):
            lists = [await _numbers(client, key) async for key in client.scan_iter("conv:*")]
            if sum(map(len, lists)) >= said:
                break
            await asyncio.sleep(_POLL_S)
    finally:
        await client.aclose()
    stored = sum(map(len, lists))
    twice = sum(len(numbers) - len(set(numbers)) for numbers in lists)
    unordered = sum(numbers != list(range(1, len(numbers) + 1)) for numbers in lists)
    return max(0, said - stored) + unordered, twice, stored


async def _numbers(client: Any, key: str) -> list[int]:
    turns = [json.loads(line) for line in await client.lrange(key, 0, -1)]
    return [int(turn["text"].split()[-1]) for turn in turns if not turn.get("cut")]
