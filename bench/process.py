"""What Linux tells of a process and of the machine (proc(5))."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process and all its threads so far, user and system."""
    # The id of another process's CPU clock, as clock_getcpuclockid(3) makes it: /proc counts in 10 ms steps.
    return time.clock_gettime((~pid << 3) | 2)


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process in MB (1e6 bytes)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def open_files(pid: int) -> list[str]:
    """Return what the open file descriptors of a process are."""
    names = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            names.append(os.readlink(link))
        except FileNotFoundError:  # closed meanwhile
            continue
    return names


def udp_sockets(pid: int) -> int:
    """Return how many UDP sockets a process holds."""
    inodes = set()
    for table in ("udp", "udp6"):
        # All sockets of the network namespace; the tenth column is the inode.
        for line in Path(f"/proc/{pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            inodes.add(f"socket:[{line.split()[9]}]")
    return sum(name in inodes for name in open_files(pid))


class Busy:
    """How busy the whole machine was since this was made."""

    def __init__(self) -> None:
        self._before = _jiffies()

    def share(self) -> float:
        """Return the share of all cores' time that was not idle, 0 to 1."""
        total, idle = (now - before for now, before in zip(_jiffies(), self._before, strict=True))
        return 1 - idle / total if total else 0.0


def describe() -> dict[str, str | int]:
    """Return what the machine is."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _jiffies() -> tuple[int, int]:
    line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    fields = [int(field) for field in line.split()[1:9]]
    return sum(fields), fields[3] + fields[4]  # idle and iowait
