"""ARI: the REST verbs we need and the events WebSocket (Asterisk 20 and newer).

Credentials travel in a header, never in a URL.
"""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
import structlog

from arivox.asterisk import messages
from arivox.asterisk.messages import AnyEvent, Application, Bridge, Channel
from arivox.backoff import delays
from arivox.errors import AsteriskError, ChannelGoneError, ProtocolError

log = structlog.get_logger()

OnEvent = Callable[[AnyEvent], None]
T = TypeVar("T")

# Asterisk closes idle connections after 15 s by default; reusing one at that moment fails.
_KEEPALIVE_S: Final = 5.0
# Asterisk's listen queue holds ten: more connections at once lose their SYN and wait a second.
_CONNECTIONS: Final = 8
_HEARTBEAT_S: Final = 10.0
_FIRST_RETRY_S: Final = 0.2
_LAST_RETRY_S: Final = 5.0
# Asterisk's answers for a channel or bridge that ended while the request was on its way.
_GONE: Final = frozenset({404, 409, 412, 422})


class AriClient:
    """A client of one Asterisk, for one Stasis application. An async context manager."""

    def __init__(self, url: str, username: str, password: str, app: str, *, timeout_s: float = 5.0) -> None:
        self.url = url.rstrip("/").removesuffix("/ari")
        self.app = app
        credentials = base64.b64encode(f"{username}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {credentials}"}
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._http: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"<AriClient {self.url} app={self.app}>"

    async def __aenter__(self) -> AriClient:
        self._http = aiohttp.ClientSession(
            headers=self._headers,
            timeout=self._timeout,
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=_KEEPALIVE_S),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    # --- events ---

    async def listen(
        self, on_event: OnEvent, on_up: Callable[[], None], on_down: Callable[[], None] = lambda: None
    ) -> None:
        """Deliver events for ever, reconnecting with back-off. ``on_up`` is called after each connect.

        Raises AsteriskError when Asterisk refuses the credentials, and when another program takes the
        application over: trying again would not help, or would make the two fight.
        """
        waits = delays(_FIRST_RETRY_S, _LAST_RETRY_S)
        told = False
        while True:
            connected_at = float("inf")
            try:
                async with self._session.ws_connect(
                    f"{self.url}/ari/events",
                    params={"app": self.app, "subscribeAll": "false"},
                    heartbeat=_HEARTBEAT_S,
                    max_msg_size=0,
                ) as socket:
                    connected_at = time.monotonic()
                    told = False
                    on_up()
                    try:
                        await self._deliver(socket, on_event)
                    finally:
                        on_down()
                    log.warning("Asterisk closed the events connection", code=socket.close_code)
            except aiohttp.WSServerHandshakeError as error:
                if error.status in (401, 403):
                    raise AsteriskError(
                        "Asterisk refuses ARI_USERNAME and ARI_PASSWORD",
                        status=error.status,
                        hint="Compare them with ari.conf",
                    ) from None
                self._report(f"HTTP {error.status}", told)
                told = True
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._report(_why(error), told)
                told = True
            # A server that takes the connection and drops it at once is not hammered.
            if time.monotonic() - connected_at > _LAST_RETRY_S:
                waits = delays(_FIRST_RETRY_S, _LAST_RETRY_S)
            await asyncio.sleep(next(waits))

    def _report(self, problem: str, told: bool) -> None:
        log.log(
            10 if told else 40,
            "cannot reach Asterisk's ARI; trying again",
            ari_url=self.url,
            error=problem,
            hint="is Asterisk running, http.conf enabled, and ARI_URL right?",
        )

    async def _deliver(self, socket: aiohttp.ClientWebSocketResponse, on_event: OnEvent) -> None:
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            try:
                event = messages.parse_event(message.data)
            except ProtocolError as error:
                log.error("an event of Asterisk is ignored", error=str(error))
                continue
            if isinstance(event, messages.ApplicationReplaced):
                raise AsteriskError(
                    f"another program took the Stasis application {self.app!r} over",
                    hint="Give each Arivox its own ARI_APP_NAME",
                )
            try:
                on_event(event)
            except Exception:
                # A bug in one call's handler must not take the other calls down.
                log.exception("a bug of ours in handling an event", event_type=type(event).__name__)

    # --- requests ---

    async def ping(self) -> None:
        """Check that ARI answers."""
        await self._request("GET", "asterisk/ping")

    async def version(self) -> str:
        """Return Asterisk's version."""
        info = messages.parse(await self._request("GET", "asterisk/info"), dict[str, Any])
        return str(info.get("system", {}).get("version", "unknown"))

    async def has_module(self, name: str) -> bool:
        """Return whether a module (``chan_rtp.so``) is loaded and running."""
        try:
            data = await self._request("GET", f"asterisk/modules/{name}")
        except ChannelGoneError:
            return False
        return messages.parse(data, dict[str, Any]).get("status") == "Running"

    async def endpoints(self) -> list[str]:
        """Return the names of the PJSIP endpoints."""
        data = await self._request("GET", "endpoints/PJSIP")
        return [str(one.get("resource", "")) for one in messages.parse(data, list[dict[str, Any]])]

    async def allowed_codecs(self, endpoint: str) -> tuple[str, ...]:
        """Return what ``allow=`` of a PJSIP endpoint says, in its order. Raises ChannelGoneError."""
        path = f"asterisk/config/dynamic/res_pjsip/endpoint/{quote(endpoint, safe='')}"
        found = messages.parse(await self._request("GET", path), list[dict[str, Any]])
        values = [str(one.get("value", "")) for one in found if one.get("attribute") == "allow"]
        return tuple(filter(None, values[0].strip("()").split("|"))) if values else ()

    async def application(self) -> Application:
        """Return what our application holds. Raises ChannelGoneError when Asterisk does not know it."""
        return messages.parse(await self._request("GET", f"applications/{self.app}"), Application)

    async def channel(self, channel_id: str) -> Channel:
        """Return a channel. Raises ChannelGoneError."""
        return messages.parse(await self._request("GET", f"channels/{channel_id}"), Channel)

    async def ring(self, channel_id: str) -> None:
        """Let an inbound call that is not answered yet ring."""
        await self._request("POST", f"channels/{channel_id}/ring")

    async def answer(self, channel_id: str) -> None:
        """Answer an inbound call."""
        await self._request("POST", f"channels/{channel_id}/answer")

    async def hang_up(self, channel_id: str, reason: str = "normal") -> None:
        """Hang a channel up. ``reason``: normal, busy, congestion, no_answer."""
        await self._request("DELETE", f"channels/{channel_id}", {"reason": reason})

    async def continue_in_dialplan(
        self, channel_id: str, context: str = "", exten: str = "", priority: int = 1
    ) -> None:
        """Give the channel back to the dialplan: at an extension, or at the priority after ``Stasis()``."""
        place = {"context": context, "extension": exten, "priority": str(priority)} if exten else None
        await self._request("POST", f"channels/{channel_id}/continue", place)

    async def originate(
        self, channel_id: str, endpoint: str, *, caller_id: str, originator: str, timeout_s: float
    ) -> Channel:
        """Dial an endpoint; its channel enters the application when it is answered.

        Refused with HTTP 500 where nobody knows the endpoint, and while a stop of Asterisk is pending.
        """
        query = {
            "endpoint": endpoint,
            "app": self.app,
            "channelId": channel_id,
            "originator": originator,
            "timeout": str(max(round(timeout_s), 1)),
        }
        if caller_id:
            query["callerId"] = caller_id
        return messages.parse(await self._request("POST", "channels", query), Channel)

    async def send_dtmf(self, channel_id: str, digits: str) -> None:
        """Press keys towards the far end of a channel."""
        await self._request("POST", f"channels/{channel_id}/dtmf", {"dtmf": digits})

    async def start_music(self, channel_id: str, music: str) -> None:
        """Play music on hold of a class to a channel."""
        await self._request("POST", f"channels/{channel_id}/moh", {"mohClass": music})

    async def stop_music(self, channel_id: str) -> None:
        """Stop the music on hold."""
        await self._request("DELETE", f"channels/{channel_id}/moh")

    async def variable(self, channel_id: str, name: str) -> str:
        """Return a channel variable or function; ``""`` when it is not set."""
        try:
            data = await self._request("GET", f"channels/{channel_id}/variable", {"variable": name})
        except ChannelGoneError as error:
            if "variable" in error.problem:
                return ""
            raise
        return str(messages.parse(data, dict[str, Any]).get("value", ""))

    async def set_variable(self, channel_id: str, name: str, value: str) -> None:
        """Set a channel variable or function."""
        await self._request("POST", f"channels/{channel_id}/variable", {"variable": name, "value": value})

    async def external_media(self, channel_id: str, host: str, port: int, codec: str) -> Channel:
        """Create a channel that exchanges RTP with ``host:port``; it answers by itself.

        Refused with HTTP 500 while a stop of Asterisk is pending, which makes no new channels then.

        The answer names Asterisk's own address in ``channelvars`` (``UNICASTRTP_LOCAL_ADDRESS``, ``_PORT``).
        """
        query = {
            "app": self.app,
            "channelId": channel_id,
            "external_host": f"{host}:{port}",
            "format": codec,
        }
        return messages.parse(await self._request("POST", "channels/externalMedia", query), Channel)

    async def create_bridge(self, bridge_id: str) -> Bridge:
        """Create a two-party bridge. Its name tells whose it is: other applications have bridges, too."""
        query = {"type": "mixing", "name": self.app}
        return messages.parse(await self._request("POST", f"bridges/{bridge_id}", query), Bridge)

    async def add_to_bridge(self, bridge_id: str, *channel_ids: str) -> None:
        """Add channels to a bridge."""
        await self._request("POST", f"bridges/{bridge_id}/addChannel", {"channel": ",".join(channel_ids)})

    async def remove_from_bridge(self, bridge_id: str, channel_id: str) -> None:
        """Take a channel out of a bridge."""
        await self._request("POST", f"bridges/{bridge_id}/removeChannel", {"channel": channel_id})

    async def bridge(self, bridge_id: str) -> Bridge:
        """Return a bridge, and who is in it. Raises ChannelGoneError."""
        return messages.parse(await self._request("GET", f"bridges/{bridge_id}"), Bridge)

    async def bridges(self) -> list[Bridge]:
        """Return all bridges of Asterisk, and who is in them."""
        return messages.parse(await self._request("GET", "bridges"), list[Bridge])

    async def destroy_bridge(self, bridge_id: str) -> None:
        """Destroy a bridge; its channels stay."""
        await self._request("DELETE", f"bridges/{bridge_id}")

    async def play(self, channel_id: str, media: str, playback_id: str) -> None:
        """Play ``sound:NAME`` or ``tone:NAME`` to a channel.

        A tone goes on until it is stopped, and whatever else is asked of the channel waits for that.
        """
        await self._request("POST", f"channels/{channel_id}/play/{playback_id}", {"media": media})

    async def stop_playback(self, playback_id: str) -> None:
        """Stop a sound."""
        await self._request("DELETE", f"playbacks/{playback_id}")

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise RuntimeError("AriClient is used outside its context")
        return self._http

    async def _request(self, method: str, path: str, query: Mapping[str, str] | None = None) -> bytes:
        name = f"{method} /ari/{path}"
        try:
            async with self._session.request(method, f"{self.url}/ari/{path}", params=query) as answer:
                body = await answer.read()
                status = answer.status
        except TimeoutError as error:
            raise AsteriskError("no answer in time", request=name, hint="ARI_REQUEST_TIMEOUT_S") from error
        except (aiohttp.ClientError, OSError) as error:
            raise AsteriskError(_why(error), request=name, hint="Is Asterisk running?") from error
        if status < 400:
            return body
        problem = _error_text(body)
        if status == 401:
            raise AsteriskError(
                "ARI refuses ARI_USERNAME and ARI_PASSWORD", status=status, request=name, hint="See ari.conf"
            )
        # A channel of the query that is gone is a bad request, one of the path is not found.
        gone = status in _GONE or (status == 400 and problem == "Channel not found")
        kind = ChannelGoneError if gone else AsteriskError
        raise kind(problem, status=status, request=name)


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        if number is not None and number > 0:
            # The library's text speaks of TLS where there is none.
            return f"cannot connect to {error.host}:{error.port}: {os.strerror(number)}"
    return str(error) or type(error).__name__


def _error_text(body: bytes) -> str:
    try:
        content = msgspec.json.decode(body)
    except msgspec.MsgspecError:
        return body[:200].decode(errors="replace") or "refused"
    if isinstance(content, dict):
        return str(content.get("message") or content.get("error") or content)
    return str(content)
