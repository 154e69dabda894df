"""The conversation of one call: what the AI is told in each state, and what tools and the caller's keys do.

Pure, but for the time of day. It says what is to be done; ``flow`` says where it may go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog

from arivox.conversation.field import Field, parameters, read_all
from arivox.conversation.flow import (
    HIDDEN,
    KEYS_PAUSE_S,
    Again,
    Breakdown,
    Check,
    Checked,
    Effect,
    Entered,
    Event,
    Key,
    Keyed,
    Learned,
    Mistake,
    Move,
    NotUnderstood,
    Position,
    Pressed,
    Refused,
    Run,
    Silent,
    Spoke,
    Tick,
    Waited,
    Want,
    step,
)
from arivox.conversation.prompts import Prompts
from arivox.conversation.state import ASIDES, Action, Exit, Silence, fill
from arivox.conversation.tools.builtin import ALLOWED, END_TOOL, NOT_UNDERSTOOD_TOOL
from arivox.conversation.tools.names import END, MOVE, NOT_UNDERSTOOD
from arivox.conversation.tools.tool import OwnTool
from arivox.providers.base import Brief, Tool, Utterance

log = structlog.get_logger()

_RULES: Final = (
    "You lead this call through states. Say what the current state asks for, in your own words and in the "
    "caller's language, then wait for the caller. As soon as the caller has answered it, call the tool "
    f"{MOVE} at once, without saying anything first; you will then be told the next state. "
    f"If you did not understand the caller, call {NOT_UNDERSTOOD}. Call {END} when the caller says good-bye, "
    "or when nothing is left to do."
)
_LAST_RESULTS: Final = 3
_ASK_AGAIN: Final = "Ask the caller again, in other words."


@dataclass(frozen=True, slots=True)
class Work:
    """A tool that takes time: one of ours that acts on the call, or one of the user's."""

    name: str
    arguments: Any = field(repr=False)
    """As the tool takes them: validated."""
    own: OwnTool | None
    """None: one of ours."""


@dataclass(frozen=True, slots=True)
class Checks:
    """Tools that a move waits for."""

    works: tuple[Work, ...]
    request: Check


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is to be done after something happened."""

    output: str | None = None
    """Result for the model, JSON; None: it comes later, or nobody asked."""
    work: Work | None = None
    """The model waits for this tool."""
    checks: Checks | None = None
    runs: tuple[Work, ...] = ()
    """Tools that the flow itself runs; the model learns of their results."""
    entered: Entered | None = None
    changed: bool = False
    """What the AI is to be told has changed."""
    say: str = ""
    """Instructions for something the AI is to say now, though nobody asked it."""
    keyed: Keyed | None = None
    end_call: bool = False

    @property
    def moved(self) -> bool:
        """Return whether the conversation is in another state."""
        return self.entered is not None


class _MoveArguments(msgspec.Struct):
    state: str


class Conversation:
    """The conversation of one call. ``variables`` are what prompts may speak of from the start."""

    def __init__(
        self,
        prompts: Prompts,
        system_instruction: str = "",
        *,
        variables: Mapping[str, str] | None = None,
        tools: Mapping[str, OwnTool] | None = None,
        destinations: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.fixed_tools = False
        """The AI's tools cannot change in mid-call: from the first they allow every state."""
        self._prompts = prompts
        self._instruction = system_instruction or prompts.system_instruction
        self._now = now
        self._variables = {name: value for name, value in (variables or {}).items() if value}
        self._flow = replace(prompts.flow, variables=self._variables | self._times())
        self._tools = tools or {}
        self._destinations = destinations or {}
        self._clock = clock
        self._position = replace(self._flow.start, entered=clock())
        self._results: list[str] = []
        self._news = ""
        self._pressed = ""
        self._pressed_at = 0.0
        self.history: tuple[Utterance, ...] = ()
        """What was said before this session."""

    # --- what is so ---

    @property
    def state(self) -> str:
        """Return where the conversation is."""
        return self._position.state

    @property
    def known(self) -> dict[str, str]:
        """Return what the caller has said that was asked for; what is secret is not shown."""
        return dict(self._position.known)

    @property
    def secrets(self) -> dict[str, str]:
        """Return what was keyed in and that only tools may read."""
        return dict(self._position.secrets)

    @property
    def exits(self) -> tuple[str, ...]:
        """Return the states that can follow, the normal way first."""
        return tuple(dict.fromkeys(way.state for way in self._flow.exits(self._position)))

    @property
    def silence(self) -> Silence | None:
        """Return what the present state says of a silent caller; None: nothing of its own."""
        return self._flow.states[self.state].silence

    @property
    def private(self) -> bool:
        """Return whether the next keys belong to something secret: the line is not listened to meanwhile."""
        wanted = self._flow.keying(self._position)
        return wanted is not None and wanted.secret

    @property
    def hides_keys(self) -> bool:
        """Return whether keys may belong to something secret, and are to be shown to nobody."""
        home = self._flow.home(self._position)
        recent = self._clock() - self._position.done_at < KEYS_PAUSE_S and self._position.secrets
        return self.private or bool(recent) or any(one.secret for one in home.collects)

    def digits(self, name: str, length: int, *, secret: bool) -> Field:
        """Return what a tool asks the caller to key in: as the flow declares it, if it does."""
        declared = self._flow.fields.get(name)
        if declared is not None and declared.type == "digits":
            return declared
        return Field(name, "digits", length=length, secret=secret)

    @property
    def brief(self) -> Brief:
        """Return what the AI is told in the present state."""
        position, flow = self._position, self._flow
        home = flow.home(position)
        values = self._values()
        lines = [f"Current state: {self.state}", fill(flow.states[self.state].prompt, values)]
        if self.state in ASIDES:
            lines += [f"Gone aside from: {home.name}"]
        asked = [one for one in home.collects if not one.secret]
        if asked:
            lines += ["Ask for: " + "; ".join(map(_asked, asked))]
        keyed = [one.name for one in home.collects if one.type == "digits"]
        if keyed:
            lines += [f"The caller may key in on the telephone, ended by the hash key: {', '.join(keyed)}"]
        if position.known:
            known = "; ".join(f"{name}: {value}" for name, value in position.known.items())
            lines += [f"Known so far: {known}"]
        lines += [self._news] if self._news else []
        lines += self._results
        exits = flow.exits(position)
        conditions = [f"{way.state} only when {way.condition}" for way in exits if way.when]
        if conditions:
            lines += [f"Conditions: {'; '.join(conditions)}"]
        lines += [f"Possible next states: {', '.join(self.exits) or 'none'}"]
        focus = "\n".join(lines)
        # One of the settings may hold braces of its own.
        instruction = fill(self._instruction, values, keep=True)
        instructions = "\n".join([instruction, "", _RULES, "", focus]).strip()
        return Brief(instructions, self._told(), focus, self.history)

    # --- what happens ---

    def begin(self) -> Outcome:
        """Begin: what the first state runs on entering, and nothing to say that has no value."""
        missing = self._flow.missing(self.state, self._position.known)
        if missing:
            log.error("the first prompt speaks of what has no value", names=", ".join(missing))
            return self._step(Breakdown(f"no value for {', '.join(missing)}"))
        actions = self._flow.states[self.state].on_enter
        return Outcome(runs=tuple(self._works(actions)))

    def resume(self, state: str, known: Mapping[str, str], history: Sequence[Utterance]) -> None:
        """Go on where an earlier conversation ended, if the state still exists and is not the last one."""
        self.history = tuple(history)
        if state not in self._flow.way or not self._flow.states[state].exits:
            return
        if HIDDEN in known.values():
            return  # who has shown a secret in another call has not shown it in this one
        if not self._flow.missing(state, known):
            self._position = Position(state, known, entered=self._clock())

    def call_tool(self, name: str, arguments: str) -> Outcome:
        """Run a tool the model called. A wrong call is answered with an error the model can act on."""
        try:
            return self._call_tool(name, arguments)
        except Exception as error:
            log.exception("a tool failed by a bug of ours", tool=name)
            return self.broken(f"the tool failed: {type(error).__name__}")

    def key(self, digit: str) -> Outcome:
        """Hear a key of the caller's phone."""
        return self._step(Key(digit))

    def spoke(self) -> None:
        """Hear that the caller says something."""
        self._take(Spoke())

    def waited(self, seconds: float) -> None:
        """Hear that the caller was away for so long, on hold: the time of the state stood still."""
        self._take(Waited(seconds))

    def silent(self) -> Outcome:
        """Hear that the caller has been silent as long as ``silence`` allows."""
        return self._step(Silent())

    def tick(self) -> Outcome:
        """See to what is due."""
        outcome = self._step(Tick())
        if not self._pressed or self._clock() - self._pressed_at < KEYS_PAUSE_S / 2:
            return outcome
        pressed, self._pressed = self._pressed, ""
        say = f"The caller has pressed {' '.join(pressed)} on their telephone."
        self._note(say)
        return replace(outcome, changed=True, say=outcome.say or f"{say} Go on from there.")

    def learned(self, values: Mapping[str, str]) -> Outcome:
        """Take what a tool made known to the flow."""
        return replace(self._step(Learned(dict(values))), changed=bool(values))

    def checked(self, request: Check, values: Mapping[str, str], problem: str = "") -> Outcome:
        """Take what the tools of a move say to it."""
        late = self._position.leaving is not request.leaving
        outcome = self._step(Checked(request.leaving, dict(values), problem))
        return replace(outcome, say="") if late else outcome

    def withdraw(self, request: Check) -> None:
        """Give up a move that waits for tools: the model has no use for it any more."""
        if self._position.leaving is request.leaving:
            self._position = replace(self._position, leaving=None)

    def want(self, field: Field | None) -> None:
        """Take the next keys for this, or no longer."""
        self._take(Want(field))

    def ran(self, name: str, output: str) -> Outcome:
        """Hear what came of a tool that the flow itself ran."""
        self._note(f"Result of {name}: {output}")
        return Outcome(changed=True)

    def told(self, news: str) -> Outcome:
        """Hear what the AI is to know from now on, in every state, instead of what was told before."""
        self._news = news
        return Outcome(changed=True)

    def broken(self, problem: str) -> Outcome:
        """Hear that something of ours failed."""
        return self._step(Breakdown(problem))

    # --- inside ---

    def _call_tool(self, name: str, arguments: str) -> Outcome:
        if name == END:
            return Outcome(_json({"ok": True}), end_call=True)
        if name == NOT_UNDERSTOOD and self.exits:
            return self._step(NotUnderstood())
        if name != MOVE and name not in self._allowed():
            there = ", ".join(tool.name for tool in self._told())
            known = name in ALLOWED or name in self._tools
            problem = f"the tool {name!r} cannot be used here" if known else f"there is no tool {name!r}"
            return self._step(Mistake(f"{problem}; there are: {there}"))
        try:
            if name == MOVE:
                move = msgspec.json.decode(arguments, type=_MoveArguments)
            values = msgspec.json.decode(arguments or "{}", type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            return self._step(Mistake(f"the arguments are wrong: {error}"))
        if name == MOVE:
            del values["state"]
            return self._step(Move(move.state, values))
        try:
            return Outcome(work=self._work(name, values))
        except ValueError as error:
            return self._step(Mistake(f"the arguments are wrong: {error}"))

    def _allowed(self) -> tuple[str, ...]:
        """Return the tools besides our own that the state, or the one it went aside from, allows."""
        home = self._flow.home(self._position)
        return tuple(dict.fromkeys((*self._flow.states[self.state].tools, *home.tools)))

    def _work(self, name: str, values: Mapping[str, Any]) -> Work:
        own = self._tools.get(name)
        arguments = own.read(values) if own is not None else read_all(ALLOWED[name].fields, values)
        return Work(name, arguments, own)

    def _works(self, actions: Sequence[Action], known: Mapping[str, str] | None = None) -> list[Work]:
        values = self._values() | dict(known or {})
        works = []
        for action in actions:
            filled = {name: fill(text, values) for name, text in action.arguments.items()}
            try:
                if action.tool == END:
                    works.append(Work(END, {}, None))
                else:
                    given = {name: value for name, value in filled.items() if value}
                    works.append(self._work(action.tool, given))
            except (ValueError, KeyError) as error:
                # The prompts file was checked; what is left is a value that does not fit.
                log.warning("the flow cannot run a tool", tool=action.tool, error=str(error))
                self._note(f"Result of {action.tool}: it failed: {error}")
        return works

    def _take(self, event: Event) -> tuple[Effect, ...]:
        self._position, effects = step(self._flow, self._position, event, self._clock())
        return effects

    def _step(self, event: Event) -> Outcome:
        before = self._position
        effects = self._take(event)
        if self._position.state != before.state:
            self._results = []
            self._pressed = ""
        outcome = self._outcome(effects)
        if isinstance(event, Checked | Move | NotUnderstood | Mistake | Breakdown):
            return outcome
        return replace(outcome, output=None)

    def _outcome(self, effects: Sequence[Effect]) -> Outcome:
        answer: dict[str, Any] = {}
        outcome = Outcome()
        runs: list[Work] = []
        for effect in effects:
            match effect:
                case Refused():
                    answer["error"] = problem = fill(effect.problem, self._values(), keep=True)
                    outcome = replace(outcome, say=f"Tell the caller, in your own words: {problem}")
                case Again():
                    say = fill(effect.say, self._values())
                    answer["ask_again"] = f'Say: "{say}"' if say else _ASK_AGAIN
                    outcome = replace(outcome, say=answer["ask_again"])
                case Entered():
                    answer.pop("ask_again", None)
                    answer["state"] = effect.after
                    # It is the new prompt that is to be said.
                    outcome = replace(outcome, entered=effect, changed=True, say="")
                case Run():
                    runs += self._works([effect.action])
                case Check():
                    works = tuple(self._works(effect.actions, effect.leaving.known))
                    if len(works) < len(effect.actions):
                        return self._step(Checked(effect.leaving, problem="a tool of the flow cannot be run"))
                    outcome = replace(outcome, checks=Checks(works, effect), say="")
                case Keyed():
                    say = f"The caller has keyed in {effect.name}: {effect.shown}."
                    outcome = replace(outcome, keyed=effect, changed=True)
                    if not effect.wanted:
                        outcome = replace(outcome, say=f"{say} Go on from there.")
                case Pressed():
                    self._pressed += effect.digit
                    self._pressed_at = self._clock()
        answer = answer if "error" in answer else {"ok": True, **answer}
        output = None if outcome.checks is not None else _json(answer)
        return replace(outcome, output=output, runs=tuple(runs))

    def _told(self) -> tuple[Tool, ...]:
        ways = self._flow.exits(self._position)
        told: list[Tool] = []
        if ways or self.fixed_tools:
            told += [self._move_tool(ways), NOT_UNDERSTOOD_TOOL]
        names = self._every_tool() if self.fixed_tools else self._allowed()
        for name in names:
            own = self._tools.get(name)
            if own is not None:
                told.append(Tool(name, _with_words(own.description, own.say), dict(own.parameters)))
            elif name in ALLOWED:
                told.append(self._limited(ALLOWED[name].told()))
        return (*told, END_TOOL)

    def _every_tool(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for state in self._flow.states.values() for name in state.tools))

    def _limited(self, tool: Tool) -> Tool:
        """Put the destinations of the settings into the tool that transfers."""
        properties = tool.parameters["properties"]
        if "destination" not in properties:
            return tool
        choices = {**properties["destination"], "enum": list(self._destinations)}
        listed = "; ".join(f"{name}: {what}" for name, what in self._destinations.items() if what)
        if listed:
            choices["description"] = f"{choices['description']}; {listed}"
        changed = {**tool.parameters, "properties": {**properties, "destination": choices}}
        return replace(tool, parameters=changed)

    def _move_tool(self, ways: Sequence[Exit]) -> Tool:
        states = list(self._flow.states) if self.fixed_tools else list(dict.fromkeys(w.state for w in ways))
        fields = self._flow.fields.values() if self.fixed_tools else self._flow.home(self._position).collects
        said = {one.name: replace(one, required=False) for one in fields if not one.secret}
        schema = parameters(said)
        schema["properties"] = {"state": {"type": "string", "enum": states}, **schema["properties"]}
        schema["required"] = ["state"]
        return Tool(
            MOVE,
            "Move the conversation to another state, once the caller has answered the present one. Give what "
            "the caller said under the names that the present state asks for.",
            schema,
        )

    def _values(self) -> dict[str, str]:
        return {**self._variables, **self._times(), **self._position.known}

    def _times(self) -> dict[str, str]:
        now = self._now()
        return {
            "now.date": now.strftime("%Y-%m-%d"),
            "now.time": now.strftime("%H:%M"),
            "now.weekday": now.strftime("%A"),
        }

    def _note(self, line: str) -> None:
        self._results = [*self._results, line][-_LAST_RESULTS:]


def _json(value: Mapping[str, Any]) -> str:
    return msgspec.json.encode(value).decode()


def _asked(one: Field) -> str:
    words = [one.description] if one.description else []
    if one.choices or one.pattern or one.type != "text":
        words.append(one.expected)
    if not one.required:
        words.append("may be left out")
    return f"{one.name} ({'; '.join(words)})" if words else one.name


def _with_words(description: str, say: str) -> str:
    return f'{description} Before you call it, tell the caller. Say: "{say}"' if say else description
