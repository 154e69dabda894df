"""The calendar of the package: what is free, and that no slot is given away twice."""

from __future__ import annotations

import threading
from datetime import datetime
from pathlib import Path

import pytest

from arivox.conversation.tools.calendar import Calendar
from arivox.tools import CallInfo, ToolError

NOW = datetime.fromisoformat("2026-11-24T08:05")  # a Tuesday


@pytest.fixture
def calendar(tmp_path: Path) -> Calendar:
    return Calendar(tmp_path / "calendar.db", lambda: NOW)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("day", "time", "found"),
    [
        ("on Wednesday", "in the morning", "2026-11-25 09:00"),
        ("2026-11-26", "14:30", "2026-11-26 14:30"),
        ("Tuesday", "any", "2026-12-01 09:00"),
        ("tomorrow if possible", "after three in the afternoon", "2026-11-25 15:00"),
        ("today", "before nine", ""),
        ("today", "10:00", "2026-11-24 10:00"),
        ("Monday or Tuesday", "around ten o'clock", "2026-11-30 10:00"),
        ("the first free day", "at lunch time", "2026-11-25 14:00"),
        ("any day next week", "in the evening", ""),
        ("2026-11-25", "12:00", ""),
    ],
)
def test_wish_finds_the_first_free_slot(calendar: Calendar, day: str, time: str, found: str) -> None:
    if found:
        assert calendar.find(day, time) == at(found)
        return
    with pytest.raises(ToolError, match="that is not free; free is: "):
        calendar.find(day, time)


@pytest.mark.parametrize(
    ("day", "time", "problem"),
    [
        ("Sunday", "any", "we are closed then"),
        ("2026-11-28", "any", "we are closed then"),
        ("2025-01-01", "any", "not within the next 60 days"),
        ("tomorrow", "27:00", "'27:00' is not a time of day"),
        ("tomorrow", "9:75", "'9:75' is not a time of day"),
    ],
)
def test_impossible_wish_is_refused_with_what_to_say(
    calendar: Calendar, day: str, time: str, problem: str
) -> None:
    with pytest.raises(ToolError, match=problem):
        calendar.find(day, time)


def test_taken_slot_is_not_offered_and_not_booked_again(calendar: Calendar) -> None:
    calendar.book(at("2026-11-25 09:00"), "call-1", "555", "toothache")
    assert calendar.find("Wednesday", "morning", "call-2") == at("2026-11-25 09:30")
    assert calendar.find("Wednesday", "morning", "call-1") == at("2026-11-25 09:00"), "it is their own"
    with pytest.raises(ToolError, match="has just been taken"):
        calendar.book(at("2026-11-25 09:00"), "call-2")
    assert calendar.booked() == [("2026-11-25 09:00", "call-1", "555", "toothache")]


def test_second_thought_replaces_the_first_unless_it_is_taken(calendar: Calendar) -> None:
    calendar.book(at("2026-11-25 09:00"), "other")
    calendar.book(at("2026-11-25 10:00"), "mine")
    with pytest.raises(ToolError):
        calendar.book(at("2026-11-25 09:00"), "mine")
    assert ("2026-11-25 10:00", "mine", "", "") in calendar.booked(), "a refusal takes nothing away"
    calendar.book(at("2026-11-25 11:00"), "mine")
    assert [slot for slot, call, *_ in calendar.booked() if call == "mine"] == ["2026-11-25 11:00"]


def test_of_many_at_once_one_gets_the_slot(calendar: Calendar) -> None:
    got: list[str] = []
    barrier = threading.Barrier(8)

    def book(call: str) -> None:
        barrier.wait()
        try:
            calendar.book(at("2026-11-25 09:00"), call)
        except ToolError:
            return
        got.append(call)

    threads = [threading.Thread(target=book, args=(f"call-{index}",)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    assert [call for _, call, *_ in calendar.booked()] == got


async def test_tools_remember_what_they_found(calendar: Calendar) -> None:
    tools = calendar.tools()
    call = CallInfo("c1", "ch", "555", "700", "x", {"reason": "toothache"})
    found = tools["find_slot"]
    assert await found.work(call, found.read({"day": "Wednesday", "time": "9:00"})) == {
        "slot": "Wednesday 25 November at 9:00"
    }
    call.known = {**call.known, **call.learned}
    await tools["book_slot"].work(call, {})
    assert call.learned["booked"] == "Wednesday 25 November at 9:00"
    assert calendar.booked() == [("2026-11-25 09:00", "c1", "555", "toothache")]
    with pytest.raises(ToolError, match="no appointment was found yet"):
        await tools["book_slot"].work(CallInfo("c2", "", "", "", "", {}), {})


def test_file_that_is_no_calendar_is_an_error_of_the_tool(tmp_path: Path) -> None:
    (tmp_path / "calendar.db").write_text("not a database, but long enough to be looked at" * 20)
    with pytest.raises(Exception, match="not a database"):
        Calendar(tmp_path / "calendar.db", lambda: NOW).booked()
