"""Calls that no store took, as files: one call a file, until a store takes it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from arivox.conversation.memory.record import Saved
from arivox.errors import StoreError


class Spool:
    """A folder of such files; it is made when the first is written. All methods block on the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> list[Path]:
        """Return the files, the oldest first. Raises StoreError."""
        try:
            return sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        except OSError as error:
            raise StoreError(f"spool {self.folder}: {error}") from error

    def write(self, saved: Saved) -> Path:
        """Keep a call, in place of what was kept of it before. Raises StoreError."""
        path = self.folder / f"{saved.record.call}.json"
        part = path.with_suffix(".part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part.touch(0o600)
            with part.open("wb") as file:
                file.write(msgspec.json.encode(saved))
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError as error:
            raise StoreError(f"spool {self.folder}: {error}") from error
        return path

    def read(self, path: Path) -> Saved:
        """Return a call. Raises StoreError where the file is not what we wrote."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=Saved)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StoreError(f"spool {path}: {error}") from error

    def remove(self, call: str) -> bool:
        """Forget a call. Return whether it was there. Raises StoreError."""
        try:
            (self.folder / f"{call}.part").unlink(missing_ok=True)
            (self.folder / f"{call}.json").unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(f"spool {self.folder}: {error}") from error
        return True
