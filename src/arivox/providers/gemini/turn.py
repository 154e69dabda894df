"""Where the conversation with the model is: whose turn, what belongs to which answer, and which words are
whose. Pure: messages of the service in, events of the contract out.

The service sends what the model says in one turn as pieces without a name; each stretch of speech between two
interruptions, tool calls or ends of a turn is one item here. Transcripts come as deltas that keep no order
with the audio, and often without a last one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

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
    Utterance,
)
from arivox.providers.gemini.protocol import (
    PROVIDER,
    FunctionCall,
    ServerContent,
    ToolCallCancellation,
    ToolCallMessage,
    Transcription,
)

# A turn that ended for one of these reasons is as it should be.
_CALLER_GOES_ON: Final = "NEED_MORE_INPUT"
_GOOD_ENDS: Final = frozenset({"", "TURN_COMPLETE_REASON_UNSPECIFIED", _CALLER_GOES_ON})
# Parts of the reasons for which an answer is withheld for what is in it.
_WITHHELD: Final = (
    "REJECTED",
    "SAFETY",
    "UNSAFE",
    "PROHIBITED",
    "BLOCK",
    "SPII",
    "RECITATION",
    "CELEBRITY",
)


class OpenCall(NamedTuple):
    """A call without a result: what the service names it by, and its tool."""

    wire_id: str
    name: str


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
        self.open_tools: dict[str, OpenCall] = {}
        """The calls without a result, by their ids: each is told under one of its own."""
        self.mute = False
        """The latest answer that is complete had no sound, and called no tool."""
        self.wrote = False
        """The present turn holds text in place of speech."""
        self._answered: deque[tuple[str, str]] = deque(
            maxlen=16
        )  # the latest calls with a result: wire id, id
        self._unfinished: dict[str, FunctionCall] = {}  # calls of which more will come
        self._told: set[str] = set()  # ids of all calls
        self._idle_status = idle_status
        self._thinking = False  # the turn is complete, and the interaction is not idle
        self._talking = False  # the caller, by their sound, as the latest message came
        self._said = False  # the caller has said something since the latest answer
        self._count = 0
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
        return not self.asked and self.still

    @property
    def still(self) -> bool:
        """Return whether no answer is being made or played, nor a tool awaited."""
        return not (self.generating or self.open_tools or self._open)

    @property
    def may_ask(self) -> bool:
        """Return whether to ask for an answer now would break no other one off, or one we gave up."""
        return not ((self.generating and not self.late) or self.asked or self.open_tools) and (
            not self._open or self._ours
        )

    # --- from our side ---

    def ask(self) -> None:
        """An answer was asked for: what was heard before it is none."""
        self.asked = True
        self._sounded = False

    def cut(self, *, cancel: bool) -> None:
        """The caller speaks into the answer, or with ``cancel`` we want no more of it."""
        if self.generating:
            self.late = True
        if cancel:
            self._ours = self._open
            self.asked = False
            if not self._open:
                self._drop_words()

    def tool_answered(self, call_id: str) -> OpenCall | None:
        """Return the call that has its result now; None when nobody waits for it."""
        call = self.open_tools.pop(call_id, None)
        if call is not None:
            self._answered.append((call.wire_id, call_id))
        return call

    def wrote_text(self) -> None:
        """The model writes what it should say."""
        self.wrote = True

    def lost(self) -> tuple[bool, list[ProviderEvent]]:
        """The connection is gone. Return whether an answer was lost with it, and what ended thereby."""
        owed = (self.generating and not self.late) or self.asked or bool(self.open_tools)
        going_on = self.generating or bool(self.open_tools)
        self.generating = self.asked = self.late = False
        self.open_tools.clear()
        self._answered.clear()
        self._unfinished.clear()
        self._thinking = self.wrote = False
        self._cut = self._cut or (going_on and self._open)
        return owed, [*self._close_item(), *self._over(None)]

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
        self.asked = self.mute = self._said = False
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

    def ends(
        self, content: ServerContent, *, voice: bool = False, talking: bool = False
    ) -> Iterator[ProviderEvent]:
        """Take what a message says about the end of an answer.

        ``voice`` tells that the caller was heard here to say something that has no answer yet, ``talking``
        that they are at it: what ends now is no answer to that.
        """
        self._talking = talking
        if content.interrupted:
            yield from self._interrupted()
        if content.generation_complete:
            self.generating = self.late = False
            yield from self._close_item()
        if content.turn_complete:
            yield from self._turn_complete(content, voice=voice)
        elif content.interaction_status == "IDLE" and self._idle_status and (self._open or self._thinking):
            yield from self._done(None, voice=voice)

    def called(self, message: ToolCallMessage) -> Iterator[ProviderEvent]:
        """Take calls of tools. What was said before them is whole.

        A call of which more will come is told once it is finished.
        """
        finished = [whole for call in message.function_calls or () if (whole := self._finished(call))]
        if not finished:
            return
        self.asked = False
        yield from self.began()
        yield from self._close_item()
        yield from self._agent_said()
        self.generating = False
        known = {call.wire_id for call in self.open_tools.values()}
        for call in finished:
            wire_id, name = call.id or "", call.name or ""
            if wire_id and wire_id in known:
                continue  # the same call once more
            call_id = self._own_id(wire_id)
            self.open_tools[call_id] = OpenCall(wire_id or call_id, name)
            yield ToolCall(call_id, name, msgspec.json.encode(call.args or {}).decode())

    def calls_cancelled(self, message: ToolCallCancellation) -> tuple[str, ...]:
        """Take back calls whose results nobody wants any more; return their ids."""
        wire_ids = message.ids or ()
        still_open = [call_id for call_id, call in self.open_tools.items() if call.wire_id in wire_ids]
        for call_id in still_open:
            del self.open_tools[call_id]
        return (*still_open, *(call_id for wire_id, call_id in self._answered if wire_id in wire_ids))

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

    def _finished(self, call: FunctionCall) -> FunctionCall | None:
        """Return a call that is whole, with what came of it before; None if more will come."""
        earlier = self._unfinished.pop(call.id or "", None)
        if earlier is not None:
            args: dict[str, Any] = {**(earlier.args or {}), **(call.args or {})}
            call = msgspec.structs.replace(call, name=call.name or earlier.name, args=args)
        if not call.will_continue:
            return call
        self._unfinished[call.id or ""] = call
        return None

    def _own_id(self, wire_id: str) -> str:
        """Return an id that no other call was told under: a service may use one twice."""
        count = len(self._told) + 1
        call_id = wire_id or f"call-{count}"
        if call_id in self._told:
            call_id = f"{call_id}-{count}"
        self._told.add(call_id)
        return call_id

    def _turn_complete(self, content: ServerContent, *, voice: bool) -> Iterator[ProviderEvent]:
        self.generating = self.late = False
        yield from self._close_item()
        if self._idle_status and content.interaction_status == "IN_PROGRESS":
            self._thinking = True
            return
        reason = content.turn_complete_reason or ""
        error = None
        if reason not in _GOOD_ENDS and not self._cut:
            text = f"the answer ended early: {reason.replace('_', ' ').lower()}"
            rejected = any(part in reason for part in _WITHHELD)
            error = ProviderError(PROVIDER, text, code=reason, fatal=False, rejected=rejected)
        awaited = self.asked or reason != _CALLER_GOES_ON  # who is in the middle of something awaits none
        yield from self._done(error, voice=voice, awaited=awaited)

    def _done(
        self, error: ProviderError | None, *, voice: bool, awaited: bool = True
    ) -> Iterator[ProviderEvent]:
        """Tell that an answer is over, and of one that was due and has no sound."""
        if self._open:
            silent = self.asked and not self._ours  # since the results of tools
        else:
            said = self._said or bool(self._caller_words) or voice
            silent = self.asked or self.wrote or (said and not self._talking)
            if silent and not self._cut:
                self._drop_words()
        silent = silent and not self._cut and error is None
        self._unfinished.clear()
        self._thinking = self.wrote = False
        yield from self._over(error)
        if silent and not awaited:
            yield CallerActive()  # who says nothing more is answered after all
        elif silent:
            self.mute = True
            yield ResponseStarted()
            yield ResponseDone("completed")

    def _over(self, error: ProviderError | None) -> Iterator[ProviderEvent]:
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
            self._said = self._said or not self._open or self._cut
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

    def _drop_words(self) -> None:
        """Forget what the agent was to say, of which no sound came."""
        self._agent_words.clear()
        self._words_item = ""

    def _close_item(self) -> Iterator[ProviderEvent]:
        item, self._item = self._item, ""
        if item:
            yield AgentAudioDone(item)
