"""``python -m bench``: measure, print a table, write JSON."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import uvloop
from rich.console import Console

import arivox
from arivox.errors import ArivoxError
from bench import process, report
from bench.errors import BenchError
from bench.report import Outcome
from bench.scenarios import SCENARIOS, Scenario
from bench.testbed import Plan, Testbed

_FILE_WIDTH: Final = 150


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    calls: Annotated[int, typer.Option(min=1, max=14, help="Calls at once; and twice as many.")] = 10,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Length of each 'talking' run.")] = 20.0,
    only: Annotated[list[str] | None, typer.Option(help="Only this scenario; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A short run, with fewer repetitions.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for bench.json and the logs.")] = Path("bench-output"),
) -> None:
    """Measure Arivox against a real Asterisk with an emulated AI."""
    unknown = [name for name in only or () if name not in SCENARIOS]
    if unknown:
        raise typer.BadParameter(
            f"{', '.join(unknown)}; there are: {', '.join(SCENARIOS)}", param_hint="--only"
        )
    chosen = {name: measure for name, measure in SCENARIOS.items() if not only or name in only}
    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)
    out.mkdir(parents=True, exist_ok=True)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            outcomes, machine = runner.run(_run(Plan(calls, seconds, quick), chosen, out.absolute(), console))
    except KeyboardInterrupt:
        sys.exit(130)
    except asyncio.CancelledError:  # SIGTERM
        sys.exit(143)
    except (ArivoxError, BenchError) as error:
        Console(stderr=True).print(f"[bold red]error:[/] {error}")
        sys.exit(1)
    report.show(outcomes, machine, console)
    report.save(outcomes, machine, out / "bench.json")
    console.print(f"All numbers: {out / 'bench.json'}")
    sys.exit(any(outcome.error for outcome in outcomes))


async def _run(
    plan: Plan, scenarios: dict[str, Scenario], out: Path, console: Console
) -> tuple[list[Outcome], dict[str, Any]]:
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    gc.disable()  # a full collection stops the phones' clock; the testbed collects between calls
    machine: dict[str, Any] = process.describe()
    machine["load_before"] = round(os.getloadavg()[0], 2)
    outcomes = []
    async with Testbed(plan, out) as bed:
        machine["asterisk"] = bed.asterisk.version
        machine["arivox"] = arivox.__version__
        for name, measure in scenarios.items():
            with console.status(f"{name} …"):
                outcomes.append(await _measure(name, measure, bed, plan))
    return outcomes, machine


async def _measure(name: str, measure: Scenario, bed: Testbed, plan: Plan) -> Outcome:
    began, busy = time.monotonic(), process.Busy()
    outcome = Outcome(name, 0.0, 0.0)
    try:
        outcome.result = await measure(bed, plan)
    except (BenchError, ArivoxError, TimeoutError) as error:
        outcome.error = str(error)
    outcome.seconds, outcome.machine_busy = round(time.monotonic() - began, 1), round(busy.share(), 3)
    return outcome


if __name__ == "__main__":
    app()
