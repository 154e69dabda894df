"""The benchmark's handle on the AI's process."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import IO, Final, Self

import msgspec

from bench.ai_process import Command, Report
from bench.behaviours import Note, Option
from bench.errors import BenchError

_ROOT: Final = Path(__file__).parents[1]
_LINE_LIMIT: Final = 1 << 24
_ANSWER_S: Final = 10.0
_STOP_S: Final = 5.0


class Ai:
    """An emulated AI in a process of its own; an async context manager. ``log`` takes its standard error."""

    def __init__(self, log: Path) -> None:
        self.urls: dict[str, str] = {}
        """Where the AIs answer, by the settings that point there."""
        self._log = log
        self._output: IO[bytes] | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._output = self._log.open("wb")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bench.ai_process",
            cwd=_ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._output,
            limit=_LINE_LIMIT,
            start_new_session=True,  # Ctrl-C goes to us alone
        )
        try:
            self.urls = (await self._ask(Command())).urls
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        process = self._running()
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        finally:
            if self._output is not None:
                self._output.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running().pid

    async def be(self, behaviour: str, **options: Option) -> None:
        """Be this AI of ``behaviours`` in the sessions to come, with these arguments; forget all notes."""
        await self._ask(Command(behaviour, options))

    async def notes(self, what: str = "") -> list[Note]:
        """Return what was noted since ``be``, in order: all of it, or of one kind."""
        return [note for note in (await self._ask(Command())).notes if what in ("", note.what)]

    async def wait_note(self, *what: str, timeout: float = 10.0) -> Note:
        """Return the first note of these kinds. Raise BenchError where none is made in time."""
        for _ in range(round(timeout / 0.05)):
            found = [note for note in await self.notes() if note.what in what]
            if found:
                return found[0]
            await asyncio.sleep(0.05)
        raise BenchError(f"the AI saw no {' or '.join(what)} within {timeout:g} s")

    async def open_sessions(self) -> int:
        """Return how many sessions are open."""
        return (await self._ask(Command())).open_sessions

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the AI's process is not started; use 'async with'")
        return self._process

    async def _ask(self, command: Command) -> Report:
        process = self._running()
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the AI's process has no pipes")
        process.stdin.write(msgspec.json.encode(command) + b"\n")
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _ANSWER_S)
        except TimeoutError:
            line = b""
        if not line:
            raise BenchError(f"the AI's process does not answer: see {self._log}")
        return msgspec.json.decode(line, type=Report)
