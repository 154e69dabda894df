"""Whether an unbroken stream has fallen mute. Pure; ``now`` is in seconds on any steady clock.

The service sends sound all the time, silence and all. One that did so, and then sends nothing whatever, is
not there any more, though its connection is. One that sends no silence says nothing by it.
"""

from __future__ import annotations

from typing import Final

STEADY_S: Final = 10.0
"""A stream that came for so long without a gap is one that does not end."""
MUTE_S: Final = 4.0
"""Without anything for so long it is mute. A network that stalls is back before, as a rule."""
LOOK_S: Final = 0.5
"""How often to look. A look that comes much later than that tells of a stall of our own."""

_GAP_S: Final = 1.0


class Pulse:
    """The stream of one session."""

    def __init__(self) -> None:
        self._since = 0.0
        self._heard_at = float("-inf")
        self._looked_at = float("-inf")

    def heard(self, now: float) -> None:
        """Hear that something has arrived."""
        if now - self._heard_at > _GAP_S:
            self._since = now
        self._heard_at = now

    def mute(self, now: float) -> bool:
        """Return whether the stream has fallen mute. To be asked every ``LOOK_S``."""
        late = now - self._looked_at > LOOK_S + _GAP_S
        self._looked_at = now
        return not late and now - self._heard_at >= MUTE_S and self._heard_at - self._since >= STEADY_S
