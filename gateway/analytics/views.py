"""The views: overview, tools, members, servers, groups, each a function of a snapshot of the ledger and a query.

Each view says how it groups the calls of the range, so that all of them together are one statement too.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.analytics.calls_until_now import calls_until_now
from gateway.analytics.models import (
    AnsweredRange,
    CallCounts,
    CallGroup,
    CallGroups,
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
from gateway.analytics.periods import rfc3339
from gateway.analytics.query import AnalyticsQuery
from gateway.analytics.usage import usage_of
from gateway.calls import COLUMN_OF, Dimension
from gateway.ledger import Snapshot, queries
from gateway.ledger.first_seen import tools_ever_called
from gateway.ledger.groupings import Grouping, grouping_query
from gateway.ledger.queries import NO_CALLS, Measures
from gateway.ledger.totals import Totals

TOP_TOOLS: Final = 5
"""Tools shown with each member."""

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
    totals = calls_until_now(snapshot, query)
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
    return _overview(found, calls_until_now(snapshot, query))


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
    for place, *row in snapshot.rows(grouping_query(query.scope(), wanted)):
        by = wanted[place].by
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
    known.update(snapshot.rows(tools_ever_called(query.unfiltered(0, query.now_ns))))
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
