"""Arivox: realtime AI voices for Asterisk."""

__version__ = "0.1.0"
