"""The exchange between caller and agent: what the AI's events do to the playout, the conversation and the
clock of a call, and what the call's deadlines ask of the AI.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from arivox.audio.format import AudioFormat
from arivox.call.actions import Actions
from arivox.call.ending import EndReason
from arivox.call.farewell import Farewell
from arivox.call.outcomes import Outcomes
from arivox.call.owed import State
from arivox.call.reminder import Reminder, silent
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
    AlreadyAnswering,
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
from arivox.settings.settings import Settings
from arivox.tools import CallInfo

log = structlog.get_logger()

_SETTLED_S: Final = 0.5  # an agent that is silent so long has finished
_POLL_S: Final = 0.05

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
        self._outcomes = Outcomes(conversation, self.session, timeline, actions, info, self)
        self._end = end
        self._ended = False
        now = time.monotonic()
        self._watchdog = Watchdog(Limits.of(settings), now)
        self._reminder = Reminder(
            settings,
            audio,
            self.session,
            self.playout,
            timeline,
            instructions=lambda: conversation.brief.instructions,
            flush=self._flush,
            turn_ended=self._turn_is_ended,
            give_up=self._failed,
        )
        self._owed = self._reminder.owed
        self._farewell = Farewell(settings.goodbye_before_s)
        self._sounded = False  # the present answer was heard, or did something
        self._audible = False  # there is a sound in what is being played
        self._turn_ended_ms: int | None = None
        self._item = ""  # the item that is being spoken
        self._overflowing = False
        self._acted_on = False  # an action of ours has the caller: on hold, or being transferred
        self._hushed = False  # their telephone put us on hold, or they are being replaced
        self._away = False  # one of the two
        self._away_since = 0.0

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
        self._reminder.hear(frame)
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
            waiting = self._away or self._outcomes.awaited
            self._reminder.check(now, audible=self._audible, waiting=waiting)
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
            case AlreadyAnswering():
                self._owed.answering(time.monotonic())
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
                self._reminder.expires(event.seconds, time.monotonic())
            case Fault():
                self._on_fault(event.error)

    def _on_agent_audio(self, event: AgentAudio) -> None:
        playout = self.playout
        self._item = event.item_id
        if not event.data:
            return
        unheard = self._hushed and not self._acted_on
        if playout.push(event.item_id, event.data):
            now = time.monotonic()
            self._watchdog.agent_audio(now)
            if self.session.sounds:
                self._owed.sounded(now)
                self._farewell.agent_heard()
                self._sounded = self._audible = True
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

    def _turn_is_ended(self, now: float) -> None:
        """Hear that the caller's turn was ended for the AI."""
        self._turn_ended_ms = self._timeline.now_ms()
        self._watchdog.caller_stopped(now)

    def _cut(self) -> list[Cut]:
        """Silence the agent at once."""
        cuts = self._flush()
        self._watchdog.agent_quiet(time.monotonic())
        self.session.interrupt(cuts)
        return cuts

    def _flush(self) -> list[Cut]:
        self._audible = False
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
            self._answer_failed(event.error or silent("failed without a reason"), heard=sounded)
        elif self.session.busy:
            # It called a tool, or another answer was asked for: that one is awaited now.
            self._owed.more(now)
        elif event.status == "cancelled" and self._cut_by_the_service:
            self._owed.failed(now, "its answer was cancelled in the middle", heard=True)
        elif sounded or self._outcomes.awaited:
            # Who was interrupted owes what follows.
            if not (event.status == "cancelled" and self._owed.open):
                self._owed.done()
        elif event.status == "incomplete":
            error = event.error or silent("broke its answer off before the first sound")
            self._answer_failed(error, heard=False)
        elif event.status == "completed":
            self._timeline.add("provider.answer_empty")
            log.warning("the AI's answer had no sound; it is asked again")
            if not self._audible and (cuts := self._flush()):
                self.session.interrupt(cuts, cancel=True)  # of its silence nothing need be played
            self._owed.empty(now)
        elif self._owed.state is State.BEGUN:
            # Cancelled, and neither by us nor by a caller who speaks.
            self._owed.failed(now, "its answer was cancelled")
        self._maybe_quiet()

    @property
    def _cut_by_the_service(self) -> bool:
        """Return whether a cancelled answer was cut off neither by us nor by a caller who speaks."""
        ours = self._away or self._farewell.reason is not None
        speaking = self._owed.state is State.SPEAKING and self.session.capabilities.turns
        return speaking and not (ours or self._outcomes.awaited)

    def _on_reconnected(self, event: Reconnected) -> None:
        now = time.monotonic()
        self._reminder.reconnected(now)
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
        self._reminder.fault(error, time.monotonic())

    def _answer_failed(self, error: ProviderError, *, heard: bool) -> None:
        """Hear that an answer failed: it is asked for again, or it would be a silent turn."""
        self._timeline.add("provider.answer_failed", error=str(error))
        log.warning("the AI's answer failed", error=str(error))
        if error.fatal:
            self._failed(error)
            return
        self._reminder.failed(error, time.monotonic(), heard=heard)

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
        self._audible = False
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
