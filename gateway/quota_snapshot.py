"""The file from which the relays know how much of each plan the ledger has counted.

The observer replaces it about every second while `usage.enforce` is set. Example: `{"written_ns":…,"month_start_ns":…,
"used":{"team":412},"positions":{"relay-0-…":73911}}`.
"""

from pathlib import Path

import msgspec
from msgspec import Struct

from gateway import atomic_file


class QuotaSnapshot(Struct, frozen=True, kw_only=True):
    """One state of the ledger: all numbers come from the same transaction."""

    written_ns: int
    """When the ledger was read, in nanoseconds since the Unix epoch."""
    month_start_ns: int
    """When the calendar month (UTC) began whose calls are counted."""
    used: dict[str, int]
    """Calls that count against the plan's limit, by workspace id. A workspace that is missing has none."""
    positions: dict[str, int]
    """By journal writer: the offset up to which its calls are in `used` (see `gateway.journal`)."""


def snapshot_path(data_dir: Path) -> Path:
    return data_dir / "run" / "usage.json"


def read_snapshot(path: Path) -> QuotaSnapshot | None:
    """The last snapshot. None if the file is missing, unreadable or damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=QuotaSnapshot)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def write_snapshot(path: Path, snapshot: QuotaSnapshot) -> None:
    """Replace the file.

    Raises:
        OSError: it cannot be written; the file is as it was.
    """
    with atomic_file.replacing(path) as file:
        file.write(msgspec.json.encode(snapshot) + b"\n")
