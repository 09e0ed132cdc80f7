"""What the ledger has counted of each workspace's plan, as the observer tells the relays: a file, written anew often.

The observer writes it only while `usage.enforce` is set, from one snapshot of the ledger. A relay adds its own calls
whose records stand behind `positions`, so that both together are exact.
"""

import contextlib
from pathlib import Path

import msgspec
from msgspec import Struct


class QuotaSnapshot(Struct, frozen=True, kw_only=True):
    """One state of the ledger."""

    written_ns: int
    """When the ledger was asked, in nanoseconds since the Unix epoch."""
    month_start_ns: int
    """When the calendar month in UTC began whose calls are counted."""
    used: dict[str, int]
    """Calls that count against the plan's limit, by workspace id; one that is not there has none."""
    positions: dict[str, int]
    """How far the journal's writers have been counted, by writer id: see `gateway.journal`."""


def snapshot_path(data_dir: Path) -> Path:
    """Where it stands."""
    return data_dir / "run" / "usage.json"


def read_snapshot(path: Path) -> QuotaSnapshot | None:
    """What was written last; None if there is nothing that can be read, or it is no report."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=QuotaSnapshot)
    except (OSError, msgspec.MsgspecError):
        return None


def write_snapshot(path: Path, report: QuotaSnapshot) -> None:
    """Replace the file, whole.

    Raises:
        OSError: it is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(msgspec.json.encode(report) + b"\n")
    draft.replace(path)


def remove_snapshot(path: Path) -> None:
    """Take it away: what it says is not true any more once nobody writes it anew."""
    with contextlib.suppress(OSError):
        path.unlink()
