"""The views: overview, tools, members, servers, groups, pages of calls; each is a function of a snapshot and a query.

Each of the first four says how it groups the calls of the range, so that all of them together are one statement too.

A cursor names a position in the order of calls, not a number of calls to skip. So calls that arrive between two pages
neither shift nor repeat one; a call that began before the position but ends only now is not on later pages. The cursor
also holds the range of the first page, because the range of a period moves with the clock.
"""

import base64
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import msgspec

from gateway.analytics.http_errors import ApiError, ParameterError
from gateway.analytics.models import (
    AnsweredRange,
    CallCounts,
    CallDetail,
    CallGroup,
    CallGroups,
    CallPage,
    CallSummary,
    Durations,
    ErrorCount,
    Everything,
    MemberStats,
    Overview,
    ServerStats,
    ToolCount,
    ToolStats,
)
from gateway.analytics.parameters import parse_by
from gateway.analytics.periods import MAX_NS, rfc3339
from gateway.analytics.query import AnalyticsQuery
from gateway.analytics.usage import current_totals, usage_of
from gateway.calls import COLUMN_OF, Dimension
from gateway.ledger import Snapshot, queries
from gateway.ledger.groupings import Grouping, grouping_query
from gateway.ledger.queries import NO_CALLS, Measures, PagePosition, Totals, tools_ever_called
from gateway.ledger.rows import is_storable

TOP_TOOLS: Final = 5
"""Tools shown with each member."""
MAX_PAGE: Final = 1_000

ALL: Final = Grouping()
BY_TOKEN: Final = Grouping(by=("token",))
BY_SERVER: Final = Grouping(by=("server",))
BY_TOOL: Final = Grouping(by=("server", "tool"))
COUNTS_BY_TOKEN: Final = Grouping(by=("token",), durations=False)
COUNTS_BY_ERROR: Final = Grouping(by=("error_type",), durations=False)
TOOLS_OF_TOKENS: Final = Grouping(by=("token", "server", "tool"), top=TOP_TOOLS)

MeasuredGroups = Mapping[tuple[Dimension, ...], Sequence[tuple[tuple[Any, ...], Measures]]]
"""For each grouping, by its dimensions: the groups' values and what was measured of them."""


def everything(snapshot: Snapshot, query: AnalyticsQuery) -> Everything:
    begin, end, clamped = query.range
    fresh_ns = query.fresh_as_of_ns
    totals = current_totals(snapshot, query)
    found = _measure(snapshot, query, ALL, BY_TOKEN, BY_SERVER, BY_TOOL, COUNTS_BY_ERROR, TOOLS_OF_TOKENS)
    return Everything(
        workspace_id=query.access.workspace_id,
        plan=query.access.workspace.plan,
        range=AnsweredRange(from_=rfc3339(begin), to=rfc3339(end), tz=query.parameters.tz, clamped=clamped),
        fresh_as_of=None if fresh_ns is None else rfc3339(fresh_ns),
        overview=_overview(found, totals),
        tools=_tools(found, snapshot, query),
        members=_members(found, query),
        servers=_servers(found, query),
        usage=usage_of(totals.used, snapshot, query),
    )


def overview(snapshot: Snapshot, query: AnalyticsQuery) -> Overview:
    found = _measure(snapshot, query, ALL, COUNTS_BY_TOKEN, COUNTS_BY_ERROR)
    return _overview(found, current_totals(snapshot, query))


def tools(snapshot: Snapshot, query: AnalyticsQuery) -> list[ToolStats]:
    return _tools(_measure(snapshot, query, BY_TOOL), snapshot, query)


def members(snapshot: Snapshot, query: AnalyticsQuery) -> list[MemberStats]:
    return _members(_measure(snapshot, query, BY_TOKEN, TOOLS_OF_TOKENS), query)


def servers(snapshot: Snapshot, query: AnalyticsQuery) -> list[ServerStats]:
    return _servers(_measure(snapshot, query, BY_SERVER), query)


def _measure(snapshot: Snapshot, query: AnalyticsQuery, *wanted: Grouping) -> MeasuredGroups:
    found: dict[tuple[Dimension, ...], list[tuple[tuple[Any, ...], Measures]]] = {
        grouping.by: [] for grouping in wanted
    }
    for index, *row in snapshot.rows(grouping_query(query.scope(), wanted)):
        by = wanted[index].by
        values = dict(zip(COLUMN_OF, row, strict=False))
        found[by].append((tuple(values[dimension] for dimension in by), Measures.of(row)))
    return found


def _overview(found: MeasuredGroups, totals: Totals) -> Overview:
    [(_, measures)] = found[ALL.by]
    errors = [(error_type, counts.calls) for (error_type,), counts in found[COUNTS_BY_ERROR.by] if error_type]
    return Overview(
        calls=CallCounts(range=measures.calls, today=totals.today, week=totals.week, month=totals.month),
        success_rate=_rate(measures.calls - measures.errors, measures.calls),
        active_tokens=len(found[BY_TOKEN.by]),
        errors=measures.errors,
        duration_ms=_durations(measures),
        errors_by_type=[
            ErrorCount(error_type=error_type, calls=calls)
            for error_type, calls in sorted(errors, key=lambda error: (-error[1], error[0]))
        ],
    )


def _tools(found: MeasuredGroups, snapshot: Snapshot, query: AnalyticsQuery) -> list[ToolStats]:
    """The tools with calls, and with 0 those that were called at any time or that the catalog has."""
    known = set(query.catalog(query.access.workspace_id))
    known.update(snapshot.rows(tools_ever_called(query.unfiltered(0))))
    listed: dict[tuple[str, str], Measures] = {
        (server, tool): NO_CALLS
        for server, tool in known
        if query.admits("server", server) and query.admits("tool", tool)
    }
    listed.update({(server, tool): measures for (server, tool), measures in found[BY_TOOL.by]})
    ranked = sorted(listed.items(), key=lambda item: (-item[1].calls, item[0]))
    return [
        ToolStats(server_slug=server, tool_name=tool, **_stats(measures), last_called_at=_last(measures))
        for (server, tool), measures in ranked[: query.parameters.top]
    ]


def _members(found: MeasuredGroups, query: AnalyticsQuery) -> list[MemberStats]:
    """The callers, and with 0 the configured tokens."""
    tokens = {token.id: token for token in query.access.workspace.tokens}
    listed = {token_id: NO_CALLS for token_id in tokens if query.admits("token", token_id)}
    listed.update({token_id: measures for (token_id,), measures in found[BY_TOKEN.by]})
    top: dict[str, list[ToolCount]] = {}
    most_first = sorted(found[TOOLS_OF_TOKENS.by], key=lambda item: (-item[1].calls, item[0]))
    for (token_id, server, tool), measures in most_first:
        top.setdefault(token_id, []).append(ToolCount(server_slug=server, tool_name=tool, calls=measures.calls))

    def name(token_id: str) -> str | None:
        return tokens[token_id].name if token_id in tokens else None

    ranked = sorted(listed.items(), key=lambda item: (-item[1].calls, name(item[0]) or item[0], item[0]))
    return [
        MemberStats(
            token_id=token_id,
            token_name=name(token_id),
            kind=tokens[token_id].kind if token_id in tokens else None,
            **_stats(measures),
            last_called_at=_last(measures),
            top_tools=top.get(token_id, []),
        )
        for token_id, measures in ranked[: query.parameters.top]
    ]


def _servers(found: MeasuredGroups, query: AnalyticsQuery) -> list[ServerStats]:
    """The servers with calls, and with 0 the other configured ones."""
    listed = {slug: NO_CALLS for slug in query.access.workspace.servers if query.admits("server", slug)}
    listed.update({slug: measures for (slug,), measures in found[BY_SERVER.by]})
    ranked = sorted(listed.items(), key=lambda item: (-item[1].calls, item[0]))
    return [
        ServerStats(server_slug=slug, **_stats(measures), up=query.upstream_up(query.access.workspace_id, slug))
        for slug, measures in ranked[: query.parameters.top]
    ]


def groups(snapshot: Snapshot, query: AnalyticsQuery) -> CallGroups:
    """Every combination of the dimensions that occurs; all of them unless a limit is given."""
    by = parse_by(query.fields)
    columns = [COLUMN_OF[dimension] for dimension in by]
    found: list[tuple[Mapping[str, Any], Measures]] = [
        (dict(zip(columns, row, strict=False)), Measures.of(row))
        for row in snapshot.rows(queries.groups(query.scope(), by))
    ]
    found.sort(key=lambda item: (-item[1].calls, [value or "" for value in item[0].values()]))
    listed = [
        CallGroup(**values, calls=measures.calls, errors=measures.errors, duration_ms=_durations(measures))
        for values, measures in found[: query.parameters.limit]
    ]
    return CallGroups(by=list(by), groups=listed)


def encode_cursor(from_ns: int, to_ns: int, position: PagePosition) -> str:
    """The cursor of the page after the call at `position`."""
    return base64.urlsafe_b64encode(msgspec.json.encode((from_ns, to_ns, *position))).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[int, int, PagePosition]:
    """The range, and the position after which to go on; `ParameterError` if no page has returned this cursor."""
    invalid = ParameterError("cursor", "is not the next_cursor of a page")
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        from_ns, to_ns, at_ns, call_id = msgspec.json.decode(raw, type=tuple[int, int, int, str])
    except (ValueError, msgspec.MsgspecError) as error:
        raise invalid from error
    if not (0 <= from_ns <= at_ns < to_ns <= MAX_NS and is_storable(call_id)):
        raise invalid
    return from_ns, to_ns, PagePosition(at_ns, call_id)


def calls(snapshot: Snapshot, query: AnalyticsQuery) -> CallPage:
    """One page of calls, newest first. The range of a cursor replaces the request's."""
    cursor = query.fields.one("cursor")
    begin, end, after = (*query.range[:2], None) if cursor is None else decode_cursor(cursor)
    begin, end, _ = query.clamped(begin, end)
    limit = query.parameters.top
    found = snapshot.calls(queries.page(query.scope(begin, end), after=after, limit=limit + 1))
    shown = found[:limit]
    last = PagePosition(shown[-1].timestamp_ns, shown[-1].call_id) if len(found) > limit else None
    return CallPage(
        calls=[CallSummary.of(call) for call in shown],
        next_cursor=None if last is None else encode_cursor(begin, end, last),
    )


def single_call(snapshot: Snapshot, query: AnalyticsQuery) -> CallDetail:
    """One call, whatever the range is; `ApiError` 404 if the bearer, the filters or the plan's retention hide it."""
    call_id = query.call_id
    retained = query.clamped(0, MAX_NS)
    for from_ns, to_ns in (*_millisecond(call_id), (0, MAX_NS)) if is_storable(call_id) else ():
        scope = query.scope(max(from_ns, retained.from_ns), min(to_ns, retained.to_ns))
        for found in snapshot.calls(queries.call(scope, call_id)):
            return CallDetail.of(found)
    raise ApiError(
        404,
        f"there is no call {call_id!r} here: it never existed, a filter excludes it, or the plan does not retain it",
    )


def _millisecond(call_id: str) -> Iterator[tuple[int, int]]:
    """When the call began, as its id says (RFC 9562, UUID version 7): an index by time finds it at once."""
    with contextlib.suppress(ValueError):
        made = UUID(call_id)
        if made.version == 7:  # noqa: PLR2004
            began_ms = made.int >> 80
            yield began_ms * 10**6, (began_ms + 1) * 10**6


def _stats(measures: Measures) -> dict[str, Any]:
    """The members that tools, members and servers share."""
    return {
        "calls": measures.calls,
        "errors": measures.errors,
        "error_rate": _rate(measures.errors, measures.calls),
        "duration_ms": _durations(measures),
    }


def _durations(measures: Measures) -> Durations:
    return Durations(avg=measures.avg_ms, p50=measures.p50_ms, p95=measures.p95_ms, p99=measures.p99_ms)


def _last(measures: Measures) -> str | None:
    return None if measures.last_ns is None else rfc3339(measures.last_ns)


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None
