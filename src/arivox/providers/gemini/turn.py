"""Where the conversation with the model is: whose turn, what belongs to which answer, and which words are
whose. Pure: messages of the service in, events of the contract out.

The service sends what the model says in one turn as pieces without a name; each stretch of speech between two
interruptions, tool calls or ends of a turn is one item here. Transcripts come as deltas that keep no order
with the audio, and often without a last one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

import msgspec

from arivox.errors import ProviderError
from arivox.providers.base import (
    AgentAudioDone,
    AgentText,
    CallerActive,
    CallerText,
    Interrupted,
    ProviderEvent,
    ResponseDone,
    ResponseStarted,
    ToolCall,
    ToolCallsCancelled,
    Utterance,
)
from arivox.providers.gemini.protocol import (
    PROVIDER,
    ServerContent,
    ToolCallCancellation,
    ToolCallMessage,
    Transcription,
)

# A turn that ended for one of these reasons is as it should be.
_GOOD_ENDS: Final = frozenset({"", "TURN_COMPLETE_REASON_UNSPECIFIED", "NEED_MORE_INPUT"})


class Turns:
    """The turns of one session. ``history_limit`` is how many utterances are remembered.

    With ``idle_status`` a turn is over only once the interaction is idle.
    """

    def __init__(self, history_limit: int, *, idle_status: bool) -> None:
        self.generating = False
        """The model is making an answer: more of it will come."""
        self.asked = False
        """An answer was asked for, and has not begun."""
        self.late = False
        """What comes of the present answer is not wanted any more."""
        self.history: deque[Utterance] = deque(maxlen=history_limit)
        """What both sides have said, the oldest first."""
        self.open_tools: dict[str, str] = {}
        """Names of the calls without a result, by their ids."""
        self._answered: deque[str] = deque(maxlen=16)  # the latest calls that have their result
        self._idle_status = idle_status
        self._count = 0
        self._calls = 0
        self._item = ""  # the stretch of speech that is open
        self._open = False  # ResponseStarted was said, and ResponseDone was not
        self._sounded = False  # the present turn had a sound, or did something
        self._cut = False  # the present turn was interrupted
        self._ours = False  # and by our own request
        self._agent_words: list[str] = []
        self._caller_words: list[str] = []
        self._words_item = ""

    @property
    def quiet(self) -> bool:
        """Return whether nothing is going on that another connection would lose."""
        return not (self.generating or self.asked or self.open_tools or self._open)

    @property
    def may_ask(self) -> bool:
        """Return whether to ask for an answer now would break no other one off, or one we gave up."""
        return not ((self.generating and not self.late) or self.asked or self.open_tools) and (
            not self._open or self._ours
        )

    # --- from our side ---

    def ask(self) -> None:
        """An answer was asked for."""
        self.asked = True

    def cut(self, *, cancel: bool) -> None:
        """The caller speaks into the answer, or with ``cancel`` we want no more of it."""
        if self.generating:
            self.late = True
        if cancel:
            self._ours = self._open
            self.asked = False

    def tool_answered(self, call_id: str) -> str:
        """Return the name of a call that has its result now; empty when nobody waits for it."""
        name = self.open_tools.pop(call_id, "")
        if name:
            self._answered.append(call_id)
        return name

    def lost(self) -> tuple[bool, list[ProviderEvent]]:
        """The connection is gone. Return whether an answer was lost with it, and what ended thereby."""
        owed = self.generating or self.asked or bool(self.open_tools)
        self.generating = self.asked = self.late = False
        self.open_tools.clear()
        self._cut = self._cut or (owed and self._open)
        return owed, [*self._close_item(), *self._done(None)]

    def flush(self) -> Iterator[ProviderEvent]:
        """Give the words that no message has completed."""
        yield from self._caller_said()
        yield from self._agent_said()

    # --- from the service ---

    def audio_item(self) -> tuple[str, bool]:
        """Return the item that the next audio belongs to, and whether it has just begun."""
        begun = not self._item
        if begun:
            self._count += 1
            self._item = f"item-{self._count}"
            if not self._agent_words:
                self._words_item = self._item
        return self._item, begun

    def began(self) -> Iterator[ProviderEvent]:
        """The model makes an answer: what the caller said before it is complete."""
        self.generating = True
        self.asked = False
        self._sounded = True
        if not self._open:
            # Later words of this turn are told at its end: transcripts keep no order with the sound.
            yield from self._caller_said()
            self._open = True
            yield ResponseStarted()

    def transcripts(self, content: ServerContent) -> Iterator[ProviderEvent]:
        """Take the words of a message."""
        if content.input_transcription is not None:
            yield from self._caller_transcript(content.input_transcription)
        words = content.output_transcription
        if words is not None and words.text and not self.late:
            if not self._words_item:
                self._words_item = self._item or f"item-{self._count + 1}"
            self._agent_words.append(words.text)

    def ends(self, content: ServerContent) -> Iterator[ProviderEvent]:
        """Take what a message says about the end of an answer."""
        if content.interrupted:
            yield from self._interrupted()
        if content.generation_complete:
            self.generating = self.late = False
            yield from self._close_item()
        if content.turn_complete:
            yield from self._turn_complete(content)
        elif content.interaction_status == "IDLE" and self._idle_status and self._open:
            yield from self._done(None)

    def called(self, message: ToolCallMessage) -> Iterator[ProviderEvent]:
        """Take calls of tools. What was said before them is whole."""
        self.asked = False
        yield from self.began()
        yield from self._close_item()
        yield from self._agent_said()
        self.generating = False
        calls = []
        for call in message.function_calls or ():
            self._calls += 1
            call_id = call.id or f"call-{self._calls}"
            self.open_tools[call_id] = call.name or ""
            calls.append(ToolCall(call_id, call.name or "", msgspec.json.encode(call.args or {}).decode()))
        yield from calls

    def calls_cancelled(self, message: ToolCallCancellation) -> Iterator[ProviderEvent]:
        """Take back calls whose results nobody wants any more."""
        known = (*self.open_tools, *self._answered)
        ids = tuple(call_id for call_id in message.ids or () if call_id in known)
        for call_id in ids:
            self.open_tools.pop(call_id, None)
        if ids:
            yield ToolCallsCancelled(ids)

    # --- inside ---

    def _interrupted(self) -> Iterator[ProviderEvent]:
        self.late = False
        self.generating = False
        self._cut = True
        yield from self._agent_said()
        if not self._ours:
            self.asked = False
            yield Interrupted()
        yield from self._close_item()

    def _turn_complete(self, content: ServerContent) -> Iterator[ProviderEvent]:
        self.generating = self.late = False
        yield from self._close_item()
        if self._idle_status and content.interaction_status == "IN_PROGRESS":
            return
        reason = content.turn_complete_reason or ""
        error = None
        if reason not in _GOOD_ENDS and not self._cut:
            text = f"the answer ended early: {reason.replace('_', ' ').lower()}"
            error = ProviderError(PROVIDER, text, code=reason, fatal=False)
        yield from self._done(error)

    def _done(self, error: ProviderError | None) -> Iterator[ProviderEvent]:
        # After an interruption the caller's words belong to the turn that comes.
        yield from self._agent_said() if self._cut else self.flush()
        self.asked = self.asked and self._ours
        opened, cut, sounded = self._open, self._cut, self._sounded
        self._open = self._cut = self._ours = self._sounded = False
        if cut:
            yield ResponseDone("cancelled")
        elif error is not None:
            yield ResponseDone("incomplete" if sounded else "failed", error)
        elif opened:
            yield ResponseDone("completed")

    def _caller_transcript(self, words: Transcription) -> Iterator[ProviderEvent]:
        if words.text:
            if not self._open:
                yield CallerActive()
            self._caller_words.append(words.text)
        if words.finished:
            yield from self._caller_said()

    def _caller_said(self) -> Iterator[ProviderEvent]:
        text = "".join(self._caller_words).strip()
        self._caller_words.clear()
        if text:
            self.history.append(Utterance("caller", text))
            yield CallerText(f"caller-{self._count}", text)

    def _agent_said(self) -> Iterator[ProviderEvent]:
        text = "".join(self._agent_words).strip()
        item, self._words_item = self._words_item, ""
        self._agent_words.clear()
        if text:
            self.history.append(Utterance("agent", text))
            yield AgentText(item, text)

    def _close_item(self) -> Iterator[ProviderEvent]:
        item, self._item = self._item, ""
        if item:
            yield AgentAudioDone(item)
