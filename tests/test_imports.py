"""Imports point one way: read from the source alone, what is imported for types only included."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

import pytest

import arivox

SOURCE = Path(arivox.__file__).parent

_BASE = {"backoff", "errors", "logs", "settings"}
ALLOWED: Mapping[str, Set[str]] = {
    # What starts.
    "__main__": {"cli"},
    "cli": {"", "conversation", "demo", "doctor", "emulator", "providers", "service", *_BASE},
    "demo": {"audio", "call", "conversation", "emulator", "providers", "service", "testing", *_BASE},
    "doctor": {"asterisk", "audio", "conversation", "media", "providers", "service", *_BASE},
    "service": {"asterisk", "call", "conversation", "media", "providers", "switchboard", *_BASE},
    # What a call is made of.
    "switchboard": {"asterisk", "call", "comparison", "roster", *_BASE},
    "comparison": {"asterisk", "call", "roster", *_BASE},
    "roster": {"asterisk", "call", *_BASE},
    "call": {"asterisk", "audio", "conversation", "media", "providers", "tools", *_BASE},
    "conversation": {
        "providers",
        "tools",
        *_BASE,
    },  # of the providers the contract alone
    "providers": {"audio", "media", *_BASE},
    "media": {"audio", *_BASE},
    "asterisk": _BASE,
    # What they stand on.
    "logs": {"settings"},  # the level, and which secrets to leave out
    "settings": {"errors"},
    "audio": {"errors"},
    "backoff": set(),
    "errors": set(),
    "tools": set(),  # the users' own tools import it
    # What stands in for Asterisk, the phone and the AI: no judge of the product may share its code.
    "emulator": {"audio", "errors", "testing"},
    "testing": {"audio", "errors", "media"},  # of media the clock's timer
    "": set(),
}
"""What each room may import; a room is a folder or a file of the package, "" the package itself."""

FACES: Mapping[str, Set[str]] = {"providers": {"base", "refusal", "registry", "socket"}}
"""What other rooms may import of a room: the contract, what a refusal means, the list, no AI by name."""


def modules(root: Path) -> dict[str, Path]:
    """Return the file of each module below ``root``, by its dotted name without the package's."""
    return {".".join(path.relative_to(root).with_suffix("").parts): path for path in root.rglob("*.py")}


def imported(name: str, path: Path, package: str) -> Iterator[str]:
    """Yield what a module imports: dotted names that may be a module's or of something within it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = [package, *name.split(".")][: -node.level] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def graph(root: Path, package: str) -> dict[str, set[str]]:
    """Return the modules that each module imports."""
    known = {
        ".".join(filter(None, [package, name.removesuffix("__init__").rstrip(".")])): name
        for name in modules(root)
    }
    found: dict[str, set[str]] = {name: set() for name in known.values()}
    for name, path in modules(root).items():
        for target in imported(name, path, package):
            there = known.get(target) or known.get(target.rpartition(".")[0])
            if there is not None and there != name:
                found[name].add(there)
    return found


def circle(edges: Mapping[str, Set[str]]) -> list[str]:
    """Return names that lead from one to the next and back to the first; nothing if there are none."""
    done: set[str] = set()

    def visit(name: str, above: list[str]) -> list[str]:
        if name in above:
            return [*above[above.index(name) :], name]
        if name in done:
            return []
        for target in sorted(edges.get(name, ())):
            if found := visit(target, [*above, name]):
                return found
        done.add(name)
        return []

    return next(filter(None, (visit(name, []) for name in sorted(edges))), [])


def room(name: str) -> str:
    return name.partition(".")[0].replace("__init__", "")


IMPORTS = graph(SOURCE, "arivox")


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(IMPORTS) == []


def test_rooms_import_in_the_stated_direction() -> None:
    assert circle(ALLOWED) == []
    assert {room(name) for name in IMPORTS} == set(ALLOWED), "each room has its line in ALLOWED"
    wrong = [
        f"{name} imports {target}"
        for name, targets in IMPORTS.items()
        for target in targets
        if room(target) not in {room(name), *ALLOWED[room(name)]}
    ]
    assert wrong == []


def test_what_is_within_a_room_is_its_own() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, targets in IMPORTS.items()
        for target in targets
        if room(target) != room(name)
        and target.partition(".")[2] not in FACES.get(room(target), {target.partition(".")[2]})
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "line",
    [
        "import own.b",
        "from own import b",
        "from own.b import thing",
        "from . import b",
        "from .b import thing",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from own.b import thing",
        "def later():\n    from own.b import thing",
    ],
)
def test_a_circle_is_found_however_it_is_written(tmp_path: Path, line: str) -> None:
    (tmp_path / "__init__.py").touch()
    (tmp_path / "a.py").write_text(line)
    (tmp_path / "b.py").write_text("from own.c import d")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "__init__.py").write_text("from ..a import e")
    assert circle(graph(tmp_path, "own")) == ["a", "b", "c.__init__", "a"]
