"""HTTP endpoints of the prompts file as tools."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import msgspec
import structlog
from yarl import URL

from arivox.conversation.endpoint import OF_THE_CALL, PLACEHOLDER, Endpoint, expand
from arivox.conversation.field import parameters, read_all
from arivox.conversation.tools.tool import OwnTool
from arivox.tools import CallInfo, ToolError

log = structlog.get_logger()

_LONGEST: Final = 65536
_VARIABLE: Final = re.compile(r"(\$\{\w+\})")
_BODIES: Final = ("POST", "PUT", "PATCH")
_OF_A_URL: Final = "!#$%&'()*+,/:;=?@[]~"


def of_endpoint(endpoint: Endpoint, client: Callable[[], aiohttp.ClientSession]) -> OwnTool:
    """Return the tool of an endpoint; ``client`` returns the HTTP client of the service."""

    def read(values: Mapping[str, Any]) -> dict[str, str]:
        return read_all(endpoint.parameters, values)

    async def work(call: CallInfo, values: dict[str, str]) -> Any:
        return await _ask(endpoint, client(), call, values)

    return OwnTool(
        endpoint.name,
        endpoint.description,
        parameters(endpoint.parameters),
        read,
        work,
        endpoint.timeout_s,
        endpoint.say,
    )


async def _ask(
    endpoint: Endpoint, client: aiohttp.ClientSession, call: CallInfo, given: Mapping[str, str]
) -> Any:
    ours = dict(zip(OF_THE_CALL, (call.caller, call.exten, call.call), strict=True))
    values = {**ours, **call.known, **call.secrets, **given}
    left_out = {name for name, one in endpoint.parameters.items() if not one.required} - values.keys()

    def put(text: str, *, in_url: bool = False) -> str:
        def value(found: re.Match[str]) -> str:
            if found[1] not in values:
                raise ToolError(f"{found[1]} is not known yet")
            return _quoted(found[1], values[found[1]]) if in_url else values[found[1]]

        return PLACEHOLDER.sub(value, text)

    def put_all(texts: Mapping[str, str]) -> dict[str, str]:
        return {
            name: put(text) for name, text in texts.items() if not left_out & {*PLACEHOLDER.findall(text)}
        }

    body: Any = None
    if endpoint.body is not None:
        body = put_all(endpoint.body)
    elif endpoint.method in _BODIES:
        body = dict(given)
    try:
        async with client.request(
            endpoint.method,
            _address(endpoint, put).update_query(put_all(endpoint.query)),
            headers={name: expand(text) for name, text in endpoint.headers.items()},
            json=body,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=endpoint.timeout_s),
        ) as answer:
            data = b""
            async for piece in answer.content.iter_chunked(_LONGEST):
                data += piece
                if len(data) > _LONGEST:
                    raise ToolError(f"the service's answer is longer than {_LONGEST} bytes")
            status = answer.status
    except TimeoutError:
        raise  # the runner tells it, as of every tool
    except (aiohttp.ClientError, OSError, ValueError, KeyError) as error:
        # The error's text may hold the URL, and that a key.
        log.warning("an HTTP tool failed", tool=endpoint.name, error=type(error).__name__)
        raise ToolError("the service cannot be reached") from error
    if status >= 300:
        log.warning("an HTTP tool was refused", tool=endpoint.name, status=status)
        told = _without_secrets(data.decode(errors="replace"), endpoint, call)[:500]
        raise ToolError(f"the service answered HTTP {status}: {told}".strip())
    try:
        return msgspec.json.decode(data) if data.strip() else None
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return data.decode(errors="replace")


def _address(endpoint: Endpoint, put: Callable[..., str]) -> URL:
    # Between the variables of the environment: what the caller says must not name one.
    parts = _VARIABLE.split(endpoint.url)
    text = "".join(expand(part) if _VARIABLE.match(part) else put(part, in_url=True) for part in parts)
    return URL(quote(text, safe=_OF_A_URL), encoded=True)


def _quoted(name: str, value: str) -> str:
    if not value.strip("."):
        raise ToolError(f"{name} cannot be {value!r}")  # in a path it would lead to another one
    return quote(value, safe="")


def _without_secrets(text: str, endpoint: Endpoint, call: CallInfo) -> str:
    # Error pages like to repeat what was asked.
    for secret in filter(None, (*call.secrets.values(), *map(os.environ.get, endpoint.variables))):
        text = text.replace(secret, "***")
    return text
