"""A calendar of appointments on an embedded store: the tools of the package's own prompts file.

It is an example that works. A calendar that exists is better asked through TOOLS_FILE or an HTTP tool.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Final

from arivox.conversation.tools import python
from arivox.conversation.tools.tool import OwnTool
from arivox.tools import CallInfo, ToolError, tool

_OPEN: Final = ((time(9), time(12)), (time(14), time(17)))
_LENGTH: Final = timedelta(minutes=30)
_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_AHEAD: Final = 60
_OTHERS: Final = 2
_WORDS: Final = {
    "nine": 9,
    "ten": 10,
    "eleven": 11,
    "twelve": 12,
    "one": 13,
    "two": 14,
    "three": 15,
    "four": 16,
    "five": 17,
}

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS appointments (
    slot TEXT PRIMARY KEY, call TEXT NOT NULL, caller TEXT NOT NULL, reason TEXT NOT NULL
) WITHOUT ROWID
"""


class Calendar:
    """The appointments in one SQLite file. Its verbs block, and may be called from any thread."""

    def __init__(self, path: Path | str, today: Callable[[], datetime] = datetime.now) -> None:
        self._path = path
        self._today = today

    def tools(self) -> dict[str, OwnTool]:
        """Return the tools for the AI."""

        @tool(finds=("slot", "slot_at"), say="One moment, I am looking at the calendar.")
        def find_slot(
            call: CallInfo,
            day: Annotated[str, "A date as YYYY-MM-DD, or a day of the week"],
            time: Annotated[str, "A time as HH:MM, or: morning, afternoon, any"] = "any",
        ) -> dict[str, str]:
            """Find a free appointment."""
            at = self.find(day, time, call.call)
            call.remember(slot=spoken(at), slot_at=at.isoformat(" ", "minutes"))
            return {"slot": spoken(at)}

        @tool(finds=("booked",))
        def book_slot(call: CallInfo) -> dict[str, str]:
            """Book the appointment that was found for the caller."""
            if "slot_at" not in call.known:
                raise ToolError("no appointment was found yet")
            at = datetime.fromisoformat(call.known["slot_at"])
            self.book(at, call.call, call.caller, call.known.get("reason", ""))
            call.remember(booked=spoken(at))
            return {"booked": spoken(at)}

        return {one.__name__: python.of_function(one) for one in (find_slot, book_slot)}

    def find(self, day: str, wanted: str, call: str = "") -> datetime:
        """Return the first free slot at the wanted time. Raises ToolError, which says what there is."""
        days = self._days(day)
        hours = _hours(wanted)
        taken = self._taken(call)
        now = self._today()
        free = [at for one in days for at in _slots(one) if at not in taken and at > now]
        fitting = [at for at in free if hours[0] <= at.time() < hours[1]]
        if fitting:
            return fitting[0]
        others = " or ".join(spoken(at) for at in free[:_OTHERS])
        if not others:
            raise ToolError(f'nothing is free. Say: "I am sorry, nothing is free on {day}."')
        raise ToolError(
            f'that is not free; free is: {others}. Say: "I am sorry, that is not free. '
            f'I could offer {others}."'
        )

    def book(self, at: datetime, call: str, caller: str = "", reason: str = "") -> None:
        """Book a slot. Raises ToolError if another call has taken it. To book it twice changes nothing."""
        slot = at.isoformat(" ", "minutes")
        with closing(self._open()) as store, store:
            row = (slot, call, caller, reason)
            store.execute("INSERT OR IGNORE INTO appointments VALUES (?, ?, ?, ?)", row)
            (owner,) = store.execute("SELECT call FROM appointments WHERE slot = ?", (slot,)).fetchone()
            if owner != call:
                taken = "I am sorry, that has just been taken."
                raise ToolError(f'{spoken(at)} is not free any more. Say: "{taken}"')
            # One call has one appointment: a second thought replaces the first.
            store.execute("DELETE FROM appointments WHERE call = ? AND slot <> ?", (call, slot))

    def booked(self) -> list[tuple[str, str, str, str]]:
        """Return slot, call, caller and reason of every appointment, in order."""
        with closing(self._open()) as store:
            return list(store.execute("SELECT slot, call, caller, reason FROM appointments ORDER BY slot"))

    def _open(self) -> sqlite3.Connection:
        store = sqlite3.connect(self._path, timeout=5.0)
        try:
            store.execute(_SCHEMA)
        except sqlite3.Error:
            store.close()
            raise
        return store

    def _taken(self, call: str) -> set[datetime]:
        return {datetime.fromisoformat(slot) for slot, owner, *_ in self.booked() if owner != call}

    def _days(self, wanted: str) -> list[date]:
        """Return the open days that a caller may mean, the nearest first."""
        today = self._today().date()
        ahead = [today + timedelta(days) for days in range(_AHEAD)]
        try:
            named = date.fromisoformat(wanted.strip())
        except ValueError:
            pass
        else:
            if named not in ahead:
                raise ToolError(f"{wanted} is not within the next {_AHEAD} days; today is {today}")
            return _open_days([named])
        words = wanted.lower()
        weekdays = [index for index, name in enumerate(_WEEKDAYS) if name.lower() in words]
        if "day after tomorrow" in words:
            return _open_days(ahead[2:3])
        if "tomorrow" in words:
            return _open_days(ahead[1:2])
        if "today" in words:
            return _open_days(ahead[:1])
        if weekdays:
            found = [next(day for day in ahead[1:] if day.weekday() == index) for index in weekdays]
            return _open_days(sorted(found))
        if re.search(r"\d", words):
            raise ToolError(f"{wanted!r} is not a date as YYYY-MM-DD")  # better than any other day
        return _open_days(ahead[1:])


def spoken(at: datetime) -> str:
    """Return a time as it is said: Wednesday 25 November at 9:30."""
    return f"{_WEEKDAYS[at.weekday()]} {at.day} {at:%B} at {at.hour}:{at.minute:02d}"


def _open_days(days: list[date]) -> list[date]:
    found = [day for day in days if day.weekday() < 5]
    if not found:
        raise ToolError('we are closed then. Say: "I am sorry, we are open from Monday to Friday."')
    return found


def _slots(day: date) -> Iterator[datetime]:
    for opens, closes in _OPEN:
        at = datetime.combine(day, opens)
        while at < datetime.combine(day, closes):
            yield at
            at += _LENGTH


def _hours(wanted: str) -> tuple[time, time]:
    """Return from when to when a wish for a time goes."""
    words = wanted.lower()
    named = set(re.findall(r"[a-z]+", words))
    clock_time = re.search(r"\b(\d{1,2})(?:[:.h](\d\d))?(?!\d)", words)
    hour = next((hour for word, hour in _WORDS.items() if word in named), None)
    if clock_time is not None:
        hour = int(clock_time[1])
    minute = int(clock_time[2] or 0) if clock_time is not None else 30 * ("half past" in words)
    if hour is not None and (hour > 23 or minute > 59):
        raise ToolError(f"{wanted!r} is not a time of day")
    if hour is None and "noon" in named and named & {"before", "after"}:
        hour = 12
    if hour is not None:
        # Nobody is open by night: three is in the afternoon.
        at = time(hour + 12 if 0 < hour < 8 else hour, minute)
        if "before" in named:
            return time.min, at
        if "after" in named:
            return at, time.max
        return at, (datetime.combine(date.min, at) + _LENGTH).time()
    if "morning" in words:
        return time.min, time(12)
    if "noon" in named or "lunch" in words:
        return time(12), time(15)
    if "afternoon" in words:
        return time(12), time(17)
    if "evening" in words or "night" in words:
        return time(17), time.max
    return time.min, time.max
