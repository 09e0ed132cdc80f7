"""A place in the whole journal as text: the `id:` of a live event, which the client hands back to go on from there.

It names the journal, for each replica has one of its own, and the position of every writer, so that it means the same
after a restart of the observer. A writer that appends no more and has been read to its end is *passed*: nothing of it
can be missed when its folder is gone.
"""

import base64
import binascii
from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

from gateway.journal.reader import Positions

PASSED: Final = 2**62
"""A position behind everything that a writer can write."""
MAX_WRITERS: Final = 64
"""Of one cursor: the newest. Writers before the oldest of a full cursor count as passed."""
MAX_LENGTH: Final = 8192

_Offset = Annotated[int, msgspec.Meta(ge=-1, le=PASSED)]
_PASSED_ON_WIRE: Final = -1


def encode(positions: Positions, journal: str) -> str:
    """The cursor: letters, digits, `-` and `_`. `journal` is what tells the replica's journal from others'."""
    newest = sorted(positions.items())[-MAX_WRITERS:]
    wire = {writer: _PASSED_ON_WIRE if offset >= PASSED else offset for writer, offset in newest}
    return base64.urlsafe_b64encode(msgspec.json.encode((journal, wire))).rstrip(b"=").decode()


def decode(cursor: str, journal: str, writers: Iterable[str]) -> Positions | None:
    """The positions that `cursor` names, None if they are of another journal than `journal`.

    `writers` are those that are in the journal now.

    Raises:
        ValueError: it is no cursor.
    """
    try:
        if len(cursor) > MAX_LENGTH:
            raise ValueError("too long")
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        named, wire = msgspec.json.decode(data, type=tuple[str, dict[str, _Offset]])
    except (ValueError, binascii.Error, msgspec.MsgspecError) as error:
        raise ValueError("is no position of this stream: send back the id of an event as it was") from error
    if named != journal:
        return None
    positions = {writer: PASSED if offset == _PASSED_ON_WIRE else offset for writer, offset in wire.items()}
    if len(wire) >= MAX_WRITERS:
        oldest = min(wire)
        positions.update((writer, PASSED) for writer in writers if writer < oldest)
    return positions
