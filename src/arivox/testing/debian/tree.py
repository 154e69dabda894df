"""A tree of programs from Debian or Ubuntu packages, kept in the cache and run without installing it."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import os
import platform
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from arivox.testing.debian.archive import BROKEN, unpack_deb, unpack_tar
from arivox.testing.debian.choice import choose
from arivox.testing.debian.errors import DebianError
from arivox.testing.debian.recipe import Recipe

_log = logging.getLogger(__name__)

_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_MANIFEST = "arivox-tree.json"


def cache_dir() -> Path:
    """Return where fetched trees are kept: ``ARIVOX_CACHE``, or ``arivox`` in the user's cache."""
    if own := os.environ.get("ARIVOX_CACHE"):
        return Path(own).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "arivox"


def ensure_tree(
    name: str,
    packages: Sequence[str],
    *,
    keep: re.Pattern[str] | None = None,
    exclude: re.Pattern[str] | None = None,
    suite: str | None = None,
    cache: Path | None = None,
    report: Callable[[str], None] = _log.info,
) -> Path:
    """Return ``<cache>/<name>-<version>-<arch>/``, the unpacked ``packages`` with all they depend on.

    The first call downloads them from ``ASTERISK_DEB_MIRROR`` or the mirror of the machine's apt, and keeps
    the result as a tarball beside the tree: from then on no network is used, so a suite that moves on changes
    nothing. To fetch anew, delete the tarball and the tree. Safe in several processes at once. Blocking.

    ``keep`` is searched in each path (such as ``usr/bin/flite``) and says which files to keep besides the
    shared libraries; ``exclude`` fits the whole names of dependencies to do without. ``suite``, or
    ``ASTERISK_DEB_SUITE``, asks for one suite; else it is the machine's own on an Ubuntu mirror, and the
    first of forky, testing and sid that carries the packages on a Debian mirror. ``report`` is told of each
    step.

    Raises DebianError with what is at fault and what to do.
    """
    cache = cache or cache_dir()
    arch = _architecture()
    recipe = Recipe.of(packages, keep, exclude, suite)
    if tree := _find_tree(cache, name, arch, recipe):
        return tree
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / f"{name}.lock"):
            if tree := _find_tree(cache, name, arch, recipe):
                return tree
            # Only who was killed while holding the lock leaves one of these behind.
            for stale in cache.glob(f".{name}.*"):
                shutil.rmtree(stale)
            with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=cache) as scratch:
                tarball = _find_tarball(cache, name, arch, recipe)
                if tarball is None:
                    tarball = _fetch(name, arch, recipe, cache, Path(scratch), report)
                return _unpack(tarball, Path(scratch), report)
    except OSError as error:
        problem = f"{name} cannot be kept in {cache}: {error}"
        raise DebianError(problem, "Make room or give access there, or set ARIVOX_CACHE") from error


def is_cached(
    name: str,
    packages: Sequence[str],
    *,
    keep: re.Pattern[str] | None = None,
    exclude: re.Pattern[str] | None = None,
    suite: str | None = None,
    cache: Path | None = None,
) -> bool:
    """Return whether :func:`ensure_tree` with the same arguments would find what it needs in the cache."""
    cache = cache or cache_dir()
    recipe = Recipe.of(packages, keep, exclude, suite)
    arch = _architecture()
    return bool(_find_tree(cache, name, arch, recipe) or _find_tarball(cache, name, arch, recipe))


def loader(tree: Path) -> list[str]:
    """Return the start of a command line that runs a program of ``tree``, whatever libc this machine has.

    ``loader(tree) + [tree / "usr/bin/flite", ...]``. Raises DebianError where ``tree`` has no dynamic loader.
    """
    tree = tree.absolute()
    if ":" in str(tree) or ";" in str(tree):
        raise DebianError(
            f"{tree} has a character in its path that separates library paths",
            "Set ARIVOX_CACHE to a directory without ':' and ';'",
        )
    for directory in sorted(tree.glob("usr/lib/*-linux-gnu")):
        for place in (directory, tree / "usr/lib64", tree / "usr/lib"):
            for program in sorted(place.glob("ld-linux-*.so.*")):
                return [str(program), "--library-path", f"{directory}:{tree / 'usr/lib'}"]
    raise DebianError(f"{tree} has no dynamic loader", "Delete it and its tarball, and fetch it again")


def _architecture() -> str:
    machine = platform.machine().lower()
    if platform.system() != "Linux" or machine not in _ARCHITECTURES:
        raise DebianError(
            f"packages are for Linux on amd64 and arm64 only, this is {platform.system()} on {machine}",
            "Install the program yourself, or run in a Linux container",
        )
    return _ARCHITECTURES[machine]


def _find_tree(cache: Path, name: str, arch: str, recipe: Recipe) -> Path | None:
    for manifest in sorted(cache.glob(f"{name}-*-{arch}/{_MANIFEST}"), key=_age):
        if recipe.fits(json.loads(manifest.read_text(encoding="utf-8"))):
            return manifest.parent
    return None


def _find_tarball(cache: Path, name: str, arch: str, recipe: Recipe) -> Path | None:
    for path in sorted(cache.glob(f"{name}-*-{arch}.tar.gz"), key=_age):
        with _readable(path) as tar:
            # The manifest is the first member, so that this reads one block.
            first = tar.next()
            file = tar.extractfile(first) if first and first.name == _MANIFEST else None
            if file and recipe.fits(json.load(file)):
                return path
    return None


def _age(path: Path) -> float:
    return -path.stat().st_mtime


@contextlib.contextmanager
def _readable(tarball: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(tarball, "r:gz") as tar:
            yield tar
    except BROKEN as error:
        raise DebianError(
            f"{tarball} cannot be read: {error}", "Delete it, it will be fetched again"
        ) from error


def _fetch(
    name: str, arch: str, recipe: Recipe, cache: Path, work: Path, report: Callable[[str], None]
) -> Path:
    mirror, suite, chosen = choose(recipe.packages, arch, recipe.suite, recipe.exclude, report)
    size = sum(package.size for package in chosen) / 1e6
    report(f"{name}: downloading {len(chosen)} packages, {size:.1f} MB, from suite {suite} of {mirror.url}")
    debs, tree = work / "debs", work / "new"
    debs.mkdir()
    tree.mkdir()
    for path in mirror.download(chosen, debs):
        unpack_deb(path, tree, recipe.wanted)
        path.unlink()
    manifest = recipe.manifest(suite, {package.name: package.version for package in chosen})
    tarball = work / f"{name}-{chosen[0].upstream}-{arch}.tar.gz"
    with tarfile.open(tarball, "w:gz", compresslevel=6) as tar:
        text = json.dumps(manifest, indent=1).encode()
        member = tarfile.TarInfo(_MANIFEST)
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
        for path in sorted(tree.iterdir()):
            tar.add(path, path.name, filter=_anonymous)
    shutil.rmtree(tree)
    return tarball.replace(cache / tarball.name)


def _unpack(tarball: Path, work: Path, report: Callable[[str], None]) -> Path:
    final = tarball.with_name(tarball.name.removesuffix(".tar.gz"))
    report(f"unpacking {tarball} to {final}")
    tree = work / "tree"
    tree.mkdir()
    with _readable(tarball) as tar:
        unpack_tar(tar, tree, lambda _: True)
    if final.exists():
        final.rename(work / "old")
    return tree.rename(final)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
