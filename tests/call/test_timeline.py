"""The timeline: append-only, in order, on its own clock, shown to its watchers."""

from __future__ import annotations

import json

import pytest

from arivox.call.timeline import Entry, Timeline


class Clock:
    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


def test_entries_have_milliseconds_since_the_start() -> None:
    clock = Clock()
    timeline = Timeline("7f3a", clock=clock)
    timeline.add("call.started", caller="+15551234")
    clock.now += 1.5
    entry = timeline.add("agent.said", text="Hello", item="item_1")
    clock.now += 0.25
    assert (entry.ms, entry.kind, entry.data) == (1500, "agent.said", {"text": "Hello", "item": "item_1"})
    assert timeline.now_ms() == 1750
    assert len(timeline) == 2
    assert [entry.ms for entry in timeline] == [0, 1500]


def test_find_returns_one_kind_in_order() -> None:
    timeline = Timeline("7f3a")
    for number in range(3):
        timeline.add("state", number=number)
        timeline.add("state.other")
    assert [entry.data["number"] for entry in timeline.find("state")] == [0, 1, 2]
    assert timeline.find("nothing") == []


def test_watchers_see_each_entry_after_it_was_stored() -> None:
    seen: list[tuple[str, int, Entry]] = []

    def watch(timeline: Timeline, entry: Entry) -> None:
        assert list(timeline)[-1] is entry
        seen.append((timeline.call_id, len(timeline), entry))

    timeline = Timeline("7f3a", watchers=(watch, watch))
    entry = timeline.add("call.started")
    assert seen == [("7f3a", 1, entry)] * 2


def test_reading_while_it_grows() -> None:
    timeline = Timeline("7f3a")
    timeline.add("a")
    for entry in timeline:
        timeline.add(entry.kind)
    assert len(timeline) == 2


def test_entries_cannot_be_changed() -> None:
    entry = Timeline("7f3a").add("a")
    with pytest.raises(AttributeError):
        entry.ms = 7  # type: ignore[misc]


def test_as_dict_is_json() -> None:
    timeline = Timeline("7f3a", clock=Clock())
    timeline.add("agent.speaks", item="item_1", latency_ms=None, again=True)
    found = json.loads(json.dumps(timeline.as_dict()))
    assert found["call"] == "7f3a"
    assert found["started_at"] > 1.7e9
    data = {"item": "item_1", "latency_ms": None, "again": True}
    assert found["events"] == [{"ms": 0, "kind": "agent.speaks", "data": data}]


@pytest.mark.parametrize("name", ["ms", "kind"])
def test_data_never_hide_when_and_what(name: str) -> None:
    clock = Clock()
    timeline = Timeline("7f3a", clock=clock)
    clock.now += 0.5
    timeline.add("provider.ready", **{name: 380})
    (event,) = timeline.as_dict()["events"]
    assert (event["ms"], event["kind"]) == (500, "provider.ready")
