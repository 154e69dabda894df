"""The RTP media link of one call: a socket, the pacer, and nothing clever."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Final

import structlog

from arivox.audio.format import PTIME_MS, AudioFormat
from arivox.media.clock import SLOTS, Pacer
from arivox.media.link import OnAudio, Tap
from arivox.media.playout import Playout
from arivox.media.rtp.ports import PortRange
from arivox.media.rtp.receiver import Address, RtpReceiver
from arivox.media.rtp.sender import RtpSender

log = structlog.get_logger()

_WARN_AFTER_TICKS: Final = 100
_MAX_DATAGRAM: Final = 2048
_MAX_WAITING: Final = 50  # datagrams read at once
_STALLED_S: Final = 0.030  # a tick so late shows that the machine has too much to do
_GRACE_S: Final = 0.100  # then Asterisk and a phone on it are late too
_DEBT: Final = 2  # slots by which a frame may leave late rather than leave a hole in a word


class RtpLink:
    """Media over ``externalMedia`` RTP. Create with ``open``.

    Sends a frame every ptime from ``start`` to ``close``: the agent's voice, or silence, so that phones,
    trunks and NATs keep the stream alive. When the agent begins to speak, the frame leaves at once and the
    stream runs ahead of its schedule by up to two ptimes; the lead is given back in a later silence.

    When speech comes no faster than it is spoken, its next frame may be a moment late: the link waits for it
    while the stream is ahead of its schedule, and 10 ms more, before it sends silence in its place.
    """

    due: int = 0

    def __init__(
        self,
        audio: AudioFormat,
        playout: Playout,
        pacer: Pacer,
        ports: PortRange,
        sock: socket.socket,
        call_id: str = "",
        *,
        log_packets: bool = False,
    ) -> None:
        self.audio = audio
        self.playout = playout
        self.on_broken: Callable[[], None] = lambda: None
        self.excused: Callable[[], bool] = lambda: False
        """Tells whether nothing is to be expected of the caller now: they are on hold."""
        self.port: int = sock.getsockname()[1]
        self._pacer = pacer
        self._ports = ports
        self._receiver = RtpReceiver(audio, None)
        self._sender = RtpSender(audio)
        self._silence = audio.silence * (audio.bytes_for(PTIME_MS) // audio.sample_bytes)
        self._socket: socket.socket | None = sock
        self._on_audio: OnAudio | None = None
        self._tap: Tap | None = None
        self._lead = 0  # slots by which the stream runs ahead of its schedule, or behind it
        self._ticks = 0
        self._send_errors = 0
        self._receive_errors = 0
        self._log_packets = log_packets
        self._log = log.bind(call=call_id)  # the pacer calls from outside the call's context
        self._speaking = False  # the last frame sent was the agent's voice
        self._waiting = False  # for the next frame of it, which should be here
        self._busy_until = 0.0

    @classmethod
    def open(
        cls,
        audio: AudioFormat,
        playout: Playout,
        pacer: Pacer,
        ports: PortRange,
        call_id: str = "",
        *,
        log_packets: bool = False,
    ) -> RtpLink:
        """Bind a port of the range. Raises PortsExhaustedError or SettingsError."""
        sock = ports.bind()
        link = cls(audio, playout, pacer, ports, sock, call_id, log_packets=log_packets)
        # A plain socket rather than an asyncio transport: half the system calls, and closed when we say so.
        asyncio.get_running_loop().add_reader(sock, link._read)
        return link

    def expect(self, peer: Address | None) -> None:
        """Accept packets only from ``peer`` and send there; with None, from the first valid sender."""
        self._receiver.peer = peer

    def start(self, on_audio: OnAudio, tap: Tap | None = None) -> None:
        """Begin to send and to deliver audio."""
        self._on_audio = on_audio
        self._tap = tap
        self._pacer.add(self)
        if self.playout.playing:
            self.wake()

    def wake(self) -> None:
        """Send waiting audio now, if nothing but silence was being sent."""
        if (self._speaking and not self._waiting) or self._on_audio is None or self._receiver.peer is None:
            return
        slot = self._pacer.slot()
        ahead = self.due - slot
        if ahead < 0 or self._lead + ahead > SLOTS * 2:
            return
        frame = self.playout.next_frame()
        if frame is None:
            return
        self._lead += ahead
        self._waiting = False
        self._pacer.move(self, slot + SLOTS)
        self._send(frame, voice=True)

    def tick(self, now: float) -> None:
        """Send one frame, and see to the caller's side."""
        if self._speaking and self._lead > -_DEBT and self.playout.starving:
            self._lead -= 1
            self._waiting = True
            self._pacer.move(self, self.due - SLOTS + 1)
            return
        self._waiting = False
        self._ticks += 1
        frame = self.playout.next_frame() if self._receiver.peer is not None else None
        if frame is not None:
            self._send(frame, voice=True)
        elif self._lead >= SLOTS:
            self._lead -= SLOTS
            self._speaking = False
        else:
            self._send(self._silence, voice=False)
            if self._lead < 0:
                self._pacer.move(self, self.due + self._lead)
                self._lead = 0
        self._listen(now)

    def broken(self) -> None:
        """Tell whoever owns the link that it stopped by a bug."""
        self.on_broken()

    def stalled(self, ticks: int) -> None:
        """Let the stream's clock pass over a stall."""
        self._sender.skip(ticks * self.audio.rate * PTIME_MS // 1000)

    async def close(self) -> None:
        """Stop, and give the port back."""
        self._pacer.remove(self)
        self._on_audio = None
        sock, self._socket = self._socket, None
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
            self._ports.release(self.port)

    def counters(self) -> dict[str, int]:
        """Return what was counted, for the log line at the end of the call."""
        received, sent = self._receiver.counters, self._sender.counters
        jitter = received.jitter
        return {
            "rtp_in": received.packets,
            "rtp_lost": jitter.lost,
            "rtp_late": jitter.late,
            "rtp_duplicate": jitter.duplicate,
            "rtp_reordered": jitter.reordered,
            "rtp_resynced": jitter.resynced,
            "rtp_thinned": jitter.thinned,
            "rtp_flooded": jitter.flooded,
            "rtp_foreign": received.foreign,
            "rtp_malformed": received.malformed,
            "rtp_other_payload": received.other_payload,
            "rtp_filled": jitter.filled,
            "rtp_out": sent.packets,
            "rtp_out_voice": sent.voice,
            "rtp_send_errors": self._send_errors,
            "rtp_receive_errors": self._receive_errors,
        }

    # --- inside ---

    def _read(self) -> bool:
        """Take the next datagram, if there is one."""
        if self._socket is None:
            return False
        try:
            data, source = self._socket.recvfrom(_MAX_DATAGRAM)
        except BlockingIOError:
            return False
        except OSError:
            self._receive_errors += 1
            return False
        self.receive(data, source)
        return True

    def receive(self, data: bytes, source: Address) -> None:
        """Take one datagram."""
        if self._log_packets:
            self._log.debug("packet in", source=source, size=len(data))
        self._deliver(self._receiver.receive(data, source, time.monotonic()))

    def _send(self, frame: bytes, *, voice: bool) -> None:
        peer = self._receiver.peer
        self._speaking = voice
        if self._log_packets:
            self._log.debug("packet out", voice=voice, lead=self._lead, queued_ms=self.playout.queued_ms)
        if self._socket is None or peer is None:
            return
        try:
            self._socket.sendto(self._sender.packet(frame, voice=voice), peer)
        except OSError:
            self._send_errors += 1
        else:
            if voice:
                self.playout.confirm()
        if self._tap is not None:
            self._tap.agent(frame)

    def _listen(self, now: float) -> None:
        if self._ticks == _WARN_AFTER_TICKS and not self._receiver.counters.packets and not self.excused():
            self._warn_no_audio()
        at = time.monotonic()
        if at - now > _STALLED_S:
            self._busy_until = at + _GRACE_S
        if self._receiver.idle(now):
            return
        if self._receiver.late(now):
            # What seems to be late may lie in the socket: it is this process that was busy.
            for _ in range(_MAX_WAITING):
                if not self._read():
                    break
            if now < self._busy_until and not self._receiver.late(now - _GRACE_S):
                return
        # The AI ends a turn by hearing silence, so a phone that sends nothing must still be heard as silent.
        self._deliver(self._receiver.poll(now))

    def _deliver(self, frames: list[bytes]) -> None:
        if self._on_audio is None or not frames:
            return
        for frame in frames:
            self._on_audio(frame)
        if self._tap is not None:
            # Together: each on its own would look as if it had come in no time.
            self._tap.caller(b"".join(frames))

    def _warn_no_audio(self) -> None:
        foreign = self._receiver.last_foreign
        if foreign is not None:
            self._log.warning(
                "RTP comes from an address Asterisk did not name; it is ignored",
                expected=self._receiver.peer,
                from_=foreign,
                hint="set RTP_SOURCE_CHECK=learn if Asterisk is behind NAT",
            )
        else:
            self._log.warning(
                "no RTP from Asterisk in 2 s",
                port=self.port,
                hint="check RTP_SERVER_IP_FOR_ASTERISK and the firewall (arivox doctor)",
            )
