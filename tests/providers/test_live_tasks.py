"""Tasks that the agent hands over: which calls are run, when the backend model goes on, and what hangs."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arivox.providers.openai_live.tasks import (
    MOST_FAILURES,
    SLOW_S,
    UNTOLD_S,
    Ask,
    Call,
    Step,
    Tasks,
)
from arivox.providers.refusal import LONGEST_WAIT_S


def call(call_id: str, status: str | None = "completed") -> Call:
    return Call(call_id, "look", "{}", status)


def at_work(*calls: Call, task: str = "t", now: float = 0.0) -> Tasks:
    tasks = Tasks()
    tasks.begun(task, now)
    for one in calls:
        tasks.called(task, one, now)
    return tasks


# --- which calls are run ---


def test_calls_are_run_when_their_response_is_complete() -> None:
    tasks = at_work(call("a"), call("b", None))
    assert tasks.busy
    assert tasks.completed("t") == [call("a"), call("b", None)]
    assert not tasks.busy


def test_call_that_is_told_twice_is_run_once() -> None:
    tasks = at_work(call("a"), call("a"))
    assert tasks.completed("t") == [call("a")]
    tasks.called("t", call("a"), 1.0)
    assert tasks.completed("t") == []


@pytest.mark.parametrize("status", ["incomplete", "in_progress"])
def test_call_that_is_not_complete_is_neither_run_nor_answered(status: str) -> None:
    tasks = at_work(call("a"), call("b", status))
    assert tasks.completed("t") == [call("a")]
    assert not tasks.waits_for("b")
    assert tasks.answered("a", go_on=True), "nothing else is waited for"


def test_response_that_breaks_off_leaves_the_calls_that_say_they_are_complete() -> None:
    tasks = at_work(call("a"), call("b", None))
    assert tasks.incomplete("t") == [call("a")]
    assert at_work(call("b", None)).incomplete("t") == []


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_calls_of_a_response_that_failed_or_was_cancelled_are_forgotten(end: str) -> None:
    tasks = at_work(call("a"))
    if end == "failed":
        assert tasks.failed("t", 0.0)
    else:
        assert tasks.cancelled("t") == [Ask.SPEAK]
    assert not tasks.waits_for("a")
    assert call("a") not in tasks.check(UNTOLD_S)
    tasks.begun("t", 3.0)
    assert tasks.completed("t") == [Ask.SPEAK]


def test_calls_of_a_response_that_never_ended_are_forgotten_with_the_next() -> None:
    tasks = at_work(call("a", None))
    tasks.begun("t", 1.0)
    assert tasks.completed("t") == [Ask.SPEAK]


# --- when the backend model goes on ---


def test_task_goes_on_once_when_all_results_are_in() -> None:
    tasks = at_work(call("a"), call("b"))
    tasks.completed("t")
    assert not tasks.answered("a", go_on=True)
    assert tasks.busy
    assert tasks.answered("b", go_on=False)
    assert not tasks.busy
    assert not tasks.answered("b", go_on=True)


def test_task_whose_results_want_no_answer_rests() -> None:
    tasks = at_work(call("a"))
    tasks.completed("t")
    assert not tasks.answered("a", go_on=False)
    assert not tasks.busy


def test_tasks_do_not_wait_for_each_other() -> None:
    tasks = Tasks()
    for task in ("t", "u"):
        tasks.begun(task, 0.0)
        tasks.called(task, call(f"call of {task}"), 0.0)
    tasks.completed("t")
    assert tasks.answered("call of t", go_on=True)
    assert tasks.completed("u") == [call("call of u")]


def test_task_that_the_service_cannot_name_is_the_one_at_work() -> None:
    tasks = Tasks()
    tasks.handed_over("t", 0.0)
    tasks.called("", call("a"), 0.0)
    assert tasks.completed("") == [call("a")]
    tasks.handed_over("t", 1.0)
    assert not tasks.busy, "it was known already"


# --- what the agent is to say ---


def test_agent_speaks_of_a_task_unless_it_has_begun_to() -> None:
    tasks = at_work()
    tasks.written("t", 2.0)
    assert tasks.completed("t", spoke_at=1.0) == [Ask.SPEAK]
    tasks.begun("t", 3.0)
    tasks.written("t", 4.0)
    assert tasks.completed("t", spoke_at=4.5) == []
    tasks.begun("t", 5.0)
    assert tasks.completed("t", spoke_at=5.5) == [Ask.SPEAK], "there was nothing to speak of yet"


# --- failures ---


def test_failed_task_goes_on_with_growing_patience_and_is_given_up() -> None:
    tasks = at_work()
    now, waits = 0.0, []
    while tasks.failed("t", now):
        assert tasks.busy
        waits.append(tasks.due - now)
        assert tasks.check(tasks.due - 0.01) == []
        now = tasks.due
        assert tasks.check(now) == [Ask.GO_ON]
        tasks.begun("t", now)
    assert waits == [1.0, 2.0, 4.0]
    assert len(waits) == MOST_FAILURES
    assert not tasks.busy
    assert tasks.failed("t", now), "the next task counts anew"


def test_failed_task_waits_as_long_as_the_service_says() -> None:
    tasks = at_work()
    assert tasks.failed("t", 5.0, 3.0)
    assert tasks.due == 8.0
    assert at_work().failed("t", 0.0, 0.0)
    patient = at_work()
    patient.failed("t", 0.0, 60.0)
    assert patient.due == LONGEST_WAIT_S


def test_task_that_will_not_fare_better_is_given_up_at_once() -> None:
    tasks = at_work()
    assert not tasks.failed("t", 0.0, 1.0, lasting=True)
    assert tasks.due == float("inf")


def test_success_counts_failures_anew() -> None:
    tasks = at_work()
    for _ in range(10):
        assert tasks.failed("t", 0.0)
        tasks.begun("t", 0.0)
        assert tasks.completed("t") == [Ask.SPEAK]


def test_failed_task_with_tools_at_work_waits_for_them() -> None:
    tasks = at_work(call("a"))
    tasks.completed("t")
    tasks.begun("t", 0.0)
    tasks.failed("t", 0.0)
    assert tasks.check(1.0) == []
    assert tasks.answered("a", go_on=True)


# --- what hangs ---


def test_complete_call_of_a_response_whose_end_is_not_told_is_run() -> None:
    tasks = at_work(call("a"), call("b", None))
    tasks.heard("t", 1.0)
    assert tasks.check(UNTOLD_S) == []
    assert tasks.check(1.0 + UNTOLD_S) == [call("a")]
    assert tasks.answered("a", go_on=True)
    assert tasks.check(100.0) == []


def test_task_of_which_nothing_is_heard_is_told_once() -> None:
    tasks = at_work(call("b", None))
    tasks.heard("t", 1.0)
    assert tasks.check(SLOW_S) == []
    assert tasks.check(1.0 + SLOW_S) == [Ask.SLOW]
    assert not tasks.busy, "nothing is known to come"
    assert tasks.check(100.0) == []
    assert tasks.completed("t") == [call("b", None)], "what comes later still counts"


# --- whatever happens ---

EVENTS = st.tuples(
    st.sampled_from(
        ["begun", "called", "completed", "incomplete", "cancelled", "failed", "answered", "wait", "heard"]
    ),
    st.sampled_from(["t", "u", ""]),
    st.integers(0, 5),
    st.sampled_from([None, "completed", "incomplete"]),
)


@given(st.lists(EVENTS, max_size=60))
def test_each_complete_call_is_run_once_at_most_and_no_other(
    events: list[tuple[str, str, int, str | None]],
) -> None:
    tasks, now = Tasks(), 0.0
    run: Counter[str] = Counter()
    whole: set[str] = set()

    def take(steps: list[Step]) -> None:
        run.update(step.call_id for step in steps if isinstance(step, Call))

    for what, task, number, status in events:
        match what:
            case "begun":
                tasks.begun(task, now)
            case "heard":
                tasks.heard(task, now)
            case "called":
                if status != "incomplete":
                    whole.add(f"call {number}")
                tasks.called(task, call(f"call {number}", status), now)
            case "completed":
                take(tasks.completed(task))
            case "incomplete":
                take(tasks.incomplete(task))
            case "cancelled":
                take(tasks.cancelled(task))
            case "failed":
                tasks.failed(task, now)
            case "answered":
                tasks.answered(f"call {number}", go_on=True)
                assert not tasks.answered(f"call {number}", go_on=True), "it goes on once"
            case _:
                now += number
                take(tasks.check(now))
                assert tasks.due > now, "all that was due is done"
    assert set(run) <= whole
    assert all(count == 1 for count in run.values())
