"""The prompts file: a system instruction and the prompts of the states, for each provider."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml

from arivox.conversation.flow import ASIDES, Flow
from arivox.errors import SettingsError

PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")
"""Stands in a prompt for what the caller has said."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """What one provider is told. ``states`` keeps the order of the file, which is the normal way."""

    system_instruction: str
    states: dict[str, str]

    @property
    def flow(self) -> Flow:
        """Return the flow through the states."""
        return Flow(tuple(self.states))

    @property
    def way(self) -> tuple[str, ...]:
        """Return the states of the normal way, in order."""
        return self.flow.way


def default_text() -> str:
    """Return the prompts file of the package."""
    return resources.files("arivox.conversation").joinpath("prompts.yaml").read_text(encoding="utf-8")


def load(path: Path | None, sections: Sequence[str]) -> Prompts:
    """Load the first of ``sections`` that is there, from ``path`` or the package. Raises SettingsError."""
    source = str(path) if path is not None else "the package's prompts.yaml"
    try:
        text = path.read_text(encoding="utf-8") if path is not None else default_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("PROMPTS_FILE", f"cannot read {source}: {error}") from error
    return parse(text, sections, source)


def parse(text: str, sections: Sequence[str], source: str) -> Prompts:
    """Parse the first of ``sections`` in a file. Raises SettingsError that names the place at fault."""

    def fault(where: str, problem: str) -> SettingsError:
        return SettingsError("PROMPTS_FILE", f"{where} {problem}", source=source)

    try:
        # The base loader leaves every prompt as the text it was written as: "no" is not false.
        content: Any = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - it makes only text
    except (yaml.YAMLError, RecursionError) as error:
        raise fault("the file", f"is not valid YAML: {error}") from error
    provider = next((name for name in sections if isinstance(content, dict) and name in content), None)
    if provider is None or not isinstance(content[provider], dict):
        raise fault("the file", f"has no section {' or '.join(map(repr, sections))}")
    section = content[provider]
    instruction = section.get("system_instruction", "")
    if not isinstance(instruction, str):
        raise fault(f"{provider}.system_instruction", "must be text")
    states = section.get("states")
    if not isinstance(states, dict) or not states:
        raise fault(f"{provider}.states", "must map names of states to their prompts")
    for name, prompt in states.items():
        if not isinstance(name, str) or not isinstance(prompt, str) or not prompt.strip():
            raise fault(f"{provider}.states.{name}", "must be a prompt (text)")
    if all(name in ASIDES for name in states):
        raise fault(f"{provider}.states", f"has no state besides {' and '.join(ASIDES)}")
    return Prompts(instruction.strip(), {name: " ".join(prompt.split()) for name, prompt in states.items()})
