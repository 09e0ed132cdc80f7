"""The key with which a relay signs what it gives to clients and takes back: session ids, states of parked calls."""

import os
import secrets
from pathlib import Path
from typing import Final

from gateway.errors import CallscopeError
from gateway.mcp.request_state import MIN_KEY_BYTES

_KEY_BYTES: Final = 32


class KeyFileError(CallscopeError):
    """The file with the relay's key cannot be read or written."""


def new_key() -> bytes:
    """A key that nobody else has: what it signs ends with this process."""
    return secrets.token_bytes(_KEY_BYTES)


def kept_key(path: Path) -> bytes:
    """The key in the file, which is made, readable by its user only, if it is not there.

    All relays of one data folder have the same, even if they begin in the same moment.

    Raises:
        KeyFileError: with what to do.
    """
    try:
        if not path.exists():
            _make(path)
        key = path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path}: the relay's key cannot be read or written: {error.strerror}") from error
    if len(key) < MIN_KEY_BYTES:
        raise KeyFileError(f"{path}: is no key of a relay: delete it, a new one is made")
    return key


def _make(path: Path) -> None:
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(new_key())
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        pass  # another relay was first
    finally:
        draft.unlink()
