"""The AI finds that the caller speaks: how soon the agent is silent, and what the AI is told was heard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from arivox.testing.marked import MarkedStream
from arivox.testing.recording import packet_level_dbfs
from bench.behaviours import LOUD_DBFS
from bench.errors import BenchError
from bench.report import Limits, Result, Row
from bench.testbed import AGENT, Plan, Testbed

_LIMITS: Final = Limits(40.0, 20.0)
_ANSWER_S: Final = 10.0
_INTERRUPT_S: Final = 1.0
_PACKET_MS: Final = 20.0
_SILENCE_MS: Final = 300.0
# What is interrupted: the pace of the AI, and whether it is the greeting.
_CASES: Final = {
    "answer": (10.0, False),
    "still sending": (1.2, False),
    "greeting": (10.0, True),
}


@dataclass(frozen=True, slots=True)
class Interruption:
    """One interruption, in milliseconds."""

    last_packet_ms: float
    """From the AI's speech-started to the arrival of the last packet of voice; 0 if that came before."""
    truncate_ms: float
    """What the AI was told the caller heard."""
    heard_ms: float
    """What the caller recorded."""

    @property
    def error_ms(self) -> float:
        """Return how far off the AI was told."""
        return self.truncate_ms - self.heard_ms


async def measure(bed: Testbed, plan: Plan) -> Result:
    """Interrupt an answer that is all delivered, one that is still being sent, and the greeting."""
    rows = []
    numbers: dict[str, Any] = {}
    errors: list[float] = []
    for name, (speed, in_greeting) in _CASES.items():
        found = [await interrupt(bed, speed, in_greeting) for _ in range(1 if plan.quick else 4)]
        silent = max(one.last_packet_ms for one in found)
        errors += [one.error_ms for one in found]
        note = f"worst of {len(found)}; the sound ends up to {_PACKET_MS:.0f} ms later, with the packet"
        rows.append(Row(f"silent after speech-started, {name}", silent, "ms", _LIMITS, note))
        numbers[name.replace(" ", "_")] = [
            {"last_packet_ms": one.last_packet_ms, "truncate_ms": one.truncate_ms, "heard_ms": one.heard_ms}
            for one in found
        ]
    worst = max(errors, key=abs)
    rows.append(
        Row(
            "error of truncate, worst",
            abs(worst),
            "ms",
            _LIMITS,
            f"{worst:+.1f}, what the AI was told minus what was heard",
        )
    )
    return Result(rows, numbers)


async def interrupt(
    bed: Testbed, speed: float, in_greeting: bool, extension: str = AGENT, *, paces: bool = False
) -> Interruption:
    """Interrupt an answer that comes at ``speed``.

    The AI is told what was heard only by OpenAI Realtime, which ``AGENT`` has. One that ``paces`` its speech
    stops by itself, and the time counts from the end of what it had written.
    Raise BenchError where the agent is silent already, or speaks on.
    """
    await bed.ai.be(
        "Reader",
        seconds=_ANSWER_S,
        speed=speed,
        interrupt_s=_INTERRUPT_S,
        in_greeting=in_greeting,
        paces=paces,
    )
    async with bed.calls(1, extension) as (phone,):
        started = await bed.ai.wait_note("speech_started")
        truncated = await bed.ai.wait_note("truncate", "delete") if extension == AGENT else None
        try:
            await phone.wait_silence(_SILENCE_MS)
        except TimeoutError as error:
            raise BenchError(f"the agent spoke on after the interruption: {error}") from error
        heard, packets = phone.heard(), list(phone.received)
    loud = [packet.time for packet in packets if packet_level_dbfs(packet) > LOUD_DBFS]
    if not loud or loud[-1] < started.at - 2 * _PACKET_MS / 1000:
        raise BenchError("the agent was silent already when the caller interrupted")
    return Interruption(
        last_packet_ms=round(max(0.0, (loud[-1] - started.at) * 1000), 2),
        truncate_ms=truncated.value if truncated is not None else 0.0,
        heard_ms=round(MarkedStream(_ANSWER_S).position_ms(heard.pcm), 2),
    )
