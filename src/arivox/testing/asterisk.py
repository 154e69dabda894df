"""A real Asterisk on free loopback ports, run as an ordinary user: for the demo, our tests and yours.

``python -m arivox.testing.asterisk`` runs one in the foreground and prints its ports as one line of JSON.
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import re
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from arivox.errors import AsteriskError, SettingsError
from arivox.testing import asterisk_config, ports
from arivox.testing.asterisk_install import Installation, find_or_fetch
from arivox.testing.asterisk_modules import modules_conf
from arivox.testing.child import Child

__all__ = ["AsteriskInstance", "find_or_fetch"]

_log = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_PREFIX = "arivox-asterisk-"
_LOGS = ("log/full.log", "console.log")
_MAX_FILES = 8192
_RTP_PORTS = 1000  # a call with an external media channel takes four
_SOCKET_PATH_MAX = 107  # sun_path of unix(7), less the final zero
_STOP_GRACE = 5.0  # seconds from SIGTERM to SIGKILL; it takes less than one
_POLL = 0.01  # seconds between looks at a starting Asterisk
_LOG_TAIL = 25  # lines of the log in an error


class AsteriskInstance:
    """One Asterisk with our configuration, a context manager. Blocking: use ``asyncio.to_thread`` in a loop.

    Dialplan of its phones: 600 echoes, 601 hums 1004 Hz, 700 enters the Stasis application ``app``, 701 the
    same with the arguments ``some`` and ``args``, 702 with the call answered before, 703 without a fallback
    after it. Where the application fails 700, 701 or 702, they answer and play 1004 Hz for two seconds. 730
    calls ``PJSIP/peer``.

    Who calls from 127.0.0.1 needs no password, and may offer mu-law, A-law and G.722; with From user
    ``alawphone`` A-law alone. A softphone registers as ``phone_user`` with ``phone_password``, over UDP or
    TCP. The endpoint ``PJSIP/peer`` dials ``sip:peer@127.0.0.1:<peer_port>``.
    """

    ari_user = "arivox"
    phone_user = "phone"

    def __init__(
        self,
        *,
        app: str = "arivox",
        run_dir: Path | None = None,
        installation: Installation | None = None,
        sip_bind: str = _LOOPBACK,
        sip_port: int | None = None,
        ari_port: int | None = None,
        report: Callable[[str], None] = _log.info,
    ) -> None:
        """Ports that are not given are chosen free at :meth:`start`; so is an ``installation``.

        ``run_dir`` is kept at the end; without one a directory is made, and removed by :meth:`stop`.
        ``sip_bind`` other than 127.0.0.1 lets phones of other machines register.
        """
        if not re.fullmatch(r"[\w.-]+", app):
            raise SettingsError("app", f"{app!r} cannot be the name of a Stasis application")
        self.app = app
        self.sip_bind = sip_bind
        self.sip_port = sip_port or 0
        self.ari_port = ari_port or 0
        self.peer_port = 0
        self.rtp_range = (0, 0)
        self.ari_password = secrets.token_hex(16)
        self.phone_password = secrets.token_hex(8)
        self._fixed = (sip_port, ari_port)
        self._given_run_dir = run_dir
        self._keep_run_dir = False
        self._run_dir: Path | None = run_dir.absolute() if run_dir else None
        self._installation = installation
        self._report = report
        self._child: Child | None = None

    def __repr__(self) -> str:
        state = f"pid={self._child.pid} ari={self.ari_url} sip={self.sip_port}" if self._child else "stopped"
        return f"<AsteriskInstance {state}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def ari_url(self) -> str:
        """Where ARI answers: ``http://127.0.0.1:PORT``, without ``/ari``."""
        return f"http://{_LOOPBACK}:{self.ari_port}"

    @property
    def run_dir(self) -> Path:
        """Where its configuration, its log and its state lie."""
        if self._run_dir is None:
            raise AsteriskError("this Asterisk is not started")
        return self._run_dir

    @property
    def version(self) -> str:
        """The version of Asterisk, such as ``22.10.1``."""
        return self._installed().version

    @property
    def pid(self) -> int:
        """Its process id."""
        if self._child is None:
            raise AsteriskError("this Asterisk is not started")
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._child is not None and self._child.exit_status is None

    def start(self, timeout: float = 20.0) -> None:
        """Start it, and return when ARI answers.

        Raises AsteriskError where a given port is taken, or where it ends or ARI does not answer within
        ``timeout`` seconds: with the end of its log, which stays where the error says. DebianError where it
        had to be fetched and could not be.
        """
        if self._child is not None:
            raise AsteriskError("this Asterisk runs already", hint="Stop it first, or make another instance")
        self._installed()
        deadline = time.monotonic() + timeout
        while True:
            self._check_given_ports()
            self._choose_ports()
            self._make_run_dir()
            asterisk_config.write(self.run_dir, self._installed().data, self._configuration())
            self._child = Child([*self._command(), "-f"], output=self.run_dir / "console.log")
            try:
                ready = self._wait_ready(deadline)
            except AsteriskError as error:
                self._end(grace=0)
                self._keep_run_dir = True
                raise self._explained(error) from error
            except BaseException:
                self.stop()
                raise
            if ready:
                return
            self._report("a port was taken while Asterisk started: starting again")
            # It hears no SIGTERM before it is ready.
            self._end(grace=0)
            self._remove_run_dir()

    def stop(self) -> None:
        """Stop it: its process is gone when this returns. Nothing happens where it does not run."""
        self._end(grace=_STOP_GRACE)
        self._remove_run_dir()

    def cli(self, command: str) -> str:
        """Return what Asterisk's console answers to ``command``. Raises AsteriskError where it does not."""
        try:
            done = subprocess.run(
                [*self._command(), "-rx", command], capture_output=True, text=True, check=False, timeout=10
            )
        except subprocess.TimeoutExpired as error:
            raise AsteriskError("the console does not answer within 10 s", request=command) from error
        if done.returncode:
            raise AsteriskError((done.stdout + done.stderr).strip(), request=command)
        return done.stdout

    def full_log(self) -> str:
        """Return its log since the start."""
        for name in _LOGS:
            path = self.run_dir / name
            if path.is_file():
                return path.read_text(encoding="utf-8", errors="replace")
        return ""

    def describe(self) -> dict[str, Any]:
        """Return what a client needs to know of it, the passwords too."""
        return {
            "version": self.version,
            "pid": self.pid,
            "run_dir": str(self.run_dir),
            "app": self.app,
            "ari_url": self.ari_url,
            "ari_user": self.ari_user,
            "ari_password": self.ari_password,
            "sip_port": self.sip_port,
            "rtp_range": list(self.rtp_range),
            "peer_port": self.peer_port,
            "phone_user": self.phone_user,
            "phone_password": self.phone_password,
        }

    def _installed(self) -> Installation:
        if self._installation is None:
            self._installation = find_or_fetch(report=self._report)
        return self._installation

    def _command(self) -> list[str]:
        return [*self._installed().argv, "-C", str(self.run_dir / "etc/asterisk.conf")]

    def _check_given_ports(self) -> None:
        sip_port, ari_port = self._fixed
        if ari_port and not ports.tcp_port_free(ari_port):
            raise _taken("ari_port", f"TCP {_LOOPBACK}:{ari_port}")
        if sip_port:
            for kind, free in (("UDP", ports.udp_port_free), ("TCP", ports.tcp_port_free)):
                if not free(sip_port, self.sip_bind):
                    raise _taken("sip_port", f"{kind} {self.sip_bind}:{sip_port}")

    def _choose_ports(self) -> None:
        sip_port, ari_port = self._fixed
        self.sip_port = sip_port or ports.free_port(self.sip_bind)
        self.ari_port = ari_port or ports.free_tcp_port()
        self.peer_port, _ = ports.free_udp_range(2, ports.LATER)
        self.rtp_range = ports.free_udp_range(_RTP_PORTS, ports.ASTERISK_RTP)

    def _make_run_dir(self) -> None:
        if self._given_run_dir is None:
            self._keep_run_dir = False
            # TMPDIR may be deep; the path of Asterisk's control socket must not be.
            base = tempfile.gettempdir()
            deep = len(f"{base}/{_PREFIX}12345678/asterisk.ctl") > _SOCKET_PATH_MAX
            self._run_dir = Path(tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp" if deep else base))  # noqa: S108 - mkdtemp
        control = self.run_dir / "asterisk.ctl"
        if len(str(control)) > _SOCKET_PATH_MAX:
            raise SettingsError("run_dir", f"the path {control} is longer than {_SOCKET_PATH_MAX} characters")
        for log in _LOGS:
            (self.run_dir / log).unlink(missing_ok=True)

    def _configuration(self) -> dict[str, object]:
        installed = self._installed()
        return {
            "APP": self.app,
            "ARIPASSWORD": self.ari_password,
            "ARIPORT": self.ari_port,
            "ARIUSER": self.ari_user,
            "ENTITY": "02:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(5)),
            "MAXFILES": min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], _MAX_FILES),
            "MODULELINES": modules_conf(installed.module_names()),
            "MODULES": installed.modules,
            "PEERPORT": self.peer_port,
            "PHONEPASSWORD": self.phone_password,
            "PHONEUSER": self.phone_user,
            "RTPFIRST": self.rtp_range[0],
            "RTPLAST": self.rtp_range[1],
            "SIPBIND": self.sip_bind,
            "SIPPORT": self.sip_port,
        }

    def _wait_ready(self, deadline: float) -> bool:
        """Return whether it runs with all its ports: one may have been taken after it was chosen."""
        while time.monotonic() < deadline:
            if not self.running:
                raise AsteriskError("Asterisk ended while it started")
            log = self.full_log()
            if "Address already in use" in log:
                return False
            # ARI answers while the last modules still load.
            if "Asterisk Ready." in log and self._ping():
                return True
            time.sleep(_POLL)
        raise AsteriskError(f"ARI does not answer at {self.ari_url} in time")

    def _ping(self) -> bool:
        token = base64.b64encode(f"{self.ari_user}:{self.ari_password}".encode()).decode()
        # Not urllib: a proxy of the environment has no business here.
        connection = http.client.HTTPConnection(_LOOPBACK, self.ari_port, timeout=1)
        try:
            connection.request("GET", "/ari/asterisk/ping", headers={"Authorization": f"Basic {token}"})
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _explained(self, error: AsteriskError) -> AsteriskError:
        tail = "\n".join(self.full_log().splitlines()[-_LOG_TAIL:])
        return AsteriskError(f"{error.problem}. The end of its log in {self.run_dir}:\n{tail}")

    def _end(self, grace: float) -> None:
        if self._child is not None:
            self._child.stop(grace)
            self._child = None

    def _remove_run_dir(self) -> None:
        if self._given_run_dir is None and self._run_dir is not None and not self._keep_run_dir:
            shutil.rmtree(self._run_dir)
            self._run_dir = None


def _taken(setting: str, address: str) -> AsteriskError:
    return AsteriskError(
        f"{setting}: {address} is in use", hint="Choose another port, or none to have one chosen"
    )


def main() -> None:
    """Run one in the foreground until SIGTERM or SIGINT, and print what ``describe`` says of it."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        # No event of ``threading``: a signal that comes while one is waited for would find it locked.
        signal.signal(number, lambda number, _: asked.append(number))
    with AsteriskInstance(report=lambda line: _write(sys.stderr, line)) as asterisk:
        _write(sys.stdout, json.dumps(asterisk.describe()))
        while asterisk.running and not asked:
            time.sleep(0.1)


def _write(stream: TextIO, line: str) -> None:
    stream.write(f"{line}\n")
    stream.flush()


if __name__ == "__main__":
    main()
