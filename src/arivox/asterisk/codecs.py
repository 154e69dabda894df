"""Codecs that Asterisk cannot translate: it answers and bridges all the same, and nothing is heard."""

from __future__ import annotations

import structlog

from arivox.asterisk.client import AriClient
from arivox.errors import ArivoxError, ChannelGoneError

log = structlog.get_logger()

SPOKEN = frozenset({"ulaw", "alaw"})
"""What our media channels speak; Asterisk has these built in."""


def names(formats: str) -> tuple[str, ...]:
    """Return the codecs of a list as Asterisk writes it: ``(ulaw|alaw|g722)``."""
    return tuple(filter(None, formats.strip().strip("()").split("|")))


def mend(codec: str) -> str:
    """Return what to do about a codec that cannot be translated."""
    return (
        f"take {codec} out of allow= of the endpoint (pjsip.conf), or install Asterisk's module for it "
        "(see core show translation)"
    )


async def in_bridge(ari: AriClient, bridge_id: str, channel_id: str) -> bool:
    """Return whether a channel is in a bridge. Raises AsteriskError."""
    try:
        return channel_id in (await ari.bridge(bridge_id)).channels
    except ChannelGoneError:
        return False


async def foreign_codec(ari: AriClient, channel_id: str) -> str:
    """Return the codec of a channel that is none of ours; empty where there is none, or it is not known."""
    try:
        native = names(await ari.variable(channel_id, "CHANNEL(audionativeformat)"))
    except ArivoxError:
        return ""
    # With several codecs agreed on, the first is the one in use.
    return native[0] if native and native[0] not in SPOKEN and not native[0].startswith("slin") else ""


async def complain(ari: AriClient, channel_id: str, who: str) -> None:
    """Log why a channel does not stay in its bridge; ``who`` speaks over it."""
    codec = await foreign_codec(ari, channel_id)
    if codec:
        log.error(
            "Asterisk cannot translate a codec: nothing would be heard",
            who=who,
            codec=codec,
            hint=mend(codec),
        )
    else:
        log.error(
            "Asterisk took a channel out of its bridge: nothing would be heard",
            who=who,
            hint="its own log says why; did somebody else do it, by ARI or the console?",
        )
