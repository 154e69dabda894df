"""The prompts file: a system instruction and the states of the conversation, for each AI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from arivox.conversation.check import check_section
from arivox.conversation.endpoint import Endpoint
from arivox.conversation.flow import Flow
from arivox.conversation.reader import PromptsFile
from arivox.conversation.state import CHANNEL, PLACEHOLDER, State
from arivox.conversation.tools.box import package_facts
from arivox.conversation.tools.tool import Facts
from arivox.errors import SettingsError

Tools = Mapping[str, Facts]


@dataclass(frozen=True, slots=True)
class Prompts:
    """What one AI is told. ``states`` keeps the order of the file."""

    system_instruction: str
    states: Mapping[str, State]
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    """The tools that the file declares."""

    @property
    def flow(self) -> Flow:
        """Return the flow through the states."""
        return Flow(self.states)

    @property
    def way(self) -> tuple[str, ...]:
        """Return the states that are no asides, in order."""
        return self.flow.way

    @property
    def channel_variables(self) -> tuple[str, ...]:
        """Return the names of the channel variables that it speaks of, ``{channel.NAME}``."""
        texts = [self.system_instruction, *(state.prompt for state in self.states.values())]
        texts += [
            text
            for state in self.states.values()
            for action in (*state.on_enter, *state.on_leave)
            for text in action.arguments.values()
        ]
        names = dict.fromkeys(name for text in texts for name, _ in PLACEHOLDER.findall(text))
        return tuple(name.removeprefix(CHANNEL) for name in names if name.startswith(CHANNEL))


def default_text() -> str:
    """Return the prompts file of the package."""
    return resources.files("arivox.conversation").joinpath("prompts.yaml").read_text(encoding="utf-8")


def load(path: Path | None, sections: Sequence[str], tools: Tools | None = None) -> Prompts:
    """Load the first of ``sections`` that is there, from ``path`` or the package. Raises SettingsError."""
    source = str(path) if path is not None else "the package's prompts.yaml"
    try:
        text = path.read_text(encoding="utf-8") if path is not None else default_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("PROMPTS_FILE", f"cannot read {source}: {error}") from error
    return parse(text, sections, source, tools)


def parse(text: str, sections: Sequence[str], source: str, tools: Tools | None = None) -> Prompts:
    """Parse the first of ``sections`` in a file. Raises SettingsError that names the place at fault.

    ``tools`` are those that there are, by name; None: the package's.
    """
    file = PromptsFile(text)
    section = file.section(sections)
    if section is not None:
        check_section(file, section, package_facts() if tools is None else tools)
    elif not file.faults:
        wanted = " or ".join(map(repr, sections))
        raise SettingsError("PROMPTS_FILE", f"has no section {wanted}", source=source)
    if file.faults:
        first, *others = sorted(file.faults)
        more = f" (and {len(others)} more: arivox flow check)" if others else ""
        raise SettingsError("PROMPTS_FILE", f"{first}{more}", source=source)
    assert section is not None
    return Prompts(section.system_instruction, section.states, file.endpoints)
