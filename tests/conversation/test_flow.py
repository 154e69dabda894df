"""The flow: whatever happens, the conversation is in a declared state, and tries are bounded."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.conversation import prompts
from arivox.conversation.flow import (
    ASIDES,
    MOST_TRIES,
    Breakdown,
    Entered,
    Event,
    Flow,
    Mistake,
    Move,
    Position,
    Refused,
    step,
)

STATES = tuple(prompts.load(None, ["openai"]).states)
SMALL = [("a", "b", "fallback"), ("a", "b", "error_handler"), ("a", "b"), ("a",)]
FLOWS = [Flow(STATES), *map(Flow, SMALL)]


def after(flow: Flow, *events: Event) -> Position:
    position = flow.start
    for event in events:
        position, _ = step(flow, position, event)
    return position


def test_tries_lead_to_fallback_and_from_there_to_the_error_handler() -> None:
    flow = FLOWS[0]
    wrong = Mistake("what?")
    assert after(flow, *[wrong] * (MOST_TRIES - 1)).state == "greeting"
    aside = after(flow, *[wrong] * MOST_TRIES)
    assert (aside.state, aside.back, aside.tries) == ("fallback", "greeting", 0)
    broken = after(flow, *[wrong] * 2 * MOST_TRIES)
    assert (broken.state, broken.back) == ("error_handler", "greeting")
    assert flow.exits(broken) == ("greeting", "fallback")


def test_last_try_is_answered_with_what_was_wrong_and_where_it_led() -> None:
    flow = FLOWS[0]
    position = after(flow, *[Mistake("no")] * (MOST_TRIES - 1))
    _, effects = step(flow, position, Move("confirmation"))
    refused, entered = effects
    assert isinstance(refused, Refused)
    assert "'confirmation' cannot follow 'greeting'" in refused.problem
    assert entered == Entered("greeting", "fallback", "tries")


def test_move_forgets_the_tries() -> None:
    flow = FLOWS[0]
    position = after(flow, Mistake("no"), Mistake("no"), Move("gathering_reason"))
    assert position == Position("gathering_reason")


def test_error_of_ours_leads_to_the_error_handler_and_back() -> None:
    flow = FLOWS[0]
    position = after(flow, Move("gathering_reason"), Breakdown("oh"))
    assert position.state == "error_handler"
    position = after(flow, Move("gathering_reason"), Breakdown("oh"), Move("gathering_reason"))
    assert position == Position("gathering_reason")


@pytest.mark.parametrize("states", [("a", "b"), ("a",)])
def test_flow_without_asides_stays_where_it_is(states: tuple[str, ...]) -> None:
    position = after(Flow(states), *[Mistake("no")] * 9, Breakdown("oh"))
    assert (position.state, position.tries) == ("a", MOST_TRIES)


def test_nothing_leads_out_of_the_last_state_but_an_error() -> None:
    flow = FLOWS[0]
    events = [Move(state) for state in flow.way[1:]]
    assert after(flow, *events, *[Move("greeting")] * 9).state == "confirmation"
    assert after(flow, *events, Breakdown("oh")).state == "error_handler"


def check(flow: Flow, position: Position, event: Event) -> Position:
    after, effects = step(flow, position, event)
    assert after.state in flow.states
    assert 0 <= after.tries <= MOST_TRIES
    assert after.back == "" or (after.state in ASIDES and after.back in flow.way)
    assert effects, "nothing happens without a word"
    entered = [effect for effect in effects if isinstance(effect, Entered)]
    if after.state != position.state:
        ((before, now),) = [(one.before, one.after) for one in entered]
        assert (before, now) == (position.state, after.state)
    else:
        assert entered == []
    if not isinstance(event, Move):
        assert after.known == position.known
    return after


events = st.one_of(
    st.builds(Move, st.sampled_from([*STATES, "a", "b", "nowhere", ""]), st.sampled_from(["", " ", "x"])),
    st.builds(Mistake, st.just("no")),
    st.builds(Breakdown, st.just("oh")),
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FLOWS), st.lists(events, max_size=60))
def test_any_events_end_in_a_declared_state(flow: Flow, events: list[Event]) -> None:
    position = flow.start
    for event in events:
        position = check(flow, position, event)


def test_ten_thousand_random_events() -> None:
    chance = random.Random(4)
    flow = FLOWS[0]
    position, visited = flow.start, set()
    for _ in range(10_000):
        move = Move(chance.choice(STATES), "x")
        kinds: list[Event] = [move, Mistake("no"), Breakdown("oh")]
        event = chance.choices(kinds, [8, 2, 0.2])[0]
        if not flow.exits(position):
            position = flow.start
        position = check(flow, position, event)
        visited.add(position.state)
    assert visited == set(STATES)
