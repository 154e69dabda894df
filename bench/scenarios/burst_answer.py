"""A long answer that the AI delivers in a fraction of its length: is all of it heard, once and in time?"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, Final

from arivox.testing import signal
from arivox.testing.marked import MarkedStream
from arivox.testing.phone import SipPhone
from bench.errors import BenchError
from bench.report import NONE_LEFT, Result, Row
from bench.testbed import Plan, Testbed

_CALLS: Final = 3
_SPEED: Final = 10.0
_JITTER_BUFFER_MS: Final = 60.0
_TAIL_MS: Final = 500.0


async def measure(bed: Testbed, plan: Plan) -> Result:
    """Compare what three callers heard with what the AI said."""
    seconds = 6.0 if plan.quick else 30.0
    await bed.ai.be("Reader", seconds=seconds, speed=_SPEED)
    async with bed.calls(_CALLS) as phones:
        heard = await asyncio.gather(*(_hear(phone, seconds) for phone in phones))
    faults = sum(len(one["jumps"]) + len(one["pauses"]) for one in heard)
    short_ms = max(seconds * 1000 - one["voice_ms"] for one in heard)
    note = f"{_CALLS} calls; at most {max(short_ms, 0):.1f} ms of the answer missing in all"
    return Result(
        [Row(f"drop-outs in an answer of {seconds:.0f} s at {_SPEED:.0f}x", faults, "", NONE_LEFT, note)],
        {"seconds": seconds, "calls": heard},
    )


async def _hear(phone: SipPhone, seconds: float) -> dict[str, Any]:
    try:
        await phone.wait_heard(after=0.0)
        await phone.wait_silence(_TAIL_MS, timeout=seconds + 10)
    except TimeoutError as error:
        raise BenchError(str(error)) from error
    heard = phone.heard(_JITTER_BUFFER_MS)
    voice = signal.active_segments(heard.pcm)
    if not voice:
        raise BenchError("the caller heard nothing of the answer")
    return {
        "voice_ms": round(sum(end - start for start, end in voice), 1),
        # Places and lengths in ms: pieces never heard (positive) or heard twice (negative), and silences.
        "jumps": MarkedStream(seconds).jumps(heard.pcm),
        "pauses": [(end, start - end) for (_, end), (start, _) in itertools.pairwise(voice)],
    }
