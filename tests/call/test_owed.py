"""What the AI owes, as tables: what happens when, and what is due then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.call.owed import Do, How, Owed, State, Step, Terms
from arivox.settings.settings import Settings

TERMS = Terms(patience=2.0, first_audio=10.0, response=15.0, thought=2.0, turn_quiet=2.5)


class Line:
    """A debt, and the line and the AI around it."""

    def __init__(self, *, turns: bool = True, terms: Terms = TERMS) -> None:
        self.owed = Owed(terms, turns=turns)
        self.signs = 0
        self.quiet_s = 100.0
        self.voiced = True
        self.playing = False

    def due(self, now: float) -> Step | None:
        return self.owed.due(now, self.signs, quiet_s=self.quiet_s, voiced=self.voiced, playing=self.playing)

    def steps(
        self, begin: float, end: float, then: Callable[[float, Step], None] | None = None
    ) -> list[tuple[float, Do]]:
        """Return what is due between two moments, looked at four times a second."""
        found, now = [], begin
        while now <= end:
            step = self.due(now)
            if step is not None:
                found.append((now, step.do))
                if then is not None:
                    then(now, step)
            now += 0.25
        return found


def test_turn_that_no_answer_begins_to_is_asked_about_within_two_seconds() -> None:
    line = Line()
    line.owed.caller_speaks_now(0)
    line.owed.turn_ended(1)
    assert line.due(2.9) is None
    step = line.due(3)
    assert step is not None
    assert (step.do, step.how, step.words, step.for_caller) == (Do.ASK, How.PLAIN, None, True)


def test_mute_ai_is_left_for_another_connection_and_given_up_at_last() -> None:
    line = Line()
    line.owed.turn_ended(0)
    found = line.steps(0, 30)
    assert [do for _, do in found] == [Do.ASK, *[Do.RENEW] * 6, Do.GIVE_UP]
    assert [at for at, _ in found][:3] == [2, 3, 5]
    assert found[-1][0] == 15


def test_ai_that_shows_signs_of_life_is_asked_and_not_left() -> None:
    line = Line()
    line.owed.turn_ended(0)

    def alive(now: float, step: Step) -> None:
        line.signs += 1

    assert [do for _, do in line.steps(0, 14, alive)] == [Do.ASK] * 7


def test_greeting_has_a_limit_of_its_own() -> None:
    line = Line()
    line.owed.asked(None, 0, first=True)
    at, do = line.steps(0, 30)[-1]
    assert (at, do) == (10, Do.GIVE_UP)


def test_answer_that_begins_and_hangs_is_asked_for_again_and_given_more_time_each_time() -> None:
    line = Line()
    line.owed.turn_ended(0)
    line.owed.begun(0.5)
    found = []
    now = 0.5
    while now < 14.75:
        now += 0.25
        step = line.due(now)
        if step is not None:
            found.append((now, step.do))
            line.signs += 1
            line.owed.begun(now)
    assert found[:2] == [(2.5, Do.ASK), (6.5, Do.ASK)]
    assert found[2][1] is Do.RENEW, "the third time the connection is at fault"


def test_answer_that_shows_progress_is_waited_for() -> None:
    """The arguments of a tool take their time."""
    line = Line()
    line.owed.turn_ended(0)
    line.owed.begun(0.5)
    now = 0.5
    while now < 5:
        now += 0.25
        line.signs += 1
        assert line.due(now) is None


def test_service_that_is_slow_is_not_asked_again_each_time() -> None:
    line = Line()
    line.owed.turn_ended(0)
    line.owed.begun(0.1)
    step = line.due(2.2)
    assert step is not None
    assert step.do is Do.ASK
    line.owed.begun(2.3)
    line.owed.sounded(5.8)
    line.owed.done()
    line.owed.turn_ended(10)
    line.owed.begun(10.1)
    assert line.steps(10.25, 14.5) == []


def slow_to_begin(line: Line, says_so: bool) -> None:
    """Answer a turn four seconds late, whatever is asked meanwhile."""
    line.owed.turn_ended(0)
    assert [do for _, do in line.steps(0.25, 2)] == [Do.ASK]
    line.signs += 1
    if says_so:
        line.owed.answering(2.1)
    assert line.steps(2.25, 3.75) == []
    line.owed.begun(4)
    line.owed.sounded(4.1)
    line.owed.done()


@pytest.mark.parametrize("says_so", [True, False])
def test_service_that_is_slow_to_begin_is_not_asked_again_each_time(says_so: bool) -> None:
    line = Line()
    slow_to_begin(line, says_so)
    line.owed.turn_ended(10)
    assert line.steps(10.25, 14.5) == []


def test_service_that_begins_once_it_is_asked_is_given_no_more_time() -> None:
    line = Line()
    line.owed.turn_ended(0)
    assert [do for _, do in line.steps(0.25, 2)] == [Do.ASK]
    line.owed.begun(2.3)
    line.owed.sounded(2.5)
    line.owed.done()
    line.owed.turn_ended(10)
    assert [when for when, _ in line.steps(10.25, 12)] == [12]


def test_service_that_asked_for_patience_is_not_slow() -> None:
    line = Line()
    line.owed.turn_ended(0)
    line.owed.failed(0.5, "rate limit", wait=8.0)
    assert [do for _, do in line.steps(0.75, 9)] == [Do.ASK]
    line.owed.begun(9.9)
    line.owed.sounded(10)
    line.owed.done()
    line.owed.turn_ended(20)
    assert [when for when, _ in line.steps(20.25, 22)] == [22]


def test_service_that_says_it_is_at_an_answer_and_is_not_is_asked_anew() -> None:
    line = Line()
    line.owed.turn_ended(0)
    line.steps(0.25, 2)
    line.signs += 1
    line.owed.answering(2.1)
    assert [do for _, do in line.steps(2.25, 7)] == [Do.ASK]


def test_sound_pays() -> None:
    line = Line()
    line.owed.turn_ended(0)
    line.owed.begun(1)
    line.owed.sounded(1.5)
    assert not line.owed.open
    assert line.steps(2, 60) == []


def test_half_a_sentence_is_gone_on_with() -> None:
    line = Line()
    line.owed.asked(None, 0, first=True)
    line.owed.begun(0.2)
    line.owed.sounded(0.5)
    line.owed.drained(3.0, more=True)
    assert line.due(4.9) is None
    step = line.due(5.0)
    assert step is not None
    assert (step.do, step.how) == (Do.ASK, How.GO_ON)


def test_sentence_that_is_heard_to_its_end_owes_nothing() -> None:
    line = Line()
    line.owed.sounded(0.5)
    line.owed.drained(3.0, more=False)
    assert line.steps(3, 60) == []


def test_answer_without_a_sound_is_asked_for_aloud_at_once() -> None:
    line = Line()
    line.owed.turn_ended(0)
    line.owed.begun(0.3)
    line.owed.empty(0.6)
    assert line.due(0.7) is None
    step = line.due(0.8)
    assert step is not None
    assert (step.do, step.how, step.planned) == (Do.ASK, How.ALOUD, True)


FAILURES: dict[str, tuple[dict[str, Any], float, How]] = {
    "a second where nothing is said": ({}, 1.0, How.PLAIN),
    "as long as the service says": ({"wait": 3.0}, 3.0, How.PLAIN),
    "not in the same millisecond": ({"wait": 0.0}, 1.0, How.PLAIN),
    "ten seconds at most": ({"wait": 60.0}, 10.0, How.PLAIN),
    "in other words": ({"rejected": True}, 1.0, How.OTHERWISE),
    "where it broke off": ({"heard": True}, 1.0, How.GO_ON),
}


@pytest.mark.parametrize("case", FAILURES)
def test_answer_that_failed_is_asked_for_again(case: str) -> None:
    options, wait, how = FAILURES[case]
    line = Line()
    line.owed.turn_ended(0)
    line.owed.failed(1.0, "no", **options)
    assert line.due(1.0 + wait - 0.01) is None
    step = line.due(1.0 + wait)
    assert step is not None
    assert (step.do, step.how) == (Do.ASK, how)


def test_what_was_asked_for_in_words_is_asked_for_in_the_same_words() -> None:
    line = Line()
    line.owed.asked("Say good-bye.", 0)
    line.owed.failed(0.1, "no")
    step = line.due(1.1)
    assert step is not None
    assert (step.words, step.for_caller) == ("Say good-bye.", False)


def test_waits_grow_and_end() -> None:
    line = Line()
    line.owed.turn_ended(0)
    line.owed.failed(0, "no")

    def fails(now: float, step: Step) -> None:
        if step.do is Do.ASK:
            line.owed.failed(now, "no")

    found = line.steps(0, 100, fails)
    assert [at for at, do in found if do is Do.ASK] == [1, 3, 7, 15, 25, 35]
    assert found[-1] == (45, Do.GIVE_UP)


def test_turn_that_fails_counts_anew_and_several_in_a_row_are_too_many() -> None:
    line = Line()
    now = 0.0
    for _ in range(4):
        line.owed.caller_speaks_now(now)
        line.owed.turn_ended(now + 1)
        assert line.due(now + 1.25) is None
        line.owed.failed(now + 1.5, "no")
        now += 2
    step = line.due(now)
    assert step is not None
    assert step.do is Do.GIVE_UP


def test_an_answer_forgives_the_turns_that_failed() -> None:
    line = Line()
    now = 0.0
    for count in range(8):
        line.owed.caller_speaks_now(now)
        line.owed.turn_ended(now + 1)
        line.owed.failed(now + 1.5, "no")
        if count % 3 == 2:
            line.owed.begun(now + 1.8)
            line.owed.sounded(now + 1.9)
            line.owed.done()
        now += 2
        step = line.due(now)
        assert step is None or step.do is Do.ASK


def test_nothing_is_asked_while_the_caller_speaks() -> None:
    line = Line()
    line.quiet_s = 0.0
    line.owed.turn_ended(0)
    line.owed.failed(0.5, "no")
    line.owed.caller_speaks_now(1)
    line.owed.failed(1.1, "no")
    line.owed.more(1.2)
    assert line.steps(1, 20) == []
    assert line.owed.caller_speaks


def test_turn_that_the_ai_does_not_end_is_ended_by_the_silence_on_the_line() -> None:
    line = Line()
    line.owed.caller_speaks_now(0)
    line.quiet_s = 0.1
    assert line.due(3) is None
    line.quiet_s = 2.5
    step = line.due(5.4)
    assert step is not None
    assert step.do is Do.END_TURN
    ask = line.due(7.4)
    assert ask is not None
    assert ask.do is Do.ASK, "and an answer is owed from then on"


def test_end_that_is_told_after_the_turn_was_ended_owes_no_second_answer() -> None:
    line = Line()
    line.owed.caller_speaks_now(0)
    assert line.steps(3, 3) == [(3, Do.END_TURN)]
    line.owed.begun(3.3)
    line.owed.sounded(3.5)
    line.owed.turn_ended(4)
    line.owed.done()
    assert line.steps(5, 60) == []
    line.owed.turn_ended(60)
    assert line.steps(60, 63)[0] == (62, Do.ASK), "the next is a turn of its own"


def test_turn_on_a_line_that_is_never_quiet_is_ended_after_half_a_minute() -> None:
    line = Line()
    line.quiet_s = 0.0
    line.owed.caller_speaks_now(0)
    assert line.steps(0, 29.75) == []
    assert line.steps(30, 30.25) == [(30, Do.END_TURN)]


def test_caller_who_is_too_quiet_for_our_ear_is_believed_for_25_seconds() -> None:
    line = Line()
    line.voiced = False
    line.owed.caller_speaks_now(0)
    assert line.steps(0, 24.75) == []
    assert line.steps(25, 25.25) == [(25, Do.END_TURN)]


def test_ai_without_turns_is_asked_once_the_line_is_quiet() -> None:
    line = Line(turns=False)
    line.owed.caller_active(0)
    line.quiet_s = 0.0
    assert line.due(4) is None, "they may speak on"
    line.quiet_s = 2.5
    step = line.due(6.5)
    assert step is not None
    assert step.do is Do.ASK


def test_ai_without_turns_is_asked_so_long_after_the_words_not_after_their_sign() -> None:
    """What the caller said is told of half a second late, or more."""
    for late, asked in ((0.5, 2.5), (1.75, 3.25)):
        line = Line(turns=False)
        line.owed.caller_active(late)
        now = late
        found: list[Do] = []
        while now < 5 and not found:
            now += 0.25
            line.quiet_s = now
            found = [step.do for step in (line.due(now),) if step is not None]
        assert (now, found) == (asked, [Do.ASK])


def test_line_that_is_never_quiet_holds_the_question_up_for_eight_seconds() -> None:
    line = Line(turns=False)
    line.quiet_s = 0.0
    line.owed.caller_active(0)
    assert line.steps(0, 20)[0] == (8, Do.ASK)


def test_ai_that_has_not_heard_the_caller_is_asked_at_once() -> None:
    line = Line()
    line.owed.unheard(5)
    step = line.due(5)
    assert step is not None
    assert (step.do, step.how) == (Do.ASK, How.UNHEARD)
    renewed = line.due(6)
    assert renewed is not None
    assert (renewed.do, renewed.for_caller) == (Do.RENEW, True)


def test_nobody_is_asked_while_the_agent_is_heard() -> None:
    line = Line()
    line.owed.asked("Now say this.", 0)
    line.playing = True
    assert line.steps(0, 20) == []
    line.playing = False
    assert line.steps(20.25, 30)[0] == (22, Do.ASK)


@pytest.mark.parametrize("why", ["tools", "away", "connection"])
def test_nothing_is_due_in_a_pause_and_the_ai_has_its_time_after_it(why: str) -> None:
    line = Line()
    line.owed.turn_ended(0)
    line.owed.pause(why, True, 1)
    assert line.steps(1, 60) == []
    line.owed.pause(why, False, 60)
    assert line.due(61.9) is None
    step = line.due(62)
    assert step is not None
    assert step.do is Do.ASK


def test_two_pauses_end_with_the_later() -> None:
    line = Line()
    line.owed.turn_ended(0)
    line.owed.pause("tools", True, 1)
    line.owed.pause("away", True, 2)
    line.owed.pause("tools", False, 3)
    assert line.steps(3, 60) == []


def test_terms_leave_time_for_several_tries() -> None:
    assert Terms.of(Settings()) == TERMS
    assert Terms.of(Settings(response_timeout_s=2)).patience == 0.5
    assert Terms.of(Settings(openai_reasoning_effort="high")).thought == 3.75
    assert Terms.of(Settings(vad_type="semantic_vad", vad_eagerness="low")).turn_quiet == 10


EVENTS = ["asked", "turn_ended", "caller_active", "interrupted", "unheard", "caller_speaks_now", "begun",
          "sounded", "done", "more", "empty", "failed", "drained", "pause", "go on"]  # fmt: skip


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.floats(0, 5), st.sampled_from(EVENTS), st.booleans()), max_size=40), st.booleans()
)
def test_whatever_happens_a_debt_is_seen_to_or_given_up(
    events: list[tuple[float, str, bool]], turns: bool
) -> None:
    """Once nothing more happens: within half a minute the caller is served or sent on."""
    line = Line(turns=turns)
    owed, now = line.owed, 0.0
    for wait, event, flag in events:
        line.steps(now, now + wait)
        now += wait
        line.signs += flag
        match event:
            case "asked":
                owed.asked("words" if flag else None, now, first=flag)
            case "done":
                owed.done()
            case "failed":
                owed.failed(now, "no", wait=3.0 if flag else None, rejected=flag)
            case "drained":
                owed.drained(now, more=flag)
            case "pause":
                owed.pause("tools", True, now)
            case "go on":
                owed.pause("tools", False, now)
            case _:
                getattr(owed, event)(now)
    owed.pause("tools", False, now)
    was_open = owed.open or owed.caller_speaks
    found = line.steps(now, now + 60)
    if was_open:
        assert found
        assert found[-1][1] is Do.GIVE_UP
    else:
        assert found == []
    assert owed.state in (State.NOTHING, State.SPEAKING)
