"""What the AI of an emulated session does: the part that tests and demo exchange."""

from __future__ import annotations

from arivox.emulator.answer import Answer
from arivox.emulator.session import Line, Session, Turn


class Behaviour:
    """One session's AI. Every method may be left as it is; all of them run on the event loop.

    The session answers the protocol by itself. It asks the behaviour for what a model would decide.
    """

    listens = False
    """Whether the session finds the caller's turns in the audio (server VAD)."""
    greets = True
    """Whether the session says by itself that it is ready (``session.created`` and its like)."""
    answers = True
    """Whether a client that asks for a response gets one by itself."""
    http_status = 101
    """Anything else refuses the WebSocket upgrade with this status."""

    def opened(self, session: Session, connection: Line, now: float) -> None:
        """Begin: the socket is open."""

    def event(self, event: object, now: float) -> None:
        """Take note of a client event, after the session has handled it; audio does not come here."""

    def audio(self, data: bytes, now: float) -> None:
        """Take the audio of one append, in the session's input format."""

    def wanted(self, response: Answer, now: float) -> None:
        """Fill ``response``, which was just created: ``say``, ``call``, then ``end``."""

    def interrupted(self, now: float) -> None:
        """Take note that the caller began to speak, after any running response was cancelled."""

    def heard(self, item: Turn, now: float) -> None:
        """Take the caller's finished turn; a response may be wanted right after."""

    async def closed(self) -> None:
        """End: stop every task.

        Raises:
            Exception: What went wrong in the behaviour itself; the server raises it again when it stops.
        """
