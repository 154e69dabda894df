"""The exchange between caller and agent: what the AI's events do to the playout, the conversation and the
clock of a call, and what the call's deadlines ask of the AI.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import structlog

from arivox.audio.format import AudioFormat
from arivox.call.actions import Actions
from arivox.call.ending import EndReason
from arivox.call.sessions.sessions import Sessions
from arivox.call.timeline import Timeline
from arivox.call.toolrunner import Result, ToolRunner
from arivox.call.watchdog import Alarm, Limits, Watchdog
from arivox.conversation.conversation import Checks, Conversation, Outcome, Work
from arivox.conversation.memory.transcript import Transcript
from arivox.conversation.tools.names import HOLD
from arivox.errors import ProviderError
from arivox.media.playout import Cut, Playout
from arivox.providers.base import (
    AgentAudio,
    AgentAudioDone,
    AgentText,
    CallerActive,
    CallerText,
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

_LAST_WORD_S: Final = 0.3  # what was sent last is still in the phone's jitter buffer
_LONGEST_GOODBYE_S: Final = 12.0
_SETTLED_S: Final = 0.5  # an agent that is silent so long has finished
_POLL_S: Final = 0.05
_EXPIRY_MARGIN_S: Final = 2.0  # the call ends by itself, before the AI's session does

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
        self._actions = actions
        self._tools = ToolRunner(timeline, actions.run, info)
        self._asked_tools: dict[str, Checks | None] = {}  # calls of the AI without a result, and their moves
        self._end = end
        self._ended = False
        self._watchdog = Watchdog(Limits.of(settings), time.monotonic())
        self._closing: EndReason | None = None  # end with this once the agent has finished speaking
        self._closing_by = 0.0
        self._reprompted = False
        self._sounded = False  # the present answer was heard, or did something
        self._turn_ended_ms: int | None = None
        self._item = ""  # the item that is being spoken
        self._overflowing = False
        self._answer_owed = False  # the caller spoke into the last good-bye
        self._away = False  # the caller is on hold, or being transferred
        self._away_since = 0.0

    # --- from the call ---

    async def connect(self) -> None:
        """Open the AI's session and have it greet the caller. A failure ends the call."""
        begun = time.monotonic()
        first = self._conversation.begin()
        self._note_state(first)
        try:
            await self.session.connect(self._conversation.brief)
        except ProviderError as error:
            self._failed(error)
            return
        self._timeline.add("provider.ready", ms=round((time.monotonic() - begun) * 1000))
        self._watchdog.ready(time.monotonic())
        self.session.speak()
        self._run(first.runs)

    def key(self, digit: str) -> None:
        """Hear a key of the caller's phone."""
        if not self._ended and not self._away:
            self._watchdog.key_pressed(time.monotonic())
            self._conversation.spoke()
            self._not_done()
            self._apply(self._conversation.key(digit))

    def check(self, now: float) -> None:
        """See to what is due at ``now`` (monotonic seconds)."""
        if not self._ended and not self._away:
            self._apply(self._conversation.tick())
        if (
            self._closing is not None
            and not self._away
            and now >= self._closing_by
            and not self.playout.playing
        ):
            self._finish(self._closing)
            return
        alarm = self._watchdog.check(now)
        if alarm is not None:
            self._timeline.add("alarm", name=alarm.name.lower())
            self._on_alarm(alarm)

    def stop(self) -> None:
        """Take no more of the AI's events, but for the last words of a turn."""
        self._ended = True
        playout = self.playout
        for item in self._transcript.being_heard:
            self._transcript.cut(item, playout.heard_ms(item), playout.received_ms(item))

    async def close(self) -> None:
        """End the AI's session."""
        self.stop()
        await self.session.close()

    async def stop_tools(self) -> None:
        """Stop the tools that are at work, and wait until they have cleaned up."""
        await self._tools.close()

    # --- for the actions ---

    async def spoken(self, longest_s: float) -> None:
        """Return once the agent has finished what it is saying, and the caller has heard it."""
        now = time.monotonic()
        give_up, quiet_since = now + longest_s, now
        while now < give_up and now < quiet_since + _SETTLED_S:
            # An AI that waits for a tool is as busy as it is silent.
            if self.playout.playing or (self.session.busy and not self._asked_tools):
                quiet_since = now
            await asyncio.sleep(_POLL_S)
            now = time.monotonic()

    def tell(self, instructions: str) -> None:
        """Have the agent say something, once it has finished what it is saying."""
        if not self._ended:
            self._watchdog.answer_expected(time.monotonic())
            self.session.speak(instructions)

    def caller_away(self, away: bool) -> None:
        """Stop or begin waiting for the caller to speak."""
        now = time.monotonic()
        if away and not self._away:
            self._away_since = now
        elif self._away and not away:
            self._conversation.waited(now - self._away_since)
        self._away = away
        if not away and self._closing is EndReason.AGENT_HANGUP:
            self._closing = None  # there is something to say first
        self._watchdog.caller_away(away, now)

    def hang_up_after_speech(self) -> None:
        """End the call once the agent has finished speaking."""
        self._close_after_speech(EndReason.AGENT_HANGUP)

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
            case SpeechStarted():
                cuts = self._cut()
                self._watchdog.caller_spoke(time.monotonic())
                self._conversation.spoke()
                self._timeline.add("caller.speech_started")
                self._transcript.caller_speaks(self._conversation.state, time.time())
                self._on_interrupted(cuts)
            case Interrupted():
                cuts = self._cut()
                self._watchdog.caller_active(time.monotonic())
                self._on_interrupted(cuts)
            case CallerActive():
                self._conversation.spoke()
                self._transcript.caller_speaks(self._conversation.state, time.time())
                self._watchdog.caller_active(time.monotonic())
            case SpeechStopped():
                self._watchdog.caller_stopped(time.monotonic())
                self._turn_ended_ms = self._timeline.now_ms()
                self._timeline.add("caller.speech_stopped")
            case ResponseStarted():
                self._sounded = False
            case ResponseDone():
                self._on_response_done(event)
            case AgentText():
                self._timeline.add("agent.said", text=event.text, item=event.item_id)
                self._transcript.agent_said(event.item_id, event.text, self._conversation.state, time.time())
                log.info("agent", text=event.text, state=self._conversation.state)
            case CallerText():
                self._timeline.add("caller.said", text=event.text)
                self._transcript.caller_said(event.text, self._conversation.state, time.time())
                log.info("caller", text=event.text, state=self._conversation.state)
            case ToolCall():
                self._on_tool_call(event)
            case ToolCallsCancelled():
                self._on_tools_cancelled(event)
            case Reconnected():
                self._on_reconnected(event)
            case SessionExpires():
                self._watchdog.expires(time.monotonic() + event.seconds - _EXPIRY_MARGIN_S)
            case Fault():
                self._on_fault(event.error)

    def _on_agent_audio(self, event: AgentAudio) -> None:
        playout = self.playout
        self._item = event.item_id
        if playout.push(event.item_id, event.data):
            self._watchdog.agent_audio(time.monotonic())
            self._answer_owed = False
            self._sounded = True
            self.wake()
        elif playout.overflow_bytes and not self._overflowing:
            self._overflowing = True
            self._timeline.add("agent.overflow")
            log.error("the agent's answer is too long to be kept; its end is lost")

    def _finish_item(self, item_id: str) -> None:
        self.playout.finish(item_id)
        if not self.playout.playing:
            self._transcript.agent_quiet()
        self._maybe_quiet()

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
        self._not_done()
        # At the time limit there is no more than the answer to it.
        self._answer_owed = self._closing is not None

    def _not_done(self) -> None:
        """Somebody who speaks, or presses a key, into a good-bye is not done."""
        if self._closing in (EndReason.AGENT_HANGUP, EndReason.CALLER_IDLE):
            self._closing = None

    def _on_response_done(self, event: ResponseDone) -> None:
        if self.session.busy:
            # It called a tool, or another answer was asked for: that one is awaited now.
            self._watchdog.answer_expected(time.monotonic())
        elif event.status != "cancelled":
            self._watchdog.answer_ended()
        self._finish_item(self._item)
        if event.status == "failed" and event.error is not None:
            self._answer_failed(event.error)
        elif event.status == "incomplete" and not self._sounded and not self.session.busy:
            self._answer_failed(_silent("broke its answer off before the first sound"))
        elif event.status == "completed":
            self._reprompted = False

    def _on_tool_call(self, event: ToolCall) -> None:
        self._sounded = True
        outcome = self._conversation.call_tool(event.name, event.arguments)
        if outcome.output is not None:
            self._timeline.add("tool", name=event.name, arguments=event.arguments, output=outcome.output)
        self._apply(outcome, event.call_id)

    def _on_tools_cancelled(self, event: ToolCallsCancelled) -> None:
        self._timeline.add("tool.cancelled", calls=", ".join(event.call_ids))
        for call_id in event.call_ids:
            if self._tools.cancel(call_id):
                log.info("a tool is broken off: the AI has no use for it any more")
            checks = self._waits_no_more(call_id)
            if checks is not None:
                self._conversation.withdraw(checks.request)

    # --- the conversation ---

    def _apply(self, outcome: Outcome, call_id: str = "") -> None:
        """Do what the conversation asks for; ``call_id`` is the AI's call that it answers, if any."""
        self._note_state(outcome)
        if outcome.changed:
            # Before the result: what the AI says next goes by it.
            self.session.update(self._conversation.brief)
        if outcome.keyed is not None and outcome.keyed.wanted:
            self._actions.keyed(outcome.keyed)
        if call_id and outcome.output is not None:
            self._answer(call_id, outcome.output, speak_on=not outcome.end_call)
        if call_id and outcome.work is not None:
            self._waits_for(call_id, None)
            self._tools.start([outcome.work], partial(self._ran, outcome.work, call_id), call_id)
        if outcome.checks is not None:
            if call_id:
                self._waits_for(call_id, outcome.checks)
            done = partial(self._checked, outcome.checks, call_id)
            self._tools.start(outcome.checks.works, done, call_id)
        if not call_id:
            self._speak_up(outcome)
        self._run(outcome.runs)
        if outcome.end_call:
            self._close_after_speech(EndReason.AGENT_HANGUP)

    def _note_state(self, outcome: Outcome) -> None:
        silence = self._conversation.silence
        self._watchdog.silence(silence.after_s if silence is not None else 0.0)
        entered = outcome.entered
        if entered is not None:
            self._timeline.add("state", before=entered.before, after=entered.after, cause=entered.cause)
            log.info("state", before=entered.before, after=entered.after, cause=entered.cause)

    def _speak_up(self, outcome: Outcome) -> None:
        """Have the AI say what it was not asked for."""
        if outcome.entered is not None:
            if outcome.entered.cause in ("key", "digits") and not self.session.capabilities.full_duplex:
                # Who presses a key has heard enough. An AI that hears while it speaks breaks off by itself;
                # where in its sound the new begins, nobody could tell.
                self.session.interrupt(self._flush(), cancel=True)
            self._watchdog.answer_expected(time.monotonic())
            self.session.speak()
        elif outcome.say:
            self.tell(outcome.say)

    def _run(self, works: Sequence[Work]) -> None:
        """Run tools for the flow, one after another: a second transfer is for when the first fails."""
        if works:
            first, *rest = works
            self._tools.start([first], partial(self._ran_by_flow, first, rest))

    def _waits_for(self, call_id: str, checks: Checks | None) -> None:
        self._asked_tools[call_id] = checks
        self._watchdog.tools_at_work(True, time.monotonic())

    def _waits_no_more(self, call_id: str) -> Checks | None:
        checks = self._asked_tools.pop(call_id, None)
        if not self._asked_tools:
            self._watchdog.tools_at_work(False, time.monotonic())
        return checks

    def _answer(self, call_id: str, output: str, *, speak_on: bool = True) -> None:
        self._waits_no_more(call_id)
        if not self._ended:
            if speak_on:
                self._watchdog.answer_expected(time.monotonic())
            self.session.tool_result(call_id, output, answer=speak_on)

    def _ran(self, work: Work, call_id: str, results: list[Result]) -> None:
        result = results[-1]
        if self._ended:
            return
        if result.broken:
            self._apply(self._conversation.broken(f"the tool {work.name!r} failed"), call_id)
            return
        self._apply_quietly(self._conversation.learned(result.learned))
        self._answer(call_id, result.output)

    def _checked(self, checks: Checks, call_id: str, results: list[Result]) -> None:
        if self._ended:
            return
        last = results[-1]
        if last.broken:
            self._conversation.withdraw(checks.request)
            self._apply(self._conversation.broken(last.problem), call_id)
            return
        learned = {name: value for result in results for name, value in result.learned.items()}
        self._apply(self._conversation.checked(checks.request, learned, last.problem), call_id)

    def _ran_by_flow(self, work: Work, rest: Sequence[Work], results: list[Result]) -> None:
        result = results[-1]
        if self._ended:
            return
        self._conversation.learned(result.learned)  # told together with what follows
        self._apply_quietly(self._conversation.ran(work.name, result.output))
        if result.continued is not None:
            self.tell(result.continued.say)
        elif rest:
            self._run(rest)
        elif result.problem and work.own is None:
            self.tell(f"{work.name}: {result.problem}. Tell the caller in your own words, and go on.")
        elif work.name == HOLD:
            self.tell("The caller is back from hold. Go on.")

    def _apply_quietly(self, outcome: Outcome) -> None:
        """Tell the AI what has changed, though there is nothing to say."""
        if outcome.changed:
            self.session.update(self._conversation.brief)

    def _on_reconnected(self, event: Reconnected) -> None:
        self._watchdog.reconnected(time.monotonic(), expected=self.session.busy)
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

    def _answer_failed(self, error: ProviderError) -> None:
        """Ask once more after an answer that failed: it would be a silent turn."""
        self._timeline.add("provider.answer_failed", error=str(error))
        log.warning("the AI's answer failed", error=str(error))
        if error.fatal or self._reprompted:
            self._failed(error)
        else:
            self._reprompted = True
            self._watchdog.ready(time.monotonic())
            if self.session.busy:
                self.session.interrupt(self._flush(), cancel=True)
            self.session.speak()

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
        if self.session.busy:
            # In the middle of an answer: its rest must come soon.
            self._watchdog.answer_expected(now)
        self._maybe_quiet()

    # --- deadlines ---

    def _on_alarm(self, alarm: Alarm) -> None:
        match alarm:
            case Alarm.TIME_LIMIT:
                self._finish(EndReason.TIME_LIMIT)
            case Alarm.SAY_GOODBYE:
                self._say_and_close(_GOODBYE, EndReason.TIME_LIMIT)
            case Alarm.CALLER_SILENT:
                self._apply(self._conversation.silent())
            case Alarm.CALLER_IDLE:
                self._say_and_close(_IDLE_GOODBYE, EndReason.CALLER_IDLE)
            case Alarm.ASK_CALLER:
                log.info("the caller is silent; asking")
                self._watchdog.ready(time.monotonic())  # an AI that is silent when asked is not there
                self.session.speak(_ASK_CALLER)
            case Alarm.NO_FIRST_AUDIO:
                self._failed(_silent(f"said nothing within {self._settings.first_audio_timeout_s:g} s"))
            case Alarm.NO_RESPONSE:
                self._answer_failed(_silent(f"gave no answer within {self._settings.response_timeout_s:g} s"))

    def _say_and_close(self, instructions: str, reason: EndReason) -> None:
        if self._closing is not None:
            return
        log.info("saying good-bye", reason=reason.value)
        self.session.interrupt(self._flush(), cancel=True)
        self.session.speak(instructions)
        self._close_after_speech(reason)

    def _close_after_speech(self, reason: EndReason) -> None:
        self._closing = reason
        self._closing_by = time.monotonic() + max(self._settings.goodbye_before_s, _LONGEST_GOODBYE_S)
        self._maybe_quiet()

    def _maybe_quiet(self) -> None:
        """Begin the end, if the call is closing and the agent has finished."""
        if self._answer_owed or self.session.busy or self.playout.playing:
            return
        if self._closing is not None:
            self._closing_by = min(self._closing_by, time.monotonic() + _LAST_WORD_S)

    def _finish(self, reason: EndReason) -> None:
        self._ended = True
        self._end(reason)


def _silent(what: str) -> ProviderError:
    return ProviderError("the AI", what, code="silent", fatal=False)
