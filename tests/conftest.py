"""What all tests share: one real Asterisk for the run, and the event loops of the tests that need sockets."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop
from hypothesis import settings

from arivox.testing import ports
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.child import Child

# A machine that stalls for a moment must not fail a property for its slowness.
settings.register_profile("arivox", deadline=None)
settings.load_profile("arivox")

_ON_UVLOOP = frozenset({"integration", "asterisk", "providers", "contract"})


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run tests of sockets on uvloop, as the service does; ``BOTH_LOOPS`` in a test adds asyncio's own."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "asyncio": asyncio.new_event_loop,
        "uvloop": uvloop.new_event_loop,
    }
    marker = item.get_closest_marker("asyncio")
    if marker is not None and "loop_factories" in marker.kwargs:
        return loops
    name = "uvloop" if _ON_UVLOOP & set(item.path.parts) else "asyncio"
    return {name: loops[name]}


@pytest.fixture(scope="session")
def asterisk() -> Iterator[AsteriskInstance]:
    """One Asterisk for the whole run."""
    with AsteriskInstance() as instance:
        yield instance


@pytest.fixture(scope="session", autouse=True)
def calls_in_real_time(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[float], tuple[int | None, str]] | None]:
    """Begin, where they are wanted, the calls that take their time: they wait more than they work.

    Yield what waits for their end, at most so many seconds, and returns pytest's exit status and output.
    """
    if not any(item.path.name == "test_realtime.py" for item in request.session.items):
        yield None
        return
    output = tmp_path_factory.mktemp("realtime") / "output.txt"
    file = Path(__file__).with_name("integration") / "realtime.py"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(file)]
    os.environ[ports.VARIABLE] = "24000-26999"
    child = Child(command, output=output)
    os.environ[ports.VARIABLE] = "20000-23999"

    def end(timeout: float) -> tuple[int | None, str]:
        child.wait(timeout)
        return child.exit_status, output.read_text(encoding="utf-8", errors="replace")

    yield end
    child.stop()
