"""The exchange between caller and agent: what the AI's events do to the playout, the conversation and the
clock of a call, and what the call's deadlines ask of the AI.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, cast

import structlog

from arivox.audio.format import AudioFormat
from arivox.audio.g711 import Law
from arivox.call.actions import Actions
from arivox.call.ending import EndReason
from arivox.call.farewell import Farewell
from arivox.call.listener import Listener
from arivox.call.outcomes import Outcomes
from arivox.call.owed import Do, How, Owed, State, Step, Terms
from arivox.call.sessions.sessions import Sessions
from arivox.call.timeline import Timeline
from arivox.call.watchdog import Alarm, Limits, Watchdog
from arivox.conversation.conversation import Conversation, Outcome
from arivox.conversation.memory.transcript import Transcript
from arivox.errors import ProviderError
from arivox.media.playout import Cut, Playout
from arivox.providers.base import (
    AgentAudio,
    AgentAudioDone,
    AgentText,
    CallerActive,
    CallerText,
    ConnectionLost,
    Fault,
    Interrupted,
    ProviderEvent,
    Reconnected,
    ResponseDone,
    ResponseStarted,
    SessionExpires,
    SessionFactory,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    ToolCallsCancelled,
)
from arivox.providers.refusal import PASSING
from arivox.settings.settings import Settings
from arivox.tools import CallInfo

log = structlog.get_logger()

_SETTLED_S: Final = 0.5  # an agent that is silent so long has finished
_POLL_S: Final = 0.05
_UNHEARD_VOICE_S: Final = 0.5  # a shorter sound may be none that an AI takes for a voice
_UNHEARD_AFTER_S: Final = 3.0
_UNHEARD_AGAIN_S: Final = 20.0  # a line with noises that are no words is not asked about more often
_LEAVE_EARLY_S: Final = 60.0  # before the AI's session ends, at a quiet moment
_QUIET_S: Final = 1.0

_GOODBYE: Final = (
    "The time for this call is over. Say good-bye now, in the caller's language, in one or two short "
    'sentences. Say: "I am sorry, our time is up. Thank you for calling. Good-bye."'
)
_ASK_CALLER: Final = (
    "The caller has been silent for a while. Ask in the caller's language, in one short sentence, whether "
    'they are still there. Say: "Are you still there?"'
)
_IDLE_GOODBYE: Final = (
    "The caller has not spoken for a long time. Say good-bye now, in the caller's language, in one short "
    'sentence. Say: "I cannot hear you, so I will hang up now. Good-bye."'
)
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


class Exchange:
    """One call's exchange, over a media link that speaks ``audio``.

    ``wake`` tells the media link that audio waits; ``end`` ends the call.
    """

    def __init__(
        self,
        settings: Settings,
        audio: AudioFormat,
        conversation: Conversation,
        timeline: Timeline,
        transcript: Transcript,
        actions: Actions,
        info: Callable[[], CallInfo],
        new_session: SessionFactory,
        end: Callable[[EndReason], None],
    ) -> None:
        self.playout = Playout(audio, on_started=self._on_agent_started, on_drained=self._on_drained)
        self.session = Sessions(settings, audio, self.on_event, new_session, transcript.said)
        conversation.fixed_tools = not self.session.capabilities.update_tools
        self.wake: Callable[[], None] = lambda: None
        self._settings = settings
        self._conversation = conversation
        self._timeline = timeline
        self._transcript = transcript
        self._actions = actions
        self._outcomes = Outcomes(conversation, self.session, timeline, actions, info, self)
        self._end = end
        self._ended = False
        now = time.monotonic()
        self._watchdog = Watchdog(Limits.of(settings), now)
        self._owed = Owed(Terms.of(settings), turns=self.session.capabilities.turns)
        self._listener = Listener(cast(Law, audio.law or "ulaw"))
        self._farewell = Farewell(settings.goodbye_before_s)
        self._sounded = False  # the present answer was heard, or did something
        self._turn_ended_ms: int | None = None
        self._item = ""  # the item that is being spoken
        self._overflowing = False
        self._acted_on = False  # an action of ours has the caller: on hold, or being transferred
        self._hushed = False  # their telephone put us on hold, or they are being replaced
        self._away = False  # one of the two
        self._away_since = 0.0
        self._unheard_at = float("-inf")
        self._leave_at = float("inf")  # the AI's session ends soon: another takes its place at a quiet moment
        self._last_error: ProviderError | None = None

    # --- from the call ---

    async def connect(self) -> None:
        """Open the AI's session and have it greet the caller. A failure ends the call."""
        begun = time.monotonic()
        first = self._conversation.begin()
        self.state_noted(first)
        try:
            await self.session.connect(self._conversation.brief)
        except ProviderError as error:
            self._failed(error)
            return
        self._timeline.add("provider.ready", ms=round((time.monotonic() - begun) * 1000))
        self._owed.asked(None, time.monotonic(), first=True)
        self.session.speak()
        self._outcomes.run(first.runs)

    def hear(self, frame: bytes) -> None:
        """Take the next frame of the caller's sound."""
        self._listener.add(frame, agent=self.playout.playing, signs=self.session.messages_in)
        self.session.send_audio(frame)

    def key(self, digit: str) -> None:
        """Hear a key of the caller's phone."""
        if not self._ended and not self._away:
            self._watchdog.key_pressed(time.monotonic())
            self._conversation.spoke()
            self._farewell.caller_speaks()
            self._outcomes.apply(self._conversation.key(digit))

    def check(self, now: float) -> None:
        """See to what is due at ``now`` (monotonic seconds)."""
        if not self._ended and not self._away:
            self._outcomes.apply(self._conversation.tick())
        ending = self._farewell.reason
        if ending is not None and not self._away and self._farewell.due(now) and not self.playout.playing:
            self._finish(ending)
            return
        if not self._ended:
            self._see_to_the_ai(now)
        alarm = self._watchdog.check(now, owed=self._owed.open)
        if alarm is not None:
            self._timeline.add("alarm", name=alarm.name.lower())
            self._on_alarm(alarm)

    def stop(self) -> None:
        """Take no more of the AI's events, but for the last words of a turn."""
        self._ended = self._outcomes.over = True
        playout = self.playout
        for item in self._transcript.being_heard:
            self._transcript.cut(item, playout.heard_ms(item), playout.received_ms(item))
        self._transcript.wait_no_longer()

    async def close(self) -> None:
        """End the AI's session."""
        self.stop()
        await self.session.close()

    async def stop_tools(self) -> None:
        """Stop the tools that are at work, and wait until they have cleaned up."""
        await self._outcomes.close()

    # --- for the actions ---

    async def spoken(self, longest_s: float) -> None:
        """Return once the agent has finished what it is saying, and the caller has heard it."""
        now = time.monotonic()
        give_up, quiet_since = now + longest_s, now
        while now < give_up and now < quiet_since + _SETTLED_S:
            # An AI that waits for a tool is as busy as it is silent.
            if self.playout.playing or (self.session.busy and not self._outcomes.awaited):
                quiet_since = now
            await asyncio.sleep(_POLL_S)
            now = time.monotonic()

    def tell(self, instructions: str) -> None:
        """Have the agent say something, once it has finished what it is saying."""
        if not self._ended:
            self._owed.asked(instructions, time.monotonic())
            self.session.speak(instructions)

    def caller_away(self, away: bool) -> None:
        """Stop or begin waiting for the caller to speak."""
        self._acted_on = away
        self._note_away()

    def hush(self) -> None:
        """Hear that nobody hears the agent, until ``go_on``: it is silent, and waits for nobody."""
        self._hushed = True
        if not self._acted_on:  # else a colleague hears it
            self._farewell.caller_speaks()
            self._break_off()
        self._note_away()

    def go_on(self, instructions: str, known: str = "") -> None:
        """Hear that somebody is there again, and have the agent say something.

        ``known`` is what it is to know from then on.
        """
        self._hushed = False
        self._note_away()
        if known and not self._ended:
            self._outcomes.apply_quietly(self._conversation.told(known))
        if not self._acted_on:  # else what it is about comes first
            self.tell(instructions)

    def _note_away(self) -> None:
        now, away = time.monotonic(), self._acted_on or self._hushed
        if away == self._away:
            return
        self._away = away
        if away:
            self._away_since = now
        else:
            self._conversation.waited(now - self._away_since)
            self._farewell.not_yet()
        self._watchdog.caller_away(away, now)
        self._owed.pause("away", away, now)

    def _break_off(self) -> None:
        """End what the agent says: nobody hears it."""
        cuts = self._flush()
        if cuts or self.session.busy:
            self.session.interrupt(cuts, cancel=self.session.busy)
        self._watchdog.agent_quiet(time.monotonic())

    def hang_up_after_speech(self) -> None:
        """End the call once the agent has finished speaking; a caller who is speaking is not done."""
        if not self._owed.caller_speaks:
            self._close_after_speech(EndReason.AGENT_HANGUP)

    # --- for the outcomes ---

    def speak_up(self, outcome: Outcome) -> None:
        """Have the AI say what it was not asked for."""
        if outcome.entered is not None:
            if outcome.entered.cause in ("key", "digits") and not self.session.capabilities.full_duplex:
                # Who presses a key has heard enough. An AI that hears while it speaks breaks off by itself;
                # where in its sound the new begins, nobody could tell.
                self.session.interrupt(self._flush(), cancel=True)
            self._owed.asked(None, time.monotonic())
            self.session.speak()
        elif outcome.say:
            self.tell(outcome.say)

    def state_noted(self, outcome: Outcome) -> None:
        """Hear of the state that the conversation is in."""
        silence = self._conversation.silence
        self._watchdog.silence(silence.after_s if silence is not None else 0.0)
        entered = outcome.entered
        if entered is not None:
            self._timeline.add("state", before=entered.before, after=entered.after, cause=entered.cause)
            log.info("state", before=entered.before, after=entered.after, cause=entered.cause)

    def tools_at_work(self, running: bool) -> None:
        """Hear that the AI waits for a tool, or no longer."""
        now = time.monotonic()
        self._watchdog.tools_at_work(running, now)
        self._owed.pause("tools", running, now)

    def answer_follows(self) -> None:
        """Hear that the AI was given a result, and is to speak of it."""
        self._owed.more(time.monotonic())

    # --- from the AI ---

    def on_event(self, event: ProviderEvent) -> None:
        """Take one event of the AI."""
        if self._ended and not isinstance(event, AgentText | CallerText):
            return
        match event:
            case AgentAudio():
                self._on_agent_audio(event)
            case AgentAudioDone():
                self._finish_item(event.item_id)
                self._maybe_quiet()
            case SpeechStarted():
                self._on_speech_started(event)
            case Interrupted():
                cuts = self._cut()
                self._watchdog.caller_active(time.monotonic())
                self._owed.interrupted(time.monotonic())
                self._on_interrupted(cuts)
            case CallerActive():
                self._conversation.spoke()
                self._transcript.caller_speaks(self._conversation.state, time.time())
                self._watchdog.caller_active(time.monotonic())
                if not event.earlier:
                    self._owed.caller_active(time.monotonic())
            case SpeechStopped():
                self._watchdog.caller_stopped(time.monotonic())
                self._owed.turn_ended(time.monotonic())
                self._turn_ended_ms = self._timeline.now_ms()
                self._timeline.add("caller.speech_stopped")
            case ResponseStarted():
                self._sounded = False
                self._owed.begun(time.monotonic())
            case ResponseDone():
                self._on_response_done(event)
            case AgentText():
                self._timeline.add("agent.said", text=event.text, item=event.item_id)
                self._transcript.agent_said(event.item_id, event.text, self._conversation.state, time.time())
                log.info("agent", text=event.text, state=self._conversation.state)
            case CallerText():
                self._timeline.add("caller.said", text=event.text)
                self._transcript.caller_said(event.text, self._conversation.state, time.time(), event.item_id)
                log.info("caller", text=event.text, state=self._conversation.state)
            case ToolCall():
                self._sounded = True
                self._outcomes.called(event)
            case ToolCallsCancelled():
                self._outcomes.taken_back(event)
            case ConnectionLost():
                self._owed.pause("connection", True, time.monotonic())
            case Reconnected():
                self._on_reconnected(event)
            case SessionExpires():
                early = min(_LEAVE_EARLY_S, event.seconds / 10)
                self._leave_at = time.monotonic() + event.seconds - early
            case Fault():
                self._on_fault(event.error)

    def _on_agent_audio(self, event: AgentAudio) -> None:
        playout = self.playout
        self._item = event.item_id
        unheard = self._hushed and not self._acted_on
        if playout.push(event.item_id, event.data):
            now = time.monotonic()
            self._watchdog.agent_audio(now)
            self._owed.sounded(now)
            self._farewell.agent_heard()
            self._sounded = True
            if unheard:
                self._break_off()
            else:
                self.wake()
        elif playout.overflow_bytes and not self._overflowing:
            self._overflowing = True
            self._timeline.add("agent.overflow")
            log.error("the agent's answer is too long to be kept; its end is lost")

    def _finish_item(self, item_id: str) -> None:
        self.playout.finish(item_id)
        if not self.playout.playing:
            self._transcript.agent_quiet()

    def _on_speech_started(self, event: SpeechStarted) -> None:
        cuts = self._cut()
        now = time.monotonic()
        self._watchdog.caller_spoke(now)
        self._owed.caller_speaks_now(now)
        self._conversation.spoke()
        self._timeline.add("caller.speech_started")
        self._transcript.caller_speaks(self._conversation.state, time.time(), event.item_id)
        self._on_interrupted(cuts)

    def _cut(self) -> list[Cut]:
        """Silence the agent at once."""
        cuts = self._flush()
        self._watchdog.agent_quiet(time.monotonic())
        self.session.interrupt(cuts)
        return cuts

    def _flush(self) -> list[Cut]:
        cuts = self.playout.flush()
        for cut in cuts:
            self._transcript.cut(cut.item_id, cut.heard_ms, cut.received_ms)
        return cuts

    def _on_interrupted(self, cuts: list[Cut]) -> None:
        for cut in cuts:
            self._timeline.add(
                "barge_in",
                item=cut.item_id,
                heard_ms=cut.heard_ms,
                received_ms=cut.received_ms,
                told=self.session.capabilities.truncate,
            )
        if cuts:
            log.info("the caller interrupts", heard_ms=cuts[0].heard_ms, received_ms=cuts[0].received_ms)
        self._farewell.caller_speaks()

    def _on_response_done(self, event: ResponseDone) -> None:
        now = time.monotonic()
        sounded, self._sounded = self._sounded, False
        self._finish_item(self._item)
        if event.status == "failed":
            self._answer_failed(event.error or _silent("failed without a reason"), heard=sounded)
        elif self.session.busy:
            # It called a tool, or another answer was asked for: that one is awaited now.
            self._owed.more(now)
        elif sounded or self._outcomes.awaited:
            # Who was interrupted owes what follows.
            if not (event.status == "cancelled" and self._owed.open):
                self._owed.done()
        elif event.status == "incomplete":
            error = event.error or _silent("broke its answer off before the first sound")
            self._answer_failed(error, heard=False)
        elif event.status == "completed":
            self._timeline.add("provider.answer_empty")
            log.warning("the AI's answer had no sound; it is asked again")
            self._owed.empty(now)
        elif self._owed.state is State.BEGUN:
            # Cancelled, and neither by us nor by a caller who speaks.
            self._owed.failed(now, "its answer was cancelled")
        self._maybe_quiet()

    def _on_reconnected(self, event: Reconnected) -> None:
        now = time.monotonic()
        self._leave_at = float("inf")
        self._owed.pause("connection", False, now)
        if self.session.busy:
            self._owed.more(now)
        self._turn_ended_ms = None
        self._timeline.add(
            "provider.reconnected", cause=event.cause, resumed=event.resumed, gap_ms=event.gap_ms
        )
        log.info(
            "the AI's session goes on over another connection",
            cause=event.cause,
            resumed=event.resumed,
            gap_ms=event.gap_ms,
        )

    def _on_fault(self, error: ProviderError) -> None:
        if error.fatal:
            self._failed(error)
            return
        self._timeline.add("provider.error", error=str(error))
        log.warning("the AI reports an error; the call goes on", error=str(error))
        if self._owed.open and (error.code in PASSING or error.retry_after_s is not None):
            # What it owes will not come, whether it says so of the answer or not.
            self._last_error = error
            self._owed.failed(time.monotonic(), error.message, wait=error.retry_after_s)

    def _answer_failed(self, error: ProviderError, *, heard: bool) -> None:
        """Hear that an answer failed: it is asked for again, or it would be a silent turn."""
        self._timeline.add("provider.answer_failed", error=str(error))
        log.warning("the AI's answer failed", error=str(error))
        if error.fatal:
            self._failed(error)
            return
        self._last_error = error
        self._owed.failed(
            time.monotonic(),
            error.message,
            wait=error.retry_after_s,
            rejected=error.rejected,
            heard=heard,
        )

    # --- what the AI owes ---

    def _see_to_the_ai(self, now: float) -> None:
        """See to an AI that owes an answer, that is deaf, or whose session ends soon."""
        line, signs, playing = self._listener, self.session.messages_in, self.playout.playing
        if line.said_s >= _UNHEARD_VOICE_S and line.quiet_s >= _UNHEARD_AFTER_S:
            deaf = signs == line.began_at and not (playing or self._away or self._outcomes.awaited)
            if deaf and not self._owed.open and now - self._unheard_at >= _UNHEARD_AGAIN_S:
                self._unheard_at = now
                self._owed.unheard(now)
            line.forget()
        step = self._owed.due(now, signs, quiet_s=line.quiet_s, voiced=line.said_s > 0, playing=playing)
        if step is not None:
            self._take(step)
        elif now >= self._leave_at and self._nothing_goes_on:
            self._leave_at = float("inf")
            self.session.renew("its session ends soon", mute=False)

    @property
    def _nothing_goes_on(self) -> bool:
        owed = self._owed
        busy = self.session.busy or self.playout.playing or self._outcomes.awaited
        return not (busy or owed.open or owed.caller_speaks) and self._listener.quiet_s >= _QUIET_S

    def _take(self, step: Step) -> None:
        """Do what the AI's silence asks for."""
        self._timeline.add("provider.owes", do=step.do.name.lower(), why=step.why)
        match step.do:
            case Do.END_TURN:
                log.warning("the AI does not end the caller's turn; it is ended")
                self._turn_ended_ms = self._timeline.now_ms()
                self._watchdog.caller_stopped(time.monotonic())
                self.session.end_turn()
            case Do.ASK:
                note = log.info if step.planned else log.warning
                note("the AI owes an answer; it is asked again", why=step.why)
                self.session.interrupt(self._flush(), cancel=True)
                self.session.speak(self._words(step))
            case Do.RENEW:
                log.warning("the AI is mute; going on over another connection", why=step.why)
                self.session.interrupt(self._flush(), cancel=True)
                self.session.renew(f"it was mute: {step.why}", again=step.for_caller)
                if not step.for_caller:
                    self.session.speak(self._words(step))
            case Do.GIVE_UP:
                self._failed(self._last_error or _silent(step.why))

    def _words(self, step: Step) -> str | None:
        """Return the words to ask again with."""
        nudge = _AGAIN.get(step.how)
        if nudge is None or (step.how is How.ALOUD and step.words is not None):
            return step.words
        if step.words is not None:
            return f"{step.words}\n\n{nudge}"
        if self.session.capabilities.update == "session":
            # These words take the place of the instructions for one answer, which go on to hold.
            return f"{self._conversation.brief.instructions}\n\n{nudge}"
        return nudge

    def _failed(self, error: ProviderError) -> None:
        if self._ended:
            return
        self._timeline.add("provider.failed", error=str(error))
        log.error("the AI failed", error=str(error))
        self._finish(EndReason.PROVIDER_FAILED)

    # --- from the playout ---

    def _on_agent_started(self, item_id: str) -> None:
        since, self._turn_ended_ms = self._turn_ended_ms, None
        latency = self._timeline.now_ms() - since if since is not None else None
        self._timeline.add("agent.speaks", item=item_id, latency_ms=latency)
        self._transcript.agent_speaks(item_id, self._conversation.state, time.time())

    def _on_drained(self) -> None:
        now = time.monotonic()
        self._watchdog.agent_quiet(now)
        if not self.playout.starving:
            self._transcript.agent_quiet()
        # In the middle of an answer its rest must come soon.
        self._owed.drained(now, more=self.session.busy)
        self._maybe_quiet()

    # --- deadlines ---

    def _on_alarm(self, alarm: Alarm) -> None:
        match alarm:
            case Alarm.TIME_LIMIT:
                self._finish(EndReason.TIME_LIMIT)
            case Alarm.SAY_GOODBYE:
                self._say_and_close(_GOODBYE, EndReason.TIME_LIMIT)
            case Alarm.CALLER_SILENT:
                self._outcomes.apply(self._conversation.silent())
            case Alarm.CALLER_IDLE:
                self._say_and_close(_IDLE_GOODBYE, EndReason.CALLER_IDLE)
            case Alarm.ASK_CALLER:
                log.info("the caller is silent; asking")
                # An AI that is silent when asked is not there.
                self._owed.asked(_ASK_CALLER, time.monotonic(), first=True)
                self.session.speak(_ASK_CALLER)

    def _say_and_close(self, instructions: str, reason: EndReason) -> None:
        if self._farewell.reason is not None:
            return
        log.info("saying good-bye", reason=reason.value)
        self.session.interrupt(self._flush(), cancel=True)
        self._owed.asked(instructions, time.monotonic())
        self.session.speak(instructions)
        self._close_after_speech(reason)

    def _close_after_speech(self, reason: EndReason) -> None:
        self._farewell.begin(reason, time.monotonic())
        self._maybe_quiet()

    def _maybe_quiet(self) -> None:
        """Begin the end, if the call is closing and the agent has finished."""
        if not (self._owed.open or self.session.busy or self.playout.playing):
            self._farewell.quiet(time.monotonic())

    def _finish(self, reason: EndReason) -> None:
        self._ended = self._outcomes.over = True
        self._end(reason)


def _silent(what: str) -> ProviderError:
    return ProviderError("the AI", what, code="silent", fatal=False)
