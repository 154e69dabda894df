"""The exceptions of Arivox, split by what the reader can do about them.

Errors of libraries are mapped to these where they enter, so nothing above a border needs to know which
library stands behind it. Errors carry data; the text is made in ``__str__``. No secret ever goes into one.
"""

from __future__ import annotations

from pathlib import Path


class ArivoxError(Exception):
    """Base of everything Arivox raises on purpose."""


class SettingsError(ArivoxError):
    """A setting is missing or has a value that cannot work: correct it and start again."""

    def __init__(self, setting: str, problem: str, hint: str = "", source: Path | str | None = None) -> None:
        super().__init__(setting, problem, hint, source)
        self.setting = setting
        self.problem = problem
        self.hint = hint
        self.source = source

    def __str__(self) -> str:
        where = f" (in {self.source})" if self.source else ""
        hint = f" {self.hint}" if self.hint else ""
        return f"{self.setting}{where}: {self.problem}.{hint}"


class AsteriskError(ArivoxError):
    """Asterisk could not be reached, or refused a request."""

    def __init__(self, problem: str, *, status: int | None = None, request: str = "", hint: str = "") -> None:
        super().__init__(problem, status, request, hint)
        self.problem = problem
        self.status = status
        self.request = request
        self.hint = hint

    def __str__(self) -> str:
        request = f"{self.request}: " if self.request else ""
        status = f" (HTTP {self.status})" if self.status is not None else ""
        hint = f". {self.hint}" if self.hint else ""
        return f"{request}{self.problem}{status}{hint}"


class ChannelGoneError(AsteriskError):
    """The channel or bridge of a request no longer exists: the caller hung up meanwhile."""


class PortsExhaustedError(ArivoxError):
    """Every RTP port of the configured range is in use."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__(first, last)
        self.first = first
        self.last = last

    def __str__(self) -> str:
        return (
            f"no free RTP port in {self.first}-{self.last}. "
            "Widen the range with RTP_SERVER_PORT and RTP_SERVER_PORT_LAST, or lower MAX_CALLS"
        )


class ProviderError(ArivoxError):
    """The speech AI refused something or failed. ``fatal`` says whether the session is over.

    ``lost`` says that another session may do: whatever ends one that was set up, save a key, account, quota,
    permission or model that is refused. ``retry_after_s`` is how long the service asks to wait, ``rejected``
    that it withheld an answer for what is in it: the same words would be withheld again.
    """

    def __init__(
        self,
        provider: str,
        message: str,
        *,
        code: str = "",
        fatal: bool = True,
        lost: bool = False,
        retry_after_s: float | None = None,
        rejected: bool = False,
    ) -> None:
        super().__init__(provider, message, code, fatal, lost)
        self.provider = provider
        self.message = message
        self.code = code
        self.fatal = fatal
        self.lost = lost
        self.retry_after_s = retry_after_s
        self.rejected = rejected

    def __str__(self) -> str:
        code = f" [{self.code}]" if self.code else ""
        return f"{self.provider}{code}: {self.message}"


class StoreError(ArivoxError):
    """The store of conversations could not be reached or refused a request."""


class ProtocolError(ArivoxError):
    """A peer sent something its protocol does not allow."""

    def __init__(self, protocol: str, problem: str) -> None:
        super().__init__(protocol, problem)
        self.protocol = protocol
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.protocol}: {self.problem}"
