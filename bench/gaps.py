"""The time between packets."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from arivox.testing.recording import RtpPacket


def gaps(streams: Iterable[Sequence[RtpPacket]]) -> list[float]:
    """Return the milliseconds between each packet of a stream and the next one."""
    return [
        (after.time - before.time) * 1000
        for packets in streams
        for before, after in itertools.pairwise(packets)
    ]
