"""The calendar of the package: what is free, and that no slot is given away twice."""

from __future__ import annotations

import os
import sqlite3
import threading
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        ("as soon as possible", "as soon as possible", "2026-11-25 09:00"),
        ("the day after tomorrow", "10", "2026-11-26 10:00"),
        ("Friday", "2:30 in the afternoon", "2026-11-27 14:30"),
        ("Friday", "at 3", "2026-11-27 15:00"),
        ("Friday", "3pm", "2026-11-27 15:00"),
        ("Friday", "9am", "2026-11-27 09:00"),
        ("Friday", "10.30", "2026-11-27 10:30"),
        ("Friday", "after 3", "2026-11-27 15:00"),
        ("Friday", "half past nine", "2026-11-27 09:30"),
        ("Friday", "9:10", "2026-11-27 09:30"),
        ("Friday", "before noon", "2026-11-27 09:00"),
        ("Friday", "in the afternoon", "2026-11-27 14:00"),
        ("Friday", "before nine", ""),
        ("Friday", "tonight", ""),
        ("Friday", "in the evening after work", ""),
        ("Friday", "23:45", ""),
        ("today", "08:00", ""),
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
        ("2026-02-30", "any", "'2026-02-30' is not a date as YYYY-MM-DD"),
        ("25.11.", "any", "'25.11.' is not a date as YYYY-MM-DD"),
        ("Saturday or Sunday", "any", "we are closed then"),
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


def test_hour_that_is_taken_is_not_replaced_by_a_later_one(calendar: Calendar) -> None:
    calendar.book(at("2026-11-25 15:00"), "other")
    with pytest.raises(ToolError, match="free is: Wednesday 25 November at 9:00"):
        calendar.find("Wednesday", "three in the afternoon")


def test_day_that_is_full_is_told(calendar: Calendar) -> None:
    for number in range(12):
        calendar.book(calendar.find("Wednesday", "any"), f"call-{number}")
    with pytest.raises(ToolError, match="nothing is free on Wednesday"):
        calendar.find("Wednesday", "any")
    assert calendar.find("any", "any") == at("2026-11-26 09:00")


@settings(max_examples=200)
@given(*[st.text(max_size=20) | st.from_regex(r"(after|before|noon|one|[0-9:]+| ){1,5}", fullmatch=True)] * 2)
def test_any_wish_finds_an_open_slot_or_is_told_why_not(day: str, time: str) -> None:
    with TemporaryDirectory() as folder:
        try:
            found = Calendar(Path(folder, "calendar.db"), lambda: NOW).find(day, time)
        except ToolError:
            return
    assert found > NOW
    assert found.weekday() < 5
    assert found.minute in (0, 30)
    assert found.hour in (9, 10, 11, 14, 15, 16)


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


@pytest.mark.parametrize("name", ["", "none/calendar.db"])
def test_file_that_cannot_be_opened_is_an_error_of_the_tool(tmp_path: Path, name: str) -> None:
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        Calendar(tmp_path / name, lambda: NOW).find("any", "any")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_file_that_is_read_only_can_be_read(calendar: Calendar, tmp_path: Path) -> None:
    calendar.book(at("2026-11-25 09:00"), "call-1")
    (tmp_path / "calendar.db").chmod(0o400)
    assert calendar.find("tomorrow", "any") == at("2026-11-25 09:30")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        calendar.book(at("2026-11-25 09:30"), "call-2")


def test_file_that_is_no_calendar_is_an_error_of_the_tool(tmp_path: Path) -> None:
    (tmp_path / "calendar.db").write_text("not a database, but long enough to be looked at" * 20)
    with pytest.raises(Exception, match="not a database"):
        Calendar(tmp_path / "calendar.db", lambda: NOW).booked()
