"""Where this machine's apt gets its packages: os-release, sources.list and deb822 sources.

Formats: os-release(5), sources.list(5). The parsers are pure; :func:`apt_mirrors` reads the files.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# A machine on Debian may name the suite by its role instead of its codename.
_DEBIAN_ROLES = frozenset({"stable", "oldstable", "testing", "unstable", "sid"})


@dataclass(frozen=True, slots=True)
class Machine:
    """The distribution that this machine runs; both fields are ``""`` where it is neither of the two."""

    distribution: str
    """``debian``, ``ubuntu`` or ``""``."""
    codename: str
    """Its release: ``bookworm``, ``noble``."""


@dataclass(frozen=True, slots=True)
class Source:
    """One apt source of binary packages."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]


def parse_os_release(text: str) -> Machine:
    """Read os-release(5). A derivative counts as the distribution it is made from."""
    values = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z_0-9]+=", line))
    fields = {key: value.strip().strip("\"'") for key, value in values.items()}
    kin = [fields.get("ID", ""), *fields.get("ID_LIKE", "").split()]
    if "ubuntu" in kin:
        return Machine("ubuntu", fields.get("UBUNTU_CODENAME") or fields.get("VERSION_CODENAME", ""))
    if "debian" in kin:
        return Machine("debian", fields.get("DEBIAN_CODENAME") or fields.get("VERSION_CODENAME", ""))
    return Machine("", "")


def parse_list(text: str) -> list[Source]:
    """Read the one-line format: ``deb [options] uri suite component...``."""
    sources = []
    for line in text.splitlines():
        words = re.sub(r"\[[^]]*\]", " ", line.partition("#")[0], count=1).split()
        if len(words) >= 3 and words[0] == "deb":
            sources.append(Source(words[1], (words[2],), tuple(words[3:])))
    return sources


def parse_deb822(text: str) -> list[Source]:
    """Read the deb822 format: stanzas with ``Types``, ``URIs``, ``Suites`` and ``Components``."""
    sources = []
    uncommented = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", uncommented):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1].isspace():
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
            else:
                name, _, value = line.partition(":")
                name = name.lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        suites, components = fields.get("suites", "").split(), fields.get("components", "").split()
        sources += [Source(uri, tuple(suites), tuple(components)) for uri in fields.get("uris", "").split()]
    return sources


def distribution_mirrors(sources: list[Source], machine: Machine) -> list[str]:
    """Return the URIs among ``sources`` that may carry the whole distribution, in their order, each once.

    Sources of single vendors are told apart by suite and component where that is possible; those that remain
    show at the first request, because they do not name themselves Debian or Ubuntu.
    """
    suites = {machine.codename} | (_DEBIAN_ROLES if machine.distribution == "debian" else set())
    found = [s.uri.rstrip("/") for s in sources if "main" in s.components and suites & set(s.suites)]
    return list(dict.fromkeys(found))


def read_machine(root: Path = Path("/")) -> Machine:
    """Return the distribution that the system under ``root`` runs."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        if (root / name).is_file():
            return parse_os_release((root / name).read_text(encoding="utf-8"))
    return Machine("", "")


def apt_mirrors(machine: Machine, root: Path = Path("/")) -> list[str]:
    """Return the http(s) mirrors of the system's apt configuration under ``root``, the likeliest first."""
    apt = root / "etc/apt"
    sources: list[Source] = []
    for path in sorted((apt / "sources.list.d").glob("*.sources")):
        sources += parse_deb822(path.read_text(encoding="utf-8"))
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))]:
        if path.is_file():
            sources += parse_list(path.read_text(encoding="utf-8"))
    mirrors = [uri for uri in distribution_mirrors(sources, machine) for uri in _listed(uri, root)]
    return [uri for uri in mirrors if uri.startswith(("http://", "https://"))]


def _listed(uri: str, root: Path) -> Iterator[str]:
    # "mirror+file:/etc/apt/mirrors.txt" names a file of mirrors, one a line, with options after a tab.
    if not uri.startswith("mirror+file:"):
        yield uri
        return
    path = root / uri.removeprefix("mirror+file:").lstrip("/")
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words[0].rstrip("/")
