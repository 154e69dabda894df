"""Linux's periodic kernel timers as file descriptors (timerfd_create(2)).

They are late by 0.04-0.2 ms, where the event loops' own timers are rounded to whole milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import time
from typing import Final

# <sys/timerfd.h>
_CLOCK_MONOTONIC: Final = 1
_TFD_NONBLOCK: Final = os.O_NONBLOCK
_TFD_CLOEXEC: Final = os.O_CLOEXEC
_TFD_TIMER_ABSTIME: Final = 1
_ITIMERSPEC: Final = struct.Struct("@qqqq")


def open_timerfd(first: float, interval: float) -> int:
    """Return a descriptor that becomes readable at monotonic time ``first`` and every ``interval`` after.

    Both in seconds. A read gives the number of expirations since the last one, eight bytes in native order.
    Raises OSError, also where the system has no such timers.
    """
    if sys.version_info >= (3, 13):
        fd = os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)
        os.timerfd_settime(fd, flags=os.TFD_TIMER_ABSTIME, initial=first, interval=interval)
        return fd
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "timerfd_create"):
        raise OSError("this system has no timerfd")
    fd = int(libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create failed")
    times = [part for value in (interval, first) for part in divmod(round(value * 1e9), 1_000_000_000)]
    if libc.timerfd_settime(fd, _TFD_TIMER_ABSTIME, _ITIMERSPEC.pack(*times), None) < 0:
        error = ctypes.get_errno()
        os.close(fd)
        raise OSError(error, "timerfd_settime failed")
    return fd
