"""What in a line's G.711 frames of one ptime is taken for a voice."""

from __future__ import annotations

from typing import Final

from arivox.audio.format import PTIME_MS
from arivox.audio.g711 import Law, codes_up_to

ONSET_FRAMES: Final = 3
"""Loud frames in a row that begin a voice: a click is shorter."""
PRE_ROLL_FRAMES: Final = 300 // PTIME_MS
"""Of what is before them, a soft beginning."""
KEPT_FRAMES: Final = 15_000 // PTIME_MS
"""Of what a caller said, the latest: so much is kept to be heard again over another connection."""
_QUIET: Final = 500  # of 32768, a peak of -36 dBFS


def quiet_codes(law: Law) -> bytes:
    """Return the codes that are no voice: a frame is loud if it holds any other."""
    return codes_up_to(_QUIET, law)
