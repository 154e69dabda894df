"""Why calls end."""

from __future__ import annotations

from enum import Enum
from typing import Final

STATUS_VARIABLE: Final = "ARIVOX_STATUS"
"""Channel variable in which the dialplan finds the value of the reason."""


class EndReason(Enum):
    """Why a call ended."""

    CALLER_HANGUP = "caller_hangup"
    AGENT_HANGUP = "completed"
    TRANSFERRED = "transferred"
    TIME_LIMIT = "time_limit"
    CALLER_IDLE = "caller_idle"
    PROVIDER_FAILED = "provider_failed"
    ASTERISK_FAILED = "asterisk_failed"
    NO_PORTS = "no_ports"
    BUSY = "busy"
    SHUTDOWN = "shutdown"
    INTERNAL_ERROR = "internal_error"

    @property
    def failure(self) -> bool:
        """Return whether the caller was not served to the end, and is sent on to the dialplan."""
        return self not in _SERVED


_SERVED: Final = frozenset(
    {
        EndReason.CALLER_HANGUP,
        EndReason.AGENT_HANGUP,
        EndReason.TRANSFERRED,
        EndReason.TIME_LIMIT,
        EndReason.CALLER_IDLE,
    }
)
