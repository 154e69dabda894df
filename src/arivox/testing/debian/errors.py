"""What can go wrong while packages are fetched."""

from __future__ import annotations

from arivox.errors import ArivoxError


class DebianError(ArivoxError):
    """A package tree could not be made: ``problem`` says what is at fault, ``hint`` what to do about it."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem, hint)
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.problem}. {self.hint}" if self.hint else self.problem


class NotCarriedError(DebianError):
    """The mirror answers, but does not carry this suite or package: another suite may."""
