"""What goes wrong in a benchmark."""

from __future__ import annotations


class BenchError(Exception):
    """Something could not be measured. The text says what and why; there is no number."""
