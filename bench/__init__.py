"""The benchmark: Arivox as its users run it, against a real Asterisk and an emulated AI."""
