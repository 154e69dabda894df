"""The package index of a suite: its Release file, its Packages files and the closure of dependencies.

Formats: the Debian Policy Manual chapter 7 (relationships) and the repository format of the Debian wiki.
Everything here is pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from arivox.testing.debian.errors import DebianError, NotCarriedError

_FIELD = re.compile(
    r"^(Package|Version|Depends|Pre-Depends|Provides|Filename|Size|SHA256):[ \t]*(.*)$", re.MULTILINE
)
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")


@dataclass(frozen=True, slots=True)
class Package:
    """One binary package as its index describes it."""

    name: str
    version: str
    filename: str
    """Path below the mirror."""
    sha256: str
    size: int
    """Bytes to download."""
    depends: tuple[tuple[str, ...], ...]
    """What it needs: each entry lists alternatives, of which one must be there."""

    @property
    def upstream(self) -> str:
        """The version without its epoch: fit for a file name."""
        return self.version.rpartition(":")[2]


@dataclass(slots=True)
class Index:
    """The packages of one suite, and who provides which virtual package."""

    suite: str
    packages: dict[str, Package] = field(default_factory=dict)
    providers: dict[str, list[str]] = field(default_factory=dict)

    def add(self, text: str) -> None:
        """Add the stanzas of a Packages file. Raises DebianError where a stanza lacks a field."""
        for stanza in text.split("\n\n"):
            fields = dict(_FIELD.findall(stanza))
            if "Package" not in fields:
                continue
            try:
                package = Package(
                    fields["Package"],
                    fields["Version"],
                    fields["Filename"],
                    fields["SHA256"],
                    int(fields["Size"]),
                    parse_relations(f"{fields.get('Pre-Depends', '')},{fields.get('Depends', '')}"),
                )
            except (KeyError, ValueError) as error:
                raise DebianError(
                    f"the package index of {self.suite} is broken at {fields['Package']}: {error}"
                ) from error
            self.packages[package.name] = package
            for (virtual,) in parse_relations(fields.get("Provides", "")):
                self.providers.setdefault(virtual, []).append(package.name)

    def find(self, name: str) -> Package | None:
        """Return the package called ``name``, or the first one that provides it."""
        if name in self.packages:
            return self.packages[name]
        for provider in self.providers.get(name, ()):
            return self.packages[provider]
        return None


def parse_relations(text: str) -> tuple[tuple[str, ...], ...]:
    """Read ``a (>= 1) | b, c:any`` as ``(("a", "b"), ("c",))``, without versions: a suite is coherent."""
    groups = ([_NAME.match(word.strip()) for word in group.split("|")] for group in text.split(","))
    return tuple(names for group in groups if (names := tuple(m[0] for m in group if m)))


def closure(index: Index, roots: Iterable[str], exclude: re.Pattern[str]) -> list[Package]:
    """Return ``roots`` and all they depend on, roots first, without dependencies that ``exclude`` fits.

    Of alternatives the first that is excluded or that the suite carries decides. Raises NotCarriedError where
    a root or all alternatives of a dependency are missing.
    """
    chosen: dict[str, Package] = {}
    wanted: list[tuple[tuple[str, ...], str]] = [((name,), "") for name in roots]
    for alternatives, asker in wanted:
        package = None
        for name in alternatives:
            if asker and exclude.fullmatch(name):
                break
            if package := index.find(name):
                break
        else:
            why = f", which {asker} depends on" if asker else ""
            raise NotCarriedError(f"suite {index.suite} does not carry {' or '.join(alternatives)}{why}")
        if package and package.name not in chosen and not (asker and exclude.fullmatch(package.name)):
            chosen[package.name] = package
            wanted += [(group, package.name) for group in package.depends]
    return list(chosen.values())


@dataclass(frozen=True, slots=True)
class Release:
    """What a suite says of itself."""

    origin: str
    """``Debian`` or ``Ubuntu`` for the distributions themselves; vendors have other names."""
    sha256: Mapping[str, str]
    """SHA-256 in hex by path below the suite."""


def parse_release(text: str) -> Release:
    """Read a Release file (without its signature)."""
    origin = re.search(r"^Origin:\s*(.*?)\s*$", text, re.MULTILINE)
    return Release(origin[1] if origin else "", dict(_hashes(text)))


def _hashes(text: str) -> Iterator[tuple[str, str]]:
    _, _, section = text.partition("\nSHA256:")
    for line in section.splitlines()[1:]:
        if not line.startswith(" "):
            return
        digest, _size, path = line.split()
        yield path, digest
