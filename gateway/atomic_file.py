"""Files that are whole or not there: written under another name in the same folder, synced if asked, then renamed."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o644, sync: bool = False) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` at the end of the block. If the block fails, `path` stays as it was.

    Until then it is in the same folder; `name` is its path.

    Raises:
        OSError: it cannot be written or renamed.
    """
    with _draft(path, mode) as (draft, file):
        yield file
        _finish(file, sync)
        draft.replace(path)
    if sync:
        _sync_folder(path.parent)


def remove_drafts(path: Path) -> None:
    """Remove what writers of `path` left that were killed. For the only process that writes it.

    Raises:
        OSError: the folder cannot be read, or a draft not removed.
    """
    for draft in path.parent.glob(f".{path.name}.*.draft"):
        draft.unlink()


def create(path: Path, content: bytes, *, mode: int = 0o644, sync: bool = False) -> bool:
    """Write `path` unless it exists: of several processes the first wins. False: it was there already.

    Raises:
        OSError: it cannot be written.
    """
    created = True
    with _draft(path, mode) as (draft, file):
        file.write(content)
        _finish(file, sync)
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            created = False
    if sync:
        _sync_folder(path.parent)
    return created


@contextlib.contextmanager
def _draft(path: Path, mode: int) -> Iterator[tuple[Path, BinaryIO]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}.draft")
    try:
        with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield draft, file
    finally:
        draft.unlink(missing_ok=True)


def _finish(file: BinaryIO, sync: bool) -> None:  # noqa: FBT001 - passed on
    file.flush()
    if sync:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
