"""The caller of a call, as Asterisk knows them: after a transfer by their telephone it is somebody else."""

from __future__ import annotations

import asyncio

from arivox.asterisk.messages import CallerId, Channel, Dialplan


class Caller:
    """The channel of the caller, and whether it is still ours to do something with."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.party: CallerId = channel.caller
        """Who they are; name and number may be empty."""
        self.place: Dialplan | None = None
        """Where the dialplan goes on with them, where it is not at their channel's own place."""
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
        return self.party.number

    @property
    def present(self) -> bool:
        """Return whether their channel is in the application."""
        return not self._gone.is_set()

    @property
    def released(self) -> bool:
        """Return whether their channel is no longer ours."""
        return self.let_go or not self.present

    def succeeded_by(self, channel: Channel) -> None:
        """Hear that another channel stands in the place of theirs, in the dialplan as well."""
        if self.place is None:
            self.place = self.channel.dialplan.following
        self.channel = channel
        self.party = channel.caller

    def leave(self) -> None:
        """Hear that their channel left the application."""
        self._gone.set()

    async def wait_gone(self) -> None:
        """Return once their channel has left."""
        await self._gone.wait()
