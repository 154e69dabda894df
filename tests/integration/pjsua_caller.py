"""A second opinion on a call: a caller on the PJSIP stack, with its own jitter buffer and codecs.

    python pjsua_caller.py sip:600@127.0.0.1:5060 said.wav heard.wav --seconds 4 --codec PCMA --dtmf 12#

It plays ``said.wav`` (16 bit mono) once the call is up, records what it hears to ``heard.wav`` at 8 kHz, and
writes one JSON object a line: ``{"event": "state", "time": 12.345, "state": "CONFIRMED", "status": 200}``,
and events named ``codec``, ``digit`` and ``statistics``. ``time`` is monotonic. The exit status is 0 if the
call came up. It runs as a program of its own because the stack keeps global state and threads.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

import pjsua2 as pj

_POLL_MS = 20


# The stack logs to descriptor 1, which is made standard error for it.
_output = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def report(event: str, **fields: object) -> None:
    """Write one line of JSON."""
    _output.write(json.dumps({"event": event, "time": round(time.monotonic(), 4), **fields}) + "\n")


class Call(pj.Call):  # type: ignore[misc]  # pjsua2 ships no types
    """A call that plays one file and records another."""

    def __init__(self, account: Any, arguments: argparse.Namespace) -> None:
        super().__init__(account)
        self.arguments = arguments
        self.confirmed = self.disconnected = False
        self.player: Any = None
        self.recorder: Any = None

    def onCallState(self, _parameters: Any) -> None:
        info = self.getInfo()
        self.confirmed = self.confirmed or info.state == pj.PJSIP_INV_STATE_CONFIRMED
        self.disconnected = info.state == pj.PJSIP_INV_STATE_DISCONNECTED
        report("state", state=info.stateText, status=info.lastStatusCode, reason=info.lastReason)

    def onCallMediaState(self, _parameters: Any) -> None:
        # The list belongs to the info: it is freed with it, so the info must have a name.
        info = self.getInfo()
        for index, media in enumerate(info.media):
            active = media.type == pj.PJMEDIA_TYPE_AUDIO and media.status == pj.PJSUA_CALL_MEDIA_ACTIVE
            if not active or self.player is not None:
                continue
            audio = self.getAudioMedia(index)
            self.player, self.recorder = pj.AudioMediaPlayer(), pj.AudioMediaRecorder()
            self.player.createPlayer(self.arguments.said, pj.PJMEDIA_FILE_NO_LOOP)
            self.recorder.createRecorder(self.arguments.heard)
            self.player.startTransmit(audio)
            audio.startTransmit(self.recorder)
            stream = self.getStreamInfo(index)
            report("codec", name=stream.codecName, rate=stream.codecClockRate)

    def onDtmfDigit(self, parameters: Any) -> None:
        report("digit", digit=parameters.digit)


def start(arguments: argparse.Namespace) -> Any:
    """Return a running endpoint on loopback, without a sound device, that offers only the codec asked for."""
    config = pj.EpConfig()
    config.logConfig.level = config.logConfig.consoleLevel = arguments.log_level
    config.uaConfig.threadCnt = 0  # events are handled by libHandleEvents below
    config.uaConfig.mainThreadOnly = True
    config.medConfig.clockRate = 8000
    config.medConfig.noVad = True
    config.medConfig.ecTailLen = 0
    endpoint = pj.Endpoint()
    endpoint.libCreate()
    endpoint.libInit(config)
    transport = pj.TransportConfig()
    transport.boundAddress = "127.0.0.1"
    endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
    endpoint.libStart()
    endpoint.audDevManager().setNullDev()
    if arguments.codec:
        for codec in endpoint.codecEnum2():
            wanted = codec.codecId.upper().startswith(f"{arguments.codec}/")
            endpoint.codecSetPriority(codec.codecId, 255 if wanted else 0)
    return endpoint


def account_of(arguments: argparse.Namespace) -> Any:
    """Return the account that calls; with a password it answers challenges."""
    config = pj.AccountConfig()
    config.idUri = f"sip:{arguments.user}@127.0.0.1"
    config.mediaConfig.transportConfig.boundAddress = "127.0.0.1"
    if arguments.password:
        credentials = pj.AuthCredInfo("digest", "*", arguments.user, 0, arguments.password)
        config.sipConfig.authCreds.append(credentials)
    account = pj.Account()
    account.create(config)
    return account


def main() -> int:
    """Make the call; return the exit status."""
    parser = argparse.ArgumentParser(description="Call a SIP URI, play a WAV file, record another.")
    parser.add_argument("uri")
    parser.add_argument("said")
    parser.add_argument("heard")
    parser.add_argument("--user", default="tester")
    parser.add_argument("--password")
    parser.add_argument("--codec", choices=["PCMU", "PCMA"])
    parser.add_argument("--dtmf", help="digits to send once the call is up")
    parser.add_argument("--seconds", type=float, default=6.0, help="of the call, from when it is up")
    parser.add_argument("--timeout", type=float, default=10.0, help="for the call to come up")
    parser.add_argument("--log-level", type=int, default=1)
    arguments = parser.parse_args()

    endpoint = start(arguments)
    account = account_of(arguments)
    call = Call(account, arguments)
    call.makeCall(arguments.uri, pj.CallOpParam(True))
    deadline = time.monotonic() + arguments.timeout
    dialled = False
    while time.monotonic() < deadline and not call.disconnected:
        endpoint.libHandleEvents(_POLL_MS)
        if call.confirmed and not dialled:
            dialled = True
            deadline = time.monotonic() + arguments.seconds
            if arguments.dtmf:
                call.dialDtmf(arguments.dtmf)
    if call.confirmed and not call.disconnected:
        statistics = call.getStreamStat(0).rtcp
        report(
            "statistics",
            sent=statistics.txStat.pkt,
            received=statistics.rxStat.pkt,
            lost=statistics.rxStat.loss,
            reordered=statistics.rxStat.reorder,
            jitter_ms=statistics.rxStat.jitterUsec.mean / 1000,
        )
    confirmed = call.confirmed
    if not call.disconnected:
        call.hangup(pj.CallOpParam())
        gone = time.monotonic() + 1.0
        while not call.disconnected and time.monotonic() < gone:
            endpoint.libHandleEvents(_POLL_MS)
    # Each must be gone before what it stands on, or the stack asserts.
    call.player = call.recorder = None
    del call
    account.shutdown()
    del account
    endpoint.libDestroy()
    return 0 if confirmed else 1


if __name__ == "__main__":
    sys.exit(main())
