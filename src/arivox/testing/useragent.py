"""A SIP user agent with one dialog, as a pure core (RFC 3261).

Datagrams and the time go in, events and datagrams come out. It builds requests, answers challenges,
acknowledges, retransmits over UDP and answers what others retransmit. It does not know sockets, media or
scripts: ``phone.py`` puts it on the wire.

Times are seconds of any monotonic clock, given by the caller.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from arivox.testing import sip
from arivox.testing.sip import Header, Request, Response

Address = tuple[str, int]

# RFC 3261 section 17.1.1.1 and table 4.
T1: Final = 0.5
T2: Final = 4.0
TRANSACTION_TIMEOUT: Final = 64 * T1

ALLOW: Final[Header] = ("Allow", "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, REFER, NOTIFY")
_SDP_TYPE: Final[Header] = ("Content-Type", "application/sdp")


@dataclass(frozen=True, slots=True)
class Progress:
    """A provisional response (101-199) to our INVITE; ``body`` is its description of early media, if any."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Finished:
    """The final response to our request ``method``. Status 408 with no message behind it is a time-out."""

    method: str
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Incoming:
    """A call comes in: answer ``request`` with ``respond``."""

    request: Request


@dataclass(frozen=True, slots=True)
class Reoffered:
    """The peer changes the running call (re-INVITE): answer ``request`` with ``respond``."""

    request: Request


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The peer acknowledged our 200; ``body`` is its answer if our 200 held the offer."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Referred:
    """The peer asked us to call ``target`` (REFER, RFC 3515). It was accepted with 202."""

    target: str


@dataclass(frozen=True, slots=True)
class Received:
    """Another request of the dialog (INFO, NOTIFY, OPTIONS), answered with 200."""

    request: Request


@dataclass(frozen=True, slots=True)
class Ended:
    """The peer ended the call with ``request`` (BYE or CANCEL)."""

    request: Request


Event = Progress | Finished | Incoming | Reoffered | Acknowledged | Referred | Received | Ended


@dataclass(slots=True)
class _Client:
    """A request of ours on its way."""

    request: Request
    destination: Address
    expires_at: float
    resend_at: float | None
    interval: float = T1
    provisional: bool = False
    completed: bool = False
    challenged: bool = False
    ack: bytes = b""


@dataclass(slots=True)
class _Server:
    """A request of the peer, with our last response for when it comes again."""

    request: Request
    source: Address
    expires_at: float
    response: bytes = b""
    status: int = 0
    resend_at: float | None = None  # a final response to INVITE is repeated until its ACK
    interval: float = T1


@dataclass(slots=True)
class _Dialog:
    """One call: how its requests are addressed."""

    call_id: str
    local: str
    remote: str
    target: str
    peer: Address
    sequence: int = 0
    confirmed: bool = False
    cancelled: bool = False
    invite: _Client | None = None
    offered: _Server | None = None


@dataclass(slots=True)
class UserAgent:
    """A user agent at ``local`` that speaks to ``server`` as ``user``; one call at a time.

    Drain ``outbox`` of (datagram, address) after every call into it, and call ``tick`` at ``next_timer()``.
    """

    local: Address
    server: Address
    user: str
    password: str | None = None
    display: str | None = None
    random: random.Random = field(default_factory=random.Random)
    outbox: list[tuple[bytes, Address]] = field(default_factory=list)
    _clients: dict[tuple[str, str], _Client] = field(default_factory=dict)
    _servers: dict[tuple[str, str], _Server] = field(default_factory=dict)
    _dialog: _Dialog | None = None
    _registration: _Dialog | None = None

    # -- verbs -------------------------------------------------------------------------------------------

    def register(self, now: float, expires_s: int = 60) -> None:
        """Bind the user's address to this agent for ``expires_s`` seconds; 0 ends the binding."""
        if self._registration is None:
            address = f"<sip:{self.user}@{self.server[0]}>"
            uri = f"sip:{self.server[0]}:{self.server[1]}"
            self._registration = _Dialog(self._token(), self._tagged(address), address, uri, self.server)
        self._request(self._registration, "REGISTER", now, headers=[("Expires", str(expires_s))])

    def invite(self, extension: str, offer: bytes, now: float, headers: list[Header] | None = None) -> None:
        """Call ``extension`` at the server."""
        uri = f"sip:{extension}@{self.server[0]}:{self.server[1]}"
        name = f'"{self.display}" ' if self.display else ""
        local = self._tagged(f"{name}<sip:{self.user}@{self.local[0]}:{self.local[1]}>")
        self._dialog = dialog = _Dialog(self._token(), local, f"<{uri}>", uri, self.server)
        dialog.invite = self._request(dialog, "INVITE", now, offer, [_SDP_TYPE, *(headers or [])])

    def reinvite(self, offer: bytes, now: float) -> None:
        """Offer a change of the running call."""
        dialog = self._confirmed()
        dialog.invite = self._request(dialog, "INVITE", now, offer, [_SDP_TYPE])

    def cancel(self, now: float) -> None:
        """Give up the call that is being made.

        The CANCEL waits for a first response (RFC 3261 section 9.1).
        """
        dialog = self._dialog
        if dialog is None or dialog.invite is None or dialog.confirmed:
            raise RuntimeError("there is no call being made to cancel")
        if dialog.cancelled:
            return
        dialog.cancelled = True
        if dialog.invite.provisional:
            self._send_cancel(dialog.invite, now)

    def bye(self, now: float) -> None:
        """End the running call."""
        self._request(self._confirmed(), "BYE", now)

    def refer(self, target: str, now: float, replaces: str = "") -> None:
        """Ask the peer to call ``target``, a SIP URI (RFC 3515).

        ``replaces``, the ``replaces`` of an agent of the same peer, connects it with whom that one talks to.
        """
        # A header of the request to be sent, escaped as RFC 3261 section 19.1.1 wants it.
        header = f"?Replaces={quote(replaces, safe='')}" if replaces else ""
        headers = [("Refer-To", f"<{target}{header}>")]
        headers.append(("Referred-By", f"<sip:{self.user}@{self.local[0]}>"))
        self._request(self._confirmed(), "REFER", now, headers=headers)

    @property
    def replaces(self) -> str:
        """Return the value of Replaces that names the running call to the peer (RFC 3891 section 6.1)."""
        dialog = self._confirmed()
        # The tags are named as the peer sees them: its own is to-tag.
        theirs, ours = sip.parameter(dialog.remote, "tag"), sip.parameter(dialog.local, "tag")
        return f"{dialog.call_id};to-tag={theirs};from-tag={ours}"

    def notify(self, status: int, now: float) -> None:
        """Report ``status`` of the call we were asked to make (RFC 3515 section 2.4.5)."""
        state = "active;expires=60" if status < 200 else "terminated;reason=noresource"
        headers = [("Event", "refer"), ("Subscription-State", state)]
        headers.append(("Content-Type", "message/sipfrag;version=2.0"))
        body = f"SIP/2.0 {status} {sip.REASONS.get(status, 'Unknown')}\r\n".encode()
        self._request(self._confirmed(), "NOTIFY", now, body, headers)

    def respond(self, request: Request, status: int, now: float, body: bytes = b"") -> None:
        """Answer an INVITE that came as ``Incoming`` or ``Reoffered``."""
        server = self._servers.get((request.branch, request.method))
        if server is None or self._dialog is None:
            raise RuntimeError("the request to answer is gone")
        self._reply(server, status, now, body, [_SDP_TYPE] if body else [])
        if request.method == "INVITE" and status >= 200:
            server.resend_at, server.interval = now + T1, T1
            server.expires_at = now + TRANSACTION_TIMEOUT
            if status < 300:
                self._dialog.confirmed = True
            elif not self._dialog.confirmed:
                self._dialog = None

    # -- datagrams and time ------------------------------------------------------------------------------

    def receive(self, data: bytes, source: Address, now: float) -> list[Event]:
        """Take a datagram. Raise ProtocolError if it is not SIP, or lacks a header that it must have."""
        if not data.strip():
            return []  # keep-alive, RFC 5626 section 3.5.1
        message = sip.parse(data)
        message.check()
        if isinstance(message, Response):
            return self._receive_response(message, now)
        return self._receive_request(message, source, now)

    def next_timer(self) -> float | None:
        """Return when ``tick`` is next due, or None."""
        times = [client.expires_at for client in self._clients.values()]
        times += [client.resend_at for client in self._clients.values() if client.resend_at is not None]
        times += [server.expires_at for server in self._servers.values()]
        times += [server.resend_at for server in self._servers.values() if server.resend_at is not None]
        return min(times, default=None)

    def tick(self, now: float) -> list[Event]:
        """Retransmit what is due and drop what has expired."""
        events: list[Event] = []
        for key, client in list(self._clients.items()):
            if now >= client.expires_at:
                del self._clients[key]
                if not client.completed:
                    self._forget(client)
                    events.append(Finished(client.request.method, 408, b""))
            elif client.resend_at is not None and now >= client.resend_at:
                self._send(client)
                # Timer A doubles without limit, timer E up to T2 (section 17.1).
                client.interval *= 2
                if client.request.method != "INVITE":
                    client.interval = T2 if client.provisional else min(client.interval, T2)
                client.resend_at = now + client.interval
        for key, server in list(self._servers.items()):
            if now >= server.expires_at:
                del self._servers[key]
            elif server.resend_at is not None and now >= server.resend_at:
                self.outbox.append((server.response, server.source))
                server.interval = min(server.interval * 2, T2)
                server.resend_at = now + server.interval
        return events

    # -- responses ---------------------------------------------------------------------------------------

    def _receive_response(self, response: Response, now: float) -> list[Event]:
        _, method = response.cseq
        client = self._clients.get((response.branch, method))
        if client is None:
            return []
        if response.status < 200:
            client.provisional = True
            if method != "INVITE":
                return []
            client.resend_at = None
            return self._progress(client, response, now)
        if client.completed:
            if client.ack:
                self.outbox.append((client.ack, client.destination))
            return []
        client.completed, client.resend_at = True, None
        client.expires_at = now + TRANSACTION_TIMEOUT
        if method == "INVITE":
            self._acknowledge(client, response)
        given_up = self._dialog is not None and self._dialog.cancelled and method == "INVITE"
        if response.status in (401, 407) and self.password and not client.challenged and not given_up:
            self._answer_challenge(client, response, now)
            return []
        if method != "INVITE":
            if method == "BYE":
                self._forget(client)
            return [Finished(method, response.status, response.body)]
        return self._invite_finished(response, now)

    def _forget(self, client: _Client) -> None:
        """Drop the dialog whose request ``client`` nobody answered, unless the call itself goes on."""
        dialog = self._dialog
        if dialog is not None and (client.request.method == "BYE" or not dialog.confirmed):
            self._dialog = None

    def _progress(self, client: _Client, response: Response, now: float) -> list[Event]:
        dialog = self._dialog
        if dialog is None or dialog.invite is not client or client.completed:
            return []
        # Nothing has been expected to expire since the call is being worked on: the caller decides how long.
        client.expires_at = now + 10 * TRANSACTION_TIMEOUT
        if dialog.cancelled and (client.request.branch, "CANCEL") not in self._clients:
            self._send_cancel(client, now)
        return [Progress(response.status, response.body)] if response.status > 100 else []

    def _invite_finished(self, response: Response, now: float) -> list[Event]:
        dialog = self._dialog
        if dialog is None:
            return []
        if response.status < 300:
            dialog.remote = response.require("To")
            dialog.target = sip.uri_of(response.get("Contact") or dialog.target)
            dialog.confirmed = True
            if dialog.cancelled:  # the answer crossed our CANCEL (section 9.1)
                self.bye(now)
        elif not dialog.confirmed:
            self._dialog = None
        return [Finished("INVITE", response.status, response.body)]

    def _acknowledge(self, client: _Client, response: Response) -> None:
        invite = client.request
        headers = [header for header in invite.headers if header[0] in ("From", "Call-ID", "Max-Forwards")]
        headers += [("To", response.require("To")), ("CSeq", f"{invite.cseq[0]} ACK")]
        if response.status < 300:  # a transaction of its own (section 13.2.2.4)
            uri = sip.uri_of(response.get("Contact") or invite.uri)
            via = self._via()
        else:  # part of the INVITE's transaction (section 17.1.1.3)
            uri = invite.uri
            via = invite.require("Via")
        client.ack = Request("ACK", uri, headers=[("Via", via), *headers]).encode()
        self.outbox.append((client.ack, client.destination))

    def _answer_challenge(self, client: _Client, response: Response, now: float) -> None:
        old = client.request
        name, answer = (
            ("WWW-Authenticate", "Authorization")
            if response.status == 401
            else ("Proxy-Authenticate", "Proxy-Authorization")
        )
        value = sip.authorization(
            response.require(name),
            method=old.method,
            uri=old.uri,
            user=self.user,
            password=self.password or "",
            cnonce=f"{self.random.getrandbits(64):016x}",
        )
        dialog = self._registration if old.method == "REGISTER" else self._dialog
        if dialog is None:
            return
        changed = ("Via", "Max-Forwards", "From", "To", "Call-ID", "CSeq", "Contact", "User-Agent", ALLOW[0])
        extra = [header for header in old.headers if header[0] not in changed]
        again = self._request(dialog, old.method, now, old.body, [*extra, (answer, value)])
        again.challenged = True
        if dialog.invite is client:
            dialog.invite = again

    # -- requests ----------------------------------------------------------------------------------------

    def _receive_request(self, request: Request, source: Address, now: float) -> list[Event]:
        if request.method == "ACK":
            return self._receive_ack(request)
        key = (request.branch, request.method)
        server = self._servers.get(key)
        if server is not None:
            if server.response:
                self.outbox.append((server.response, server.source))
            return []
        server = self._servers[key] = _Server(request, source, now + TRANSACTION_TIMEOUT)
        known = self._dialog is not None and self._dialog.call_id == request.call_id
        match request.method:
            case "INVITE":
                return self._receive_invite(server, known, now)
            case "BYE" | "CANCEL" if known:
                return self._receive_end(server, now)
            case "REFER" if known:
                self._reply(server, 202, now)
                return [Referred(sip.uri_of(request.require("Refer-To")))]
            case "INFO" | "NOTIFY" if known:
                self._reply(server, 200, now)
                return [Received(request)]
            case "OPTIONS":
                self._reply(server, 200, now, headers=[ALLOW])
                return [Received(request)]
            case "BYE" | "CANCEL" | "REFER" | "INFO" | "NOTIFY":
                self._reply(server, 481, now)
            case _:
                self._reply(server, 501, now, headers=[ALLOW])
        return []

    def _receive_invite(self, server: _Server, known: bool, now: float) -> list[Event]:
        request, dialog = server.request, self._dialog
        server.expires_at = now + 10 * TRANSACTION_TIMEOUT  # until it is answered, which may take long
        if dialog is not None and known and dialog.confirmed:
            dialog.target = sip.uri_of(request.get("Contact") or dialog.target)
            return [Reoffered(request)]
        if sip.parameter(request.require("To"), "tag"):
            self._reply(server, 481, now)
            return []
        if dialog is not None:
            self._reply(server, 486, now)
            server.resend_at = now + T1
            return []
        self._dialog = _Dialog(
            call_id=request.call_id,
            local=self._tagged(request.require("To")),
            remote=request.require("From"),
            target=sip.uri_of(request.require("Contact")),
            peer=server.source,
            offered=server,
        )
        return [Incoming(request)]

    def _receive_end(self, server: _Server, now: float) -> list[Event]:
        dialog = self._dialog
        if dialog is None:
            raise RuntimeError("an end without a dialog")
        offered = dialog.offered
        self._reply(server, 200, now)
        if server.request.method == "CANCEL" and dialog.confirmed:
            return []  # too late: the call was answered (section 9.2)
        if offered is not None and offered.status < 200:
            self._reply(offered, 487, now)
            offered.resend_at, offered.expires_at = now + T1, now + TRANSACTION_TIMEOUT
        self._dialog = None
        return [Ended(server.request)]

    def _receive_ack(self, request: Request) -> list[Event]:
        number = request.cseq[0]
        for server in self._servers.values():
            invite = server.request
            same = (
                invite.method == "INVITE" and invite.call_id == request.call_id and invite.cseq[0] == number
            )
            if same and server.resend_at is not None:
                server.resend_at = None
                return [Acknowledged(request.body)] if server.status < 300 else []
        return []

    # -- building ----------------------------------------------------------------------------------------

    def _confirmed(self) -> _Dialog:
        if self._dialog is None or not self._dialog.confirmed:
            raise RuntimeError("there is no running call")
        return self._dialog

    def _token(self) -> str:
        return f"{self.random.getrandbits(64):016x}"

    def _tagged(self, value: str) -> str:
        return sip.with_tag(value, self._token())

    def _via(self) -> str:
        return f"SIP/2.0/UDP {self.local[0]}:{self.local[1]};branch=z9hG4bK{self._token()};rport"

    def _contact(self) -> Header:
        return ("Contact", f"<sip:{self.user}@{self.local[0]}:{self.local[1]}>")

    def _request(
        self, dialog: _Dialog, method: str, now: float, body: bytes = b"", headers: list[Header] | None = None
    ) -> _Client:
        dialog.sequence += 1
        fixed = [
            ("Via", self._via()),
            ("Max-Forwards", "70"),
            ("From", dialog.local),
            ("To", dialog.remote),
            ("Call-ID", dialog.call_id),
            ("CSeq", f"{dialog.sequence} {method}"),
            self._contact(),
            ("User-Agent", "Arivox test phone"),
            ALLOW,
        ]
        request = Request(method, dialog.target, headers=[*fixed, *(headers or [])], body=body)
        return self._start(request, dialog.peer, now)

    def _send_cancel(self, invite: _Client, now: float) -> None:
        # Everything that names the transaction is the INVITE's own (section 9.1).
        request = invite.request
        kept = [
            header
            for header in request.headers
            if header[0] in ("Via", "Max-Forwards", "From", "To", "Call-ID")
        ]
        cancel = Request("CANCEL", request.uri, headers=[*kept, ("CSeq", f"{request.cseq[0]} CANCEL")])
        self._start(cancel, invite.destination, now)

    def _start(self, request: Request, destination: Address, now: float) -> _Client:
        client = _Client(request, destination, now + TRANSACTION_TIMEOUT, now + T1)
        self._clients[request.branch, request.method] = client
        self._send(client)
        return client

    def _send(self, client: _Client) -> None:
        self.outbox.append((client.request.encode(), client.destination))

    def _reply(
        self, server: _Server, status: int, now: float, body: bytes = b"", headers: list[Header] | None = None
    ) -> None:
        dialog = self._dialog
        own = dialog is not None and dialog.call_id == server.request.call_id
        tag = sip.parameter(dialog.local, "tag") if dialog is not None and own else self._token()
        response = sip.response_to(server.request, status, tag, [self._contact(), *(headers or [])])
        response.body = body
        server.response, server.status = response.encode(), status
        self.outbox.append((server.response, server.source))
