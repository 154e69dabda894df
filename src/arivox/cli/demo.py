"""``arivox demo``: a real call, with no key and no account."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from arivox import logs
from arivox.cli.common import ProviderOption, on_signals, run_loop
from arivox.settings import settings
from arivox.settings.settings import Settings


def demo(
    provider: ProviderOption = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything up for a softphone, until Ctrl-C.")
    ] = False,
    output: Annotated[Path, typer.Option(help="Folder for the recording.")] = Path("demo-output"),
    sip_bind: Annotated[
        str, typer.Option(help="Address for SIP; 0.0.0.0 lets phones of other machines register.")
    ] = "127.0.0.1",
) -> None:
    """Place a real call through a real Asterisk to an AI, and show the conversation.

    Without a key (OPENAI_API_KEY, GEMINI_API_KEY) the AI is emulated on this machine.
    """
    # The demo brings its own Asterisk: of the user's settings only those of the AI count.
    overrides = {"LOG_LEVEL": os.environ.get("LOG_LEVEL", "error"), "AI_SERVICE_PROVIDER": provider or ""}
    loaded = settings.load(overrides=overrides)
    logs.setup(loaded.settings)
    if not run_loop(_demo(loaded.settings, keep, output, sip_bind)):
        raise typer.Exit(1)


async def _demo(loaded: Settings, keep: bool, output: Path, sip_bind: str) -> bool:
    from arivox.demo.stage import Options, run

    console = Console(highlight=False)
    playing = asyncio.ensure_future(run(loaded, Options(output, keep, sip_bind), console))
    on_signals(playing.cancel)
    try:
        return await playing
    except asyncio.CancelledError:
        console.print("Stopped.")
        return keep
