"""What each family of Gemini's Live models accepts: another model may need a set-up of another shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from arivox.providers.base import Capabilities

Backend = Literal["studio", "vertex"]
Update = Literal["context", "system turn", "note"]


@dataclass(frozen=True, slots=True)
class Traits:
    """One family of models. Source: the models' pages and the Live API reference, autumn 2026."""

    version: str
    """Version of AI Studio's API that serves it."""
    thinking: Literal["none", "level", "budget"]
    """How ``thinkingConfig`` says how much to think; ``none``: it is refused."""
    behaviour: Literal["", "BLOCKING", "NON_BLOCKING"]
    """Declared for each function, so that the agent waits for its result where the model can.

    Empty: the model knows only blocking ones and refuses to be told.
    """
    seeded_history: bool
    """The conversation so far goes in as ``clientContent`` that ``historyConfig`` announces.

    Else as turns that are left incomplete.
    """
    notes: Literal["content", "text"]
    """How text gets in in mid-session: ``clientContent`` is taken all the time, or ``realtimeInput`` only."""
    updates: dict[Backend, Update]
    """How instructions change in mid-session."""
    idle_status: bool = False
    """A turn is over only when ``interactionStatus`` is IDLE."""

    def capabilities(self, backend: Backend) -> Capabilities:
        """Return what a session with such a model can do."""
        update = self.updates.get(backend, "note")
        return Capabilities(
            turns=backend == "vertex",
            truncate=False,
            cancel=False,
            update=update,
            update_tools=update == "context",
            resume=True,
            full_duplex=False,
        )


# By the beginning of the model's name; the longest that fits counts.
_FAMILIES: Final[dict[str, Traits]] = {
    "gemini-3.8-live": Traits(
        version="v1",
        thinking="none",
        behaviour="BLOCKING",
        seeded_history=True,
        notes="content",
        updates={"studio": "note", "vertex": "context"},
    ),
    "gemini-3.8-live-extended-thinking": Traits(
        version="v1",
        thinking="level",
        behaviour="NON_BLOCKING",
        seeded_history=True,
        notes="content",
        updates={"studio": "note", "vertex": "context"},
        idle_status=True,
    ),
    "gemini-3.1-flash-live": Traits(
        version="v1beta",
        thinking="level",
        behaviour="",
        seeded_history=True,
        notes="text",
        updates={"studio": "note"},
    ),
    "gemini-2.5-flash-native-audio": Traits(
        version="v1beta",
        thinking="budget",
        behaviour="BLOCKING",
        seeded_history=False,
        notes="content",
        updates={"studio": "note"},
    ),
    "gemini-live-2.5-flash": Traits(
        version="v1beta",
        thinking="budget",
        behaviour="BLOCKING",
        seeded_history=False,
        notes="content",
        updates={"studio": "note", "vertex": "system turn"},
    ),
}
NEWEST: Final = "gemini-3.8-live"
# Tokens for models that take a budget (Live API reference, thinkingBudget).
THINKING_BUDGET: Final = {"minimal": 0, "low": 512, "medium": 2048, "high": 8192}


def traits_of(model: str) -> Traits:
    """Return the traits of a model; one that is not known is taken to be like the newest."""
    name = model.rpartition("/")[2]
    known = [family for family in _FAMILIES if name.startswith(family)]
    return _FAMILIES[max(known, key=len, default=NEWEST)]
