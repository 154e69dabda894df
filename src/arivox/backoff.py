"""How long to wait before trying again."""

from __future__ import annotations

import random
from collections.abc import Iterator


def delays(first: float, most: float, *, factor: float = 2.0, jitter: float = 0.25) -> Iterator[float]:
    """Yield seconds to wait, growing from ``first`` to ``most``, each shortened by up to ``jitter`` of it.

    The jitter keeps many services that lost one server from coming back in step.
    """
    delay = first
    while True:
        yield delay * (1 - jitter * random.random())
        delay = min(delay * factor, most)
