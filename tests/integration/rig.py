"""A whole service between a real Asterisk and an emulated AI, which must leave nothing behind."""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
import time
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import structlog

from arivox.audio.g711 import Law
from arivox.call.call import Call
from arivox.call.timeline import Entry, Timeline
from arivox.emulator.behaviour import Behaviour
from arivox.emulator.echo import Echo
from arivox.emulator.record import Record
from arivox.emulator.script import Script, Stage
from arivox.emulator.server import EmulatorServer
from arivox.emulator.session import Line, Session
from arivox.service import Service
from arivox.settings.settings import Settings
from arivox.testing import ports
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.phone import SipPhone

BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])

_PATIENT: dict[str, Any] = {
    "ask_again_s": 20.0,
    "first_audio_timeout_s": 80.0,
    "response_timeout_s": 80.0,
}
_TIDY_S = 8.0  # a failed call plays its tone for two seconds, and the dialplan another two
_POLL_S = 0.005


async def until(condition: Callable[[], bool], what: str, timeout: float = 5.0) -> None:
    """Return as soon as ``condition()`` is true. Raises TimeoutError, which says ``what`` did not happen."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        await asyncio.sleep(_POLL_S)


class Rig:
    """An emulator and a service in this event loop, and the phones that call; an async context manager.

    ``behaviour`` makes the AI of each call. ``expect_log`` are the errors and warnings that must be logged:
    parts of their text; any other one fails the test, but with ``any_log``. Unless ``patient``, an AI that
    owes an answer is asked again as soon as in a real call: a test that is not about that may take its time.
    Further keywords are settings.

    At the end all phones hang up; then no channel, bridge, RTP port, call, task, socket may be left.
    """

    def __init__(
        self,
        asterisk: AsteriskInstance,
        behaviour: Callable[[], Behaviour],
        *,
        expect_log: Sequence[str] = (),
        any_log: bool = False,
        patient: bool = True,
        emulator: dict[str, Any] | None = None,
        port_count: int = 40,
        time_limit: float = 45.0,
        **settings: Any,
    ) -> None:
        self.asterisk = asterisk
        self.emulator = EmulatorServer(behaviour, **(emulator or {}))
        self.timelines: list[Timeline] = []
        self.log: list[dict[str, Any]] = []
        self.expect_log = tuple(expect_log)
        self._any_log = any_log
        self._port_count = port_count
        self._time_limit = time_limit
        self._given = (_PATIENT if patient else {}) | settings
        self._stack = AsyncExitStack()
        self._phones = AsyncExitStack()
        self._dialled = 0
        self._loop_errors: list[dict[str, Any]] = []
        self._running: asyncio.Task[None] | None = None
        self._limit: asyncio.TimerHandle
        self._before: set[asyncio.Task[Any]] = set()
        self.settings: Settings
        self.service: Service

    async def __aenter__(self) -> Self:
        self._before = asyncio.all_tasks()
        self._statuses_before = len(self._statuses())
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self._loop_errors.append(context))
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.format_exc_info,
                self._keep,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(10),
            cache_logger_on_first_use=False,
        )
        await self._stack.enter_async_context(self.emulator)
        first, last = ports.free_udp_range(self._port_count)
        values: dict[str, Any] = {
            "ari_url": self.asterisk.ari_url,
            "ari_username": self.asterisk.ari_user,
            "ari_password": self.asterisk.ari_password,
            "ari_app_name": self.asterisk.app,
            "openai_realtime_url": self.emulator.url,
            "openai_live_url": self.emulator.live_url,
            "openai_api_key": "sk-test",
            "gemini_live_url": self.emulator.gemini_url,
            "gemini_api_key": "sk-test",
            "rtp_server_port": first,
            "rtp_server_port_last": last,
            "memory_url": "none",
            "calendar_file": Path(self._stack.enter_context(tempfile.TemporaryDirectory())) / "calendar.db",
        }
        self.settings = Settings(**(values | self._given))
        try:
            await self.start_service()
        except BaseException:
            await self._stack.aclose()
            raise
        # pytest's own limit does not reach into uvloop.
        task = asyncio.current_task()
        assert task is not None
        self._limit = asyncio.get_running_loop().call_later(
            self._time_limit, task.cancel, f"the test took longer than {self._time_limit:g} s"
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limit.cancel()
        problems: list[str] = []
        try:
            await self._phones.aclose()
            problems += await self._asterisk_leftovers()
        finally:
            try:
                await self.stop_service()
            finally:
                await self._stack.aclose()
        problems += await self._process_leftovers()
        problems += self._unexpected()
        structlog.reset_defaults()
        asyncio.get_running_loop().set_exception_handler(None)
        if error is None:
            assert not problems, "\n".join(problems)
            return
        for problem in problems:
            error.add_note(problem)

    # --- the service ---

    async def start_service(self) -> None:
        """Make a service and wait until Asterisk knows it. Raises what ends it before."""
        self.service = Service(self.settings, watchers=(self._watch,))
        self._running = asyncio.create_task(self.service.run(), name="service")
        connected = asyncio.create_task(self.service.switchboard.connected.wait())
        await asyncio.wait({self._running, connected}, return_when=asyncio.FIRST_COMPLETED, timeout=5)
        if self._running.done():
            connected.cancel()
            self._running.result()
        await connected
        # Who enters while the service compares notes with Asterisk is a case of its own.
        await self.reconciled()

    async def reconciled(self) -> None:
        """Wait until the service has compared notes with Asterisk, and done what follows from it."""
        work = ("reconcile", "adopt", "enter")
        await until(
            lambda: not any(task.get_name().startswith(work) for task in asyncio.all_tasks()), "the notes"
        )

    async def stop_service(self) -> None:
        """Stop the service, if it runs, and wait for its end. Raises what it ended with."""
        running, self._running = self._running, None
        if running is not None:
            self.service.stop()
            async with asyncio.timeout(15):
                await running

    async def service_end(self) -> None:
        """Wait for the service to end by itself. Raises what it ended with."""
        assert self._running is not None
        running, self._running = self._running, None
        async with asyncio.timeout(15):
            await running

    # --- calls ---

    def phone(self, *, law: Law = "ulaw", user: str = "") -> SipPhone:
        """Return a phone that is not open yet."""
        self._dialled += 1
        # Only this endpoint of Asterisk takes A-law alone.
        name = user or ("alawphone" if law == "alaw" else f"tester{self._dialled}")
        return SipPhone(("127.0.0.1", self.asterisk.sip_port), user=name, codecs=(law,))

    async def open_phone(self, *, law: Law = "ulaw", user: str = "") -> SipPhone:
        """Return a phone on the hook."""
        return await self._phones.enter_async_context(self.phone(law=law, user=user))

    async def dial(self, extension: str = "700", *, law: Law = "ulaw", user: str = "") -> SipPhone:
        """Return a phone whose call was answered."""
        phone = await self.open_phone(law=law, user=user)
        assert await phone.call(extension) == 200
        return phone

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls in progress."""
        return self.service.switchboard.calls

    @property
    def record(self) -> Record:
        """What passed on the AI's newest connection."""
        return self.emulator.session.record

    async def stage(self, count: int = 1) -> Stage:
        """Return the stage of the ``count``-th call whose AI is a script."""
        behaviour = (await self.emulator.wait_session(count)).behaviour
        assert isinstance(behaviour, Script)
        assert behaviour.stage is not None
        return behaviour.stage

    async def ended(self, index: int = 0, timeout: float = 10.0) -> str:
        """Wait until the ``index``-th call is over and everything of it freed. Return why it ended."""

        def over() -> bool:
            return len(self.timelines) > index and bool(self.timelines[index].find("call.counters"))

        await until(over, f"the end of call {index}", timeout)
        return str(self.timelines[index].find("call.ended")[0].data["reason"])

    def counters(self, index: int = 0) -> dict[str, Any]:
        """Return what the ``index``-th call counted; it must be over."""
        return self.timelines[index].find("call.counters")[0].data

    def logged(self, text: str) -> list[dict[str, Any]]:
        """Return the log lines whose event contains ``text``."""
        return [line for line in self.log if text in str(line["event"])]

    async def console(self, command: str) -> str:
        """Return what Asterisk's console answers."""
        return await asyncio.to_thread(self.asterisk.cli, command)

    async def status_of(self) -> str:
        """Return the ARIVOX_STATUS that the dialplan saw last, once it has seen one."""
        # Asterisk's log is written in its own time.
        await until(lambda: len(self._statuses()) > self._statuses_before, "the status in Asterisk's log")
        return self._statuses()[-1]

    # --- inside ---

    def _statuses(self) -> list[str]:
        lines = [line for line in self.asterisk.full_log().splitlines() if "ARIVOX_STATUS=" in line]
        return [line.rpartition("ARIVOX_STATUS=")[2].split()[0] for line in lines if "NoOp(" in line]

    def _watch(self, timeline: Timeline, entry: Entry) -> None:
        if timeline not in self.timelines:
            self.timelines.append(timeline)
        told = {name: value for name, value in entry.data.items() if value}
        _show(f"[{timeline.call_id} {entry.ms} ms] {entry.kind} {told}")

    def _keep(self, _: Any, __: str, event: MutableMapping[str, Any]) -> str:
        self.log.append(dict(event))
        if event["event"] != "call ended":  # the timeline tells the same
            _show(str(dict(event)))
        raise structlog.DropEvent

    async def _asterisk_leftovers(self) -> list[str]:
        board = self.service.switchboard
        deadline = time.monotonic() + _TIDY_S
        while True:
            found = [f"a call is left: {call!r}" for call in board.calls]
            if self.service.ports.in_use:
                found.append(f"{self.service.ports.in_use} RTP ports are left in use")
            if not found:
                channels = (await self.console("core show channels concise")).split()
                bridges = (await self.console("bridge show all")).splitlines()[1:]
                found = [f"a channel is left: {line}" for line in channels]
                found += [f"a bridge is left: {line}" for line in bridges if line.strip()]
            if not found or time.monotonic() > deadline:
                return found
            await asyncio.sleep(0.02)

    async def _process_leftovers(self) -> list[str]:
        ours = {asyncio.current_task()} | self._before
        deadline = time.monotonic() + 2.0
        while True:
            found = [f"a task is left: {task!r}" for task in asyncio.all_tasks() if task not in ours]
            found += [f"a UDP socket is left on port {port}" for port in self._bound()]
            if not found or time.monotonic() > deadline:
                return found
            await asyncio.sleep(_POLL_S)

    def _bound(self) -> list[int]:
        first, last = self.settings.rtp_ports
        return sorted(ports.udp_ports_of_this_process() & set(range(first, last + 1)))

    def _unexpected(self) -> list[str]:
        found = [f"the event loop was told: {context}" for context in self._loop_errors]
        complaints = [line for line in self.log if line["level"] in ("warning", "error", "critical")]
        found += [
            f"logged without need: {line}"
            for line in complaints
            if not (self._any_log or any(text in str(line["event"]) for text in self.expect_log))
        ]
        found += [
            f"not logged: {text}"
            for text in self.expect_log
            if not any(text in str(line["event"]) for line in complaints)
        ]
        return found


class SteadyEcho(Echo):
    """An echo that keeps a little in hand, as an AI does that speaks faster than real time."""

    LEAD_MS = 80

    def __init__(self) -> None:
        super().__init__()
        self._led = False

    def opened(self, session: Session, connection: Line, now: float) -> None:
        super().opened(session, connection, now)
        self._input = session

    def audio(self, data: bytes, now: float) -> None:
        if not self._led:
            self._led = True
            audio = self._input.input_format
            super().audio(audio.silence * (audio.bytes_for(self.LEAD_MS) // audio.sample_bytes), now)
        super().audio(data, now)


def _show(line: str) -> None:
    """Leave a line for pytest to show where a test fails."""
    sys.stdout.write(f"{time.monotonic():.3f} {line}\n")


def tcp_port_nobody_serves() -> int:
    """Return a loopback port that refuses connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
