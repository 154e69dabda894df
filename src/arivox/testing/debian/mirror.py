"""A package mirror: downloads with a bound on time, and the chain of trust from signature to package.

InRelease is signed by the distribution; it holds the SHA-256 of the package indices, which hold the SHA-256
of each package. Valid-Until is not enforced: what was fetched is kept for good, and a snapshot is welcome.
"""

from __future__ import annotations

import hashlib
import http.client
import lzma
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from arivox.testing.debian.errors import DebianError, NotCarriedError
from arivox.testing.debian.index import Index, Package, Release, parse_release

# Components by origin: Ubuntu keeps Asterisk and flite in universe.
COMPONENTS = {"Debian": ("main",), "Ubuntu": ("main", "universe")}
_KEYRINGS = {"Debian": "debian-archive-keyring", "Ubuntu": "ubuntu-archive-keyring"}
_MIRROR_HINT = "Set ASTERISK_DEB_MIRROR to a Debian or Ubuntu mirror that this machine reaches"


class Mirror:
    """One mirror of Debian or Ubuntu, at ``url``."""

    def __init__(
        self,
        url: str,
        arch: str,
        report: Callable[[str], None],
        *,
        attempts: int = 4,
        timeout: float = 30.0,
        backoff: float = 0.5,
        keyrings: Path = Path("/usr/share/keyrings"),
    ) -> None:
        """Try requests ``attempts`` times, ``timeout`` s each, with pauses of 1, 2, 4... × ``backoff`` s."""
        self.url = url.rstrip("/")
        self.arch = arch
        self._report = report
        self._attempts = attempts
        self._timeout = timeout
        self._backoff = backoff
        self._keyrings = keyrings

    def index(self, suite: str) -> Index:
        """Download the package index of ``suite``, checked.

        Raises NotCarriedError where the mirror lacks the suite or is no mirror of a distribution, DebianError
        where it is out of reach or a check fails.
        """
        release = self._release(suite)
        if release.origin not in COMPONENTS:
            raise NotCarriedError(f"{self.url} is a mirror of {release.origin!r}, not of Debian or Ubuntu")
        index = Index(suite)
        for component in COMPONENTS[release.origin]:
            path = f"{component}/binary-{self.arch}/Packages.xz"
            if path not in release.sha256:
                raise NotCarriedError(f"suite {suite} of {self.url} has no {path}")
            try:
                packed = self.fetch(f"dists/{suite}/{path}", release.sha256[path])
                index.add(lzma.decompress(packed).decode())
            except lzma.LZMAError as error:
                raise DebianError(f"{self.url}/dists/{suite}/{path} is not xz: {error}") from error
        return index

    def download(self, packages: Sequence[Package], into: Path) -> list[Path]:
        """Download the .deb files of ``packages`` into the directory ``into``, checked, a few at a time."""

        def download(package: Package) -> Path:
            path = into / f"{package.name}.deb"
            path.write_bytes(self.fetch(package.filename, package.sha256))
            return path

        with ThreadPoolExecutor(max_workers=4) as pool:
            try:
                return list(pool.map(download, packages))
            except DebianError:
                pool.shutdown(cancel_futures=True)
                raise

    def fetch(self, path: str, sha256: str) -> bytes:
        """Download ``path`` below the mirror. Raises DebianError where its SHA-256 is not ``sha256``."""
        body = self._get(path)
        digest = hashlib.sha256(body).hexdigest()
        if digest != sha256.lower():
            raise DebianError(
                f"{self.url}/{path} has SHA-256 {digest}, but its index says {sha256}",
                "The mirror may be in the middle of an update: try again later, or set ASTERISK_DEB_MIRROR",
            )
        return body

    def _release(self, suite: str) -> Release:
        signed = self._get(f"dists/{suite}/InRelease")
        claimed = parse_release(signed.decode("utf-8", "replace"))
        keyring = self._keyring(claimed.origin)
        gpgv = shutil.which("gpgv")
        if gpgv is None or keyring is None:
            missing = "gpgv" if gpgv is None else f"keyring of {claimed.origin or 'its origin'}"
            self._report(
                f"{self.url}: signature of suite {suite} not verified, this machine has no {missing}"
            )
            return claimed
        # What gpgv hands back is only the part that the signature covers.
        return parse_release(self._verified(gpgv, keyring, signed, suite).decode("utf-8", "replace"))

    def _verified(self, gpgv: str, keyring: Path, signed: bytes, suite: str) -> bytes:
        with tempfile.TemporaryDirectory(prefix="arivox-") as scratch:
            source, plain = Path(scratch, "InRelease"), Path(scratch, "Release")
            source.write_bytes(signed)
            command = [
                gpgv,
                "--status-fd",
                "1",
                "--keyring",
                str(keyring),
                "--output",
                str(plain),
                str(source),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            # The exit status is no help: it is 2 as soon as one of several signatures has an unknown key.
            status = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("[GNUPG:] ")}
            if "BADSIG" in status or not status & {"GOODSIG", "EXPKEYSIG"} or not plain.is_file():
                raise DebianError(
                    f"{self.url}: the signature of suite {suite} does not verify with {keyring}: "
                    f"{done.stderr.strip()}",
                    "Update the keyring package of your distribution, or choose another mirror with "
                    "ASTERISK_DEB_MIRROR",
                )
            return plain.read_bytes()

    def _keyring(self, origin: str) -> Path | None:
        names = (f"{_KEYRINGS.get(origin, '')}.{suffix}" for suffix in ("gpg", "pgp"))
        return next((path for name in names if (path := self._keyrings / name).is_file()), None)

    def _get(self, path: str) -> bytes:
        url = f"{self.url}/{path}"
        problem: Exception | None = None
        for attempt in range(self._attempts):
            if attempt:
                time.sleep(self._backoff * 2 ** (attempt - 1))
            try:
                with urllib.request.urlopen(url, timeout=self._timeout) as reply:  # noqa: S310 - http(s) only
                    body: bytes = reply.read()
                    return body
            except urllib.error.HTTPError as error:
                error.close()
                if error.code in (403, 404, 410):
                    raise NotCarriedError(f"{url} answers HTTP {error.code}", _MIRROR_HINT) from error
                problem = error
            except (OSError, http.client.HTTPException) as error:
                problem = error
        raise DebianError(
            f"{url} cannot be downloaded ({self._attempts} attempts): {problem}", _MIRROR_HINT
        ) from problem
