"""The demo: a real call through a real Asterisk, shown as it happens."""
