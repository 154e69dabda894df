"""Tools across the AI's connections: each call runs once, and its result is told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.call.sessions.errands import Errand, Errands

BOOK = ("book", '{"day": "Monday", "hour": 9}')
SAME = ("book", '{"hour":9,"day":"Monday"}')
OTHER = ("book", '{"day": "Tuesday", "hour": 9}')


def test_arguments_are_compared_by_what_they_say() -> None:
    assert Errand.of(*BOOK) == Errand.of(*SAME) != Errand.of(*OTHER)
    assert Errand.of("look", "") == Errand.of("look", "{}")
    assert Errand.of("look", "{").arguments == "{", "what is no JSON is taken as it is"


def test_call_that_is_repeated_over_another_connection_joins_the_one_at_work() -> None:
    errands = Errands()
    assert errands.called("a", *BOOK) is None
    assert not errands.repeats("a")
    errands.session_lost()
    assert list(errands.told()) == ["The tool book that you called is still at work: do not call it again."]
    assert errands.called("b", *SAME) is None
    assert errands.repeats("b")
    assert errands.called("c", *OTHER) is None
    assert not errands.repeats("c"), "that is another errand"
    assert errands.orphan_returned("a", "booked", answer=True) == ["b"]
    assert not errands.answer_due(), "the agent speaks of what it called for itself"


def test_call_that_is_repeated_after_the_result_is_given_it() -> None:
    errands = Errands()
    errands.called("a", *BOOK)
    errands.session_lost()
    assert errands.orphan_returned("a", "booked", answer=True) == []
    assert errands.answer_due()
    assert errands.called("b", *SAME) == "booked"


def test_result_that_was_given_and_not_spoken_of_is_given_again() -> None:
    errands = Errands()
    errands.called("a", *BOOK)
    errands.returned("a", "booked")
    errands.answer_begins()
    errands.session_lost()
    assert list(errands.told()) == ["The tool book that you called has returned: booked"]
    assert errands.called("b", *SAME) == "booked"


def test_call_after_the_agent_has_spoken_of_the_result_is_a_new_one() -> None:
    errands = Errands()
    errands.called("a", *BOOK)
    errands.session_lost()
    errands.orphan_returned("a", "booked", answer=True)
    errands.answer_begins()
    assert errands.answered()
    assert errands.called("b", *SAME) is None
    assert not errands.repeats("b")


def test_same_call_twice_in_one_answer_is_meant() -> None:
    errands = Errands()
    errands.answer_begins()
    errands.called("a", *BOOK)
    assert errands.called("b", *BOOK) is None
    assert not errands.repeats("b")


def test_call_that_is_repeated_while_the_tool_is_at_work_joins_it() -> None:
    """The caller spoke meanwhile, and the agent is impatient."""
    errands = Errands()
    errands.answer_begins()
    errands.called("a", *BOOK)
    errands.answer_begins()
    assert errands.called("b", *SAME) is None
    assert errands.repeats("b")
    assert errands.returned("a", "booked") == ["b"]
    errands.answer_begins()
    assert errands.called("c", *SAME) is None
    assert not errands.repeats("c"), "it knows the result, and means another"


def test_call_that_was_taken_back_and_goes_on_is_told_and_not_spoken_of() -> None:
    errands = Errands()
    errands.called("a", *BOOK)
    errands.cancelled(["a"])
    errands.goes_on("a")
    assert not errands.orphaned, "nobody waits for it"
    assert errands.orphan_returned("a", "booked", answer=True) == []
    assert not errands.answer_due()
    assert list(errands.told()) == ["The tool book that you called has returned: booked"]


def test_call_that_was_taken_back_and_is_made_again_joins_it() -> None:
    errands = Errands()
    errands.called("a", *BOOK)
    errands.cancelled(["a"])
    errands.goes_on("a")
    assert errands.called("b", *SAME) is None
    assert errands.repeats("b")
    assert errands.orphan_returned("a", "booked", answer=True) == ["b"]


class Model:
    """An AI that wants one booking and forgets what was in progress with each connection, and a tool."""

    def __init__(self) -> None:
        self.errands = Errands()
        self.calls = 0
        self.runs: list[str] = []
        self.at_work: list[str] = []
        self.waits = ""  # the call whose result it waits for
        self.knows = False
        self.spoken = False

    def call(self) -> None:
        if self.waits or self.knows or self.spoken:
            return
        self.calls += 1
        call_id = f"call-{self.calls}"
        self.errands.answer_begins()
        output = self.errands.called(call_id, *BOOK)
        if output is not None:
            self.knows = True
        elif self.errands.repeats(call_id):
            self.waits = call_id
        else:
            self.waits = call_id
            self.runs.append(call_id)
            self.at_work.append(call_id)

    def returns(self) -> None:
        if not self.at_work:
            return
        call_id = self.at_work.pop()
        joined = self.errands.orphan_returned(call_id, "booked", answer=True)
        if joined is None:
            joined = [call_id, *self.errands.returned(call_id, "booked")]
        if joined:  # it is given the result, whether it still waits or not
            self.waits, self.knows = "", True

    def lose(self) -> None:
        self.errands.session_lost()
        self.waits, self.knows = "", False

    def take_back(self) -> None:
        """The caller speaks while the tool is at work."""
        if self.waits:
            self.errands.cancelled([self.waits])
            if self.waits in self.at_work:
                self.errands.goes_on(self.waits)
            self.waits = ""

    def hear(self) -> None:
        """The caller speaks while the tool is at work, and the agent calls it again."""
        self.waits = ""
        self.call()

    def break_off(self) -> None:
        """The caller speaks into the answer: it is not complete."""
        if self.knows:
            self.errands.answer_begins()

    def speak(self) -> None:
        if self.knows:
            self.errands.answer_begins()
            assert self.errands.answered()
            self.spoken = True


ACTS = st.sampled_from(["call", "hear", "returns", "lose", "take_back", "break_off"])


@settings(max_examples=400)
@given(st.lists(ACTS, max_size=100))
def test_tool_runs_once_through_any_losses_and_interruptions(acts: list[str]) -> None:
    """Through a hundred losses, changes and interruptions, until the agent has spoken of the result."""
    model = Model()
    model.call()
    for act in acts:
        getattr(model, act)()
    model.returns()
    model.call()
    model.returns()
    model.speak()
    assert model.spoken
    assert len(model.runs) == 1


@pytest.mark.parametrize("count", [1, 40])
def test_facts_are_bounded(count: int) -> None:
    errands = Errands()
    for number in range(count):
        errands.called(f"call-{number}", "look", f'{{"n": {number}}}')
        errands.session_lost()
        errands.orphan_returned(f"call-{number}", "x" * 10, answer=False)
    assert len(list(errands.told())) <= 16


def test_call_that_is_told_of_twice_is_one_call() -> None:
    errands = Errands()
    errands.answer_begins()
    assert errands.called("a", *BOOK) is None
    assert errands.waited_for("a", *SAME)
    assert not errands.waited_for("b", *BOOK), "another one in the same answer is meant"
    assert not errands.waited_for("a", *OTHER), "some services count their calls anew in each answer"
    assert errands.returned("a", "booked") == []
    errands.answer_begins()
    assert not errands.waited_for("a", *BOOK)
    assert errands.called("a", *SAME) == "booked", "it is given its result once more"
    assert errands.called("a", *OTHER) is None
