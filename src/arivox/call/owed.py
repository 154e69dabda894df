"""What the AI owes the caller, since when, and what is to be done about it. Pure.

| state | the caller waits for | becomes overdue | then |
|---|---|---|---|
| NOTHING | nobody | never | |
| CALLER | it is the caller who speaks | when the AI says so for too long | END_TURN |
| EXPECTED | an answer that has not begun | after ``patience`` | ASK; RENEW if the AI has been mute since |
| BEGUN | the first sound of one that has begun | after ``patience``, longer each time | ASK; RENEW at last |
| SPEAKING | the rest of one, if its sound ran out | after ``patience`` | ASK, to go on |
| WAITING | the next try after one that failed | at its time | ASK |

``patience`` is short, for silence on a telephone is long: to ask a service again that was about to answer
costs little. What it reports as failed is asked for again as late as the service says, else after one
second, then two, up to ten. The call is given up (GIVE_UP) when nothing has come for ``limit`` seconds, when
an answer has failed again and again for 45 s, or when three turns of the caller in a row got no answer and
the next fails as well. Sound pays every debt.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from arivox.providers.refusal import LONGEST_WAIT_S
from arivox.settings.settings import Settings

_NEVER: Final = float("inf")
_AFTER_FAILURE_S: Final = (1.0, 2.0, 4.0, 8.0, LONGEST_WAIT_S)
_AFTER_NOTHING_S: Final = (0.2, *_AFTER_FAILURE_S)
_LONGEST_FAILING_S: Final = 45.0
_MOST_FAILED_TURNS: Final = 3
_HANGS: Final = 3  # answers in a row that began and hung: then the connection is at fault
_NOISY_S: Final = 8.0  # a line that is never quiet holds the next try up no longer
_TURN_S: Final = 25.0  # the longest turn without a pause that is believed
_LONGEST_TURN_S: Final = 30.0
_TURN_PAUSE_S: Final = 0.6
_TURNLESS_S: Final = 0.5  # an AI without turns is asked so much later: nobody knows when the turn ended
_SIGN_S: Final = 2.0  # so much later than the words it is still of them
_AFTER_SIGN: Final = 0.75  # of the patience
_VAD_S: Final = 2.0  # a detector that ends a turn later than this after its time does not end it
_THOUGHT: Final = {"medium": 2.0, "high": 4.0, "xhigh": 4.0}  # an AI that is to reason is given more time
_SEMANTIC_S: Final = {"low": 8.0, "medium": 4.0, "auto": 4.0, "high": 2.0}


class State(Enum):
    """What the caller waits for."""

    NOTHING = auto()
    CALLER = auto()
    EXPECTED = auto()
    BEGUN = auto()
    SPEAKING = auto()
    WAITING = auto()


class Do(Enum):
    """What is to be done."""

    ASK = auto()
    END_TURN = auto()
    RENEW = auto()
    GIVE_UP = auto()


class How(Enum):
    """In which words to ask again."""

    PLAIN = auto()
    ALOUD = auto()
    """The answer had no sound."""
    OTHERWISE = auto()
    """The answer was withheld for what was in it."""
    GO_ON = auto()
    """The answer broke off in the middle."""
    UNHEARD = auto()
    """The AI may not have heard the caller."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done now."""

    do: Do
    how: How = How.PLAIN
    words: str | None = None
    """What the AI was asked with; None: to go on by its instructions."""
    why: str = ""
    for_caller: bool = False
    """What is owed is an answer to the caller, not to a request of ours."""
    planned: bool = False
    """The next try after one that failed: that was told then."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds."""

    patience: float
    first_audio: float
    response: float
    thought: float
    """What an answer that has begun may take until its first sound."""
    turn_quiet: float
    """So much silence on the line ends a turn that the AI does not end."""

    @classmethod
    def of(cls, settings: Settings) -> Terms:
        """Return the terms of the settings."""
        pause = settings.vad_silence_duration_ms / 1000
        if settings.vad_type == "semantic_vad":
            pause = _SEMANTIC_S.get(settings.vad_eagerness, 8.0)
        first_audio, response = settings.first_audio_timeout_s, settings.response_timeout_s
        # Within a limit there must be time to ask again, and over another connection.
        patience = min(settings.ask_again_s, first_audio / 4, response / 4)
        thought = patience * _THOUGHT.get(settings.openai_reasoning_effort, 1.0)
        return cls(patience, first_audio, response, min(thought, response / 4), pause + _VAD_S)


class Owed:
    """Told what happens, and asked now and then what is due. All times in seconds on one clock.

    With ``turns`` the AI tells where the caller's turns begin and end. ``signs`` counts what the AI has sent:
    one that sends nothing at all is mute.
    """

    def __init__(self, terms: Terms, *, turns: bool) -> None:
        self.state = State.NOTHING
        self._terms = terms
        self._turns = turns
        self._since = 0.0  # since when nothing has come of it
        self._deadline = _NEVER
        self._limit = terms.response
        self._words: str | None = None
        self._for_caller = False
        self._how = How.PLAIN
        self._why = ""
        self._asked_signs = -1  # what the AI had sent when it was last asked again
        self._signs = 0
        self._paused: set[str] = set()
        self._paused_at = 0.0
        # of this turn
        self._attempts = 0
        self._failures = 0
        self._failing_since = _NEVER
        self._hangs = 0
        # of the call
        self._hang_s = terms.thought
        self._failed_turns = 0
        self._begun_at = 0.0
        self._ended_for_it = False  # the caller's turn, and the AI may still tell so
        self._active_at = _NEVER  # the latest sign that the caller has said something
        self._begin_s = terms.patience  # a service that is slow to begin is given more
        self._slow = False  # it is asked again for nothing
        self._asked_at = _NEVER  # when it was asked again, for no answer had begun

    def __repr__(self) -> str:
        return f"<Owed {self.state.name} attempts={self._attempts} failed_turns={self._failed_turns}>"

    @property
    def open(self) -> bool:
        """Return whether the caller waits for the AI."""
        return self.state in (State.EXPECTED, State.BEGUN, State.WAITING) or (
            self.state is State.SPEAKING and self._deadline != _NEVER
        )

    @property
    def caller_speaks(self) -> bool:
        """Return whether the AI says that the caller speaks."""
        return self.state is State.CALLER

    # --- what is owed ---

    def asked(self, words: str | None, now: float, *, first: bool = False) -> None:
        """The AI was asked to speak; ``first``: one that says nothing then is not there."""
        if self.state is State.CALLER:
            return  # their turn comes first
        self._words, self._for_caller = words, False
        self._new_debt(now)
        self._limit = self._terms.first_audio if first else self._terms.response
        self._expect(now)

    def turn_ended(self, now: float) -> None:
        """The caller's turn ended: an answer is awaited."""
        if self._ended_for_it and self.state is not State.CALLER:
            self._ended_for_it = False  # the end of a turn that was answered already
            return
        self._owe_caller(now)
        self._expect(now)

    def caller_active(self, now: float) -> None:
        """A sign that the caller has said something: an answer is awaited, if none is being heard."""
        if self.state in (State.SPEAKING, State.BEGUN):
            return
        if self.state is not State.EXPECTED or not self._for_caller:
            self._owe_caller(now)
        self._active_at = now
        self._expect(now, _TURNLESS_S)

    def interrupted(self, now: float) -> None:
        """The caller spoke into the answer, by an AI without turns."""
        self._owe_caller(now)
        self._active_at = now
        self._expect(now, _TURNLESS_S)

    def unheard(self, now: float) -> None:
        """The caller said something, and the AI shows no sign of having heard it."""
        self._owe_caller(now)
        self._how, self._why = How.UNHEARD, "it shows no sign of having heard the caller"
        self.state, self._deadline = State.WAITING, now

    # --- what comes of it ---

    def caller_speaks_now(self, now: float) -> None:
        """The caller began to speak: what was owed is void, their turn counts anew."""
        self._turn_over()
        self._ended_for_it = False
        self.state, self._since = State.CALLER, now
        self._deadline = _NEVER

    def begun(self, now: float) -> None:
        """The AI began an answer."""
        if self.state is State.CALLER:
            return
        if self.state is State.EXPECTED and now >= self._asked_at + self._terms.patience / 2:
            self._slow = True  # what is asked of it while it is at work comes twice, or in vain
        if self._slow:
            self._begin_s = max(self._begin_s, min(1.5 * (now - self._since), self._terms.response / 2))
            self._slow = False
        if self.state is not State.BEGUN:
            self._begun_at = now
        self.state = State.BEGUN
        self._deadline = now + self._hang_s

    def answering(self, now: float) -> None:
        """The AI says that it is at an answer, though none began: it is slow."""
        if self.state is State.EXPECTED:
            self._slow = True
            self.state, self._begun_at = State.BEGUN, self._since
            self._deadline = now + 2 * self._hang_s

    def sounded(self, now: float) -> None:
        """Sound of the agent came: whatever was owed is paid."""
        if self.state is State.BEGUN and now - self._begun_at > self._terms.patience:
            # A service that is slow is not asked again each time.
            self._hang_s = max(self._hang_s, min(1.5 * (now - self._begun_at), LONGEST_WAIT_S))
        self.state, self._deadline = State.SPEAKING, _NEVER
        self._failed_turns = 0
        self._settle()

    def drained(self, now: float, *, more: bool) -> None:
        """All sound that came was heard; ``more``: the answer is not complete."""
        if self.state is State.SPEAKING:
            self._since = now
            self._deadline = now + self._terms.patience if more else _NEVER

    def done(self) -> None:
        """An answer is complete, which was heard or did something; no other is expected."""
        if self.state is not State.CALLER:
            self.state, self._deadline = State.NOTHING, _NEVER
            self._settle()

    def more(self, now: float) -> None:
        """Another answer follows: it was asked for, or a tool has returned."""
        if self.state is not State.CALLER:
            if not self.open:
                self._new_debt(now)
            self._expect(now)

    def empty(self, now: float) -> None:
        """An answer is complete, in which nothing was heard or done."""
        self._try_again(now, _AFTER_NOTHING_S, None, How.ALOUD, "its answer had no sound")

    def failed(
        self, now: float, why: str, *, wait: float | None = None, rejected: bool = False, heard: bool = False
    ) -> None:
        """An answer failed; ``wait``: as long as the service says; ``heard``: after some of it was heard."""
        how = How.OTHERWISE if rejected else How.GO_ON if heard else How.PLAIN
        self._try_again(now, _AFTER_FAILURE_S, wait, how, why)

    # --- when nobody is waited for ---

    def pause(self, why: str, paused: bool, now: float) -> None:
        """Hear that nothing is owed for a while (a tool, a hold, a connection being made), or is again."""
        if paused:
            if not self._paused:
                self._paused_at = now
            self._paused.add(why)
        elif why in self._paused:
            self._paused.discard(why)
            if not self._paused:
                self._since += now - self._paused_at
                self._asked_signs = -1
                if self._deadline != _NEVER and self.state is not State.WAITING:
                    self._deadline = max(self._deadline, now + self._terms.patience)

    # --- what is due ---

    def due(self, now: float, signs: int, *, quiet_s: float, voiced: bool, playing: bool) -> Step | None:
        """Return what is to be done at ``now``, once.

        ``quiet_s`` is how long the line has been without a voice, ``voiced`` whether there was one in what
        the caller says, ``playing`` whether the agent is to be heard.
        """
        moved = signs != self._signs
        self._signs = signs
        if self._paused or self.state is State.NOTHING:
            return None
        if self.state is State.CALLER:
            return self._turn_due(now, quiet_s, voiced=voiced)
        if playing:
            if self._deadline != _NEVER:
                self._deadline = max(self._deadline, now + self._terms.patience)
                self._since = max(self._since, now)
            return None
        if self._gives_up(now):
            self.state, self._deadline = State.NOTHING, _NEVER
            return Step(Do.GIVE_UP, why=self._why or f"said nothing for {self._limit:g} s")
        if moved and self.state in (State.BEGUN, State.SPEAKING) and self._deadline != _NEVER:
            # It is at work: arguments of a tool, a thought.
            latest = max(self._since, self._begun_at) + 3 * self._hang_s
            self._deadline = max(self._deadline, min(now + self._terms.patience, latest))
        if self.state is State.EXPECTED and self._for_caller and not self._turns:
            self._follow_line(now, quiet_s, voiced=voiced)
        if now < self._deadline and not self._mute(now, signs):
            return None
        return self._overdue(now, signs)

    # --- inside ---

    def _follow_line(self, now: float, quiet_s: float, *, voiced: bool) -> None:
        """Take the caller's turn for ended when the line fell quiet: an AI without turns does not say."""
        fell_quiet = now - quiet_s
        due = fell_quiet + self._begin_s + _TURNLESS_S
        if voiced and not self._attempts and fell_quiet > self._active_at - _SIGN_S:
            # The sign of what they said comes later than the words; to be counted from, it is too late.
            self._deadline = self._active_at + self._begin_s * _AFTER_SIGN
        self._deadline = max(self._deadline, min(due, self._since + _NOISY_S))

    def _owe_caller(self, now: float) -> None:
        self._words, self._for_caller = None, True
        self._limit = self._terms.response
        self._new_debt(now)

    def _new_debt(self, now: float) -> None:
        self._turn_over()
        self._since = now
        self._how, self._why = How.PLAIN, ""

    def _turn_over(self) -> None:
        if self.open and self._attempts:
            self._failed_turns += 1
        self._settle()

    def _settle(self) -> None:
        self._attempts = self._failures = self._hangs = 0
        self._failing_since = self._asked_at = _NEVER
        self._asked_signs = -1

    def _expect(self, now: float, longer: float = 0.0) -> None:
        self.state = State.EXPECTED
        self._deadline = now + self._begin_s + longer

    def _try_again(
        self, now: float, delays: tuple[float, ...], wait: float | None, how: How, why: str
    ) -> None:
        if self.state is State.CALLER:
            return  # their turn brings another answer
        self._failing_since = min(self._failing_since, now)
        delay = delays[min(self._failures, len(delays) - 1)]
        if wait is not None:
            delay = max(min(wait, LONGEST_WAIT_S), delays[0])
        self._failures += 1
        self._attempts += 1
        self._how, self._why = how, why
        self._since = now
        self.state, self._deadline = State.WAITING, now + delay

    def _gives_up(self, now: float) -> bool:
        if self.state is State.WAITING:
            failed = self._failed_turns >= _MOST_FAILED_TURNS and self._failures > 0
            return failed or now - self._failing_since >= _LONGEST_FAILING_S
        return self.state in (State.EXPECTED, State.BEGUN) and now - self._since >= self._limit

    def _turn_due(self, now: float, quiet_s: float, *, voiced: bool) -> Step | None:
        lasted = now - self._since
        quiet = voiced and lasted >= self._terms.turn_quiet and quiet_s >= self._terms.turn_quiet
        long = (lasted >= _TURN_S and quiet_s >= _TURN_PAUSE_S) or lasted >= _LONGEST_TURN_S
        if not (quiet or long):
            return None
        self._owe_caller(now)
        self._expect(now)
        self._ended_for_it = True
        return Step(Do.END_TURN, why="it does not end the caller's turn", for_caller=True)

    def _mute(self, now: float, signs: int) -> bool:
        """Return whether the AI does not even say that it begins, which one with turns says at once."""
        asked = self.state is State.EXPECTED and self._attempts == 1 and self._asked_signs == signs
        return asked and self._turns and now >= self._deadline - self._terms.patience / 2

    def _overdue(self, now: float, signs: int) -> Step:
        mute = self._asked_signs == signs
        state = self.state
        if state is State.BEGUN:
            self._hangs += 1
            self._hang_s = min(2 * self._hang_s, LONGEST_WAIT_S)
            self._why = "its answer began, and nothing came"
        elif state is State.SPEAKING:
            self._how, self._why = How.GO_ON, "its answer broke off"
            self._since = now
        elif state is State.EXPECTED:
            self._why = "no answer began"
        why = self._why
        self._attempts += 1
        self._asked_signs = signs
        self._asked_at = now if state is State.EXPECTED else _NEVER
        self._expect(now)
        if state is not State.WAITING and (mute or self._hangs >= _HANGS):
            self._hangs = 0
            return self._step(Do.RENEW, why)
        return self._step(Do.ASK, why, planned=state is State.WAITING)

    def _step(self, do: Do, why: str, *, planned: bool = False) -> Step:
        return Step(do, self._how, self._words, why, self._for_caller, planned)
