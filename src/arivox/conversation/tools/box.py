"""Every tool that the calls of one service may use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import aiohttp

from arivox.conversation.endpoint import Endpoint
from arivox.conversation.tools import python
from arivox.conversation.tools.builtin import FACTS
from arivox.conversation.tools.calendar import Calendar
from arivox.conversation.tools.http import of_endpoint
from arivox.conversation.tools.names import RESERVED
from arivox.conversation.tools.tool import Facts, OwnTool, facts_of
from arivox.errors import SettingsError


class ToolBox:
    """The package's own calendar, and the functions of TOOLS_FILE."""

    def __init__(self, tools_file: Path | None, calendar: Calendar) -> None:
        """Load the tools. Raises SettingsError."""
        own = python.load_file(tools_file) if tools_file is not None else {}
        for name in own:
            if name in RESERVED:
                raise SettingsError("TOOLS_FILE", f"{name!r} is the name of a tool of Arivox: choose another")
        self._own = {**calendar.tools(), **own}
        self._client: aiohttp.ClientSession | None = None

    @property
    def facts(self) -> dict[str, Facts]:
        """Return what the check of a prompts file needs to know of each tool, by name."""
        own = {name: facts_of(tool.parameters, tool.finds) for name, tool in self._own.items()}
        return {**FACTS, **own}

    def with_endpoints(self, endpoints: Mapping[str, Endpoint]) -> dict[str, OwnTool]:
        """Return the tools by name, with those of a prompts file."""
        return self._own | {name: of_endpoint(one, self._http) for name, one in endpoints.items()}

    async def close(self) -> None:
        """Close what is open."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _http(self) -> aiohttp.ClientSession:
        if self._client is None:
            # No cookies: those of one caller must not be sent for another.
            self._client = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self._client


def package_facts() -> dict[str, Facts]:
    """Return the facts of the tools of the package itself."""
    return ToolBox(None, Calendar(":memory:")).facts
