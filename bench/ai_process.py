"""The AI's process: an emulator that is told over standard input what to be. Run by ``bench.ai``.

Each line of standard input is a ``Command`` in JSON, each line of standard output its ``Report``. It ends
when standard input does, so it cannot outlive the benchmark.
"""

from __future__ import annotations

import asyncio
import gc
import sys

import msgspec
import uvloop

from arivox.emulator.behaviour import Behaviour
from arivox.emulator.server import EmulatorServer
from bench.behaviours import Note, Option, make


class Command(msgspec.Struct, omit_defaults=True):
    """Be the AI ``be`` in the sessions to come, and forget all notes; without ``be`` only report."""

    be: str = ""
    options: dict[str, Option] = {}


class Report(msgspec.Struct):
    """Where the AIs answer, how many sessions are open, and what was noted since the last command."""

    urls: dict[str, str]
    """By the settings that point there."""
    open_sessions: int
    notes: list[Note]


async def _serve() -> None:
    command = Command(be="Repeater")
    notes: list[Note] = []

    def behaviour() -> Behaviour:
        return make(command.be, lambda *note: notes.append(Note(*note)), command.options)

    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    async with EmulatorServer(behaviour, keep_audio=False) as server:
        urls = {
            "OPENAI_REALTIME_URL": server.url,
            "OPENAI_LIVE_URL": server.live_url,
            "GEMINI_LIVE_URL": server.gemini_url,
        }
        while line := await commands.readline():
            told = msgspec.json.decode(line, type=Command)
            if told.be:
                command = told
                notes.clear()
                server.sessions[:] = [session for session in server.sessions if not session.ended.is_set()]
                gc.collect()
            open_sessions = sum(not session.ended.is_set() for session in server.sessions)
            report = msgspec.json.encode(Report(urls, open_sessions, notes))
            sys.stdout.buffer.write(report + b"\n")
            sys.stdout.buffer.flush()


def main() -> None:
    """Serve until standard input ends."""
    gc.disable()  # between two scenarios, not in the middle of a burst
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())


if __name__ == "__main__":
    main()
