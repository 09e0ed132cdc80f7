"""The views: overview, tools, members, servers, groups, each a function of a snapshot of the ledger and a question."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.analytics.parameters import parse_by
from gateway.analytics.periods import rfc3339, starts
from gateway.analytics.question import Question
from gateway.analytics.usage import usage
from gateway.ledger import Snapshot, queries
from gateway.ledger.queries import COLUMN_OF, NO_CALLS, Measures

TOP_TOOLS: Final = 5
"""Tools shown with each member."""


def everything(snapshot: Snapshot, question: Question) -> dict[str, Any]:
    """All views of one range."""
    begin, end, clamped = question.range
    fresh_ns = question.fresh_as_of_ns
    return {
        "workspace_id": question.access.workspace_id,
        "plan": question.access.workspace.plan,
        "range": {"from": rfc3339(begin), "to": rfc3339(end), "tz": question.parameters.tz, "clamped": clamped},
        "fresh_as_of": None if fresh_ns is None else rfc3339(fresh_ns),
        "overview": overview(snapshot, question),
        "tools": tools(snapshot, question),
        "members": members(snapshot, question),
        "servers": servers(snapshot, question),
        "usage": usage(snapshot, question),
    }


def overview(snapshot: Snapshot, question: Question) -> dict[str, Any]:
    """The range's totals; the calls of today, this week and this month are counted whatever the range is."""
    begun = starts(question.now_ns, question.parameters.zone)
    until_now = question.scope(min(begun), question.now_ns)
    [(today, week, month)] = snapshot.rows(queries.counts_since(until_now, begun))
    [(tokens, *row)] = snapshot.rows(queries.totals(question.scope()))
    measures = Measures.of(row)
    by_type = snapshot.rows(queries.groups(question.scope(), ["error_type"]))
    errors = [(error_type, Measures.of(counts).calls) for error_type, *counts in by_type if error_type is not None]
    return {
        "calls": {"range": measures.calls, "today": today, "week": week, "month": month},
        "success_rate": _rate(measures.calls - measures.errors, measures.calls),
        "active_tokens": tokens,
        "errors": measures.errors,
        "duration_ms": _duration(measures),
        "errors_by_type": [
            {"error_type": error_type, "calls": calls}
            for error_type, calls in sorted(errors, key=lambda error: (-error[1], error[0]))
        ],
    }


def tools(snapshot: Snapshot, question: Question) -> list[dict[str, Any]]:
    """The called tools, and with 0 those that were ever called or that the catalogue has."""
    workspace_id = question.access.workspace_id
    known = {(server, tool) for server, tool in question.catalogue(workspace_id)}
    known.update(snapshot.rows(queries.seen_tools(question.unfiltered(0, question.now_ns))))
    found: dict[tuple[str, str], Measures] = {
        (server, tool): NO_CALLS
        for server, tool in known
        if question.admits("server", server) and question.admits("tool", tool)
    }
    for server, tool, *row in snapshot.rows(queries.groups(question.scope(), ["server", "tool"])):
        found[server, tool] = Measures.of(row)
    ranked = sorted(found.items(), key=lambda item: (-item[1].calls, item[0]))
    return [
        {"server_slug": server, "tool_name": tool, **_counts(measures), "last_called_at": _last(measures)}
        for (server, tool), measures in ranked[: question.parameters.top]
    ]


def members(snapshot: Snapshot, question: Question) -> list[dict[str, Any]]:
    """The callers, and with 0 the configured tokens; name and kind are None for a token that is configured no more."""
    tokens = {token.id: token for token in question.access.workspace.tokens}
    found = {token_id: NO_CALLS for token_id in tokens if question.admits("token", token_id)}
    for token_id, *row in snapshot.rows(queries.groups(question.scope(), ["token"])):
        found[token_id] = Measures.of(row)
    top: dict[str, list[dict[str, Any]]] = {}
    for token_id, server, tool, calls in snapshot.rows(queries.top_tools(question.scope(), TOP_TOOLS)):
        top.setdefault(token_id, []).append({"server_slug": server, "tool_name": tool, "calls": calls})

    def name(token_id: str) -> str | None:
        return tokens[token_id].name if token_id in tokens else None

    ranked = sorted(found.items(), key=lambda item: (-item[1].calls, name(item[0]) or item[0], item[0]))
    return [
        {
            "token_id": token_id,
            "token_name": name(token_id),
            "kind": tokens[token_id].kind if token_id in tokens else None,
            **_counts(measures),
            "last_called_at": _last(measures),
            "top_tools": top.get(token_id, []),
        }
        for token_id, measures in ranked[: question.parameters.top]
    ]


def servers(snapshot: Snapshot, question: Question) -> list[dict[str, Any]]:
    """The called servers, and with 0 the configured ones."""
    workspace_id = question.access.workspace_id
    found = {slug: NO_CALLS for slug in question.access.workspace.servers if question.admits("server", slug)}
    for slug, *row in snapshot.rows(queries.groups(question.scope(), ["server"])):
        found[slug] = Measures.of(row)
    ranked = sorted(found.items(), key=lambda item: (-item[1].calls, item[0]))
    return [
        {"server_slug": slug, **_counts(measures), "up": question.upstream_up(workspace_id, slug)}
        for slug, measures in ranked[: question.parameters.top]
    ]


def groups(snapshot: Snapshot, question: Question) -> dict[str, Any]:
    """Every combination of the dimensions that occurs; all of them unless a limit is given."""
    by = parse_by(question.fields)
    columns = [COLUMN_OF[dimension] for dimension in by]
    found: list[tuple[Mapping[str, str | None], Measures]] = [
        (dict(zip(columns, row, strict=False)), Measures.of(row))
        for row in snapshot.rows(queries.groups(question.scope(), by))
    ]
    found.sort(key=lambda item: (-item[1].calls, [value or "" for value in item[0].values()]))
    listed = [
        {**keys, "calls": measures.calls, "errors": measures.errors, "duration_ms": _duration(measures)}
        for keys, measures in found[: question.parameters.limit]
    ]
    return {"by": list(by), "groups": listed}


def _counts(measures: Measures) -> dict[str, Any]:
    return {
        "calls": measures.calls,
        "errors": measures.errors,
        "error_rate": _rate(measures.errors, measures.calls),
        "duration_ms": _duration(measures),
    }


def _duration(measures: Measures) -> dict[str, float | None]:
    return {"avg": measures.avg_ms, "p50": measures.p50_ms, "p95": measures.p95_ms, "p99": measures.p99_ms}


def _last(measures: Measures) -> str | None:
    return None if measures.last_ns is None else rfc3339(measures.last_ns)


def _rate(part: int, whole: int) -> float | None:
    """None for a part of nothing: no rate is the right one."""
    return part / whole if whole else None
