from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import io
import lzma
import os
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from arivox.errors import SettingsError
from arivox.testing.debian import DebianError, NotCarriedError, choice, ensure_tree, is_cached, loader, tree
from arivox.testing.debian.archive import data_member, unpack_deb, unpack_tar
from arivox.testing.debian.mirror import Mirror

WHICH = shutil.which


def make_tar(entries: dict[str, bytes | str], mode: str = "w:xz") -> bytes:
    """A tar of ``entries``: bytes are files, ``-> x`` is a symbolic link, ``=> x`` a hard link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            if isinstance(content, bytes):
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            else:
                member.type = tarfile.SYMTYPE if content.startswith("->") else tarfile.LNKTYPE
                member.linkname = content[3:]
                tar.addfile(member)
    return out.getvalue()


def make_deb(entries: dict[str, bytes | str], mode: str = "w:xz") -> bytes:
    suffix = mode.partition(":")[2]
    members = [
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", gzip.compress(b"odd")),
        (f"data.tar.{suffix}", make_tar(entries, mode)),
    ]
    deb = b"!<arch>\n"
    for name, body in members:
        deb += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(body):<10}`\n".encode()
        deb += body + b"\n" * (len(body) % 2)
    return deb


@dataclass
class FakeMirror:
    """A mirror of one suite, served on loopback."""

    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    url: str = ""

    def publish(
        self, debs: dict[str, bytes], suite: str = "forky", depends: dict[str, str] | None = None
    ) -> None:
        stanzas = []
        for name, deb in debs.items():
            path = f"pool/{name}.deb"
            self.files[path] = deb
            stanzas.append(
                f"Package: {name}\nVersion: 1:2.5-1\nDepends: {(depends or {}).get(name, '')}\n"
                f"Filename: {path}\nSize: {len(deb)}\nSHA256: {hashlib.sha256(deb).hexdigest()}\n"
            )
        packed = lzma.compress("\n".join(stanzas).encode())
        path = "main/binary-amd64/Packages.xz"
        self.files[f"dists/{suite}/{path}"] = packed
        release = f"Origin: Debian\nSHA256:\n {hashlib.sha256(packed).hexdigest()} {len(packed)} {path}\n"
        self.files[f"dists/{suite}/InRelease"] = release.encode()


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeMirror]:
    fake = FakeMirror()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.lstrip("/")
            fake.requests.append(path)
            if fake.failures.get(path, 0) > 0:
                fake.failures[path] -= 1
                self.send_error(503)
            elif path in fake.files:
                self.send_response(200)
                self.send_header("Content-Length", str(len(fake.files[path])))
                self.end_headers()
                self.wfile.write(fake.files[path])
            else:
                self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("ASTERISK_DEB_MIRROR", fake.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("ASTERISK_DEB_SUITE", raising=False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    # The fake signs nothing: this is a machine without gpgv.
    monkeypatch.setattr(shutil, "which", lambda _: None)
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


def keep_all(_: str) -> bool:
    return True


class TestArchive:
    @pytest.mark.parametrize("mode", ["w:xz", "w:gz"])
    def test_unpacks_as_a_merged_system(self, tmp_path: Path, mode: str) -> None:
        deb = make_deb(
            {
                "./lib/x86_64-linux-gnu/liba.so.1": b"library",
                "./lib64/ld.so": "-> /lib/x86_64-linux-gnu/liba.so.1",
                "./usr/lib/x86_64-linux-gnu/liba.so": "-> ../../../lib/x86_64-linux-gnu/liba.so.1",
                "./bin/tool": b"program",
                "./usr/bin/same": "=> ./bin/tool",
                "./usr/share/doc/a/README": b"unwanted",
            },
            mode,
        )
        path = tmp_path / "a.deb"
        path.write_bytes(deb)
        root = tmp_path / "tree"
        root.mkdir()
        unpack_deb(path, root, lambda name: not name.startswith("usr/share/doc"))
        for name in (
            "usr/lib/x86_64-linux-gnu/liba.so.1",
            "usr/lib64/ld.so",
            "usr/lib/x86_64-linux-gnu/liba.so",
        ):
            assert (root / name).read_bytes() == b"library"
        assert (root / "usr/bin/tool").read_bytes() == (root / "usr/bin/same").read_bytes() == b"program"
        assert os.access(root / "usr/bin/tool", os.X_OK)
        assert not (root / "usr/share").exists()
        assert not (root / "lib").exists()
        # The tree may be moved: no link in it is absolute.
        shutil.move(root, tmp_path / "moved")
        assert (tmp_path / "moved/usr/lib64/ld.so").read_bytes() == b"library"

    @pytest.mark.parametrize(
        "entries",
        [
            {"../evil": b"x"},
            {"./usr/../../evil": b"x"},
            {"/evil": b"x"},
            {"./usr/link": "-> ../../../evil"},
            {"./usr/link": "-> /../evil"},
            {"./usr/link": "=> ../evil"},
        ],
    )
    def test_nothing_lies_outside_of_the_tree(self, tmp_path: Path, entries: dict[str, bytes | str]) -> None:
        (tmp_path / "evil").write_bytes(b"before")
        root = tmp_path / "tree"
        root.mkdir()
        with (
            tarfile.open(fileobj=io.BytesIO(make_tar(entries))) as data,
            pytest.raises(DebianError, match="outside of its tree"),
        ):
            unpack_tar(data, root, keep_all)
        assert (tmp_path / "evil").read_bytes() == b"before"

    def test_a_link_already_there_leads_nothing_out(self, tmp_path: Path) -> None:
        root = tmp_path / "tree"
        root.mkdir()
        (root / "out").symlink_to(tmp_path)
        with (
            tarfile.open(fileobj=io.BytesIO(make_tar({"./out/evil": b"x"}))) as data,
            pytest.raises(DebianError, match="behind a link"),
        ):
            unpack_tar(data, root, keep_all)
        assert not (tmp_path / "evil").exists()

    def test_a_file_replaces_a_link_instead_of_following_it(self, tmp_path: Path) -> None:
        root = tmp_path / "tree"
        root.mkdir()
        entries: dict[str, bytes | str] = {"./a": b"first", "./b": "-> a"}
        with tarfile.open(fileobj=io.BytesIO(make_tar(entries))) as data:
            unpack_tar(data, root, keep_all)
        with tarfile.open(fileobj=io.BytesIO(make_tar({"./b": b"second"}))) as data:
            unpack_tar(data, root, keep_all)
        assert ((root / "a").read_bytes(), (root / "b").read_bytes()) == (b"first", b"second")

    @pytest.mark.parametrize(
        ("deb", "problem"),
        [
            (b"PK\x03\x04", "does not start as an ar archive"),
            (b"!<arch>\n", "no data.tar"),
            (b"!<arch>\n" + b"data.tar.xz     " + b"x" * 44, "size of member 'data.tar.xz'"),
            (make_deb({"./a": b"x" * 100})[:-20], "cut short"),
        ],
    )
    def test_broken_packages(self, deb: bytes, problem: str) -> None:
        with pytest.raises(DebianError, match=problem):
            data_member(deb)

    def test_damaged_data_names_the_package(self, tmp_path: Path) -> None:
        path = tmp_path / "flite.deb"
        deb = make_deb({"./a": os.urandom(5000)})
        path.write_bytes(deb[:2000] + b"\0" * 500 + deb[2500:])
        with pytest.raises(DebianError, match=r"flite\.deb cannot be unpacked"):
            unpack_deb(path, tmp_path / "tree", keep_all)

    @pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
    def test_zstd(self, tmp_path: Path) -> None:
        (tmp_path / "p/DEBIAN").mkdir(parents=True)
        (tmp_path / "p/DEBIAN/control").write_text(
            "Package: a\nVersion: 1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: a\n"
        )
        (tmp_path / "p/usr/bin").mkdir(parents=True)
        (tmp_path / "p/usr/bin/tool").write_text("program")
        command = ["dpkg-deb", "-Zzstd", "--build", str(tmp_path / "p"), str(tmp_path / "a.deb")]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("this dpkg-deb has no zstd")
        unpack_deb(tmp_path / "a.deb", tmp_path / "tree", keep_all)
        assert (tmp_path / "tree/usr/bin/tool").read_text() == "program"


PROGRAM: dict[str, bytes | str] = {"./usr/bin/tool": b"program", "./usr/share/doc/tool/README": b"text"}
LIBRARY: dict[str, bytes | str] = {
    "./usr/lib/x86_64-linux-gnu/libtool.so.1": b"library",
    "./usr/lib64/ld-linux-x86-64.so.2": b"loader",
    "./usr/share/data": b"data",
}


def publish_tool(mirror: FakeMirror, suite: str = "forky") -> None:
    debs = {"tool": make_deb(PROGRAM), "libtool1": make_deb(LIBRARY, "w:gz"), "adduser": make_deb({})}
    mirror.publish(debs, suite, {"tool": "libtool1 (>= 2), adduser"})


class TestEnsureTree:
    def test_fetches_once_and_needs_no_network_after(self, mirror: FakeMirror, tmp_path: Path) -> None:
        publish_tool(mirror)
        steps: list[str] = []
        assert not is_cached("tool", ["tool"], cache=tmp_path)
        root = ensure_tree("tool", ["tool"], cache=tmp_path, report=steps.append)
        assert root == tmp_path / "tool-2.5-1-amd64"
        assert (root / "usr/bin/tool").read_bytes() == b"program"
        assert (root / "usr/lib/x86_64-linux-gnu/libtool.so.1").read_bytes() == b"library"
        assert not (root / "usr/share/doc").exists()
        assert any(
            "signature of suite forky not verified, this machine has no gpgv" in step for step in steps
        )
        assert any("downloading 2 packages" in step for step in steps)
        assert "pool/adduser.deb" not in mirror.requests
        assert {path.name for path in tmp_path.iterdir()} == {
            "tool-2.5-1-amd64",
            "tool-2.5-1-amd64.tar.gz",
            "tool.lock",
        }

        mirror.requests.clear()
        assert ensure_tree("tool", ["tool"], cache=tmp_path) == root
        shutil.rmtree(root)
        assert is_cached("tool", ["tool"], cache=tmp_path)
        assert ensure_tree("tool", ["tool"], cache=tmp_path) == root
        assert (root / "usr/bin/tool").read_bytes() == b"program"
        assert os.access(root / "usr/bin/tool", os.X_OK)
        assert mirror.requests == []

    def test_keep_chooses_files_but_never_against_libraries(self, mirror: FakeMirror, tmp_path: Path) -> None:
        publish_tool(mirror)
        root = ensure_tree("tool", ["tool"], keep=re.compile(r"^usr/bin/tool$"), cache=tmp_path)
        assert (root / "usr/bin/tool").exists()
        assert (root / "usr/lib/x86_64-linux-gnu/libtool.so.1").exists()
        assert not (root / "usr/share").exists()

    def test_another_recipe_is_fetched_anew(self, mirror: FakeMirror, tmp_path: Path) -> None:
        publish_tool(mirror)
        ensure_tree("tool", ["tool"], keep=re.compile(r"^usr/bin/"), cache=tmp_path)
        root = ensure_tree("tool", ["tool"], exclude=re.compile("libtool.*"), cache=tmp_path)
        assert (root / "usr/bin/tool").exists()
        assert not (root / "usr/lib").exists()

    def test_another_suite_is_fetched_anew(
        self, mirror: FakeMirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish_tool(mirror)
        ensure_tree("tool", ["tool"], cache=tmp_path)
        publish_tool(mirror, "sid")
        monkeypatch.setenv("ASTERISK_DEB_SUITE", "sid")
        assert not is_cached("tool", ["tool"], cache=tmp_path)
        ensure_tree("tool", ["tool"], cache=tmp_path)
        assert "dists/sid/InRelease" in mirror.requests

    def test_the_next_suite_is_tried(self, mirror: FakeMirror, tmp_path: Path) -> None:
        mirror.publish({"other": make_deb({})}, "forky")
        publish_tool(mirror, "sid")
        assert ensure_tree("tool", ["tool"], cache=tmp_path).is_dir()
        indices = [path.split("/")[1] for path in mirror.requests if path.endswith("InRelease")]
        assert indices == ["forky", "testing", "sid"]

    def test_a_package_in_no_suite(self, mirror: FakeMirror, tmp_path: Path) -> None:
        publish_tool(mirror)
        with pytest.raises(
            NotCarriedError, match=r"forky does not carry flite.*sid/InRelease answers HTTP 404"
        ) as e:
            ensure_tree("flite", ["flite"], cache=tmp_path)
        assert "ASTERISK_DEB_SUITE" in str(e.value)

    def test_a_vendor_among_the_sources_is_passed_over(
        self, mirror: FakeMirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish_tool(mirror)
        release = mirror.files["dists/forky/InRelease"].replace(b"Debian", b"Vendor")
        mirror.files = {f"debian/{path}": body for path, body in mirror.files.items()}
        mirror.files["vendor/debian/dists/forky/InRelease"] = release
        monkeypatch.delenv("ASTERISK_DEB_MIRROR")
        urls = [f"{mirror.url}/vendor/debian", f"{mirror.url}/debian"]
        monkeypatch.setattr(choice, "apt_mirrors", lambda _: urls)
        assert ensure_tree("tool", ["tool"], cache=tmp_path).is_dir()
        assert "vendor/debian/dists/forky/InRelease" in mirror.requests

    @pytest.mark.parametrize("path", ["pool/libtool1.deb", "dists/forky/main/binary-amd64/Packages.xz"])
    def test_what_was_tampered_with_is_refused(self, mirror: FakeMirror, tmp_path: Path, path: str) -> None:
        publish_tool(mirror)
        mirror.files[path] = mirror.files[path][:-1] + b"\0"
        with pytest.raises(DebianError, match=rf"{path} has SHA-256 [0-9a-f]{{64}}, but its index says"):
            ensure_tree("tool", ["tool"], cache=tmp_path)
        assert [entry.name for entry in tmp_path.iterdir()] == ["tool.lock"]

    def test_no_mirror_in_apt(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("ASTERISK_DEB_MIRROR", raising=False)
        monkeypatch.setattr(choice, "apt_mirrors", lambda _: [])
        with pytest.raises(DebianError, match=r"names no mirror.*Set ASTERISK_DEB_MIRROR"):
            ensure_tree("tool", ["tool"], cache=tmp_path)

    def test_a_mirror_that_is_no_url(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ASTERISK_DEB_MIRROR", "file:///srv/mirror")
        with pytest.raises(SettingsError, match="ASTERISK_DEB_MIRROR"):
            ensure_tree("tool", ["tool"], cache=tmp_path)

    def test_another_architecture(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("platform.machine", lambda: "riscv64")
        with pytest.raises(DebianError, match="amd64 and arm64 only, this is Linux on riscv64"):
            ensure_tree("tool", ["tool"], cache=tmp_path)

    def test_a_damaged_tarball_is_named(self, mirror: FakeMirror, tmp_path: Path) -> None:
        publish_tool(mirror)
        root = ensure_tree("tool", ["tool"], cache=tmp_path)
        shutil.rmtree(root)
        tarball = tmp_path / "tool-2.5-1-amd64.tar.gz"
        tarball.write_bytes(tarball.read_bytes()[:-40])
        with pytest.raises(DebianError, match=r"tool-2\.5-1-amd64\.tar\.gz cannot be read.*Delete it"):
            ensure_tree("tool", ["tool"], cache=tmp_path)

    def test_a_cache_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("a file")
        with pytest.raises(DebianError, match=r"cannot be kept in .*/cache.*ARIVOX_CACHE"):
            ensure_tree("tool", ["tool"], cache=tmp_path / "cache")

    def test_leftovers_of_a_killed_process_go(self, mirror: FakeMirror, tmp_path: Path) -> None:
        publish_tool(mirror)
        (tmp_path / ".tool.abc/debs").mkdir(parents=True)
        (tmp_path / ".tool-two.abc").mkdir()
        ensure_tree("tool", ["tool"], cache=tmp_path)
        assert not (tmp_path / ".tool.abc").exists()
        assert (tmp_path / ".tool-two.abc").exists()

    def test_several_at_once_fetch_once(self, mirror: FakeMirror, tmp_path: Path) -> None:
        # The lock belongs to an open file: threads stand for processes.
        publish_tool(mirror)
        with ThreadPoolExecutor(3) as pool:
            roots = list(pool.map(lambda _: ensure_tree("tool", ["tool"], cache=tmp_path), range(3)))
        assert set(roots) == {tmp_path / "tool-2.5-1-amd64"}
        assert mirror.requests.count("pool/tool.deb") == 1

    def test_cache_directory(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.delenv("ARIVOX_CACHE", raising=False)
        assert tree.cache_dir() == tmp_path / "arivox"
        monkeypatch.setenv("ARIVOX_CACHE", str(tmp_path / "own"))
        assert tree.cache_dir() == tmp_path / "own"


class TestMirror:
    def test_a_short_outage_is_ridden_out(self, mirror: FakeMirror) -> None:
        mirror.files["a"] = b"a"
        mirror.failures["a"] = 2
        found = Mirror(mirror.url, "amd64", print, backoff=0).fetch("a", hashlib.sha256(b"a").hexdigest())
        assert found == b"a"
        assert mirror.requests == ["a"] * 3

    def test_a_long_outage_ends_after_a_few_attempts(self, mirror: FakeMirror) -> None:
        mirror.failures["a"] = 99
        with pytest.raises(
            DebianError, match=r"/a cannot be downloaded \(4 attempts\).*503.*ASTERISK_DEB_MIRROR"
        ):
            Mirror(mirror.url, "amd64", print, backoff=0).fetch("a", "")
        assert len(mirror.requests) == 4

    def test_a_mirror_out_of_reach(self, mirror: FakeMirror) -> None:
        # Nothing listens on port 9 of loopback.
        with pytest.raises(
            DebianError, match=r"http://127\.0\.0\.1:9/a cannot be downloaded.*ASTERISK_DEB_MIRROR"
        ):
            Mirror("http://127.0.0.1:9", "amd64", print, backoff=0, attempts=2).fetch("a", "")

    @pytest.mark.skipif(
        shutil.which("gpg") is None or shutil.which("gpgv") is None, reason="needs gpg and gpgv"
    )
    def test_signatures(self, mirror: FakeMirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        publish_tool(mirror)
        keyrings = tmp_path / "keyrings"
        keyrings.mkdir()
        path = "dists/forky/InRelease"
        with gpg_home(tmp_path) as gpg:
            release = mirror.files[path]
            signed = subprocess.run(
                [*gpg, "--clearsign"], input=release, capture_output=True, check=True
            ).stdout
            key = subprocess.run([*gpg, "--export"], capture_output=True, check=True).stdout
        monkeypatch.setattr(shutil, "which", WHICH)
        (keyrings / "debian-archive-keyring.gpg").write_bytes(key)
        reports: list[str] = []
        trusting = Mirror(mirror.url, "amd64", reports.append, keyrings=keyrings)

        mirror.files[path] = signed
        assert "tool" in trusting.index("forky").packages
        assert reports == []
        # What stands before the signed part is not trusted.
        mirror.files[path] = b"Origin: Debian\nSHA256:\n 00 1 main/binary-amd64/Packages.xz\n\n" + signed
        assert "tool" in trusting.index("forky").packages
        for forged in (release, signed.replace(b"Origin: Debian", b"Origin: Debian ")):
            mirror.files[path] = forged.replace(b"amd64/Packages", b"amd64/packages")
            with pytest.raises(DebianError, match="signature of suite forky does not verify"):
                trusting.index("forky")


@contextlib.contextmanager
def gpg_home(tmp_path: Path) -> Iterator[list[str]]:
    home = tmp_path / "gpg"
    home.mkdir(mode=0o700)
    gpg = [
        "gpg",
        "--homedir",
        str(home),
        "--batch",
        "--quiet",
        "--pinentry-mode",
        "loopback",
        "--passphrase",
        "",
    ]
    subprocess.run([*gpg, "--quick-generate-key", "a@example.org", "ed25519", "sign"], check=True)
    try:
        yield gpg
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)


class TestLoader:
    def test_of_amd64_and_arm64(self, tmp_path: Path) -> None:
        for triplet, place, program in (
            ("x86_64-linux-gnu", "usr/lib64", "ld-linux-x86-64.so.2"),
            ("aarch64-linux-gnu", "usr/lib", "ld-linux-aarch64.so.1"),
        ):
            root = tmp_path / triplet
            (root / "usr/lib" / triplet).mkdir(parents=True)
            (root / place).mkdir(exist_ok=True)
            (root / place / program).touch()
            command = loader(root)
            assert command[:2] == [str(root / place / program), "--library-path"]
            assert command[2].split(":")[0] == str(root / "usr/lib" / triplet)

    def test_without_a_loader(self, tmp_path: Path) -> None:
        with pytest.raises(DebianError, match="has no dynamic loader"):
            loader(tmp_path)

    def test_a_path_that_the_loader_would_split(self, tmp_path: Path) -> None:
        with pytest.raises(DebianError, match="ARIVOX_CACHE"):
            loader(tmp_path / "a:b")
