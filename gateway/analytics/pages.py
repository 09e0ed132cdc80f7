"""Single calls, newest first, in pages. A cursor names a place in the order, not a number of calls to skip.

So calls that arrive between two pages neither shift nor repeat one. The cursor also holds the range of the first page,
because the range of a period moves on with the clock.
"""

import base64
import binascii
from typing import Any, Final

import msgspec

from gateway.analytics.periods import MAX_NS, clamp
from gateway.analytics.question import Question
from gateway.analytics.refusals import ParameterError, RefusedError
from gateway.analytics.views import detail, view
from gateway.ledger import Snapshot, queries
from gateway.ledger.queries import Place

MAX_PAGE: Final = 1_000
_decode: Final = msgspec.json.Decoder(tuple[int, int, int, str]).decode


def encode_cursor(from_ns: int, to_ns: int, place: Place) -> str:
    """The cursor of the page after the call at `place`."""
    return base64.urlsafe_b64encode(msgspec.json.encode((from_ns, to_ns, *place))).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[int, int, Place]:
    """The range, and the place after which to go on.

    Raises:
        ParameterError: no page has given out this cursor.
    """
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        from_ns, to_ns, at_ns, call_id = _decode(raw)
    except (ValueError, binascii.Error, msgspec.MsgspecError) as error:
        raise ParameterError("cursor", "is none that a page has given as next_cursor") from error
    if not all(0 <= ns <= MAX_NS for ns in (from_ns, to_ns, at_ns)):
        raise ParameterError("cursor", "is none that a page has given as next_cursor")
    return from_ns, to_ns, Place(at_ns, call_id)


def page(snapshot: Snapshot, question: Question) -> dict[str, Any]:
    """One page, and the cursor of the next one if there is more."""
    cursor = question.fields.one("cursor")
    begin, end, _ = question.range
    after = None
    if cursor is not None:
        begin, end, after = decode_cursor(cursor)
        retention = question.access.plan.retention_days
        begin, end, _ = clamp(begin, end, now_ns=question.now_ns, retention_days=retention)
    limit = question.parameters.top
    found = snapshot.calls(queries.page(question.scope(begin, end), after=after, limit=limit + 1))
    shown = found[:limit]
    more = len(found) > limit
    last = Place(shown[-1].timestamp_ns, shown[-1].call_id) if more else None
    return {
        "calls": [view(call) for call in shown],
        "next_cursor": None if last is None else encode_cursor(begin, end, last),
    }


def single(snapshot: Snapshot, question: Question) -> dict[str, Any]:
    """One call with all that is known of it.

    Raises:
        RefusedError: 404, there is none that the bearer may see and the plan retains.
    """
    call_id = question.call_id
    span = clamp(0, MAX_NS, now_ns=question.now_ns, retention_days=question.access.plan.retention_days)
    found = snapshot.calls(queries.call(question.unfiltered(span.from_ns, span.to_ns), call_id))
    if not found:
        raise RefusedError(404, f"there is no call {call_id!r} in this workspace, or its plan retains it no longer")
    return detail(found[0])
