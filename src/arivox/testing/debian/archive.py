"""Unpacking of .deb files, without dpkg and without root.

Formats: deb(5), an ``ar`` archive whose member ``data.tar.*`` holds the files.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import posixpath
import re
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

from arivox.testing.debian.errors import DebianError

_MAGIC = b"!<arch>\n"
_HEADER = 60  # bytes before each member of an ar archive
# The directories that a merged-/usr system keeps as links into /usr.
_MERGED = re.compile(r"^(lib|lib32|lib64|libx32|bin|sbin)(?=/|$)")

BROKEN = (tarfile.TarError, EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error)
"""What reading a damaged archive raises."""


def data_member(deb: bytes) -> tuple[str, bytes]:
    """Return name and bytes of the ``data.tar.*`` member. Raises DebianError where ``deb`` is no package."""
    if not deb.startswith(_MAGIC):
        raise DebianError("not a Debian package: it does not start as an ar archive")
    at = len(_MAGIC)
    while at + _HEADER <= len(deb):
        header = deb[at : at + _HEADER]
        name = header[:16].decode("ascii", "replace").rstrip().rstrip("/")
        try:
            size = int(header[48:58])
        except ValueError as error:
            raise DebianError(f"broken Debian package: size of member {name!r}") from error
        at += _HEADER
        if name.startswith("data.tar"):
            if at + size > len(deb):
                raise DebianError(f"broken Debian package: {name} is cut short")
            return name, deb[at : at + size]
        at += size + size % 2
    raise DebianError("broken Debian package: no data.tar in it")


def unpack_deb(path: Path, tree: Path, wanted: Callable[[str], bool]) -> None:
    """Unpack the files of the package at ``path`` into ``tree``: those whose path in it is ``wanted``.

    Raises DebianError where the package is broken, or a file of it would lie outside of ``tree``.
    """
    try:
        name, packed = data_member(path.read_bytes())
        if name.endswith(".zst"):
            # Ubuntu packs with zstd, for which the standard library has no decoder before 3.14.
            packed = _dpkg_data(path)
        with tarfile.open(fileobj=io.BytesIO(packed)) as data:
            unpack_tar(data, tree, wanted)
    except BROKEN as error:
        raise DebianError(f"{path.name} cannot be unpacked: {error}") from error


def unpack_tar(data: tarfile.TarFile, tree: Path, wanted: Callable[[str], bool]) -> None:
    """Unpack ``data`` into ``tree`` as a merged-/usr system: /lib, /bin and their like go to /usr.

    Directories come as they are needed; devices and owners are left out; absolute links become relative ones.
    ``wanted`` gets each path as it will lie in the tree, such as ``usr/bin/flite``. Raises DebianError where
    something would lie outside of ``tree``, and one of :data:`BROKEN` where ``data`` is damaged.
    """
    for member in data:
        name = _inside(member.name)
        if member.isdir() or not wanted(name):
            continue
        target = _way_to(tree, name)
        target.unlink(missing_ok=True)
        if member.issym():
            target.symlink_to(_relative(name, member))
        elif member.islnk():
            first = _way_to(tree, _inside(member.linkname))
            if first.is_symlink() or not first.is_file():
                raise DebianError(f"{member.name} is a link to {member.linkname}, which is not there")
            os.link(first, target)
        elif member.isfile() and (source := data.extractfile(member)):
            with source, target.open("wb") as file:
                shutil.copyfileobj(source, file)
            target.chmod((member.mode & 0o755) | 0o600)


def _inside(name: str) -> str:
    path = posixpath.normpath(name)
    if path.startswith(("/", "../")) or path == "..":
        raise DebianError(f"{name!r} lies outside of its tree")
    return _MERGED.sub(r"usr/\1", path, count=1)


def _relative(name: str, link: tarfile.TarInfo) -> str:
    # Absolute links are meant from the root of the system, relative ones from where the package has them.
    absolute = link.linkname.startswith("/")
    whole = (
        link.linkname.lstrip("/") if absolute else posixpath.join(posixpath.dirname(link.name), link.linkname)
    )
    return posixpath.relpath(_inside(whole), posixpath.dirname(name) or ".")


def _way_to(tree: Path, name: str) -> Path:
    # A link among the parents, unpacked before, must not lead what follows out of the tree.
    parent = (tree / name).parent
    parent.mkdir(parents=True, exist_ok=True)
    if not parent.resolve().is_relative_to(tree.resolve()):
        raise DebianError(f"{name!r} lies outside of its tree, behind a link")
    return tree / name


def _dpkg_data(path: Path) -> bytes:
    command = ["dpkg-deb", "--fsys-tarfile", str(path)]
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except FileNotFoundError as error:
        raise DebianError(f"{path.name} is packed with zstd", "Install dpkg to unpack it") from error
    except subprocess.CalledProcessError as error:
        detail = error.stderr.decode("utf-8", "replace").strip()
        raise DebianError(f"{path.name} cannot be unpacked: {detail}") from error
