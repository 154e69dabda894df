"""What a tree is made of: one in the cache serves only who asks for the same."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Read by people and by an installed system alone.
_NEVER = re.compile(
    r"usr/share/(bash-completion|bug|doc|doc-base|info|lintian|locale|man|menu)/|usr/lib/systemd/|etc/"
)
_LIBRARY = re.compile(r"usr/lib(64)?/([^/]+-linux-gnu/)?[^/]*\.so[^/]*$")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Packages, and patterns (empty: none) of the files to keep and the dependencies to do without."""

    packages: tuple[str, ...]
    keep: str
    exclude: str
    suite: str | None
    """``None``: whichever carries the packages."""

    @classmethod
    def of(
        cls,
        packages: Sequence[str],
        keep: re.Pattern[str] | None,
        exclude: re.Pattern[str] | None,
        suite: str | None,
    ) -> Recipe:
        """Make one from what a caller asks for, and ``ASTERISK_DEB_SUITE``."""
        suite = suite or os.environ.get("ASTERISK_DEB_SUITE") or None
        return cls(tuple(packages), keep.pattern if keep else "", exclude.pattern if exclude else "", suite)

    def manifest(self, suite: str, versions: Mapping[str, str]) -> dict[str, Any]:
        """Return what is kept with a tree made from ``suite`` with packages in these ``versions``."""
        return {
            "packages": list(self.packages),
            "keep": self.keep,
            "exclude": self.exclude,
            "suite": suite,
            "versions": dict(sorted(versions.items())),
        }

    def fits(self, manifest: Mapping[str, Any]) -> bool:
        """Return whether the tree of ``manifest`` is what this recipe would make."""
        suite = self.suite or manifest.get("suite", "")
        ours = self.manifest(suite, {})
        return all(manifest.get(key) == ours[key] for key in ("packages", "keep", "exclude", "suite"))

    def wanted(self, path: str) -> bool:
        """Return whether the file at ``path`` of a package belongs to the tree: its libraries always do."""
        if _LIBRARY.match(path):
            return True
        return not _NEVER.match(path) and bool(re.search(self.keep, path))
