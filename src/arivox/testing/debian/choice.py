"""Which mirror and which suite packages are fetched from, and with which dependencies."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

from arivox.errors import SettingsError
from arivox.testing.debian.errors import DebianError, NotCarriedError
from arivox.testing.debian.index import Package, closure
from arivox.testing.debian.mirror import Mirror
from arivox.testing.debian.sources import Machine, apt_mirrors, read_machine

# Debian's stable releases have carried no Asterisk since bookworm.
_DEBIAN_SUITES = ("forky", "testing", "sid")
# For a machine that is not Ubuntu itself.
_UBUNTU_SUITE = "noble"

# Packages that set up an installed system or keep house on it, which an unpacked tree is not.
_HOUSEKEEPING = (
    r"adduser|base-files|ca-certificates|cdebconf|debconf(-2\.0)?|debianutils|default-mta|dpkg|gcc-\d+-base"
    r"|init-system-helpers|install-info|libc-bin|libc-gconv-modules-extra|locales|logrotate|lsb-base"
    r"|mail-transport-agent|media-types|passwd|perl(-base)?|procps|systemd.*|sysvinit-utils|tzdata|ucf"
    r"|.*-sounds?-.*"
)


def choose(
    packages: Sequence[str], arch: str, suite: str | None, exclude: str, report: Callable[[str], None]
) -> tuple[Mirror, str, list[Package]]:
    """Return the mirror and the suite that carry ``packages``, and these with all that they depend on.

    The mirror is ``ASTERISK_DEB_MIRROR`` or the first fit one of the machine's apt configuration. ``exclude``
    is a pattern of whole package names, or empty. Raises DebianError where nothing fits, SettingsError where
    the variable holds no URL.
    """
    machine = read_machine()
    unwanted = re.compile(f"{_HOUSEKEEPING}|{exclude}" if exclude else _HOUSEKEEPING)
    problems = []
    for url in _mirrors(machine):
        mirror = Mirror(url, arch, report)
        for name in [suite] if suite else suites(url, machine):
            report(f"reading the package index of suite {name} of {mirror.url}")
            try:
                return mirror, name, closure(mirror.index(name), packages, unwanted)
            except NotCarriedError as error:
                problems.append(error.problem)
    raise NotCarriedError(
        f"{', '.join(packages)} cannot be fetched: {'; '.join(problems)}",
        "Set ASTERISK_DEB_SUITE to a suite that carries them, or ASTERISK_DEB_MIRROR to another mirror",
    )


def suites(url: str, machine: Machine) -> Sequence[str]:
    """Return the suites to try at the mirror ``url``, the best first."""
    if "ubuntu" in url or (machine.distribution == "ubuntu" and "debian" not in url):
        return [machine.codename if machine.distribution == "ubuntu" else _UBUNTU_SUITE]
    return _DEBIAN_SUITES


def _mirrors(machine: Machine) -> list[str]:
    if own := os.environ.get("ASTERISK_DEB_MIRROR"):
        if not own.startswith(("http://", "https://")):
            raise SettingsError("ASTERISK_DEB_MIRROR", f"{own!r} is no http or https URL")
        return [own]
    if found := apt_mirrors(machine):
        return found
    raise DebianError(
        "the apt configuration of this machine names no mirror of Debian or Ubuntu",
        "Set ASTERISK_DEB_MIRROR to the URL of one",
    )
