"""The exceptions: they carry data, and their texts say who is at fault and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from arivox import errors
from arivox.errors import (
    ArivoxError,
    AsteriskError,
    ChannelGoneError,
    PortsExhaustedError,
    ProtocolError,
    ProviderError,
    SettingsError,
    StoreError,
)

EXAMPLES = {
    SettingsError("MAX_CALLS", "'x' is not a whole number"): "MAX_CALLS: 'x' is not a whole number.",
    SettingsError("A", "is wrong", "Do this.", Path("/etc/.env")): "A (in /etc/.env): is wrong. Do this.",
    AsteriskError("refused"): "refused",
    AsteriskError("no such bridge", status=404, request="GET /ari/bridges/b", hint="Create it"): (
        "GET /ari/bridges/b: no such bridge (HTTP 404). Create it"
    ),
    AsteriskError("zero is a status", status=0): "zero is a status (HTTP 0)",
    ProviderError("openai", "no credit", code="insufficient_quota"): "openai [insufficient_quota]: no credit",
    ProviderError("openai", "closed"): "openai: closed",
    ProtocolError("RTP", "version 1 instead of 2"): "RTP: version 1 instead of 2",
}


@pytest.mark.parametrize(("error", "text"), EXAMPLES.items(), ids=lambda value: type(value).__name__)
def test_text(error: ArivoxError, text: str) -> None:
    assert str(error) == text
    assert isinstance(error, ArivoxError)


def test_ports_error_names_the_range_and_the_settings() -> None:
    text = str(PortsExhaustedError(12000, 12098))
    assert "12000-12098" in text
    assert "RTP_SERVER_PORT_LAST" in text


def test_gone_is_an_error_of_asterisk_and_provider_errors_are_fatal_unless_said() -> None:
    gone = ChannelGoneError("Channel not found", status=404)
    assert isinstance(gone, AsteriskError)
    assert gone.status == 404
    assert ProviderError("openai", "x").fatal
    assert not ProviderError("openai", "x", fatal=False).fatal


def test_every_exception_of_the_module_is_ours_and_described() -> None:
    found = [item for item in vars(errors).values() if isinstance(item, type)]
    exceptions = [item for item in found if issubclass(item, Exception)]
    assert StoreError in exceptions
    for item in exceptions:
        assert issubclass(item, ArivoxError)
        assert item.__doc__
        assert item.__name__.endswith("Error")
