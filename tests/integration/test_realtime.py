"""The calls that take their time (``realtime.py``) were made beside the other tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.asterisk
Wait = Callable[[float], tuple[int | None, str]]


@pytest.mark.timeout(180)
async def test_calls_that_take_their_time(calls_in_real_time: Wait) -> None:
    status, output = await asyncio.to_thread(calls_in_real_time, 170)
    assert status == 0, output
