"""A real Redis of the tests' own: Debian's package, on its own port, that can be killed and come back."""

from __future__ import annotations

import logging
import re
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from arivox.errors import StoreError
from arivox.testing import debian, ports
from arivox.testing.child import Child

_log = logging.getLogger(__name__)

_KEEP: Final = re.compile(r"^usr/bin/redis-")
_EXCLUDE: Final = re.compile(r"systemd|libsystemd-shared")
_START_S: Final = 10.0


def find_or_fetch(*, cache: Path | None = None, report: Callable[[str], None] = _log.info) -> list[str]:
    """Return the start of a command line that runs ``redis-server``: the system's, or one fetched.

    Raises DebianError where none can be fetched.
    """
    program = shutil.which("redis-server")
    if program is not None:
        return [program]
    tree = debian.ensure_tree(
        "redis", ("redis-server",), keep=_KEEP, exclude=_EXCLUDE, cache=cache, report=report
    )
    return [*debian.loader(tree), str(tree.absolute() / "usr/bin/redis-server")]


class RedisServer:
    """One server that listens on loopback and keeps its data in ``folder``; a context manager.

    Every write is on the disk before it is answered, unless ``forgetful``: then a restart begins empty.
    """

    def __init__(self, folder: Path, *, forgetful: bool = False, password: str = "") -> None:
        self.port = ports.free_tcp_port()
        self._folder = folder
        self._forgetful = forgetful
        self._password = password
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """Where it answers, for ``MEMORY_URL``."""
        login = f":{self._password}@" if self._password else ""
        return f"redis://{login}127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it answers. Raises StoreError."""
        output = self._folder / "redis.log"
        argv = [
            *find_or_fetch(),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder), "--save", ""),
            *("--appendonly", "no" if self._forgetful else "yes", "--appendfsync", "always"),
            *(("--requirepass", self._password) if self._password else ()),
        ]
        self._child = Child(argv, output=output)
        deadline = time.monotonic() + _START_S
        while not self._answers():
            if self._child.exit_status is not None or time.monotonic() > deadline:
                text = output.read_text(errors="replace")[-1000:]
                raise StoreError(f"redis-server does not start: {text}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a power cut does."""
        child, self._child = self._child, None
        if child is not None:
            child.stop(0.0)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                # Without a password it refuses, which is an answer; while it loads its data it says so.
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False
