"""``arivox calls``: what was said in which call; show it, hand it out, erase it."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer
from msgspec import structs
from rich.console import Console
from rich.table import Table
from rich.text import Text

from arivox.cli.common import ConfigFile, EnvFile, load_settings, run_loop
from arivox.conversation.memory.archive import Archive
from arivox.conversation.memory.record import Saved, iso
from arivox.conversation.memory.spool import Spool
from arivox.conversation.memory.store import make
from arivox.errors import SettingsError, StoreError
from arivox.settings.settings import Settings

T = TypeVar("T")

calls = typer.Typer(help="The calls that are kept: list, show, export, erase.", no_args_is_help=True)

CallId = Annotated[str, typer.Argument(metavar="CALL", help="Id of the call, or of its Asterisk channel.")]
Caller = Annotated[
    str | None, typer.Option("--caller", help="Only calls of this number.", show_default=False)
]
_ALL = 1_000_000


@calls.command("list")
def list_calls(
    caller: Caller = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 50,
    env_file: EnvFile = None,
    config: ConfigFile = None,
) -> None:
    """Show the latest calls, the newest first."""
    found = _with_archive(
        load_settings(env_file, config), lambda archive: archive.calls(caller=caller, limit=limit)
    )
    table = Table(box=None)
    for name in ("call", "began", "caller", "AI", "seconds", "ended", "state"):
        table.add_column(name, no_wrap=name in ("call", "began"))
    for record in found:
        length = f"{record.ended - record.started:.0f}" if record.ended else "-"
        began = iso(record.started)[:19].replace("T", " ")
        table.add_row(
            record.call, began, record.caller, record.provider, length, record.reason or "-", record.state
        )
    console = Console()
    if found:
        console.print(table)
    else:
        console.print("No calls are kept.")


@calls.command()
def show(call: CallId, env_file: EnvFile = None, config: ConfigFile = None) -> None:
    """Show what was said in a call, as far as the other side heard it."""
    saved = _with_archive(load_settings(env_file, config), lambda archive: _found(archive, call))
    console = Console(highlight=False)
    record = saved.record
    console.print(
        f"call {record.call}, channel {record.channel}, {record.caller or 'no number'} to {record.exten}, "
        f"{record.provider}, {record.reason or 'in progress'}",
        style="dim",
        soft_wrap=True,
    )
    for note in record.notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)
    if record.call_back:
        console.print(Text(f"call back: {record.call_back}"), soft_wrap=True)
    for turn in saved.turns:
        who = "caller" if turn.speaker == "user" else "agent"
        line = Text(f"{turn.timestamp[11:19]}  ", style="dim")
        line.append(f"{who:7}", style="bold cyan" if who == "caller" else "bold magenta")
        line.append(turn.text)
        line.append(f"   [{turn.state}{', interrupted' if turn.cut else ''}]", style="dim")
        console.print(line, soft_wrap=True)


@calls.command()
def export(
    call: Annotated[str | None, typer.Argument(metavar="[CALL]", help="Id of one call.")] = None,
    caller: Caller = None,
    env_file: EnvFile = None,
    config: ConfigFile = None,
) -> None:
    """Write calls as JSON, one a line: one call, all of a caller's, or all."""
    for saved in _with_archive(
        load_settings(env_file, config), lambda archive: _chosen(archive, call, caller)
    ):
        turns = [structs.asdict(turn) for turn in saved.turns]
        sys.stdout.write(json.dumps(saved.record.as_dict() | {"turns": turns}, ensure_ascii=False) + "\n")


@calls.command()
def erase(
    call: Annotated[str | None, typer.Argument(metavar="[CALL]", help="Id of one call.")] = None,
    caller: Caller = None,
    env_file: EnvFile = None,
    config: ConfigFile = None,
) -> None:
    """Forget a call, or all calls of a caller: in the store, the spool and the recordings."""
    if bool(call) == bool(caller):
        raise SettingsError("arivox calls erase", "needs either a call or --caller")
    _with_archive(load_settings(env_file, config), lambda archive: _erase(archive, call, caller))


async def _erase(archive: Archive, call: str | None, caller: str | None) -> None:
    records = (
        [(await _found(archive, call)).record] if call else await archive.calls(caller=caller, limit=_ALL)
    )
    for record in records:
        where = await archive.erase(record)
        typer.echo(f"{record.call}: erased from {', '.join(where) or 'nowhere: it was gone'}")
    if not records:
        typer.echo(f"No calls of {caller} are kept.")


async def _chosen(archive: Archive, call: str | None, caller: str | None) -> list[Saved]:
    if call:
        return [await _found(archive, call)]
    records = await archive.calls(caller=caller, limit=_ALL)
    loaded = [await archive.load(record.call) for record in reversed(records)]
    return [saved for saved in loaded if saved is not None]


async def _found(archive: Archive, call: str) -> Saved:
    saved = await archive.load(call)
    if saved is None:
        raise StoreError(f"no call {call} is kept; arivox calls list shows those that are")
    return saved


def _with_archive(settings: Settings, work: Callable[[Archive], Awaitable[T]]) -> T:
    store = make(settings)
    if store is None:
        raise SettingsError("MEMORY_URL", "is none: no calls are kept")

    async def main() -> T:
        try:
            await store.open()
            return await work(Archive(store, Spool(settings.memory_spool_dir)))
        finally:
            await store.close()

    return run_loop(main())
