"""``arivox``: the commands."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

import arivox
from arivox.cli.calls import calls
from arivox.cli.demo import demo
from arivox.cli.doctor import doctor
from arivox.cli.emulate import emulate
from arivox.cli.flow import flow
from arivox.cli.init import init
from arivox.cli.run import run
from arivox.errors import ArivoxError

app = typer.Typer(
    help="Realtime AI voices for Asterisk.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (run, demo, doctor, init, emulate):
    app.command()(command)
app.add_typer(calls, name="calls")
app.add_typer(flow, name="flow")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"arivox {arivox.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. Our own errors end with their text and exit code 2."""
    try:
        app()
    except ArivoxError as error:
        console = Console(stderr=True, highlight=False)
        console.print("[bold red]error:[/] ", end="")
        console.print(str(error), markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
