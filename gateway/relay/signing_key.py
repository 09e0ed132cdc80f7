"""The key with which a relay signs what clients keep for it: session ids and the `requestState` of pending calls."""

import secrets
from pathlib import Path

from gateway import atomic_file
from gateway.errors import CallscopeError
from gateway.mcp.request_state import MIN_KEY_BYTES


class KeyFileError(CallscopeError):
    """The file with the relay's key cannot be used."""


def new_key() -> bytes:
    """A key for this process only: what it signs is not valid after a restart."""
    return secrets.token_bytes(MIN_KEY_BYTES)


def load_key(path: Path) -> bytes:
    """The key in the file. The first relay of a data folder makes it, readable by its user only.

    Raises:
        KeyFileError: says what to do.
    """
    try:
        if not path.exists():
            atomic_file.create(path, new_key(), mode=0o600)
        key = path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path}: the relay's key cannot be read or written: {error.strerror}") from error
    if len(key) < MIN_KEY_BYTES:
        raise KeyFileError(f"{path}: this is not a key of a relay: delete the file, and a new key is made")
    return key
