"""Which journal this is, among those of all replicas: a random id, made once, in the journal's own folder."""

import contextlib
import os
import uuid
from pathlib import Path
from typing import Final

_FILE: Final = "id"


def journal_id(root: Path) -> str:
    """The id of the journal at `root`, made if there is none; processes that ask at once get the same one.

    It moves with the folder: neither a host's name nor a process' life is part of it.
    """
    root.mkdir(parents=True, exist_ok=True)
    path = root / _FILE
    if not path.exists():
        draft = root / f".{_FILE}-{os.getpid()}-{uuid.uuid4()}"
        draft.write_text(f"{uuid.uuid4()}\n")
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return path.read_text().strip()
