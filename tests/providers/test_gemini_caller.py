"""What another connection must hear again of the caller, by what they said and when the session was saved."""

from __future__ import annotations

import pytest

from arivox.audio.g711 import Law, encode
from arivox.providers.gemini.caller import CallerAudio
from arivox.testing import signal

FRAME = 160


def frames(pcm_dbfs: float, seconds: float, law: Law = "ulaw", hz: float = 400.0) -> list[bytes]:
    data = encode(signal.tone(hz, seconds, level_dbfs=pcm_dbfs), law)
    return [data[start : start + FRAME] for start in range(0, len(data), FRAME)]


def silence(seconds: float, law: Law = "ulaw") -> list[bytes]:
    return [bytes([0xFF if law == "ulaw" else 0xD5]) * FRAME] * round(seconds * 50)


def after(law: Law, *parts: list[bytes]) -> CallerAudio:
    caller = CallerAudio(law)
    for frame in (frame for part in parts for frame in part):
        caller.add(frame)
    return caller


@pytest.mark.parametrize("law", ["ulaw", "alaw"])
def test_words_are_kept_with_what_came_before_them(law: Law) -> None:
    before, words, pause = silence(1.0, law), frames(-25, 0.5, law), silence(0.6, law)
    caller = after(law, before, words, pause)
    assert caller.voice
    kept = caller.replay()
    # It is noticed at the third frame, and reaches back 300 ms from there.
    assert kept == (*before[-12:], *words, *pause)


@pytest.mark.parametrize("law", ["ulaw", "alaw"])
def test_silence_and_faint_noise_are_no_words(law: Law) -> None:
    caller = after(law, silence(1.0, law), frames(-45, 1.0, law))
    assert not caller.voice
    assert caller.replay() == tuple(frames(-45, 1.0, law)[-15:])


def test_clicks_are_no_words() -> None:
    click = frames(-10, 0.02)
    caller = after("ulaw", *[part for _ in range(20) for part in (click, silence(0.1))])
    assert not caller.voice


def test_what_is_saved_is_forgotten() -> None:
    caller = after("ulaw", frames(-20, 1.0), silence(0.5))
    caller.saved()
    assert not caller.voice
    assert len(caller.replay()) == 15
    for frame in frames(-20, 0.2):
        caller.add(frame)
    assert caller.voice


def test_word_that_is_just_being_said_is_kept() -> None:
    words = frames(-20, 1.0)
    caller = after("ulaw", words)
    caller.saved()
    assert caller.voice
    assert caller.replay() == tuple(words[-15:])


def test_long_pauses_are_shortened_and_words_after_them_are_whole() -> None:
    first, second = frames(-20, 0.5), frames(-15, 0.5)
    caller = after("ulaw", first, silence(18.0), second)
    assert caller.replay() == (*first, *silence(0.6), *silence(0.28), *second)


def test_words_of_20_s_keep_their_latest_15() -> None:
    caller = after("ulaw", frames(-20, 20.0))
    assert len(caller.replay()) == 750
    assert caller.overflowed == 0, "all of them were sent once"


def test_words_that_were_never_sent_are_counted_when_they_are_given_up() -> None:
    caller = after("ulaw", frames(-20, 5.0))
    for frame in frames(-20, 20.0):
        caller.add(frame, sent=False)
    assert len(caller.replay()) == 750
    assert caller.overflowed == 1000 - 750


def test_words_that_began_without_a_connection_are_counted_from_their_beginning() -> None:
    caller = CallerAudio("ulaw")
    for frame in frames(-20, 20.0):
        caller.add(frame, sent=False)
    assert caller.overflowed == 1000 - 750


def test_words_that_have_their_answer_are_forgotten_and_later_ones_are_not() -> None:
    question, more = frames(-20, 1.0), frames(-15, 0.5)
    caller = after("ulaw", question, silence(0.6))
    caller.answer_begins()
    for frame in more:
        caller.add(frame)
    caller.answered()
    assert caller.replay() == tuple(more)
    caller.answered()
    assert caller.replay() == tuple(more)


def held(caller: CallerAudio, *parts: list[bytes]) -> None:
    for frame in (frame for part in parts for frame in part):
        caller.add(frame, sent=False)


def test_words_that_were_acted_on_are_not_heard_again() -> None:
    more = frames(-15, 0.5)
    caller = after("ulaw", frames(-20, 1.0), silence(0.6))
    caller.acted_on()
    assert not caller.voice
    held(caller, more)
    caller.acted_on()
    assert caller.unsent()[-len(more) :] == tuple(more), "what nobody has heard was not acted on"


def test_words_before_an_answer_that_calls_a_tool_are_acted_on_and_later_ones_are_not() -> None:
    more = frames(-15, 0.5)
    caller = after("ulaw", frames(-20, 1.0), silence(0.6))
    caller.answer_begins()
    for frame in more:
        caller.add(frame)
    caller.acted_on()
    assert caller.replay() == tuple(more)


def test_what_tripped_is_never_sent_again_and_what_was_never_sent_is() -> None:
    later = frames(-15, 0.5)
    caller = after("ulaw", frames(-20, 1.0))
    caller.forget()
    assert caller.replay() == ()
    caller.saved()
    assert caller.replay() == (), "not the next time either"
    held(caller, silence(0.5), later)
    caller.forget()
    assert caller.replay()[-len(later) :] == tuple(later)


def test_who_is_in_the_middle_of_words_that_tripped_is_known() -> None:
    caller = after("ulaw", frames(-20, 1.0))
    caller.forget()
    assert caller.cut_off
    assert not caller.voice
    for frame in frames(-20, 0.5):
        caller.add(frame)
    assert caller.cut_off
    for frame in silence(0.7):
        caller.add(frame)
    assert not caller.cut_off
    assert caller.talked_on
    caller = after("ulaw", frames(-20, 1.0))
    caller.forget()
    for frame in (*frames(-20, 0.2), *silence(0.7)):
        caller.add(frame)
    assert not caller.cut_off
    assert not caller.talked_on, "the end of a word brings no answer"
    caller = after("ulaw", frames(-20, 1.0))
    caller.forget()
    for frame in frames(-20, 2.5):
        caller.add(frame)
    assert not caller.cut_off
    assert not caller.talked_on, "it hums"
    caller = after("ulaw", frames(-20, 1.0), silence(0.7))
    caller.forget()
    assert not caller.cut_off


def test_words_that_were_held_back_are_sent_once_and_kept() -> None:
    first, second = frames(-20, 0.5), frames(-15, 0.5)
    caller = after("ulaw", first)
    held(caller, second)
    assert caller.unsent() == tuple(second)
    assert caller.unsent() == ()
    assert caller.replay() == (*first, *second)
    caller.lost()
    assert caller.unsent() == (*first, *second)


def test_state_that_is_saved_does_not_hold_what_was_held_back() -> None:
    words = frames(-20, 0.5)
    caller = CallerAudio("ulaw")
    held(caller, words, silence(0.5))
    caller.saved()
    assert caller.voice
    assert caller.unsent()[: len(words)] == tuple(words)


def test_caller_waits_for_an_answer_once_they_have_been_silent_longer_than_it_takes() -> None:
    caller = after("ulaw", frames(-20, 1.0), silence(1.0))
    assert not caller.unanswered
    assert not caller.speaking
    for frame in silence(0.6):
        caller.add(frame)
    assert caller.unanswered
    for frame in frames(-20, 0.1):
        caller.add(frame)
    assert caller.speaking
    assert not caller.unanswered


def test_there_is_nothing_before_the_first_frame() -> None:
    assert CallerAudio("ulaw").replay() == ()


def test_hum_is_no_talking() -> None:
    caller = after("ulaw", silence(0.5), frames(-20, 0.5))
    assert caller.talking
    for frame in silence(0.2):
        caller.add(frame)
    assert not caller.talking
    for frame in frames(-20, 2.5):
        caller.add(frame)
    assert not caller.talking
    caller.forget()
    assert not caller.cut_off
