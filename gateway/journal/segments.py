"""The journal on disk: names, listing and locks. Nothing here reads or writes a line."""

import contextlib
import fcntl
import itertools
import os
import re
from pathlib import Path
from typing import Final, NamedTuple

SUFFIX: Final = ".jsonl"
CLOSED: Final = "closed"
"""The file that marks a writer that will append no more."""
_WRITER: Final = re.compile(r"\d{13}-")


class Segment(NamedTuple):
    """One file of a writer; `base` is the offset of its first byte.

    `size` is the length of what was written: up to the next segment, or, of the last, the file's when it was listed.
    """

    base: int
    size: int
    path: Path

    @property
    def end(self) -> int:
        """The offset after its last byte."""
        return self.base + self.size


def segment_path(folder: Path, base: int) -> Path:
    return folder / f"{base:020d}{SUFFIX}"


def list_writers(root: Path) -> list[Path]:
    """The folders of all writers, the oldest first. Others, such as `lost+found`, are skipped."""
    try:
        with os.scandir(root) as entries:
            return sorted(Path(entry.path) for entry in entries if _WRITER.match(entry.name) and entry.is_dir())
    except FileNotFoundError:
        return []


def list_segments(folder: Path) -> list[Segment]:
    """The segments of one writer, the oldest first; empty if the folder has just been removed."""
    segments = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                base, dot, suffix = entry.name.partition(".")
                if dot + suffix == SUFFIX and base.isdigit():
                    with contextlib.suppress(FileNotFoundError):  # deleted since: one segment less, not none at all
                        segments.append(Segment(int(base), entry.stat().st_size, Path(entry.path)))
    except FileNotFoundError:
        return []
    segments.sort()
    ended = [Segment(one.base, other.base - one.base, one.path) for one, other in itertools.pairwise(segments)]
    return ended + segments[-1:]


def try_lock(folder: Path) -> int | None:
    """Take a writer's lock and return the descriptor that holds it; None while its process lives.

    The kernel releases the lock when the process ends, however it ends.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
