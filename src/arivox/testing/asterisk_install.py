"""An Asterisk that can be run: the one of the system, or one fetched as packages."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from arivox.errors import AsteriskError, SettingsError
from arivox.testing import asterisk_modules, debian

_log = logging.getLogger(__name__)

OLDEST = 20
"""The oldest major version that we run."""

_PACKAGES = ("asterisk", "asterisk-modules")
_KEEP = re.compile(r"^usr/sbin/asterisk$|/asterisk/modules/|^usr/share/asterisk/(documentation|rest-api)/")
# Wanted only by modules that we do not load; together they are more than all the rest.
_EXCLUDE = re.compile(
    r"asterisk-config|openssl-provider-legacy|lib(c-client|codec2|curl|glib|gmime|ical|iksemel|jack|jwt|ldap|lua5|neon"
    r"|odbc|ogg|opencore|opusenc|opusfile|popt|portaudio|pq|radcli|resample|snmp|spandsp|speex|sybdb|unbound"
    r"|vo-|vorbis).*"
)


@dataclass(frozen=True, slots=True)
class Installation:
    """The files of one Asterisk."""

    argv: tuple[str, ...]
    """Start of the command line that runs it."""
    modules: Path
    """Directory of its modules."""
    data: Path
    """Directory with its ``documentation`` (without which modules refuse to load) and ``rest-api``."""
    version: str
    """``22.10.1``; distributions may add to it."""

    @property
    def major(self) -> int:
        """The first number of the version."""
        return int(self.version.split(".")[0])

    def module_names(self) -> list[str]:
        """Return the modules it has, without ``.so``."""
        return sorted(path.stem for path in self.modules.glob("*.so"))

    def checked(self) -> Installation:
        """Return itself. Raises AsteriskError where it is too old or lacks a module that every call needs."""
        if self.major < OLDEST:
            raise AsteriskError(
                f"{self.argv[-1]} is Asterisk {self.version}, {OLDEST} or newer is needed",
                hint="Set ARIVOX_ASTERISK=fetched, and ASTERISK_DEB_MIRROR to a Debian mirror or "
                "ASTERISK_DEB_SUITE to a suite that carries a newer one",
            )
        if lost := asterisk_modules.missing(self.module_names()):
            raise AsteriskError(
                f"{self.modules} lacks {', '.join(f'{name}.so' for name in lost)}",
                hint="Install the missing modules, or set ARIVOX_ASTERISK=fetched",
            )
        return self


def find_or_fetch(*, cache: Path | None = None, report: Callable[[str], None] = _log.info) -> Installation:
    """Return the Asterisk that ``ARIVOX_ASTERISK`` chooses: ``system``, ``fetched``, or the path of a tree.

    Where it says nothing: the fetched one if it is in the cache, else the system's if it is fit, else one is
    fetched. Raises SettingsError where the variable is wrong, AsteriskError where the chosen one is unfit,
    and DebianError where none can be fetched.
    """
    choice = os.environ.get("ARIVOX_ASTERISK", "").strip()
    if choice == "system":
        return system().checked()
    if choice == "fetched":
        return fetched(cache=cache, report=report)
    if choice:
        if not (tree := Path(choice).expanduser()).is_dir():
            problem = f"{choice!r} is neither 'system' nor 'fetched' nor a directory"
            raise SettingsError("ARIVOX_ASTERISK", problem)
        return from_tree(tree).checked()
    if not debian.is_cached("asterisk", _PACKAGES, keep=_KEEP, exclude=_EXCLUDE, cache=cache):
        try:
            found = system().checked()
        except AsteriskError as error:
            report(f"no Asterisk of this machine is used: {error.problem}")
        else:
            return found
    return fetched(cache=cache, report=report)


def fetched(*, cache: Path | None = None, report: Callable[[str], None] = _log.info) -> Installation:
    """Return the Asterisk of the cache, fetched where it is missing. Raises DebianError or AsteriskError."""
    tree = debian.ensure_tree("asterisk", _PACKAGES, keep=_KEEP, exclude=_EXCLUDE, cache=cache, report=report)
    return from_tree(tree).checked()


def from_tree(tree: Path) -> Installation:
    """Return the Asterisk of an unpacked tree. Raises AsteriskError where there is none."""
    program = tree.absolute() / "usr/sbin/asterisk"
    modules = next(tree.absolute().glob("usr/lib/*/asterisk/modules"), None)
    if modules is None or not program.is_file():
        raise AsteriskError(f"{tree} holds no Asterisk", hint="Set ARIVOX_ASTERISK to an unpacked tree")
    argv = (*debian.loader(tree), str(program))
    return Installation(argv, modules, tree.absolute() / "usr/share/asterisk", _version(argv))


def system() -> Installation:
    """Return the Asterisk on the PATH. Raises AsteriskError where there is none, or part of it is lost."""
    # Not every user's PATH has the directories of system programs.
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    program = shutil.which("asterisk", path=path)
    if program is None:
        raise AsteriskError(
            "no program asterisk on the PATH", hint="Install it, or set ARIVOX_ASTERISK=fetched"
        )
    prefix = Path(program).resolve().parent.parent
    modules = _first_with("app_stasis.so", prefix, "lib/*/asterisk/modules", "lib*/asterisk/modules")
    # A build from source keeps its data in /var, whatever its prefix is below /.
    data = _first_with("documentation/core-en_US.xml", prefix, "share/asterisk", "var/lib/asterisk")
    return Installation((program,), modules, data, _version((program,)))


def _first_with(needed: str, prefix: Path, *patterns: str) -> Path:
    for base in (prefix, prefix.parent):
        for pattern in patterns:
            for path in sorted(base.glob(pattern)):
                if (path / needed).is_file():
                    return path
    raise AsteriskError(
        f"{needed} of the installed Asterisk not found below {prefix} ({', '.join(patterns)})",
        hint="Set ARIVOX_ASTERISK=fetched to use another one",
    )


def _version(argv: tuple[str, ...]) -> str:
    try:
        done = subprocess.run([*argv, "-V"], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        raise AsteriskError(f"{argv[-1]} -V does not run: {error}") from error
    match = re.search(r"Asterisk (?:certified/)?(\d+\.\d\S*)", done.stdout)
    if match is None:
        raise AsteriskError(f"{argv[-1]} -V says no version: {done.stdout.strip()!r}")
    return match[1]
