"""What was counted in a call, for the log line at its end."""

from __future__ import annotations

from typing import Any

from arivox.call.exchange import Exchange
from arivox.media.rtp.link import RtpLink


def counted(link: RtpLink | None, exchange: Exchange | None) -> dict[str, Any]:
    """Return the counters of a call, by name; of a call without media or AI there are fewer."""
    counters: dict[str, Any] = {}
    if link is not None:
        counters |= link.counters()
    if exchange is not None:
        playout, session = exchange.playout, exchange.session.counters
        counters |= {
            "agent_heard_s": round(playout.heard_total_ms / 1000, 1),
            "agent_overflow_bytes": playout.overflow_bytes,
            "agent_underruns": playout.underruns,
            "ai_messages_in": session.messages_in,
            "ai_messages_out": session.messages_out,
            "ai_audio_s": round(session.audio_in_ms / 1000, 1),
            "ai_late_audio_ms": round(session.late_audio_ms + playout.audio.ms(playout.late_bytes)),
            "uplink_frames": session.audio_out_frames,
            "uplink_dropped": session.uplink_dropped_frames,
            "ai_reconnects": session.reconnects,
            "ai_left_out": session.left_out,
            "ai_skipped_silence_ms": round(session.skipped_silence_ms),
            **{f"usage_{name}": value for name, value in session.usage.items()},
        }
    return counters
