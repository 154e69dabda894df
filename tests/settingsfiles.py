"""Settings loaded from what a test says, and nothing else."""

from __future__ import annotations

from pathlib import Path

from arivox.settings.settings import Loaded, load


def from_env(**environ: str) -> Loaded:
    return load(environ)


def from_files(tmp_path: Path, *, env: str = "", yaml: str = "", **environ: str) -> Loaded:
    (tmp_path / "some.env").write_text(env, encoding="utf-8")
    (tmp_path / "some.yaml").write_text(yaml, encoding="utf-8")
    return load(environ, tmp_path / "some.env", tmp_path / "some.yaml")
