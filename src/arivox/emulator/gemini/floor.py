"""Who speaks: the model's turns, the calls that hold them up, and what waits for an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from arivox.emulator.behaviour import Behaviour
from arivox.emulator.gemini import config, usage
from arivox.emulator.gemini.config import Setup
from arivox.emulator.gemini.conversation import Conversation, Entry
from arivox.emulator.gemini.messages import INTERNAL, PROTOCOL, FunctionResponse, ToolResponse, invalid
from arivox.emulator.gemini.models import Backend, Traits
from arivox.emulator.gemini.outlet import Outlet
from arivox.emulator.gemini.turn import ModelTurn
from arivox.emulator.timers import Timer, Timers
from arivox.errors import ProtocolError

_TURN_REASONS: Final = frozenset({"MALFORMED_FUNCTION_CALL", "RESPONSE_REJECTED", "NEED_MORE_INPUT"})
_REASONS: Final = {
    "server_error": "Internal error encountered.",
    "rate_limit_exceeded": "You exceeded your current quota, please check your plan and billing details.",
    "insufficient_quota": "You exceeded your current quota, please check your plan and billing details.",
}


@dataclass(frozen=True, slots=True)
class Call:
    """A call that has no result yet."""

    id: str
    name: str
    blocks: bool


class Floor:
    """The model's side of a session that is set up.

    A turn of the model may take several answers (``ModelTurn``), when calls that block come between them.
    """

    def __init__(
        self,
        behaviour: Behaviour,
        outlet: Outlet,
        timers: Timers,
        conversation: Conversation,
        setup: Setup,
        traits: Traits,
        backend: Backend,
        *,
        speed: float,
        transcribes: bool,
        on_resumable: Callable[[float | None], None],
        close: Callable[[int, str], None],
    ) -> None:
        """``on_resumable`` is told when the session can be resumed, and with None that it cannot."""
        self.responses: list[ModelTurn] = []
        self.caller_speaks = False
        self.calls: dict[str, Call] = {}
        self._behaviour = behaviour
        self._outlet = outlet
        self._timers = timers
        self._conversation = conversation
        self._setup = setup
        self._traits = traits
        self._backend = backend
        self._speed = speed
        self._transcribes = transcribes and (
            traits.always_transcribes or setup.output_audio_transcription is not None
        )
        self._on_resumable = on_resumable
        self._close = close
        self._turn: ModelTurn | None = None
        """The newest answer of a turn that is not complete."""
        self._answers: list[ModelTurn] = []
        """Every answer of that turn."""
        self._context = 0
        self._plays_until = 0.0
        self._playing: Timer | None = None
        self._owed = False
        """Whether results came in while the answer that wanted them still went on."""
        self._wanted: list[str] = []

    @property
    def active(self) -> ModelTurn | None:
        """Return the answer that is being generated."""
        turn = self._turn
        return turn if turn is not None and not turn.done else None

    # What may begin or end an answer.

    def want(self, told: str, now: float) -> None:
        """Have ``told`` (may be empty) answered as soon as nobody speaks."""
        self._wanted.append(told)
        self.serve(now)

    def serve(self, now: float) -> None:
        """Answer what waits, all at once, if nobody speaks."""
        if self._wanted and self._turn is None and not self.caller_speaks:
            told = "\n".join(text for text in self._wanted if text)
            self._wanted.clear()
            self._answer(told, now)

    def answer_caller(self, now: float) -> None:
        """Answer what the caller just said, and with it all that waited."""
        if self._turn is None:
            self._wanted.clear()
        self.want("", now)

    def create(self, told: str = "") -> ModelTurn:
        """Begin an answer; a turn that is only being played is complete then.

        Raises:
            ProtocolError: One is being generated.
        """
        turn = self._turn
        if turn is not None and not turn.done:
            raise ProtocolError(PROTOCOL, "the model is answering already")
        if turn is not None and turn.state == "playing":
            self._complete(self._outlet.clock())
        elif turn is not None:
            turn.stop("over")
        if not self._answers:
            self._on_resumable(None)
        self._context = len(self._conversation.entries)
        turn = ModelTurn(
            self._outlet,
            self,
            self._timers,
            told=told,
            speed=self._speed,
            tools=config.schemas(self._conversation.tools),
            transcribes=self._transcribes,
            max_tokens=self._setup.generation_config.max_output_tokens,
        )
        turn.plays_until = self._plays_until
        self._turn = turn
        self._answers.append(turn)
        self.responses.append(turn)
        return turn

    def halt(self, now: float) -> None:
        """Interrupt the model's turn, whether it is generated or played; answer nothing yet."""
        turn = self._turn
        if turn is None:
            return
        turn.stop("over")
        cancelled = [call.id for call in self.calls.values() if call.blocks]
        for call_id in cancelled:
            del self.calls[call_id]
        if cancelled:
            self._outlet.emit(toolCallCancellation={"ids": cancelled})
        self._owed = False
        self._plays_until = now
        self._outlet.content(interrupted=True)
        self._complete(now)

    def stop(self) -> None:
        """Take note that the connection is gone."""
        self._wanted.clear()
        if self._turn is not None:
            self._turn.stop("over")

    def deliver(self, message: ToolResponse, now: float) -> None:
        """Take the results of calls.

        Raises:
            RefusedError: One belongs to no call, or says what it may not.
        """
        if not message.function_responses:
            raise invalid("toolResponse.functionResponses: there are none.")
        found = [(response, self._match(response)) for response in message.function_responses]
        released = interrupts = prompts = False
        for response, call in found:
            if call is None or call.id not in self.calls:
                continue
            self._conversation.take_result(self._outlet.new_id("content"), response.response)
            if not response.will_continue:
                del self.calls[call.id]
            if call.blocks:
                released = released or not response.will_continue
            elif response.scheduling != "SILENT":
                prompts = True
                interrupts = interrupts or response.scheduling == "INTERRUPT"
        if not self._behaviour.answers:
            return
        if released and not self._blocked:
            self._go_on(now)
        if interrupts:
            self.halt(now)
        if prompts:
            self.want("", now)

    # Owner of answers.

    def begun(self, turn: ModelTurn) -> Entry:
        """Return a new content of the history for the words that follow."""
        del turn
        entry = Entry(self._outlet.new_id("content"), "model")
        self._conversation.entries.append(entry)
        return entry

    def called(self, turn: ModelTurn, call_id: str, name: str, arguments: str) -> None:
        """Remember that a function was called."""
        del turn
        blocks = config.behavior(self._conversation.tools, name, self._traits) == "BLOCKING"
        self.calls[call_id] = Call(call_id, name, blocks)
        self._conversation.calls |= {call_id}
        entry = Entry(self._outlet.new_id("content"), "model", name + arguments)
        self._conversation.entries.append(entry)

    def ends(self, turn: ModelTurn) -> bool:
        """Return whether the model's turn ends with this answer."""
        return turn is self._turn and not self._blocked and not self._owed

    def generated(self, turn: ModelTurn, now: float, *, announced: bool) -> None:
        """Wait for results, go on with those that are there, or let the speech be played."""
        self._plays_until = turn.plays_until
        if self._blocked:
            return
        if self._owed:
            self._go_on(now)
            return
        if not announced:
            self._outlet.content(generationComplete=True)
        turn.state = "playing"
        if self._plays_until <= now:
            self._played(now)
        else:
            self._playing = self._timers.at(self._plays_until, self._played)

    def interrupt(self, now: float) -> None:
        """Interrupt the model's turn."""
        self.halt(now)
        self.serve(now)

    def broken(self, turn: ModelTurn, code: str, message: str, now: float) -> None:
        """End the turn for a reason, or the connection."""
        del turn
        if code not in _TURN_REASONS:
            self._close(INTERNAL, _REASONS.get(code, message))
            return
        self.calls = {key: call for key, call in self.calls.items() if not call.blocks}
        self._owed = False
        self._complete(now, reason=code)
        self.serve(now)

    # Inside.

    @property
    def _blocked(self) -> bool:
        return any(call.blocks for call in self.calls.values())

    def _answer(self, told: str, now: float) -> None:
        self._behaviour.wanted(self.create(told), now)

    def _go_on(self, now: float) -> None:
        turn = self._turn
        if turn is not None and not turn.done:
            self._owed = True
            return
        self._owed = False
        self._answer("", now)

    def _match(self, response: FunctionResponse) -> Call | None:
        """Return the call of a result; None when it was cancelled or answered before."""
        if response.scheduling is not None and not self._traits.scheduling:
            raise invalid("toolResponse.functionResponses.scheduling: not supported by this model.")
        if response.id is None and self._backend == "studio":
            raise invalid("toolResponse.functionResponses.id is required.")
        for call in self.calls.values():
            if response.id in {None, call.id} and response.name in {None, call.name}:
                return call
        if response.id is None or response.id not in self._conversation.calls:
            raise invalid(f"toolResponse.functionResponses: '{response.id or response.name}' is no call.")
        return None

    def _played(self, now: float) -> None:
        self._complete(now)
        self.serve(now)

    def _complete(self, now: float, *, reason: str = "") -> None:
        if self._playing is not None:
            self._playing.cancel()
            self._playing = None
        if self._turn is not None:
            self._turn.stop("over")
        answers, self._answers, self._turn = self._answers, [], None
        content: dict[str, Any] = {"turnComplete": True}
        if reason:
            content["turnCompleteReason"] = reason
        if self._traits.status:
            content["interactionStatus"] = "IN_PROGRESS" if self.calls or self._wanted else "IDLE"
        report = usage.measure(
            self._conversation,
            self._conversation.entries[: self._context],
            answers,
            self._backend,
            thinks=self._traits.status,
        )
        self._outlet.emit(serverContent=content, usageMetadata=report)
        if not self.calls:
            self._on_resumable(now)
