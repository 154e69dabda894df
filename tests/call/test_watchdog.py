"""The deadlines of a call, as tables: what happens when, and which alarm is due."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.call.watchdog import Alarm, Limits, Watchdog
from arivox.settings.settings import Settings

LIMITS = Limits(length=300, goodbye_before=12, idle=30, first_audio=10, response=15)
START = 1000.0

# One step: seconds after the start, and what happens then: a method's name, or an alarm that check() returns.
Step = tuple[float, str | Alarm | None]


def run(steps: list[Step], limits: Limits = LIMITS) -> None:
    dog = Watchdog(limits, START)
    for at, step in steps:
        now = START + at
        if isinstance(step, str):
            method: Callable[..., None] = getattr(dog, step)
            method() if step == "answer_ended" else method(now)
        else:
            assert dog.check(now) is step, f"at {at} s"


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
        (202, "answer_ended"),
        (230.9, None),
        (231, Alarm.ASK_CALLER),
    ],
    "an agent that never says a word": [
        (1, "ready"),
        (10.9, None),
        (11, Alarm.NO_FIRST_AUDIO),
        (12, None),
    ],
    "an agent that greets in time": [(1, "ready"), (10.9, "agent_audio"), (11, None), (29, None)],
    "a question without an answer": [
        (1, "caller_spoke"),
        (2, "caller_stopped"),
        (16.9, None),
        (17, Alarm.NO_RESPONSE),
        (18, None),
    ],
    "a question that is answered": [
        (1, "caller_spoke"),
        (2, "caller_stopped"),
        (16.9, "agent_audio"),
        (17, None),
    ],
    "an answer that was asked for, to a tool or at the end": [
        (5, "answer_expected"),
        (19.9, None),
        (20, Alarm.NO_RESPONSE),
    ],
    "an answer without sound, such as a tool call": [
        (2, "caller_stopped"),
        (5, "answer_ended"),
        (17, None),
        (31.9, None),
        (32, Alarm.ASK_CALLER),
    ],
    "a caller who speaks on takes the question back": [
        (2, "caller_stopped"),
        (10, "caller_spoke"),
        (17, None),
        (18, "caller_stopped"),
        (32.9, None),
        (33, Alarm.NO_RESPONSE),
    ],
    "several alarms at once come one by one, the most urgent first": [
        (1, "ready"),
        (2, "caller_stopped"),
        (400, Alarm.TIME_LIMIT),
        (400, Alarm.NO_FIRST_AUDIO),
        (400, Alarm.NO_RESPONSE),
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


def test_caller_who_talks_first_does_not_make_the_agent_late() -> None:
    # The caller's speech cancels the greeting; the agent is silent because it listens.
    run([(1, "ready"), (1.5, "caller_spoke"), (11, None), (14, "caller_stopped"), (14.5, "agent_audio")])


def test_limits_of_the_settings() -> None:
    assert Limits.of(Settings()) == LIMITS
    other = Settings(max_call_duration_s=60, goodbye_before_s=5, idle_caller_s=0)
    assert Limits.of(other) == replace(LIMITS, length=60, goodbye_before=5, idle=0)


events = st.sampled_from(
    ["ready", "agent_audio", "agent_quiet", "caller_spoke", "caller_stopped", "answer_ended"]
)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 40), events), max_size=40))
def test_whatever_happens_each_deadline_is_raised_once(steps: list[tuple[float, str]]) -> None:
    dog = Watchdog(LIMITS, START)
    now, alarms = START, list[tuple[float, Alarm]]()
    for wait, event in [*steps, (400.0, "answer_ended")]:
        end = now + wait
        while now < end:
            now = min(now + 0.5, end)
            alarm = dog.check(now)
            if alarm is not None:
                alarms.append((now - START, alarm))
        getattr(dog, event)(*([] if event == "answer_ended" else [now]))
    kinds = [alarm for _, alarm in alarms]
    assert kinds.count(Alarm.TIME_LIMIT) == 1
    assert kinds.count(Alarm.SAY_GOODBYE) == 1
    assert kinds.count(Alarm.NO_FIRST_AUDIO) <= sum(event == "ready" for _, event in steps)
    asked = sum(event in ("caller_stopped", "answer_expected") for _, event in steps)
    assert kinds.count(Alarm.NO_RESPONSE) <= asked
    (ended,) = [at for at, alarm in alarms if alarm is Alarm.TIME_LIMIT]
    assert 300 <= ended <= 300.5
    idle = [alarm for alarm in kinds if alarm in (Alarm.ASK_CALLER, Alarm.CALLER_IDLE)]
    assert idle[:1] in ([], [Alarm.ASK_CALLER]), "a caller is asked before the call ends"


def watchdog(**limits: float) -> Watchdog:
    """Return a watchdog since 0, whose other limits are far away."""
    far = Limits(length=1000, goodbye_before=0, idle=0, first_audio=1000, response=1000)
    return Watchdog(replace(far, **limits), 0.0)


def test_state_has_its_own_say_in_silence() -> None:
    dog = watchdog(idle=30)
    dog.silence(5)
    dog.agent_quiet(10)
    assert dog.check(14.9) is None
    assert dog.check(15) is Alarm.CALLER_SILENT
    assert dog.check(19.9) is None
    assert dog.check(20) is Alarm.CALLER_SILENT, "each such while"
    dog.key_pressed(21)
    assert dog.check(25.9) is None
    dog.silence(0)
    assert dog.check(51) is Alarm.ASK_CALLER


def test_nobody_is_waited_for_while_the_caller_is_away() -> None:
    dog = watchdog(idle=5, response=3)
    dog.caller_stopped(10)
    dog.caller_away(True, 11)
    assert dog.check(50) is None
    dog.caller_away(False, 60)
    assert dog.check(62.9) is None
    assert dog.check(63) is Alarm.NO_RESPONSE
    assert dog.check(65) is Alarm.ASK_CALLER


def test_tool_at_work_is_waited_for_by_both_sides() -> None:
    dog = watchdog(idle=5, response=3)
    dog.silence(2)
    dog.caller_stopped(10)
    dog.tools_at_work(True, 11)
    assert dog.check(40) is None
    dog.tools_at_work(False, 41)
    assert dog.check(43.9) is None
    assert dog.check(44) is Alarm.NO_RESPONSE


def test_longest_call_ends_on_hold_too() -> None:
    dog = watchdog(length=100, goodbye_before=10)
    dog.caller_away(True, 50)
    assert dog.check(95) is None
    assert dog.check(100) is Alarm.TIME_LIMIT


@pytest.mark.parametrize(
    ("before", "expected", "alarm"),
    [
        ("ready", False, Alarm.NO_FIRST_AUDIO),
        ("answer_expected", False, Alarm.NO_RESPONSE),
        ("answer_ended", True, Alarm.NO_RESPONSE),
        ("answer_ended", False, None),
    ],
)
def test_an_ai_that_is_there_again_has_its_whole_time(
    before: str, expected: bool, alarm: Alarm | None
) -> None:
    dog = Watchdog(replace(LIMITS, idle=0), START)
    getattr(dog, before)(*([] if before == "answer_ended" else [START]))
    dog.reconnected(START + 9, expected=expected)
    limit = LIMITS.first_audio if alarm is Alarm.NO_FIRST_AUDIO else LIMITS.response
    assert dog.check(START + 9 + limit - 0.1) is None
    assert dog.check(START + 9 + limit) is alarm


def test_end_of_a_session_counts_as_long_as_no_other_follows() -> None:
    dog = Watchdog(replace(LIMITS, idle=0, goodbye_before=0), START)
    dog.expires(START + 60)
    dog.expires(START + 120)
    assert dog.check(START + 60) is None
    assert dog.check(START + 120) is Alarm.TIME_LIMIT
    dog.expires(START + 200)
    assert dog.check(START + 300) is None, "it was told"
