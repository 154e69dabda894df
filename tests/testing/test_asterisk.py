from __future__ import annotations

import base64
import contextlib
import dataclasses
import http.client
import json
import os
import re
import shutil
import signal as signals
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from arivox.errors import AsteriskError, SettingsError
from arivox.testing import asterisk_config, asterisk_modules, ports, signal
from arivox.testing.asterisk import AsteriskInstance, find_or_fetch
from arivox.testing.asterisk_install import Installation
from arivox.testing.child import alive
from arivox.testing.phone import SipPhone


@pytest.fixture(scope="module")
def installation() -> Installation:
    return find_or_fetch()


@pytest.fixture(scope="module")
def asterisk(installation: Installation) -> Iterator[AsteriskInstance]:
    with AsteriskInstance(installation=installation) as running:
        yield running


def ping(instance: AsteriskInstance, password: str | None = None) -> int:
    token = base64.b64encode(f"{instance.ari_user}:{password or instance.ari_password}".encode()).decode()
    connection = http.client.HTTPConnection("127.0.0.1", instance.ari_port, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", "/ari/asterisk/ping", headers={"Authorization": f"Basic {token}"})
        return connection.getresponse().status


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class TestConfiguration:
    def test_every_placeholder_has_a_value(self) -> None:
        with pytest.raises(KeyError):
            asterisk_config.render({})
        names = "APP ARIPASSWORD ARIPORT ARIUSER ENTITY MAXFILES MODULELINES MODULES PEERPORT PHONEPASSWORD"
        more = "PHONEUSER RTPFIRST RTPLAST RUN SIPBIND SIPPORT"
        values = dict.fromkeys(f"{names} {more}".split(), "value")
        files = asterisk_config.render(values)
        assert {"asterisk.conf", "ari.conf", "pjsip.conf", "extensions.conf", "cel.conf"} <= set(files)
        assert not [name for name, text in files.items() if re.search(r"@[A-Z]+@", text)]
        assert "exten => 701,1,Stasis(value,some,args)" in files["extensions.conf"]
        assert "${STASISSTATUS}" in files["extensions.conf"]

    def test_only_modules_that_exist_are_loaded(self) -> None:
        lines = asterisk_modules.modules_conf(
            [*asterisk_modules.REQUIRED, "app_echo", "app_queue"]
        ).splitlines()
        assert "require = chan_pjsip.so" in lines
        assert [line for line in lines if line.startswith("load")] == ["load = app_echo.so"]

    def test_no_module_is_listed_twice(self) -> None:
        listed = [*asterisk_modules.REQUIRED, *asterisk_modules.OPTIONAL]
        assert len(listed) == len(set(listed))

    def test_missing_modules_are_named(self) -> None:
        assert asterisk_modules.missing(set(asterisk_modules.REQUIRED) - {"res_ari"}) == ["res_ari"]

    def test_an_application_name_that_would_break_the_dialplan(self) -> None:
        with pytest.raises(SettingsError, match="app"):
            AsteriskInstance(app="one,two")


class TestInstallation:
    def make_tree(self, root: Path, version: str) -> Path:
        """A tree whose Asterisk is a shell script, run by a loader that only hands over."""
        modules = root / "usr/lib/x86_64-linux-gnu/asterisk/modules"
        modules.mkdir(parents=True)
        for name in asterisk_modules.REQUIRED:
            (modules / f"{name}.so").touch()
        for path, text in {
            "usr/lib64/ld-linux-x86-64.so.2": '#!/bin/sh\nshift 2\nexec "$@"\n',
            "usr/sbin/asterisk": f"#!/bin/sh\necho 'Asterisk {version}'\n",
        }.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
            (root / path).chmod(0o755)
        return root

    def test_a_tree_of_ones_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        root = self.make_tree(tmp_path, "20.6.0~dfsg+1")
        monkeypatch.setenv("ARIVOX_ASTERISK", str(root))
        found = find_or_fetch()
        assert (found.version, found.major) == ("20.6.0~dfsg+1", 20)
        assert found.argv[-1] == str(root / "usr/sbin/asterisk")
        assert "res_ari" in found.module_names()

    def test_one_that_is_too_old(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ARIVOX_ASTERISK", str(self.make_tree(tmp_path, "18.10.0")))
        with pytest.raises(AsteriskError, match=r"is Asterisk 18\.10\.0, 20 or newer is needed"):
            find_or_fetch()

    def test_one_that_lacks_a_module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        root = self.make_tree(tmp_path, "22.1.0")
        (root / "usr/lib/x86_64-linux-gnu/asterisk/modules/chan_rtp.so").unlink()
        monkeypatch.setenv("ARIVOX_ASTERISK", str(root))
        with pytest.raises(AsteriskError, match=r"lacks chan_rtp\.so"):
            find_or_fetch()

    def test_a_directory_without_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ARIVOX_ASTERISK", str(tmp_path))
        with pytest.raises(AsteriskError, match="holds no Asterisk"):
            find_or_fetch()

    def test_a_word_that_means_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ARIVOX_ASTERISK", "newest")
        with pytest.raises(SettingsError, match="ARIVOX_ASTERISK: 'newest'"):
            find_or_fetch()

    def test_the_installed_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        root = self.make_tree(tmp_path, "22.1.0")
        (root / "usr/share/asterisk/documentation").mkdir(parents=True)
        (root / "usr/share/asterisk/documentation/core-en_US.xml").touch()
        monkeypatch.setenv("PATH", f"{root / 'usr/sbin'}:{os.environ['PATH']}")
        monkeypatch.setenv("ARIVOX_ASTERISK", "system")
        found = find_or_fetch()
        assert found.argv == (str(root / "usr/sbin/asterisk"),)
        assert found.data == root / "usr/share/asterisk"
        # Where nothing is said, it is taken if nothing has been fetched.
        monkeypatch.delenv("ARIVOX_ASTERISK")
        assert find_or_fetch(cache=tmp_path / "cache") == found

    def test_none_is_installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
        monkeypatch.setenv("ARIVOX_ASTERISK", "system")
        with pytest.raises(AsteriskError, match="no program asterisk on the PATH"):
            find_or_fetch()


@pytest.mark.asterisk
class TestInstance:
    def test_it_runs_with_all_that_was_asked_for(self, asterisk: AsteriskInstance) -> None:
        assert ping(asterisk) == 200
        assert ping(asterisk, "wrong") == 401
        assert asterisk.version.split(".")[0] in asterisk.cli("core show version")
        assert f"sip:peer@127.0.0.1:{asterisk.peer_port}" in asterisk.cli("pjsip show contacts")
        transports = asterisk.cli("pjsip show transports")
        assert len(re.findall(rf"(?:udp|tcp) .*127\.0\.0\.1:{asterisk.sip_port}", transports)) == 2
        first, last = asterisk.rtp_range
        assert f"{first} -> {last}" in asterisk.full_log()

    def test_its_log_is_clean(self, asterisk: AsteriskInstance) -> None:
        start = asterisk.full_log().partition("Asterisk Ready.")[0]
        assert [line for line in start.splitlines() if re.search(r"\b(WARNING|ERROR)\[", line)] == []

    def test_two_side_by_side(self, asterisk: AsteriskInstance, installation: Installation) -> None:
        with AsteriskInstance(installation=installation) as other:
            assert {other.ari_port, other.sip_port}.isdisjoint({asterisk.ari_port, asterisk.sip_port})
            assert ping(other) == ping(asterisk) == 200
            assert ping(other, asterisk.ari_password) == 401

    def test_stop_leaves_nothing(self, installation: Installation) -> None:
        instance = AsteriskInstance(installation=installation)
        instance.start()
        pid, run_dir = instance.pid, instance.run_dir
        assert alive(pid)
        assert instance.running
        instance.stop()
        assert not alive(pid)
        assert not instance.running
        assert not run_dir.exists()
        assert ports.tcp_port_free(instance.ari_port)
        assert ports.udp_port_free(instance.sip_port)
        instance.stop()
        # It can be started again.
        with instance:
            assert ping(instance) == 200

    def test_a_run_directory_of_ones_own_stays(self, installation: Installation, tmp_path: Path) -> None:
        with AsteriskInstance(installation=installation, run_dir=tmp_path / "run") as instance:
            assert ping(instance) == 200
        assert "Asterisk Ready." in (tmp_path / "run/log/full.log").read_text()

    def test_a_run_directory_too_deep_for_its_socket(
        self, installation: Installation, tmp_path: Path
    ) -> None:
        with pytest.raises(SettingsError, match="run_dir: the path"):
            AsteriskInstance(installation=installation, run_dir=tmp_path / ("x" * 100)).start()

    def test_a_given_port_that_is_taken(self, installation: Installation) -> None:
        for kind, setting in (
            (socket.SOCK_STREAM, "ari_port"),
            (socket.SOCK_STREAM, "sip_port"),
            (socket.SOCK_DGRAM, "sip_port"),
        ):
            with socket.socket(socket.AF_INET, kind) as holder:
                holder.bind(("127.0.0.1", 0))
                if kind is socket.SOCK_STREAM:
                    holder.listen()
                port = holder.getsockname()[1]
                protocol = "TCP" if kind is socket.SOCK_STREAM else "UDP"
                instance = AsteriskInstance(
                    installation=installation,
                    sip_port=port if setting == "sip_port" else None,
                    ari_port=port if setting == "ari_port" else None,
                )
                with pytest.raises(
                    AsteriskError, match=rf"{setting}: {protocol} 127\.0\.0\.1:{port} is in use"
                ):
                    instance.start()
                assert not instance.running

    def test_a_chosen_port_that_is_lost_is_replaced(
        self, installation: Installation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        free_port = ports.free_port
        chosen: list[int] = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
            holder.bind(("127.0.0.1", 0))
            taken = holder.getsockname()[1]

            def choose(host: str = "127.0.0.1") -> int:
                chosen.append(free_port(host) if chosen else taken)
                return chosen[-1]

            monkeypatch.setattr(ports, "free_port", choose)
            reports: list[str] = []
            with AsteriskInstance(installation=installation, report=reports.append) as instance:
                assert instance.sip_port != taken
                assert ping(instance) == 200
        assert reports == ["a port was taken while Asterisk started: starting again"]

    def test_a_start_that_fails_shows_the_log_and_keeps_it(
        self, installation: Installation, tmp_path: Path
    ) -> None:
        modules = tmp_path / "modules"
        modules.mkdir()
        for path in installation.modules.glob("*.so"):
            if path.stem != "chan_rtp":
                (modules / path.name).symlink_to(path)
        instance = AsteriskInstance(installation=dataclasses.replace(installation, modules=modules))
        with pytest.raises(AsteriskError, match=r"(?s)Asterisk ended while it started.*chan_rtp") as failure:
            instance.start()
        instance.stop()
        assert str(instance.run_dir) in str(failure.value)
        assert (instance.run_dir / "log/full.log").is_file()
        assert not instance.running
        shutil.rmtree(instance.run_dir)

    def test_it_does_not_live_longer_than_its_parent(self) -> None:
        command = [sys.executable, "-m", "arivox.testing.asterisk"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout
            described = json.loads(parent.stdout.readline())
            pid = described["pid"]
            assert alive(pid)
            parent.kill()
        try:
            wait_for(lambda: not alive(pid), "Asterisk outlived its parent")
        finally:
            shutil.rmtree(described["run_dir"])

    def test_the_end_of_the_thread_that_started_it_is_not_its_end(self, installation: Installation) -> None:
        instance = AsteriskInstance(installation=installation)
        starter = threading.Thread(target=instance.start)
        starter.start()
        starter.join()
        try:
            wait_for(lambda: not Path(f"/proc/self/task/{starter.native_id}").exists(), "the thread goes on")
            assert ping(instance) == 200
        finally:
            instance.stop()

    @pytest.mark.parametrize("number", [signals.SIGTERM, signals.SIGINT])
    def test_in_the_foreground(self, number: signals.Signals) -> None:
        command = [sys.executable, "-m", "arivox.testing.asterisk"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as runner:
            assert runner.stdout
            described = json.loads(runner.stdout.readline())
            assert described["ari_url"].startswith("http://127.0.0.1:")
            assert described["sip_port"]
            runner.send_signal(number)
            try:
                assert runner.wait(20) == 0
            finally:
                runner.kill()
        assert not alive(described["pid"])
        assert not Path(described["run_dir"]).exists()


@pytest.mark.asterisk
class TestDialplan:
    @pytest.mark.parametrize("extension", ["700", "701", "702"])
    async def test_without_an_application_the_fallback_is_heard(
        self, asterisk: AsteriskInstance, extension: str
    ) -> None:
        async with SipPhone(("127.0.0.1", asterisk.sip_port)) as phone:
            assert await phone.call(extension) == 200
            await phone.wait_state("down", timeout=10)
            heard = phone.heard().pcm
        assert len(heard) / 8000 == pytest.approx(2.0, abs=0.3)
        assert signal.dominant_frequency(heard) == pytest.approx(1004, abs=5)
        assert "STASISSTATUS=FAILED" in asterisk.full_log()

    async def test_without_a_fallback_the_call_is_refused(self, asterisk: AsteriskInstance) -> None:
        async with SipPhone(("127.0.0.1", asterisk.sip_port)) as phone:
            assert await phone.call("703") >= 400

    async def test_milliwatt(self, asterisk: AsteriskInstance) -> None:
        async with SipPhone(("127.0.0.1", asterisk.sip_port)) as phone:
            assert await phone.call("601") == 200
            start = await phone.wait_heard()
            await phone.wait_heard(after=start + 0.4)
            await phone.hangup()
            assert signal.dominant_frequency(phone.heard().pcm) == pytest.approx(1004, abs=5)

    async def test_a_phone_of_a_law_alone(self, asterisk: AsteriskInstance) -> None:
        server = ("127.0.0.1", asterisk.sip_port)
        async with SipPhone(server, user="alawphone", codecs=("ulaw",)) as phone:
            assert await phone.call("600") == 488
        async with SipPhone(server, user="alawphone", codecs=("ulaw", "alaw")) as phone:
            assert await phone.call("600") == 200
            assert phone.remote is not None
            await phone.hangup()

    async def test_a_softphone_registers_with_its_password(self, asterisk: AsteriskInstance) -> None:
        server = ("127.0.0.1", asterisk.sip_port)
        async with SipPhone(server, user="phone", password="wrong") as phone:
            assert await phone.register() in (401, 403)
            assert await phone.call("600") in (401, 403)
        async with SipPhone(server, user="phone", password=asterisk.phone_password) as phone:
            assert await phone.register() == 200
            assert "phone/sip:phone@127.0.0.1" in asterisk.cli("pjsip show contacts")
            assert await phone.call("600") == 200
            await phone.hangup()

    async def test_nobody_calls_from_elsewhere_without_a_password(self, installation: Installation) -> None:
        address = own_address()
        if address is None:
            pytest.skip("this machine has no address but loopback")
        with AsteriskInstance(installation=installation, sip_bind="0.0.0.0") as open_to_all:
            server = (address, open_to_all.sip_port)
            for user in ("alawphone", "caller", "peer", "tester"):
                async with SipPhone(server, user=user, host=address) as phone:
                    assert await phone.call("600") in (401, 403)
            async with SipPhone(
                server, user="phone", host=address, password=open_to_all.phone_password
            ) as phone:
                assert await phone.call("600") == 200
                await phone.hangup()


def own_address() -> str | None:
    """An address of this machine besides loopback: that of its route to the documentation network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if address.startswith("127.") else address
