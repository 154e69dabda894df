"""Back-off: delays grow to a limit, and no two services wait in step."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arivox.backoff import delays


def test_doubles_up_to_the_limit() -> None:
    assert list(islice(delays(0.2, 5.0, jitter=0), 8)) == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5])


@given(
    first=st.floats(0.001, 10),
    more=st.floats(0, 100),
    factor=st.floats(1, 5),
    jitter=st.floats(0, 1),
)
def test_every_delay_is_within_its_bounds(first: float, more: float, factor: float, jitter: float) -> None:
    most = first + more
    plain = list(islice(delays(first, most, factor=factor, jitter=0), 40))
    for delay, whole in zip(
        islice(delays(first, most, factor=factor, jitter=jitter), 40), plain, strict=True
    ):
        assert whole * (1 - jitter) * 0.999999 <= delay <= whole
    assert all(earlier <= later <= most for earlier, later in pairwise(plain))


def test_two_services_do_not_wait_in_step() -> None:
    assert list(islice(delays(1, 8), 10)) != list(islice(delays(1, 8), 10))


def test_goes_on_for_ever() -> None:
    assert 3.75 <= next(islice(delays(0.1, 5.0), 10_000, None)) <= 5.0
