"""The configuration of our Asterisk: templates, with ``@NAME@`` for what is decided at the start."""

from __future__ import annotations

import array
import importlib.resources
import math
import re
from collections.abc import Mapping
from pathlib import Path

# Asterisk complains about each of these that is missing; an empty one says the same as none.
_EMPTY = (
    "acl",
    "ccss",
    "cdr",
    "cel",
    "chan_websocket",
    "codecs",
    "features",
    "manager",
    "pjproject",
    "sorcery",
    "stasis",
    "udptl",
    "websocket_client",
)
_DIRECTORIES = ("etc", "lib/keys", "data/sounds/en", "spool/recording", "spool/tmp", "log", "cache", "moh")
_PLACEHOLDER = re.compile(r"@([A-Z]+)@")


def render(values: Mapping[str, object]) -> dict[str, str]:
    """Return the text of each configuration file by its name, such as ``pjsip.conf``.

    ``values`` has one entry for each placeholder of the templates; KeyError names one that is missing.
    """
    files = {f"{name}.conf": "" for name in _EMPTY}
    for template in importlib.resources.files(__name__).iterdir():
        if template.name.endswith(".conf"):
            text = template.read_text(encoding="utf-8")
            files[template.name] = _PLACEHOLDER.sub(lambda match: str(values[match[1]]), text)
    return files


def write(run_dir: Path, data: Path, values: Mapping[str, object]) -> None:
    """Fill ``run_dir`` with all that an Asterisk needs to start, whose XML documentation lies in ``data``.

    ``values`` as for :func:`render`, which gets ``RUN`` from here.
    """
    for name in _DIRECTORIES:
        (run_dir / name).mkdir(parents=True, exist_ok=True)
    for name in ("documentation", "rest-api"):
        link = run_dir / "data" / name
        link.unlink(missing_ok=True)
        link.symlink_to(data / name)
    for name, text in render({**values, "RUN": run_dir}).items():
        (run_dir / "etc" / name).write_text(text, encoding="utf-8")
    (run_dir / "moh/hold.sln").write_bytes(_hold_music())


def _hold_music() -> bytes:
    # Two seconds of a soft 330 Hz: 16-bit signed linear, 8000 Hz.
    wave = array.array("h", (round(2000 * math.sin(2 * math.pi * 330 * n / 8000)) for n in range(16000)))
    return wave.tobytes()
