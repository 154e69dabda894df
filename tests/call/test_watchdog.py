"""The deadlines of a call, as tables: what happens when, and which alarm is due."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.call.watchdog import Alarm, Limits, Watchdog
from arivox.settings.settings import Settings

LIMITS = Limits(length=300, goodbye_before=12, idle=30)
START = 1000.0

# One step: seconds after the start, and what happens then: a method's name, or an alarm that check() returns.
Step = tuple[float, str | Alarm | None]


def run(steps: list[Step], limits: Limits = LIMITS) -> None:
    dog = Watchdog(limits, START)
    for at, step in steps:
        now = START + at
        if isinstance(step, str):
            method: Callable[[float], None] = getattr(dog, step)
            method(now)
        else:
            assert dog.check(now, owed=False) is step, f"at {at} s"


TABLES: dict[str, list[Step]] = {
    "the length of a call, with a good-bye before it": [
        (1, "caller_spoke"),  # somebody speaks: no idle alarm
        (287.9, None),
        (288, Alarm.SAY_GOODBYE),
        (299.9, None),
        (300, Alarm.TIME_LIMIT),
        (301, None),
        (9999, None),
    ],
    "a silent caller is asked, and then the call ends": [
        (29.9, None),
        (30, Alarm.ASK_CALLER),
        (31, "agent_audio"),
        (33, "agent_quiet"),
        (62.9, None),
        (63, Alarm.CALLER_IDLE),
    ],
    "a caller who answers the question is asked again only after a new silence": [
        (30, Alarm.ASK_CALLER),
        (35, "caller_spoke"),
        (36, "caller_stopped"),
        (37, "agent_audio"),
        (40, "agent_quiet"),
        (69.9, None),
        (70, Alarm.ASK_CALLER),
        (99.9, None),
        (100, Alarm.CALLER_IDLE),
    ],
    "nobody is idle while the agent speaks": [
        (1, "agent_audio"),
        (100, None),
        (101, "agent_quiet"),
        (130.9, None),
        (131, Alarm.ASK_CALLER),
    ],
    "nobody is idle while the caller speaks": [
        (1, "caller_spoke"),
        (200, None),
        (201, "caller_stopped"),
        (230.9, None),
        (231, Alarm.ASK_CALLER),
    ],
    "several alarms at once come one by one, the most urgent first": [
        (2, "caller_stopped"),
        (400, Alarm.TIME_LIMIT),
        (400, Alarm.SAY_GOODBYE),
        (400, Alarm.ASK_CALLER),
        (400, None),
    ],
}


@pytest.mark.parametrize("steps", TABLES.values(), ids=TABLES.keys())
def test_table(steps: list[Step]) -> None:
    run(steps)


def test_zero_switches_off() -> None:
    never = replace(LIMITS, idle=0, goodbye_before=0)
    run([(100, None), (299.9, None), (300, Alarm.TIME_LIMIT), (9999, None)], never)


def test_limits_of_the_settings() -> None:
    assert Limits.of(Settings()) == LIMITS
    other = Settings(max_call_duration_s=60, goodbye_before_s=5, idle_caller_s=0)
    assert Limits.of(other) == replace(LIMITS, length=60, goodbye_before=5, idle=0)


events = st.sampled_from(["agent_audio", "agent_quiet", "caller_spoke", "caller_stopped", "key_pressed"])


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 40), events), max_size=40))
def test_whatever_happens_each_deadline_is_raised_once(steps: list[tuple[float, str]]) -> None:
    dog = Watchdog(LIMITS, START)
    now, alarms = START, list[tuple[float, Alarm]]()
    for wait, event in [*steps, (400.0, "key_pressed")]:
        end = now + wait
        while now < end:
            now = min(now + 0.5, end)
            alarm = dog.check(now, owed=False)
            if alarm is not None:
                alarms.append((now - START, alarm))
        getattr(dog, event)(now)
    kinds = [alarm for _, alarm in alarms]
    assert kinds.count(Alarm.TIME_LIMIT) == 1
    assert kinds.count(Alarm.SAY_GOODBYE) == 1
    (ended,) = [at for at, alarm in alarms if alarm is Alarm.TIME_LIMIT]
    assert 300 <= ended <= 300.5
    idle = [alarm for alarm in kinds if alarm in (Alarm.ASK_CALLER, Alarm.CALLER_IDLE)]
    assert idle[:1] in ([], [Alarm.ASK_CALLER]), "a caller is asked before the call ends"


def watchdog(**limits: float) -> Watchdog:
    """Return a watchdog since 0, whose other limits are far away."""
    return Watchdog(replace(Limits(length=1000, goodbye_before=0, idle=0), **limits), 0.0)


def test_state_has_its_own_say_in_silence() -> None:
    dog = watchdog(idle=30)
    dog.silence(5)
    dog.agent_quiet(10)
    assert dog.check(14.9, owed=False) is None
    assert dog.check(15, owed=False) is Alarm.CALLER_SILENT
    assert dog.check(19.9, owed=False) is None
    assert dog.check(20, owed=False) is Alarm.CALLER_SILENT, "each such while"
    dog.key_pressed(21)
    assert dog.check(25.9, owed=False) is None
    dog.silence(0)
    assert dog.check(51, owed=False) is Alarm.ASK_CALLER


def test_nobody_is_waited_for_while_the_caller_is_away() -> None:
    dog = watchdog(idle=5)
    dog.caller_stopped(10)
    dog.caller_away(True, 11)
    assert dog.check(50, owed=False) is None
    dog.caller_away(False, 60)
    assert dog.check(64.9, owed=False) is None
    assert dog.check(65, owed=False) is Alarm.ASK_CALLER


def test_caller_is_not_waited_for_while_a_tool_is_at_work() -> None:
    dog = watchdog(idle=5)
    dog.silence(2)
    dog.caller_stopped(10)
    dog.tools_at_work(True, 11)
    assert dog.check(40, owed=False) is None
    dog.tools_at_work(False, 41)
    assert dog.check(42.9, owed=False) is None
    assert dog.check(43, owed=False) is Alarm.CALLER_SILENT


def test_caller_is_not_waited_for_while_the_ai_owes_them_an_answer() -> None:
    dog = watchdog(idle=5)
    dog.caller_stopped(10)
    assert dog.check(40, owed=True) is None
    assert dog.check(44.9, owed=False) is None
    assert dog.check(45, owed=False) is Alarm.ASK_CALLER


def test_longest_call_ends_on_hold_too() -> None:
    dog = watchdog(length=100, goodbye_before=10)
    dog.caller_away(True, 50)
    assert dog.check(95, owed=False) is None
    assert dog.check(100, owed=False) is Alarm.TIME_LIMIT
