"""Single calls, newest first, in pages. A cursor names a place in the order, not a number of calls to skip.

So calls that arrive between two pages neither shift nor repeat one; one that arrives behind the place, because it began
before and ends only now, is not on the pages to come. The cursor also holds the range of the first page, because the
range of a period moves on with the clock.
"""

import base64
import binascii
import contextlib
from collections.abc import Iterator
from typing import Final
from uuid import UUID

import msgspec

from gateway.analytics.http_errors import ApiError, ParameterError
from gateway.analytics.models import CallDetail, CallPage, CallSummary
from gateway.analytics.periods import MAX_NS, clamp
from gateway.analytics.query import AnalyticsQuery
from gateway.ledger import Snapshot, queries
from gateway.ledger.queries import PagePosition
from gateway.ledger.rows import is_storable

MAX_PAGE: Final = 1_000
_decode: Final = msgspec.json.Decoder(tuple[int, int, int, str]).decode


def encode_cursor(from_ns: int, to_ns: int, place: PagePosition) -> str:
    """The cursor of the page after the call at `place`."""
    return base64.urlsafe_b64encode(msgspec.json.encode((from_ns, to_ns, *place))).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[int, int, PagePosition]:
    """The range, and the place after which to go on.

    Raises:
        ParameterError: no page has given out this cursor.
    """
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        from_ns, to_ns, at_ns, call_id = _decode(raw)
    except (ValueError, binascii.Error, msgspec.MsgspecError) as error:
        raise ParameterError("cursor", "is none that a page has given as next_cursor") from error
    if not (0 <= from_ns <= at_ns < to_ns <= MAX_NS and is_storable(call_id)):
        raise ParameterError("cursor", "is none that a page has given as next_cursor")
    return from_ns, to_ns, PagePosition(at_ns, call_id)


def page(snapshot: Snapshot, query: AnalyticsQuery) -> CallPage:
    """One page, and the cursor of the next one if there is more. The range of a cursor goes before the request's."""
    cursor = query.fields.one("cursor")
    begin, end, _ = query.range
    after = None
    if cursor is not None:
        begin, end, after = decode_cursor(cursor)
        retention = query.access.plan.retention_days
        begin, end, _ = clamp(begin, end, now_ns=query.now_ns, retention_days=retention)
    limit = query.parameters.top
    found = snapshot.calls(queries.page(query.scope(begin, end), after=after, limit=limit + 1))
    shown = found[:limit]
    more = len(found) > limit
    last = PagePosition(shown[-1].timestamp_ns, shown[-1].call_id) if more else None
    return CallPage(
        calls=[CallSummary.of(call) for call in shown],
        next_cursor=None if last is None else encode_cursor(begin, end, last),
    )


def single(snapshot: Snapshot, query: AnalyticsQuery) -> CallDetail:
    """One call with all that is known of it, whenever it was.

    Raises:
        ApiError: 404, there is none that the bearer may see, the filters let through and the plan retains.
    """
    call_id = query.call_id
    span = clamp(0, MAX_NS, now_ns=query.now_ns, retention_days=query.access.plan.retention_days)
    for from_ns, to_ns in (*_millisecond(call_id), (0, MAX_NS)) if is_storable(call_id) else ():
        scope = query.scope(max(from_ns, span.from_ns), min(to_ns, span.to_ns))
        for found in snapshot.calls(queries.call(scope, call_id)):
            return CallDetail.of(found)
    raise ApiError(
        404,
        f"there is no call {call_id!r} here: it never was, a filter excludes it, or the plan retains it no longer",
    )


def _millisecond(call_id: str) -> Iterator[tuple[int, int]]:
    """When the call began, as its id says (RFC 9562, UUID version 7): an index by time finds it at once."""
    with contextlib.suppress(ValueError):
        made = UUID(call_id)
        if made.version == 7:  # noqa: PLR2004
            began_ms = made.int >> 80
            yield began_ms * 10**6, (began_ms + 1) * 10**6
