"""Programs from Debian and Ubuntu packages, unpacked and run without installing them and without root."""

from arivox.testing.debian.errors import DebianError, NotCarriedError
from arivox.testing.debian.tree import cache_dir, ensure_tree, is_cached, loader

__all__ = ["DebianError", "NotCarriedError", "cache_dir", "ensure_tree", "is_cached", "loader"]
