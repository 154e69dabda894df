"""A service account of the tests' own."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa


@cache
def _private_key() -> str:
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem.decode()


def service_account(folder: Path, token_uri: str = "https://oauth2.googleapis.com/token") -> Path:
    """Return a key file that could be one."""
    info = {
        "type": "service_account",
        "project_id": "p",
        "private_key": _private_key(),
        "client_email": "arivox@p.iam.gserviceaccount.com",
        "token_uri": token_uri,
    }
    file = folder / "account.json"
    file.write_text(json.dumps(info), encoding="utf-8")
    return file
