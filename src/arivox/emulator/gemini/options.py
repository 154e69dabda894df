"""What can be different about an emulated Gemini Live."""

from __future__ import annotations

from dataclasses import dataclass

from arivox.emulator.gemini.credentials import TokenStore


@dataclass(frozen=True, slots=True)
class GeminiOptions:
    """The settings of a service."""

    speed: float = 4.0
    """Pace of speech in multiples of real time."""
    setup_delay: float = 0.005
    """Seconds from the setup to ``setupComplete``; a client that does not wait for it is refused."""
    connection_limit: float | None = None
    """Seconds after which a connection is reset; Google's are 600. None: never."""
    go_away_before: float = 60.0
    """How many seconds earlier ``goAway`` announces it."""
    handle_ttl: float | None = None
    """Seconds for which a session can be resumed. None: 2 h on AI Studio, 24 h on Vertex."""
    resume_refusal: tuple[int, str] | None = None
    """Close code and reason with which every set-up that takes a session up is refused."""
    resume_hangs: bool = False
    """Whether such a set-up is never answered."""
    one_at_a_time: bool = False
    """Whether a session is only taken up once the connection that gave its handle is closed."""
    transcribes: bool = True
    """Whether there are transcripts, where they are asked for."""
    tokens: TokenStore | None = None
    """Tokens that open sessions; see ``TokenServer``. None: a store of the service's own."""
