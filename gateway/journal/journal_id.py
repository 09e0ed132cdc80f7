"""Which journal this is, among those of all replicas: a random id, made once, in the journal's own folder."""

import re
import uuid
from pathlib import Path
from typing import Final

from gateway import atomic_file
from gateway.errors import StartError

_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def journal_id(root: Path) -> str:
    """The id of the journal at `root`, made if there is none; processes that start together get the same one.

    It moves with the folder: neither a host's name nor the life of a process is part of it.

    Raises:
        StartError: the file has no id in it. A new id would make the ledger read the whole journal again.
    """
    path = root / "id"
    if not path.exists():
        # Synced, as rows will be committed under this id: a loss of power must not take it back.
        atomic_file.create(path, f"{uuid.uuid4()}\n".encode(), sync=True)
    found = path.read_text(errors="replace").strip()
    if not _ID.fullmatch(found):
        raise StartError(
            f"{path}: not a journal's id. Write into it what the ledger's table 'positions' has for this journal "
            "in its column 'journal'"
        )
    return found
