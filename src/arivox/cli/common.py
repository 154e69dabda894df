"""What the commands share: the options of the settings, and the event loop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import structlog
import typer

from arivox import logs
from arivox.settings import settings
from arivox.settings.settings import Settings

T = TypeVar("T")

EnvFile = Annotated[
    Path | None, typer.Option("--env-file", help="Settings file instead of .env.", show_default=False)
]
ProviderOption = Annotated[
    str | None,
    typer.Option(
        "--provider",
        help="Which AI: openai, gemini or openai-live, instead of AI_SERVICE_PROVIDER.",
        show_default=False,
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML settings instead of arivox.yaml.", show_default=False)
]


def load_settings(env_file: Path | None, config: Path | None, **overrides: str | None) -> Settings:
    """Load the settings, set the logs up, and log what deserves a warning. Raises SettingsError."""
    given = {name.upper(): value for name, value in overrides.items() if value is not None}
    loaded = settings.load(env_file=env_file, yaml_file=config, overrides=given)
    # A command that keeps its own log low still says what is wrong with the settings.
    level = "warning" if "LOG_LEVEL" in given else loaded.settings.log_level
    logs.setup(replace(loaded.settings, log_level=level))
    for warning in loaded.warnings:
        structlog.get_logger().warning(warning)
    logs.setup(loaded.settings)
    return loaded.settings


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` on uvloop where it is installed, else on asyncio's own loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def on_signals(stop: Callable[[], object]) -> None:
    """Call ``stop`` on SIGINT and SIGTERM, from within the running loop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
