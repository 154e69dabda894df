"""A child process that cannot outlive us, whatever ends us."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

# Linux delivers the parent-death signal when the *thread* that made the child ends, and running Python
# between fork and exec is unsafe beside other threads. Hence a thread for each child, and a process that sets
# the signal and then becomes the program. 1 is PR_SET_PDEATHSIG, 9 is SIGKILL: prctl(2).
_TETHER = """
import ctypes, os, sys
if ctypes.CDLL(None).prctl(1, 9, 0, 0, 0) or os.getppid() != int(sys.argv[1]):
    sys.exit("cannot be tied to its parent")
os.execv(sys.argv[2], sys.argv[2:])
"""


def alive(pid: int) -> bool:
    """Return whether a process runs. One that has ended and that nobody has asked for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # the latter between its opening and its reading
        return False
    return state != "Z"


class Child:
    """A running program, killed by the kernel as soon as this process is gone. Safe from any thread."""

    def __init__(self, argv: Sequence[str], *, output: Path) -> None:
        """Run ``argv``, whose first word is a path; both its outputs go to the file ``output``.

        Raises OSError where the process cannot be made.
        """
        self.argv = list(argv)
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: OSError | None = None
        self._ready = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=f"child {self.argv[0]}", daemon=True)
        self._keeper.start()
        self._ready.wait()
        if self._failure:
            raise self._failure

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running().pid

    @property
    def exit_status(self) -> int | None:
        """``None`` while it runs; afterwards its exit status, or the negative number of a signal."""
        return self._running().poll()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, at most ``timeout`` seconds. Return whether it has."""
        self._keeper.join(timeout)
        return not self._keeper.is_alive()

    def stop(self, grace: float = 5.0) -> None:
        """Ask it to end, and kill it after ``grace`` seconds. It is gone when this returns."""
        self._running().terminate()
        if not self.wait(grace):
            self._running().kill()
            self.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the process was never made")
        return self._process

    def _keep(self) -> None:
        tether = [sys.executable, "-I", "-S", "-c", _TETHER, str(os.getpid())]
        try:
            with self._output.open("ab") as output:
                self._process = subprocess.Popen(
                    tether + self.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    # Ctrl-C in a terminal goes to us alone: we decide when and how it stops.
                    start_new_session=True,
                )
        except OSError as error:
            self._failure = error
        finally:
            self._ready.set()
        if self._process is not None:
            self._process.wait()
