"""A scripted telephone: SIP over UDP, G.711 over RTP, every packet kept with its time.

    async with SipPhone(("127.0.0.1", 5060)) as phone:
        assert await phone.call("600") == 200
        said = phone.play(signal.tone(1013, 1.0))
        await said.done()
        heard = phone.heard().pcm

Many phones run in one event loop. Times are seconds of ``time.monotonic``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, assert_never

from arivox.audio.g711 import Law, Pcm
from arivox.errors import ProtocolError, SettingsError
from arivox.testing import recording, sdp, useragent
from arivox.testing.listener import Listener
from arivox.testing.mediasocket import MediaSocket
from arivox.testing.pacer import Pacer, Subscription
from arivox.testing.recording import Recording, RtpPacket
from arivox.testing.sdp import Direction, Foreign, SessionDescription
from arivox.testing.sip import Request
from arivox.testing.talker import Talker, Utterance
from arivox.testing.useragent import Address, UserAgent

State = Literal["down", "calling", "ringing", "up"]

_EVENT_TYPE: Final = 101
_CLOSING_TIMEOUT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """What a phone does with a call that comes in: ring ``ring_s`` seconds, then send ``status``.

    200 answers; None goes on ringing until the script calls ``answer`` or ``reject``.
    """

    status: int | None = 200
    ring_s: float = 0.0


ANSWER: Final = AnswerPlan()
BUSY: Final = AnswerPlan(486)
NO_ANSWER: Final = AnswerPlan(None)


class SipPhone(Listener):
    """A phone that speaks to the SIP server at ``server``; an async context manager.

    Entering raises SettingsError where ``host`` and ``port`` cannot be bound.

    ``codecs`` are offered in this order; the first that the peer takes is spoken. ``port`` 0 is a free port.
    ``plan`` is what it does with calls that come in. ``foreign`` is a codec that it offers first; where it is
    agreed on, the phone sends and hears nothing but noise. Attributes of the current or last call:

    - ``state``: "down", "calling", "ringing" (either way), "up".
    - ``received``, ``sent``: RTP packets in order of arrival and of speaking (before any impairment).
    - ``bye_reason``: the Reason header of the BYE or CANCEL that ended the call, or None.
    - ``transfer_targets``: SIP URIs the peer asked to call (REFER). ``transfer_status`` is what is reported
      back at once; None leaves it to ``report_transfer``.
    - ``transfer_reports``: what the peer reported of a transfer that ``refer`` asked for.
    - ``remote``: the peer's session description, or None.
    - ``protocol_errors``: datagrams that were neither SIP nor RTP, as errors.
    - ``talker``: the outgoing stream, with its impairments.
    """

    def __init__(
        self,
        server: Address,
        *,
        user: str = "tester",
        password: str | None = None,
        display: str | None = None,
        codecs: tuple[Law, ...] = ("ulaw",),
        host: str = "127.0.0.1",
        port: int = 0,
        ptime_ms: int = 20,
        plan: AnswerPlan = NO_ANSWER,
        foreign: Foreign | None = None,
    ) -> None:
        super().__init__()
        self.user = user
        self.plan = plan
        self.talker = Talker(law=codecs[0], ptime_ms=ptime_ms)
        self.state: State = "down"
        self.sent: list[RtpPacket] = []
        self.bye_reason: str | None = None
        self.incoming: Request | None = None
        self.transfer_targets: list[str] = []
        self.transfer_status: int | None = 200
        self.transfer_reports: list[int] = []
        self.remote: SessionDescription | None = None
        self.protocol_errors: list[ProtocolError] = []
        self._server, self._host, self._port = server, host, port
        self._password, self._display = password, display
        self._codecs = codecs
        self._foreign = foreign
        self._registered = False
        self._unclaimed = False
        self._version = 0
        self._direction: Direction = "sendrecv"
        self._finals: dict[str, useragent.Finished] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._plan_timer: asyncio.TimerHandle | None = None
        self._pace: Subscription | None = None
        self._agent: UserAgent
        self._media: MediaSocket
        self._signalling: MediaSocket

    def __repr__(self) -> str:
        return f"<SipPhone {self.user} {self.state} sent={len(self.sent)} received={len(self.received)}>"

    async def __aenter__(self) -> SipPhone:
        self._media = MediaSocket(self._host, 0, self._receive_rtp)
        try:
            self._signalling = MediaSocket(self._host, self._port, self._receive_sip)
        except SettingsError:
            self._media.close()
            raise
        self._agent = UserAgent(
            self._signalling.address, self._server, self.user, self._password, self._display
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            async with asyncio.timeout(_CLOSING_TIMEOUT_S):
                await self.hangup()
                if self._registered:
                    await self.register(expires_s=0)
        except TimeoutError:
            pass  # a server that is gone already does not answer
        finally:
            self._end()
            for timer in (self._timer, self._plan_timer):
                if timer is not None:
                    timer.cancel()
            self._signalling.close()
            self._media.close()

    @property
    def address(self) -> Address:
        """Where this phone takes SIP."""
        return self._signalling.address

    # -- calls -------------------------------------------------------------------------------------------

    async def register(self, expires_s: int = 60, timeout: float = 5.0) -> int:
        """Register at the server and return the SIP status. Raise TimeoutError without an answer."""
        status = await self._ask("REGISTER", lambda now: self._agent.register(now, expires_s), timeout)
        self._registered = status == 200 and expires_s > 0
        return status

    async def call(
        self, extension: str, timeout: float = 10.0, headers: list[tuple[str, str]] | None = None
    ) -> int:
        """Call ``extension`` and return the final SIP status; 200 means the call is up.

        Raise TimeoutError, and give the call up, where there is none within ``timeout`` seconds.
        """
        if self.state != "down":
            raise RuntimeError(f"{self!r} cannot call {extension}: it is in a call")
        self._begin()
        self._set_state("calling")
        offer = self._description().encode()
        try:
            return await self._ask(
                "INVITE", lambda now: self._agent.invite(extension, offer, now, headers), timeout
            )
        except TimeoutError:
            if self.state in ("calling", "ringing"):
                self._do(self._agent.cancel)
            raise

    async def cancel(self, timeout: float = 5.0) -> None:
        """Give up the call that is being made, and wait until it is gone."""
        self._do(self._agent.cancel)
        await self.wait_state("down", timeout)

    async def hangup(self, timeout: float = 5.0) -> None:
        """End whatever call there is, and wait until the peer has confirmed."""
        if self.state == "up":
            self._end()
            await self._ask("BYE", self._agent.bye, timeout)
        elif self.state == "ringing" and self.incoming is not None:
            self.reject(480)
        elif self.state != "down":
            await self.cancel(timeout)

    async def wait_state(self, state: State, timeout: float = 5.0) -> None:
        """Wait until the phone is in ``state``."""
        await self._waiters.until(lambda: self.state == state, timeout, f"state {state!r}")

    async def wait_incoming(self, timeout: float = 5.0) -> Request:
        """Wait for a call to come in (each is returned once) and return its INVITE."""
        await self._waiters.until(lambda: self._unclaimed, timeout, "an incoming call")
        self._unclaimed = False
        if self.incoming is None:
            raise RuntimeError("an incoming call without its INVITE")
        return self.incoming

    def answer(self) -> None:
        """Answer the call that is coming in."""
        request = self._ringing_request()
        try:
            offer = sdp.parse(request.body) if request.body else None
            reply = self._description() if offer is None else self._description().answer(offer)
        except ProtocolError as error:
            self.protocol_errors.append(error)
            self.reject(488)
            return
        self._do(lambda now: self._agent.respond(request, 200, now, reply.encode()))
        self._set_state("up")
        if offer is not None:
            self._take_media(offer)

    def reject(self, status: int = 486) -> None:
        """Refuse the call that is coming in."""
        request = self._ringing_request()
        self._do(lambda now: self._agent.respond(request, status, now))
        self._end()

    async def hold(self, direction: Direction = "sendonly", timeout: float = 5.0) -> int:
        """Hold the call (re-INVITE); nothing is sent meanwhile. Return the SIP status.

        ``direction`` "inactive" is what phones offer that have no music for the peer.
        """
        return await self._reinvite(direction, timeout)

    async def unhold(self, timeout: float = 5.0) -> int:
        """Take the call back from hold. Return the SIP status."""
        return await self._reinvite("sendrecv", timeout)

    async def refer(self, extension: str, timeout: float = 5.0) -> int:
        """Ask the peer to transfer the call to ``extension`` (REFER). Return the SIP status."""
        target = f"sip:{extension}@{self._server[0]}:{self._server[1]}"
        return await self._ask("REFER", lambda now: self._agent.refer(target, now), timeout)

    async def refer_to(self, other: SipPhone, extension: str, timeout: float = 5.0) -> int:
        """Ask the peer to connect it with whom ``other`` talks to, at ``extension`` (REFER with Replaces).

        Both are calls of one peer, as the two lines of one telephone. Return the SIP status.
        """
        target = f"sip:{extension}@{self._server[0]}:{self._server[1]}"
        replaces = other.replaces
        return await self._ask("REFER", lambda now: self._agent.refer(target, now, replaces), timeout)

    @property
    def replaces(self) -> str:
        """The value of a Replaces header that names this phone's call to the peer."""
        return self._agent.replaces

    def report_transfer(self, status: int) -> None:
        """Tell the peer how the call stands that it asked for (REFER): the SIP status of its INVITE."""
        self._do(lambda now: self._agent.notify(status, now))

    # -- speaking ----------------------------------------------------------------------------------------

    def play(self, pcm: Pcm) -> Utterance:
        """Say ``pcm`` (int16, 8 kHz) after what is queued already, or at the start of the next packet."""
        return self.talker.play(pcm)

    def hush(self) -> None:
        """Stop speaking and forget what is queued."""
        self.talker.hush()

    def mute(self) -> None:
        """Send nothing, not even silence. What is queued waits."""
        self.talker.muted = True

    def unmute(self) -> None:
        """Send again."""
        self.talker.muted = False

    async def dtmf(self, digits: str, duration_ms: int = 160, gap_ms: int = 60) -> None:
        """Press ``digits`` one after another (RFC 4733), and wait until they are sent."""
        await self.talker.press(digits, duration_ms, gap_ms).wait()

    def said(self) -> Recording:
        """Return all that was said in this call, before any impairment."""
        return recording.lay_out(self.sent, recording.PATIENT_MS)

    def save_wav(self, path: Path | str) -> None:
        """Write the call to a stereo WAV file: left what was said, right what was heard, aligned in time."""
        recording.save_stereo(path, self.said(), self.heard())

    # -- inside ------------------------------------------------------------------------------------------

    def _description(self) -> SessionDescription:
        self._version += 1
        return SessionDescription(
            address=self._media.address[0],
            port=self._media.address[1],
            laws=self._codecs,
            event_type=_EVENT_TYPE,
            direction=self._direction,
            ptime_ms=self.talker.ptime_ms,
            version=self._version,
            foreign=self._foreign,
        )

    def _ringing_request(self) -> Request:
        if self.incoming is None or self.state != "ringing":
            raise RuntimeError(f"{self!r} has no call to answer or reject")
        return self.incoming

    async def _reinvite(self, direction: Direction, timeout: float) -> int:
        before, self._direction = self._direction, direction
        offer = self._description().encode()
        status = await self._ask("INVITE", lambda now: self._agent.reinvite(offer, now), timeout)
        if status != 200:
            self._direction = before
        return status

    def _begin(self) -> None:
        """Forget the last call."""
        self.received, self.sent = [], []
        self.transfer_targets, self.transfer_reports = [], []
        self.bye_reason = self.incoming = self.remote = None
        self._direction = "sendrecv"
        self.talker.restart()

    def _end(self) -> None:
        if self._pace is not None:
            self._pace.close()
            self._pace = None
        self.talker.hush()
        self._set_state("down")

    def _set_state(self, state: State) -> None:
        self.state = state
        self._waiters.settle()

    def _do(self, verb: Callable[[float], None]) -> None:
        verb(time.monotonic())
        self._flush()

    async def _ask(self, method: str, verb: Callable[[float], None], timeout: float) -> int:
        self._finals.pop(method, None)
        self._do(verb)
        await self._waiters.until(lambda: method in self._finals, timeout, f"an answer to {method}")
        return self._finals[method].status

    def _flush(self) -> None:
        for data, destination in self._agent.outbox:
            self._signalling.send(data, destination)
        self._agent.outbox.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._agent.next_timer()
        if due is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, due - time.monotonic()), self._on_timer)

    def _on_timer(self) -> None:
        for event in self._agent.tick(time.monotonic()):
            self._handle(event)
        self._flush()
        self._waiters.settle()

    def _receive_sip(self, data: bytes, source: Address, arrival: float) -> None:
        try:
            events = self._agent.receive(data, source, arrival)
        except ProtocolError as error:
            self.protocol_errors.append(error)
            return
        for event in events:
            self._handle(event)
        self._flush()
        self._waiters.settle()

    def _handle(self, event: useragent.Event) -> None:
        match event:
            case useragent.Progress():
                self._set_state("ringing")
                if event.body:
                    self._take_body(event.body)
            case useragent.Finished():
                self._finish(event)
            case useragent.Incoming():
                self._ring(event.request)
            case useragent.Reoffered():
                self._answer_reoffer(event.request)
            case useragent.Acknowledged():
                if event.body:
                    self._take_body(event.body)
            case useragent.Referred():
                self.transfer_targets.append(event.target)
                if self.transfer_status is not None:
                    self._agent.notify(self.transfer_status, time.monotonic())
            case useragent.Received():
                if event.request.method == "NOTIFY":
                    self._note_transfer(event.request)
            case useragent.Ended():
                self.bye_reason = event.request.get("Reason")
                self._end()
            case _:
                assert_never(event)

    def _finish(self, event: useragent.Finished) -> None:
        self._finals[event.method] = event
        if event.method == "BYE":
            self._end()
        if event.method != "INVITE":
            return
        if event.status < 300:
            if self.state in ("calling", "ringing"):
                self._set_state("up")
            self._take_body(event.body)
        elif self.state != "up":
            self._end()

    def _ring(self, request: Request) -> None:
        self._begin()
        self.incoming = request
        self._unclaimed = True
        self._set_state("ringing")
        plan = self.plan
        if plan.ring_s or plan.status is None:
            self._agent.respond(request, 180, time.monotonic())
        if plan.ring_s:
            loop = asyncio.get_running_loop()
            self._plan_timer = loop.call_later(plan.ring_s, self._carry_out, plan, request)
        else:
            self._carry_out(plan, request)

    def _carry_out(self, plan: AnswerPlan, request: Request) -> None:
        if plan.status is None or self.state != "ringing" or self.incoming is not request:
            return
        if plan.status == 200:
            self.answer()
        else:
            self.reject(plan.status)

    def _answer_reoffer(self, request: Request) -> None:
        now = time.monotonic()
        try:
            offer = sdp.parse(request.body) if request.body else None
            reply = self._description() if offer is None else self._description().answer(offer)
        except ProtocolError as error:
            self.protocol_errors.append(error)
            self._agent.respond(request, 488, now)
            return
        self._agent.respond(request, 200, now, reply.encode())
        if offer is not None:
            self._take_media(offer)

    def _note_transfer(self, request: Request) -> None:
        status = request.body.partition(b" ")[2][:3]
        if status.isdigit():
            self.transfer_reports.append(int(status))

    def _take_body(self, body: bytes) -> None:
        try:
            self._take_media(sdp.parse(body))
        except ProtocolError as error:
            self.protocol_errors.append(error)

    def _take_media(self, remote: SessionDescription) -> None:
        self.remote = remote
        law = next((law for law in remote.laws if law in self._codecs), None)
        foreign = self._foreign
        if foreign is not None and remote.formats[:1] == (foreign.payload_type,):
            self.talker.foreign = foreign
        elif law is None:
            raise ProtocolError("SDP", f"the peer takes {remote.laws}, this phone speaks {self._codecs}")
        else:
            self.talker.law, self.talker.foreign = law, None
        self.talker.event_type = self.event_type = remote.event_type
        if self._pace is None:
            self._pace = Pacer.running().subscribe(self._tick, self.talker.ptime_ms)

    def _tick(self) -> None:
        remote = self.remote
        wanted = remote is not None and remote.port and remote.direction in ("sendrecv", "recvonly")
        if self._pace is None or remote is None or not wanted or self._direction in ("sendonly", "inactive"):
            return
        said, wire = self.talker.tick(time.monotonic())
        self.sent += said
        for packet in wire:
            self._media.send(packet.encode(), (remote.address, remote.port))

    def _receive_rtp(self, data: bytes, _source: Address, arrival: float) -> None:
        if len(data) > 1 and 192 <= data[1] <= 223:  # RTCP, RFC 5761 section 4
            return
        try:
            packet = recording.parse_packet(data, arrival)
        except ProtocolError as error:
            self.protocol_errors.append(error)
            return
        self.hear(packet)
