"""``arivox doctor``: check the installation and say what to mend."""

from __future__ import annotations

from typing import Final

import typer
from rich.console import Console

from arivox.cli.common import ConfigFile, EnvFile, ProviderOption, load_settings, run_loop
from arivox.doctor import examine
from arivox.settings.settings import Settings

_MARKS: Final = {
    "ok": "[green]ok     [/]",
    "warning": "[yellow]warning[/]",
    "failed": "[red]failed [/]",
    "skipped": "[dim]skipped[/]",
}


def doctor(provider: ProviderOption = None, env_file: EnvFile = None, config: ConfigFile = None) -> None:
    """Check Asterisk, RTP, the AI and the store. Exit code 1 when something must be mended."""
    loaded = load_settings(env_file, config, log_level="error", ai_service_provider=provider)
    failures = run_loop(_examine(loaded))
    if failures:
        raise typer.Exit(1)


async def _examine(settings: Settings) -> int:
    console = Console(highlight=False)
    failures = 0
    async for finding in examine(settings):
        failures += finding.state == "failed"
        console.print(f"{_MARKS[finding.state]} {finding.name:10} ", end="")
        console.print(finding.text, markup=False, soft_wrap=True)
        if finding.hint:
            console.print(f"{'':19}-> {finding.hint}", markup=False, soft_wrap=True)
    console.print(
        "Everything is in order." if not failures else f"{failures} to mend.",
        style="green" if not failures else "red",
    )
    return failures
