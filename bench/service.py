"""The service in its own process, as its users run it: ``arivox run`` with settings in the environment."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from arivox.testing.child import Child
from bench.errors import BenchError

_START_S: Final = 15.0
_STOP_S: Final = 15.0
_POLL_S: Final = 0.02


class ServiceProcess:
    """``arivox run``; an async context manager. ``directory`` takes its log, and is where it runs."""

    def __init__(self, settings: Mapping[str, str], directory: Path) -> None:
        self.log = directory / "service.log"
        self._settings = settings
        self._directory = directory
        self._child: Child | None = None

    async def __aenter__(self) -> Self:
        self.log.unlink(missing_ok=True)
        # Neither the user's settings nor a .env file shall have a say: they might name the real service.
        argv = ["/usr/bin/env", "-i", "-C", str(self._directory), "PATH=/usr/bin:/bin", "LOG_FORMAT=json"]
        argv += [f"{name}={value}" for name, value in self._settings.items()]
        argv += [str(Path(sys.executable).with_name("arivox")), "run"]
        self._child = Child(argv, output=self.log)
        try:
            await self.wait_event("connected to Asterisk", timeout=_START_S)
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running().pid

    async def stop(self) -> int | None:
        """Ask it to end, as a service manager does, and return its exit status."""
        child = self._running()
        if child.exit_status is None:
            await asyncio.to_thread(child.stop, _STOP_S)
        return child.exit_status

    def events(self, event: str = "") -> list[dict[str, Any]]:
        """Return the lines of its log: all, or those of one event. A line that is no JSON is a crash."""
        lines = []
        for line in self.log.read_bytes().split(b"\n")[:-1]:
            try:
                lines.append(msgspec.json.decode(line, type=dict[str, Any]))
            except msgspec.DecodeError:
                lines.append({"level": "error", "event": line.decode(errors="replace")})
        return [line for line in lines if event in ("", line.get("event"))]

    def complaints(self) -> list[str]:
        """Return its warnings and errors."""
        return [
            f"{line['level']}: {line.get('event')} {line.get('error', '')}".rstrip()
            for line in self.events()
            if line.get("level") not in ("debug", "info")
        ]

    async def wait_event(self, event: str, *, count: int = 1, timeout: float = 5.0) -> None:
        """Return once the log has ``count`` lines of ``event``. Raise BenchError where it does not come."""
        for _ in range(round(timeout / _POLL_S)):
            if self.log.exists() and len(self.events(event)) >= count:
                return
            if self._running().exit_status is not None:
                break
            await asyncio.sleep(_POLL_S)
        tail = "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise BenchError(f"the service did not log {event!r} {count} times; the end of its log:\n{tail}")

    def _running(self) -> Child:
        if self._child is None:
            raise RuntimeError("the service is not started; use 'async with'")
        return self._child
