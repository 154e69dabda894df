"""The scenarios, in the order they run. Each module has one ``measure(bed, plan)``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from bench.report import Result
from bench.scenarios import (
    barge_in,
    burst_answer,
    first_sound,
    leftovers,
    noise,
    providers,
    resampling,
    round_trip,
    store_down,
    talking,
)
from bench.testbed import Plan, Testbed

Scenario = Callable[[Testbed, Plan], Awaitable[Result]]

SCENARIOS: Final[dict[str, Scenario]] = {
    "noise": noise.measure,
    "round_trip": round_trip.measure,
    "talking": talking.measure,
    "first_sound": first_sound.measure,
    "burst_answer": burst_answer.measure,
    "barge_in": barge_in.measure,
    "providers": providers.measure,
    "store_down": store_down.measure,
    "resampling": resampling.measure,
    "leftovers": leftovers.measure,
}
