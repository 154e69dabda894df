"""The names of the tools of Arivox itself."""

from __future__ import annotations

from typing import Final

MOVE: Final = "move_to_state"
NOT_UNDERSTOOD: Final = "not_understood"
END: Final = "end_call"
TRANSFER: Final = "transfer_call"
HOLD: Final = "hold_call"
SEND_DTMF: Final = "send_dtmf"
COLLECT: Final = "collect_digits"
NOTE: Final = "leave_note"
CALL_BACK: Final = "request_call_back"

ACTS: Final = frozenset({END, TRANSFER, HOLD, SEND_DTMF, COLLECT, NOTE, CALL_BACK})
"""Those that act on the call. A state may run them on entering and leaving; they refuse nothing."""
RESERVED: Final = ACTS | {MOVE, NOT_UNDERSTOOD}
"""Names that no tool of the user's may have."""
