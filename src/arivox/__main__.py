"""``python -m arivox``."""

from arivox.cli.main import main

main()
