"""``arivox init``: write the settings, the prompts, and the Asterisk configuration to paste."""

from __future__ import annotations

import json
import secrets
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from arivox.conversation import prompts
from arivox.conversation.schema import schema
from arivox.errors import SettingsError
from arivox.settings.env_template import render

_SCHEMA = "prompts.schema.json"  # for editors
_SNIPPETS = ("ari.conf", "http.conf", "extensions.conf")


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write.")] = Path(),
    ari_url: Annotated[str, typer.Option(help="Where Asterisk's HTTP server answers.")] = (
        "http://127.0.0.1:8088"
    ),
    ari_username: Annotated[str, typer.Option(help="User for ari.conf.")] = "arivox",
    ari_app_name: Annotated[str, typer.Option(help="Name of the Stasis application.")] = "arivox",
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
) -> None:
    """Write .env, prompts.yaml with its schema, and the Asterisk snippets to paste."""
    values = {
        "ARI_URL": ari_url,
        "ARI_USERNAME": ari_username,
        "ARI_PASSWORD": secrets.token_urlsafe(16),
        "ARI_APP_NAME": ari_app_name,
        "OPENAI_API_KEY": "",
        "GEMINI_API_KEY": "",
        "PROMPTS_FILE": str((folder / "prompts.yaml").resolve()),
    }
    files = {
        folder / ".env": render(values),
        folder / "prompts.yaml": f"# yaml-language-server: $schema={_SCHEMA}\n{prompts.default_text()}",
        folder / _SCHEMA: json.dumps(schema(), indent=1) + "\n",
        **{folder / "asterisk" / name: _snippet(name, values) for name in _SNIPPETS},
    }
    present = [path for path in files if path.exists()]
    if present and not force:
        raise SettingsError(
            str(present[0]), "is there already", "Use --force to overwrite, or another folder."
        )
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        # The file holds passwords: nobody else on the machine may read it.
        mode = 0o600 if path.name in (".env", "ari.conf") else 0o644
        path.touch(mode)
        path.chmod(mode)
        path.write_text(text, encoding="utf-8")
    console = Console(highlight=False)
    for path in files:
        console.print(f"wrote [bold]{path}[/]")
    console.print(
        "\nNext:\n"
        f"  1. Put your OPENAI_API_KEY into {folder / '.env'}, or AI_SERVICE_PROVIDER=gemini and your\n"
        "     GEMINI_API_KEY.\n"
        f"  2. Paste the files of {folder / 'asterisk'} into Asterisk's configuration, and reload it:\n"
        "     asterisk -rx 'core reload'\n"
        "  3. arivox doctor   checks everything and says what to mend.\n"
        "  4. arivox run      then call extension 700 of the context [arivox].",
        markup=False,
    )


def _snippet(name: str, values: dict[str, str]) -> str:
    text = resources.files("arivox.asterisk").joinpath("snippets", name).read_text(encoding="utf-8")
    for setting, value in values.items():
        text = text.replace(f"@{setting}@", value)
    return text
