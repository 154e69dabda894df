"""The calls that are kept, wherever they are: in the store, or in the spool on their way to it."""

from __future__ import annotations

from pathlib import Path

from arivox.conversation.memory.record import CallRecord, Saved
from arivox.conversation.memory.spool import Spool
from arivox.conversation.memory.store import Store
from arivox.errors import StoreError


class Archive:
    """Reads and erases. Everything raises StoreError where the store or the spool does not answer."""

    def __init__(self, store: Store, spool: Spool) -> None:
        self._store = store
        self._spool = spool

    async def calls(self, *, caller: str | None = None, limit: int = 50) -> list[CallRecord]:
        """Return the latest calls, the newest first: all of them, or one caller's."""
        found = {record.call: record for record in await self._store.calls(caller=caller, limit=limit)}
        for saved in self._spooled():
            if caller is None or saved.record.caller == caller:
                found.setdefault(saved.record.call, saved.record)
        return sorted(found.values(), key=lambda record: record.started, reverse=True)[:limit]

    async def load(self, call: str) -> Saved | None:
        """Return a call by its id or its channel's; the spool has what the store has not."""
        stored = await self._store.load(call)
        for saved in self._spooled():
            known = stored is not None and len(stored.turns) >= len(saved.turns)
            if call in (saved.record.call, saved.record.channel) and not known:
                return saved
        return stored

    async def erase(self, record: CallRecord) -> list[str]:
        """Forget a call, in the store, the spool and its recording. Return where it was found."""
        found = []
        if await self._store.erase(record.call):
            found.append("the store")
        if self._spool.remove(record.call):
            found.append("the spool")
        if record.recording and _remove(Path(record.recording)):
            found.append(f"the recording {record.recording}")
        return found

    def _spooled(self) -> list[Saved]:
        return [self._spool.read(path) for path in self._spool.files()]


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(f"the recording {path} cannot be erased: {error}") from error
    return True
