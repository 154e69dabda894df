"""What every call shares."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from arivox.asterisk.client import AriClient
from arivox.asterisk.messages import Channel
from arivox.call.timeline import Watcher
from arivox.conversation.memory.writer import Writer
from arivox.conversation.prompts import Prompts
from arivox.conversation.tools.box import ToolBox
from arivox.media.clock import Pacer
from arivox.media.rtp.ports import PortRange
from arivox.providers.registry import Provider
from arivox.settings.settings import Settings


@dataclass(frozen=True)
class CallContext:
    """What every call shares."""

    settings: Settings
    ari: AriClient
    pacer: Pacer
    ports: PortRange
    rtp_host: str
    """Address that Asterisk is told to send RTP to."""
    executor: Executor
    """One thread for slow disk work."""
    choose_provider: Callable[[str, str], tuple[Provider, Prompts]]
    """Finds a provider by its name (empty: the service's own), for an error that names where the name stood.
    Raises SettingsError."""
    expect_channel: Callable[[str], asyncio.Future[Channel]]
    """Arms a wait for a channel of ours to enter the application."""
    toolbox: ToolBox
    connect: Callable[[str, str, str], None]
    """Leaves a bridge, the caller's channel in it and a colleague's to themselves, until one hangs up."""
    watchers: tuple[Watcher, ...] = ()
    memory: Writer | None = None
    """Where turns are stored; None: nowhere."""
