"""The caller of a call, as Asterisk knows them."""

from __future__ import annotations

import asyncio

from arivox.asterisk.messages import Channel


class Caller:
    """The channel of the caller, and whether it is still ours to do something with."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.let_go = False
        """They are a colleague's or the dialplan's now."""
        self._gone = asyncio.Event()

    @property
    def id(self) -> str:
        """Return the id of their channel."""
        return self.channel.id

    @property
    def number(self) -> str:
        """Return their telephone number; empty where it is withheld."""
        return self.channel.caller.number

    @property
    def present(self) -> bool:
        """Return whether their channel is in the application."""
        return not self._gone.is_set()

    @property
    def released(self) -> bool:
        """Return whether their channel is no longer ours."""
        return self.let_go or not self.present

    def leave(self) -> None:
        """Hear that their channel left the application."""
        self._gone.set()

    async def wait_gone(self) -> None:
        """Return once their channel has left."""
        await self._gone.wait()
