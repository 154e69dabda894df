"""What all tests share: one real Asterisk for the run, and the event loops of the tests that need sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop

from arivox.testing.asterisk import AsteriskInstance

_ON_UVLOOP = frozenset({"integration", "asterisk", "providers"})


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
