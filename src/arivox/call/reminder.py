"""Reminds the AI of what it owes: asks again, ends a turn for it, or leaves it for another connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, cast

import structlog

from arivox.audio.format import AudioFormat
from arivox.audio.g711 import Law
from arivox.call.listener import Listener
from arivox.call.owed import Do, How, Owed, Step, Terms
from arivox.call.sessions.sessions import Sessions
from arivox.call.timeline import Timeline
from arivox.errors import ProviderError
from arivox.media.playout import Cut, Playout
from arivox.providers.refusal import PASSING
from arivox.settings.settings import Settings

log = structlog.get_logger()

_UNHEARD_VOICE_S: Final = 0.5  # a shorter sound may be none that an AI takes for a voice
_UNHEARD_AFTER_S: Final = 3.0
_UNHEARD_AGAIN_S: Final = 20.0  # a line with noises that are no words is not asked about more often
_LEAVE_EARLY_S: Final = 60.0  # before the AI's session ends, at a quiet moment
_QUIET_S: Final = 1.0

_AGAIN: Final = {
    How.ALOUD: "Your last answer had no sound, and the caller waits. Speak now: say your answer aloud.",
    How.OTHERWISE: (
        "Your last answer was withheld, and the caller waits. Answer in other words, in one or two plain "
        "sentences, or say that you cannot help with this and ask what else you can do."
    ),
    How.GO_ON: "Your last answer broke off in the middle. Go on where you stopped, without a greeting.",
    How.UNHEARD: (
        "The caller has said something that may not have reached you. If you heard it, answer it. If not, "
        "say in one short sentence that you did not hear them, and ask them to say it again."
    ),
}


class Reminder:
    """One call's. ``owed`` is told of what happens by the exchange, and asked here what is due.

    ``flush`` silences the agent, ``turn_ended`` is told that the caller's turn was ended for the AI, and
    ``give_up`` that nothing helps.
    """

    def __init__(
        self,
        settings: Settings,
        audio: AudioFormat,
        session: Sessions,
        playout: Playout,
        timeline: Timeline,
        *,
        instructions: Callable[[], str],
        flush: Callable[[], list[Cut]],
        turn_ended: Callable[[float], None],
        give_up: Callable[[ProviderError], None],
    ) -> None:
        self.owed = Owed(Terms.of(settings), turns=session.capabilities.turns)
        self._session = session
        self._playout = playout
        self._timeline = timeline
        self._instructions = instructions
        self._flush = flush
        self._turn_ended = turn_ended
        self._give_up = give_up
        self._listener = Listener(cast(Law, audio.law or "ulaw"))
        self._unheard_at = float("-inf")
        self._leave_at = float("inf")  # the AI's session ends soon: another takes its place at a quiet moment
        self._last_error: ProviderError | None = None

    # --- what happens ---

    def hear(self, frame: bytes) -> None:
        """Take the next frame of the caller's sound."""
        self._listener.add(frame, agent=self._playout.playing, signs=self._session.messages_in)

    def expires(self, seconds: float, now: float) -> None:
        """Hear that the AI's session ends in so many seconds."""
        self._leave_at = now + seconds - min(_LEAVE_EARLY_S, seconds / 10)

    def reconnected(self, now: float) -> None:
        """Hear that the session goes on over another connection."""
        self._leave_at = float("inf")
        self.owed.pause("connection", False, now)
        if self._session.busy:
            self.owed.more(now)

    def failed(self, error: ProviderError, now: float, *, heard: bool) -> None:
        """Hear that an answer failed; ``heard``: after some of it was."""
        self._last_error = error
        wait, rejected = error.retry_after_s, error.rejected
        self.owed.failed(now, error.message, wait=wait, rejected=rejected, heard=heard)

    def fault(self, error: ProviderError, now: float) -> None:
        """Hear of an error. After some of them what is owed will not come, whatever they speak of."""
        if self.owed.open and (error.code in PASSING or error.retry_after_s is not None):
            self.failed(error, now, heard=False)

    # --- what is due ---

    def check(self, now: float, *, audible: bool, waiting: bool) -> None:
        """See to an AI that owes an answer, that is deaf, or whose session ends soon.

        ``audible``: the agent is being heard; ``waiting``: a tool is waited for, or a caller who is away.
        """
        if not self.owed.open:
            self._last_error = None
        line, signs = self._listener, self._session.messages_in
        if line.said_s >= _UNHEARD_VOICE_S and line.quiet_s >= _UNHEARD_AFTER_S:
            deaf = signs == line.began_at and not (audible or waiting)
            if deaf and not self.owed.open and now - self._unheard_at >= _UNHEARD_AGAIN_S:
                self._unheard_at = now
                self.owed.unheard(now)
            line.forget()
        step = self.owed.due(now, signs, quiet_s=line.quiet_s, voiced=line.said_s > 0, playing=audible)
        if step is not None:
            self._take(step)
        elif now >= self._leave_at and self._nothing_goes_on and not waiting:
            self._leave_at = float("inf")
            self._session.renew("its session ends soon", mute=False)

    @property
    def _nothing_goes_on(self) -> bool:
        owed = self.owed
        busy = self._session.busy or self._playout.playing
        return not (busy or owed.open or owed.caller_speaks) and self._listener.quiet_s >= _QUIET_S

    def _take(self, step: Step) -> None:
        """Do what the AI's silence asks for."""
        self._timeline.add("provider.owes", do=step.do.name.lower(), why=step.why)
        match step.do:
            case Do.END_TURN:
                log.warning("the AI does not end the caller's turn; it is ended")
                self._turn_ended(time.monotonic())
                self._session.end_turn()
            case Do.ASK:
                note = log.info if step.planned else log.warning
                note("the AI owes an answer; it is asked again", why=step.why)
                self._session.interrupt(self._flush(), cancel=True)
                self._session.speak(self._words(step))
            case Do.RENEW:
                log.warning("the AI is mute; going on over another connection", why=step.why)
                self._session.interrupt(self._flush(), cancel=True)
                self._session.renew(f"it was mute: {step.why}", again=step.for_caller)
                if not step.for_caller:
                    self._session.speak(self._words(step))
            case Do.GIVE_UP:
                self._give_up(self._last_error or silent(step.why))

    def _words(self, step: Step) -> str | None:
        """Return the words to ask again with."""
        nudge = _AGAIN.get(step.how)
        if nudge is None or (step.how is How.ALOUD and step.words is not None):
            return step.words
        if step.words is not None:
            return f"{step.words}\n\n{nudge}"
        if self._session.capabilities.update == "session":
            # These words take the place of the instructions for one answer, which go on to hold.
            return f"{self._instructions()}\n\n{nudge}"
        return nudge


def silent(what: str) -> ProviderError:
    """Return the error of an AI that says nothing."""
    return ProviderError("the AI", what, code="silent", fatal=False)
