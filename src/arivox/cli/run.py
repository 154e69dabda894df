"""``arivox run``: serve calls."""

from __future__ import annotations

from arivox.cli.common import ConfigFile, EnvFile, ProviderOption, load_settings, on_signals, run_loop
from arivox.service import Service
from arivox.settings.settings import Settings


def run(provider: ProviderOption = None, env_file: EnvFile = None, config: ConfigFile = None) -> None:
    """Serve the calls that Asterisk hands to the Stasis application. Ctrl-C or SIGTERM ends it."""
    run_loop(_serve(load_settings(env_file, config, ai_service_provider=provider)))


async def _serve(settings: Settings) -> None:
    service = Service(settings)
    on_signals(service.stop)
    await service.run()
