"""``arivox flow``: check and draw a prompts file, or make one of the scripts' ``prompts.js``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from arivox.cli.common import ConfigFile, EnvFile, load_settings
from arivox.conversation import prompts
from arivox.conversation.check import faults
from arivox.conversation.diagram.mermaid import mermaid
from arivox.conversation.diagram.picture import svg
from arivox.conversation.promptsjs import convert as convert_script
from arivox.conversation.schema import schema as prompts_schema
from arivox.conversation.tools.box import ToolBox
from arivox.conversation.tools.calendar import Calendar
from arivox.conversation.tools.tool import Facts
from arivox.errors import SettingsError
from arivox.providers import registry

flow = typer.Typer(help="The flow of the conversation: check, draw, convert.", no_args_is_help=True)

_FORMATS: Final = {"mermaid": mermaid, "svg": svg}

Tools = Annotated[
    Path | None,
    typer.Option(help="Your own tools (Python), instead of TOOLS_FILE.", show_default=False),
]
File = Annotated[Path, typer.Argument(metavar="FILE", help="The prompts file (YAML).")]


@flow.command()
def check(file: File, tools: Tools = None, env_file: EnvFile = None, config: ConfigFile = None) -> None:
    """Report every fault of a prompts file, with line and column. Exit code 1 when there is one."""
    found = faults(_read(file), _facts(tools, env_file, config))
    for fault in found:
        typer.echo(f"{file}: {fault}")
    if found:
        raise typer.Exit(1)
    typer.echo(f"{file}: no faults")


@flow.command()
def draw(
    file: File,
    provider: Annotated[str, typer.Option(help="Whose section: openai, gemini or openai-live.")] = "openai",
    form: Annotated[str, typer.Option("--format", help="mermaid or svg.")] = "mermaid",
    tools: Tools = None,
    env_file: EnvFile = None,
    config: ConfigFile = None,
) -> None:
    """Write the flow as a diagram: Mermaid's language, or a picture (SVG)."""
    if form not in _FORMATS:
        raise SettingsError("--format", f"{form!r} is unknown; there are {' and '.join(_FORMATS)}")
    sections = registry.find(provider, "--provider").sections
    loaded = prompts.parse(_read(file), sections, str(file), _facts(tools, env_file, config))
    sys.stdout.write(_FORMATS[form](loaded.flow))


@flow.command()
def schema() -> None:
    """Write the JSON Schema of prompts files, for editors."""
    sys.stdout.write(json.dumps(prompts_schema(), indent=2) + "\n")


@flow.command()
def convert(file: Annotated[Path, typer.Argument(metavar="PROMPTS.JS", help="Of the scripts.")]) -> None:
    """Write the prompts file that says the same as the scripts' prompts.js."""
    sys.stdout.write(convert_script(_read(file), str(file)))


def _facts(tools: Path | None, env_file: Path | None, config: Path | None) -> dict[str, Facts]:
    """Return the tools that there are: those of the package, and of the file given or set."""
    settings = load_settings(env_file, config)
    return ToolBox(tools or settings.tools_file, Calendar(settings.calendar_file)).facts


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("FILE", f"cannot read {file}: {error}") from error
