"""The ledger of the agent's voice: what was heard, what is cut off, what is waited for, what is kept."""

from __future__ import annotations

from typing import Any

from arivox.audio.format import ULAW
from arivox.media.playout import Cut, Playout

FRAME = 160
SILENCE = ULAW.silence


def drain(playout: Playout) -> bytes:
    out = b""
    while playout.playing:
        out += playout.next_frame() or b""
        playout.confirm()
    return out


def test_a_minute_that_arrives_at_once_is_kept_whole() -> None:
    playout = Playout(ULAW)
    speech = bytes(n * 7 % 251 for n in range(60 * 8000))
    for start in range(0, len(speech), 12345):
        assert playout.push("a", speech[start : start + 12345])
    playout.finish("a")
    assert playout.queued_ms == 60_000
    assert drain(playout) == speech
    assert playout.heard_ms("a") == 60_000
    assert (playout.overflow_bytes, playout.underruns) == (0, 0)
    assert playout.flush() == []


def test_interrupted_item_is_cut_where_it_was_heard_and_its_late_audio_never_plays() -> None:
    playout = Playout(ULAW)
    playout.push("a", b"\x01" * 8000)
    for _ in range(7):
        playout.next_frame()
        playout.confirm()
    playout.next_frame()  # on its way, not yet heard
    assert playout.flush() == [Cut("a", heard_ms=140, received_ms=1000)]
    assert not playout.push("a", b"\x02" * 160)
    assert playout.late_bytes == 160
    playout.push("b", b"\x03" * 160)
    assert playout.next_frame() == b"\x03" * 160
    assert playout.next_frame() is None


def test_item_starts_with_its_own_first_byte() -> None:
    started: list[str] = []
    playout = Playout(ULAW, on_started=started.append)
    playout.push("a", b"\x01" * 160)
    playout.push("b", b"\x02" * 100)
    playout.push("c", b"\x03" * 60)
    playout.next_frame()
    assert started == ["a"]
    playout.next_frame()
    assert started == ["a", "b", "c"]


def test_second_interruption_names_no_item_twice() -> None:
    playout = Playout(ULAW)
    playout.push("a", b"\x01" * 800)
    assert [cut.item_id for cut in playout.flush()] == ["a"]
    playout.push("a", b"\x01" * 800)
    assert playout.flush() == []


def test_rest_of_an_item_waits_for_more_but_not_for_ever() -> None:
    playout = Playout(ULAW)
    playout.push("a", b"\x01" * 100)
    assert [playout.next_frame(), playout.next_frame()] == [None, None]
    assert playout.next_frame() == b"\x01" * 100 + SILENCE * 60
    playout.confirm()
    assert playout.heard_ms("a") == 12.5, "what filled the frame up was not the agent's"
    assert playout.underruns == 1


def test_rest_of_a_finished_item_leaves_at_once() -> None:
    playout = Playout(ULAW)
    playout.push("a", b"\x01" * 100)
    playout.finish("a")
    assert playout.next_frame() == b"\x01" * 100 + SILENCE * 60
    assert playout.underruns == 0


def test_limit_counts_what_it_drops() -> None:
    playout = Playout(ULAW, limit_ms=100)
    assert playout.push("a", b"\x01" * 800)
    assert not playout.push("a", b"\x02")
    assert playout.overflow_bytes == 1
    playout.next_frame()
    assert playout.push("a", b"\x03" * 160), "room that was played is free again"
    assert drain(playout) == b"\x01" * 640 + b"\x03" * 160


def test_memory_stays_bounded_over_a_long_call() -> None:
    playout = Playout(ULAW)
    for number in range(1000):
        playout.push(f"item{number}", b"\x01" * 480)
        playout.finish(f"item{number}")
        drain(playout)
    assert len(playout._items) <= 65
    assert len(playout._buffer) == 0
    assert playout.heard_ms("item999") == 60
    assert playout.heard_total_ms == 60_000


def test_items_not_heard_yet_are_never_forgotten() -> None:
    playout = Playout(ULAW)
    for number in range(200):
        playout.push(f"item{number}", b"\x01" * 160)
        playout.finish(f"item{number}")
    assert len(playout.flush()) == 200


def test_cut_items_stay_refused_while_dozens_follow() -> None:
    playout = Playout(ULAW)
    playout.push("a", b"\x01" * 160)
    playout.flush()
    for number in range(60):
        playout.push(f"item{number}", b"\x02" * 160)
        drain(playout)
    assert not playout.push("a", b"\x01" * 160)


def test_buffer_is_compacted_while_much_is_queued() -> None:
    playout = Playout(ULAW)
    playout.push("a", bytes(200_000))
    for _ in range(1000):
        playout.next_frame()
    assert len(playout._buffer) < 200_000 - 160_000 + 65_536 + FRAME


def test_cut_is_exact_in_whole_milliseconds() -> None:
    wrong: dict[int, Any] = {}
    for ms in range(1000, 1100):
        playout = Playout(ULAW)
        playout.push("a", bytes(ms * 8))
        (cut,) = playout.flush()
        if cut.received_ms != ms:
            wrong[ms] = cut
    assert not wrong
