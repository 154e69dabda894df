"""What the tests of the stores share."""

from __future__ import annotations

import time

from arivox.conversation.memory.record import CallRecord, Turn, iso


def record(
    call: str = "c1", *, caller: str = "5551234", channel: str = "", started: float = 0.0
) -> CallRecord:
    return CallRecord(
        call,
        channel or f"1700000000.{call}",
        caller,
        "700",
        "openai",
        started or time.time(),
        state="greeting",
    )


def turns(call: str, count: int, first: int = 0) -> list[Turn]:
    return [
        Turn(iso(number), "ai" if number % 2 else "user", f"{call} says {number}", "greeting", call, "openai")
        for number in range(first, first + count)
    ]
