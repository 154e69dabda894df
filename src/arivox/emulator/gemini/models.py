"""What each model takes, on each of the two backends.

Sources: the models' pages and migration notes of ai.google.dev and docs.cloud.google.com, autumn 2026, and
what was seen on the live service where they are silent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from arivox.emulator.gemini.messages import POLICY, RefusedError

Backend = Literal["studio", "vertex"]
Behavior = Literal["BLOCKING", "NON_BLOCKING"]

_VERTEX_MODEL = re.compile(
    r"(?:projects/[^/]+/locations/(?P<location>[^/]+)/)?publishers/google/models/(?P<id>[^/]+)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """One model."""

    backends: frozenset[Backend]
    regional: bool = False
    """Not served at the location ``global``."""
    thinking: Literal["none", "level", "budget"] = "none"
    """What a ``thinkingConfig`` may hold; with none there may not be one at all."""
    thinking_levels: frozenset[str] = frozenset()
    behaviors: frozenset[Behavior] = frozenset({"BLOCKING", "NON_BLOCKING"})
    default_behavior: Behavior = "BLOCKING"
    scheduling: bool = True
    """Whether results of calls may say when they are delivered."""
    proactivity: Literal["no", "always", "choice"] = "no"
    """With ``always`` it cannot be turned off."""
    affective: bool = False
    alpha_only: bool = False
    """On AI Studio, proactivity and affective dialog are in v1alpha only."""
    content: Literal["always", "seed"] = "always"
    """Whether ``clientContent`` is taken all session, or as the initial history only."""
    seeding: bool = True
    """Whether there is a ``historyConfig``."""
    context_update: Literal["vertex", "closes"] = "vertex"
    """Whether ``contextUpdate`` works on Vertex (and is ignored on AI Studio) or ends the connection."""
    media_chunks: bool = False
    always_transcribes: bool = False
    """Sends transcripts of its speech even if nobody asked for them."""
    status: bool = False
    """Says with ``turnComplete`` whether it goes on working."""


_STUDIO: Final[frozenset[Backend]] = frozenset({"studio"})
_VERTEX: Final[frozenset[Backend]] = frozenset({"vertex"})
_BOTH: Final[frozenset[Backend]] = frozenset({"studio", "vertex"})
_NATIVE_25: Final = Traits(
    backends=_STUDIO,
    thinking="budget",
    proactivity="choice",
    affective=True,
    alpha_only=True,
    seeding=False,
    context_update="closes",
    media_chunks=True,
)
MODELS: Final[dict[str, Traits]] = {
    "gemini-3.8-live": Traits(
        backends=_BOTH,
        default_behavior="NON_BLOCKING",
        proactivity="always",
        always_transcribes=True,
    ),
    "gemini-3.8-live-extended-thinking": Traits(
        backends=_BOTH,
        thinking="level",
        thinking_levels=frozenset({"LOW", "MEDIUM", "HIGH"}),
        behaviors=frozenset({"NON_BLOCKING"}),
        default_behavior="NON_BLOCKING",
        scheduling=False,
        proactivity="always",
        always_transcribes=True,
        status=True,
    ),
    "gemini-3.1-flash-live-preview": Traits(
        backends=_STUDIO,
        thinking="level",
        thinking_levels=frozenset({"MINIMAL", "LOW", "MEDIUM", "HIGH"}),
        behaviors=frozenset({"BLOCKING"}),
        content="seed",
    ),
    "gemini-2.5-flash-native-audio-preview-12-2025": _NATIVE_25,
    "gemini-2.5-flash-native-audio-latest": _NATIVE_25,
    "gemini-live-2.5-flash-native-audio": Traits(
        backends=_VERTEX,
        regional=True,
        thinking="budget",
        proactivity="choice",
        affective=True,
        seeding=False,
        context_update="closes",
        media_chunks=True,
    ),
}
VOICES: Final = frozenset(
    [
        "Zephyr",
        "Puck",
        "Charon",
        "Kore",
        "Fenrir",
        "Leda",
        "Orus",
        "Aoede",
        "Callirrhoe",
        "Autonoe",
        "Enceladus",
        "Iapetus",
        "Umbriel",
        "Algieba",
        "Despina",
        "Erinome",
        "Algenib",
        "Rasalgethi",
        "Laomedeia",
        "Achernar",
        "Alnilam",
        "Schedar",
        "Gacrux",
        "Pulcherrima",
        "Achird",
        "Zubenelgenubi",
        "Vindemiatrix",
        "Sadachbia",
        "Sadaltager",
        "Sulafat",
    ]
)


def find(name: str, backend: Backend, version: str) -> Traits:
    """Return the traits of the model that a setup names.

    Raises:
        RefusedError: There is no such model on this backend.
    """
    if backend == "studio":
        traits = MODELS.get(name.removeprefix("models/")) if name.startswith("models/") else None
        if traits is None or backend not in traits.backends:
            raise RefusedError(
                f"{name} is not found for API version {version}, or is not supported for "
                "bidiGenerateContent. Call ListModels to see the list of available models and their "
                "supported methods.",
                POLICY,
            )
        return traits
    found = _VERTEX_MODEL.fullmatch(name)
    traits = MODELS.get(found["id"]) if found else None
    if (
        found is None
        or traits is None
        or backend not in traits.backends
        or (traits.regional and found["location"] == "global")
    ):
        raise RefusedError(
            f"Publisher Model `{name}` was not found or your project does not have access to it.", POLICY
        )
    return traits
