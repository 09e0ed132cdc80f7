"""Which journal this is, among those of all replicas: a random id, made once, in the journal's own folder."""

import contextlib
import os
import re
import uuid
from pathlib import Path
from typing import Final

from gateway.errors import StartError

_FILE: Final = "id"
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def journal_id(root: Path) -> str:
    """The id of the journal at `root`, made if there is none; processes that ask at once get the same one.

    It moves with the folder: neither a host's name nor a process' life is part of it.

    Raises:
        StartError: the file has no id in it. A new one would make the ledger take the whole journal again.
    """
    root.mkdir(parents=True, exist_ok=True)
    path = root / _FILE
    if not path.exists():
        draft = root / f".{_FILE}-{os.getpid()}-{uuid.uuid4()}"
        with draft.open("w") as file:
            file.write(f"{uuid.uuid4()}\n")
            file.flush()
            os.fsync(file.fileno())  # rows will be committed under this id: power may not take it back
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
        _sync(root)
    found = path.read_text(errors="replace").strip()
    if not _ID.fullmatch(found):
        raise StartError(
            f"{path}: is no journal's id: write into it what the ledger's table 'positions' has for this journal in "
            "its column 'journal'"
        )
    return found


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
