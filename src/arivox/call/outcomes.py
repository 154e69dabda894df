"""What the conversation asks for: the AI is told, tools run, and their results go to who waits for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import structlog

from arivox.call.actions import Actions
from arivox.call.sessions.sessions import Sessions
from arivox.call.timeline import Timeline
from arivox.call.toolrunner import Result, ToolRunner
from arivox.conversation.conversation import Checks, Conversation, Outcome, Work
from arivox.conversation.tools.names import HOLD
from arivox.providers.base import ToolCall, ToolCallsCancelled
from arivox.tools import CallInfo

log = structlog.get_logger()


class Voice(Protocol):
    """What the exchange does for the conversation."""

    def speak_up(self, outcome: Outcome) -> None:
        """Have the AI say what it was not asked for."""
        ...

    def tell(self, instructions: str) -> None:
        """Have the agent say something, once it has finished what it is saying."""
        ...

    def state_noted(self, outcome: Outcome) -> None:
        """Hear of the state that the conversation is in."""
        ...

    def tools_at_work(self, running: bool) -> None:
        """Hear that the AI waits for a tool, or no longer."""
        ...

    def answer_follows(self) -> None:
        """Hear that the AI was given a result, and is to speak of it."""
        ...

    def hang_up_after_speech(self) -> None:
        """End the call once the agent has finished speaking."""
        ...


class Outcomes:
    """Carries out the outcomes of one call's conversation. ``info`` describes the call to tools."""

    def __init__(
        self,
        conversation: Conversation,
        session: Sessions,
        timeline: Timeline,
        actions: Actions,
        info: Callable[[], CallInfo],
        voice: Voice,
    ) -> None:
        self.over = False
        """The call ends: results are of no use to anybody."""
        self._conversation = conversation
        self._session = session
        self._timeline = timeline
        self._actions = actions
        self._voice = voice
        self._tools = ToolRunner(timeline, actions.run, info)
        self._asked: dict[str, Checks | None] = {}  # calls of the AI without a result, and their moves

    @property
    def awaited(self) -> bool:
        """Return whether the AI waits for a tool."""
        return bool(self._asked)

    async def close(self) -> None:
        """Stop the tools that are at work, and wait until they have cleaned up."""
        await self._tools.close()

    # --- from the AI ---

    def called(self, call: ToolCall) -> None:
        """Run what the AI asks for."""
        outcome = self._conversation.call_tool(call.name, call.arguments)
        if outcome.output is not None:
            self._timeline.add("tool", name=call.name, arguments=call.arguments, output=outcome.output)
        self.apply(outcome, call.call_id)

    def taken_back(self, event: ToolCallsCancelled) -> None:
        """Break off tools whose results the AI has no use for any more.

        A tool of the user's own may have done already what it does, and would do it twice when it is called
        again: it goes on, and the AI is told what comes of it.
        """
        self._timeline.add("tool.cancelled", calls=", ".join(event.call_ids))
        for call_id in event.call_ids:
            if self._tools.goes_on(call_id):
                log.info("the AI has no use for a tool any more, which cannot be undone: it goes on")
                self._session.tool_goes_on(call_id)
                self._waits_no_more(call_id)
                continue
            if self._tools.cancel(call_id):
                log.info("a tool is broken off: the AI has no use for it any more")
            checks = self._waits_no_more(call_id)
            if checks is not None:
                self._conversation.withdraw(checks.request)

    # --- from the conversation ---

    def apply(self, outcome: Outcome, call_id: str = "") -> None:
        """Do what the conversation asks for; ``call_id`` is the AI's call that it answers, if any."""
        self._voice.state_noted(outcome)
        if outcome.changed:
            # Before the result: what the AI says next goes by it.
            self._session.update(self._conversation.brief)
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
            self._voice.speak_up(outcome)
        self.run(outcome.runs)
        if outcome.end_call:
            self._voice.hang_up_after_speech()

    def run(self, works: Sequence[Work]) -> None:
        """Run tools for the flow, one after another: a second transfer is for when the first fails."""
        if works:
            first, *rest = works
            self._tools.start([first], partial(self._ran_by_flow, first, rest))

    # --- inside ---

    def _waits_for(self, call_id: str, checks: Checks | None) -> None:
        self._asked[call_id] = checks
        self._voice.tools_at_work(True)

    def _waits_no_more(self, call_id: str) -> Checks | None:
        checks = self._asked.pop(call_id, None)
        if not self._asked:
            self._voice.tools_at_work(False)
        return checks

    def _answer(self, call_id: str, output: str, *, speak_on: bool = True) -> None:
        self._waits_no_more(call_id)
        if not self.over and self._session.tool_result(call_id, output, answer=speak_on):
            self._voice.answer_follows()

    def _ran(self, work: Work, call_id: str, results: list[Result]) -> None:
        result = results[-1]
        if self.over:
            return
        if result.broken:
            self.apply(self._conversation.broken(f"the tool {work.name!r} failed"), call_id)
            return
        self.apply_quietly(self._conversation.learned(result.learned))
        self._answer(call_id, result.output)

    def _checked(self, checks: Checks, call_id: str, results: list[Result]) -> None:
        if self.over:
            return
        last = results[-1]
        if last.broken:
            self._conversation.withdraw(checks.request)
            self.apply(self._conversation.broken(last.problem), call_id)
            return
        learned = {name: value for result in results for name, value in result.learned.items()}
        self.apply(self._conversation.checked(checks.request, learned, last.problem), call_id)

    def _ran_by_flow(self, work: Work, rest: Sequence[Work], results: list[Result]) -> None:
        result = results[-1]
        if self.over:
            return
        self._conversation.learned(result.learned)  # told together with what follows
        self.apply_quietly(self._conversation.ran(work.name, result.output))
        if result.continued is not None:
            self._voice.tell(result.continued.say)
        elif rest:
            self.run(rest)
        elif result.problem and work.own is None:
            self._voice.tell(f"{work.name}: {result.problem}. Tell the caller in your own words, and go on.")
        elif work.name == HOLD:
            self._voice.tell("The caller is back from hold. Go on.")

    def apply_quietly(self, outcome: Outcome) -> None:
        """Tell the AI what has changed, though there is nothing to say."""
        if outcome.changed:
            self._session.update(self._conversation.brief)
