"""The result: rows with what was required of them, as a table for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

Verdict = Literal["aim", "ok", "missed", ""]
_MARKS = {"aim": "[green]✔ aim[/]", "ok": "[yellow]✔[/]", "missed": "[red]✘[/]", "": ""}


class Limits(msgspec.Struct, frozen=True):
    """What is required of a number, and what is aimed at."""

    at_least: float
    aim: float


NONE_LEFT = Limits(0.0, 0.0)


class Row(msgspec.Struct):
    """One measured number; less is better. Without ``limits`` it is there to compare others with."""

    what: str
    value: float
    unit: str
    limits: Limits | None = None
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """Return which requirement it meets."""
        if self.limits is None:
            return ""
        if self.value <= self.limits.aim:
            return "aim"
        return "ok" if self.value <= self.limits.at_least else "missed"


class Result(msgspec.Struct):
    """What one scenario measured: its rows, and all numbers behind them."""

    rows: list[Row]
    numbers: dict[str, Any] = {}


class Outcome(msgspec.Struct):
    """One scenario's result, or why there is none."""

    scenario: str
    seconds: float
    machine_busy: float
    result: Result | None = None
    error: str = ""


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the count and the percentiles of some milliseconds."""
    if not values:
        return {"count": 0}
    marks = np.percentile(values, [0, 50, 90, 99, 100])
    names = ("min", "p50", "p90", "p99", "max")
    return {"count": len(values), **{name: round(float(v), 3) for name, v in zip(names, marks, strict=True)}}


def show(outcomes: Sequence[Outcome], machine: dict[str, Any], console: Console) -> None:
    """Print the table."""
    table = Table(title="Arivox benchmark", caption=", ".join(f"{k} {v}" for k, v in machine.items()))
    table.add_column("")
    for name in ("measured", "at least", "aim"):
        table.add_column(name, justify="right")
    table.add_column("")
    table.add_column("note", style="dim")
    for outcome in outcomes:
        busy = f"{outcome.seconds:.0f} s, machine {outcome.machine_busy:.0%} busy"
        table.add_row(f"[bold]{outcome.scenario}[/]", "", "", "", "", busy)
        for row in outcome.result.rows if outcome.result else ():
            table.add_row(
                f"  {row.what}",
                f"{_number(row.value)} {row.unit}".strip(),
                _number(row.limits.at_least) if row.limits else "",
                _number(row.limits.aim) if row.limits else "",
                _MARKS[row.verdict],
                row.note,
            )
        if outcome.error:
            table.add_row("  [red]could not be measured[/]", "", "", "", "[red]✘[/]", outcome.error)
        table.add_section()
    console.print(table)


def save(outcomes: Sequence[Outcome], machine: dict[str, Any], path: Path) -> None:
    """Write everything as JSON."""
    scenarios = []
    for outcome in outcomes:
        entry = msgspec.to_builtins(outcome)
        if outcome.result is not None:
            for row, shown in zip(outcome.result.rows, entry["result"]["rows"], strict=True):
                shown["verdict"] = row.verdict
        scenarios.append(entry)
    data = msgspec.json.encode({"machine": machine, "scenarios": scenarios})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(data, indent=2) + b"\n")


def _number(value: float) -> str:
    if value == round(value) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
