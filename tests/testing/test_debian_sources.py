from __future__ import annotations

import re
from pathlib import Path

import pytest

from arivox.testing.debian import DebianError, NotCarriedError
from arivox.testing.debian.choice import suites
from arivox.testing.debian.index import Index, closure, parse_relations, parse_release
from arivox.testing.debian.sources import (
    Machine,
    apt_mirrors,
    distribution_mirrors,
    parse_deb822,
    parse_list,
    parse_os_release,
)

BOOKWORM = Machine("debian", "bookworm")
NOBLE = Machine("ubuntu", "noble")
NOTHING = re.compile(r"\b\B")


class TestSources:
    def test_deb822_of_debian(self) -> None:
        sources = parse_deb822(
            "Types: deb\n# a comment\nURIs: http://a.example/debian\nSuites: bookworm bookworm-updates\n"
            "Components: main\nSigned-By: /x.gpg\n\n"
            "Types: deb\nURIs: http://a.example/debian-security\nSuites: bookworm-security\n"
            "Components: main\n"
        )
        assert distribution_mirrors(sources, BOOKWORM) == ["http://a.example/debian"]

    def test_deb822_of_ubuntu(self) -> None:
        sources = parse_deb822(
            "Types: deb\nURIs: http://a.example/ubuntu/\nSuites: noble noble-updates noble-backports\n"
            "Components: main universe restricted multiverse\nSigned-By:\n -----BEGIN PGP-----\n .\n abc\n\n"
            "Types: deb\nURIs: http://security.example/ubuntu/\nSuites: noble-security\nComponents: main\n\n"
            "Enabled: no\nTypes: deb\nURIs: http://b.example/ubuntu/\nSuites: noble\nComponents: main\n\n"
            "Types: deb-src\nURIs: http://c.example/ubuntu/\nSuites: noble\nComponents: main\n"
        )
        assert distribution_mirrors(sources, NOBLE) == ["http://a.example/ubuntu"]

    def test_deb822_fields_run_over_several_lines(self) -> None:
        (source, other) = parse_deb822(
            "Types: deb deb-src\nURIs: http://a.example/debian\n http://b.example/debian\n"
            "Suites:\n sid\n testing\nComponents: main contrib\n"
        )
        assert (source.uri, other.uri) == ("http://a.example/debian", "http://b.example/debian")
        assert source.suites == ("sid", "testing")
        assert distribution_mirrors([source], BOOKWORM) == ["http://a.example/debian"]

    def test_one_line_format(self) -> None:
        sources = parse_list(
            "# deb http://old.example/debian bookworm main\n"
            "deb cdrom:[Debian 12]/ bookworm main\n"
            "deb [arch=arm64 signed-by=/x.gpg] http://ports.example/ubuntu-ports noble main universe # mine\n"
            "deb-src http://src.example/ubuntu noble main\n"
            "deb http://vendor.example/apt noble-pgdg main\n"
            "deb http://flat.example/ ./\n"
        )
        assert distribution_mirrors(sources, NOBLE) == ["http://ports.example/ubuntu-ports"]

    def test_os_release_of_a_derivative(self) -> None:
        text = 'ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_CODENAME=wilma\nUBUNTU_CODENAME=noble\n'
        assert parse_os_release(text) == NOBLE

    def test_os_release_of_debian_and_of_others(self) -> None:
        assert parse_os_release('ID=debian\nVERSION_CODENAME="bookworm"\n') == BOOKWORM
        assert parse_os_release("ID=fedora\nVERSION_ID=42\n") == Machine("", "")

    def test_files_of_a_machine(self, tmp_path: Path) -> None:
        apt = tmp_path / "etc/apt/sources.list.d"
        apt.mkdir(parents=True)
        stanza = "Types: deb\nURIs: {}\nSuites: noble\nComponents: main\n\n"
        uris = ("mirror+file:/etc/apt/mirrors.txt", "file:/srv/mirror", "https://a.example/ubuntu/")
        (apt / "ubuntu.sources").write_text("".join(stanza.format(uri) for uri in uris))
        (tmp_path / "etc/apt/mirrors.txt").write_text("http://b.example/ubuntu/\tpriority:1\n# none\n")
        (tmp_path / "etc/apt/sources.list").write_text("deb https://a.example/ubuntu noble main\n")
        assert apt_mirrors(NOBLE, tmp_path) == ["http://b.example/ubuntu", "https://a.example/ubuntu"]

    def test_a_machine_without_apt(self, tmp_path: Path) -> None:
        assert apt_mirrors(NOBLE, tmp_path) == []

    @pytest.mark.parametrize(
        ("url", "machine", "expected"),
        [
            ("http://a.example/debian", BOOKWORM, ["forky", "testing", "sid"]),
            ("http://a.example/debian", NOBLE, ["forky", "testing", "sid"]),
            ("http://a.example/ubuntu", NOBLE, ["noble"]),
            ("http://a.example/mirror", Machine("ubuntu", "jammy"), ["jammy"]),
            ("http://a.example/ubuntu-ports", BOOKWORM, ["noble"]),
            ("http://a.example/mirror", Machine("", ""), ["forky", "testing", "sid"]),
        ],
    )
    def test_suites(self, url: str, machine: Machine, expected: list[str]) -> None:
        assert list(suites(url, machine)) == expected


def index_of(*stanzas: str) -> Index:
    index = Index("forky")
    rest = "Version: 1\nFilename: f\nSHA256: 00\nSize: 1\n"
    index.add("\n".join(f"{stanza}\n{rest}" for stanza in stanzas))
    return index


class TestIndex:
    def test_relations(self) -> None:
        text = "libc6 (>= 2.38), default-mta | mail-transport-agent, python3:any (<< 4) [amd64] , "
        assert parse_relations(text) == (("libc6",), ("default-mta", "mail-transport-agent"), ("python3",))
        assert parse_relations("") == ()

    def test_version_without_epoch(self) -> None:
        index = Index("forky")
        index.add("Package: a\nVersion: 1:22.10.1+dfsg-1\nFilename: pool/a.deb\nSHA256: ff\nSize: 12\n")
        package = index.packages["a"]
        assert (package.upstream, package.filename, package.size) == ("22.10.1+dfsg-1", "pool/a.deb", 12)

    def test_broken_stanza_names_the_package(self) -> None:
        with pytest.raises(DebianError, match=r"forky is broken at flite: 'Version'"):
            Index("forky").add("Package: flite\nSize: 3\n")

    def test_closure_follows_alternatives_and_providers(self) -> None:
        index = index_of(
            "Package: a\nPre-Depends: b\nDepends: gone | virtual (>= 2), c | d",
            "Package: b\nDepends: a",
            "Package: c",
            "Package: d",
            "Package: e\nProvides: other, virtual (= 2)",
        )
        assert [p.name for p in closure(index, ["a"], NOTHING)] == ["a", "b", "e", "c"]

    def test_closure_leaves_out_what_is_excluded_but_never_a_root(self) -> None:
        index = index_of(
            "Package: a\nDepends: x1, gone | x2, b, virtual", "Package: b", "Package: x1\nDepends: c"
        )
        index.add("Package: x3\nProvides: virtual\nVersion: 1\nFilename: f\nSHA256: 00\nSize: 1\n")
        exclude = re.compile(r"x\d|gone")
        assert [p.name for p in closure(index, ["a"], exclude)] == ["a", "b"]
        assert [p.name for p in closure(index, ["x3"], exclude)] == ["x3"]

    def test_closure_names_what_is_missing(self) -> None:
        index = index_of("Package: a\nDepends: b | c")
        with pytest.raises(NotCarriedError, match="suite forky does not carry flite"):
            closure(index, ["flite"], NOTHING)
        with pytest.raises(NotCarriedError, match="does not carry b or c, which a depends on"):
            closure(index, ["a"], NOTHING)

    def test_release(self) -> None:
        release = parse_release(
            "Origin: Ubuntu\nMD5Sum:\n aa 1 main/x\n"
            "SHA256:\n bb  12 main/x\n cc 3 main/y\nSHA512:\n dd 1 main/x\n"
        )
        assert release.origin == "Ubuntu"
        assert release.sha256 == {"main/x": "bb", "main/y": "cc"}
