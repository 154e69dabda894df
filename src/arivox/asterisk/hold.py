"""Whether the far end of a channel holds it."""

from __future__ import annotations

from arivox.asterisk.client import AriClient
from arivox.errors import AsteriskError, ChannelGoneError


async def on_hold(ari: AriClient, channel_id: str) -> bool:
    """Return whether the telephone holds the call. Raises AsteriskError.

    Only channels of PJSIP know; of others it is taken that they do not: an agent that speaks to nobody is
    better than one that never speaks again.
    """
    try:
        return await ari.variable(channel_id, "CHANNEL(rtp,hold,audio)") == "1"
    except ChannelGoneError:
        raise
    except AsteriskError as error:
        if error.status is None:
            raise
        return False
