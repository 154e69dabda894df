"""``arivox flow``: check and draw a prompts file, or make one of the scripts' ``prompts.js``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from arivox.conversation import prompts
from arivox.conversation.check import faults
from arivox.conversation.diagram import mermaid
from arivox.conversation.promptsjs import convert as convert_script
from arivox.errors import SettingsError
from arivox.providers import registry

flow = typer.Typer(help="The flow of the conversation: check, draw, convert.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The prompts file (YAML).")]


@flow.command()
def check(file: File) -> None:
    """Report every fault of a prompts file, with line and column. Exit code 1 when there is one."""
    found = faults(_read(file))
    for fault in found:
        typer.echo(f"{file}: {fault}")
    if found:
        raise typer.Exit(1)
    typer.echo(f"{file}: no faults")


@flow.command()
def draw(
    file: File,
    provider: Annotated[str, typer.Option(help="Whose section: openai, gemini or openai-live.")] = "openai",
) -> None:
    """Write the flow as a Mermaid diagram."""
    sections = registry.find(provider, "--provider").sections
    loaded = prompts.parse(_read(file), sections, str(file))
    sys.stdout.write(mermaid(loaded.flow))


@flow.command()
def convert(file: Annotated[Path, typer.Argument(metavar="PROMPTS.JS", help="Of the scripts.")]) -> None:
    """Write the prompts file that says the same as the scripts' prompts.js."""
    sys.stdout.write(convert_script(_read(file), str(file)))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("FILE", f"cannot read {file}: {error}") from error
