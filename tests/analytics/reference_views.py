"""What the API must answer, computed plainly from a list of calls: the slow, obvious twin of the ledger's SQL."""

import functools
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from gateway.calls import ToolCall
from gateway.config import Workspace

COLUMN = {
    "server": "server_slug",
    "tool": "tool_name",
    "token": "token_id",
    "status": "status",
    "error_type": "error_type",
}
UNIT = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def local(ns: int, tz: str) -> datetime:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns // 1000)).astimezone(ZoneInfo(tz))


def text(ns: int) -> str:
    return local(ns, "UTC").isoformat(timespec="milliseconds").replace("+00:00", "Z")


def within(period: str, tz: str, now_ns: int) -> Callable[[ToolCall], bool]:
    """Whether a call is in the period, told by calendar dates and not by where the period begins."""
    now = local(now_ns, tz)

    def inside(call: ToolCall) -> bool:
        then = local(call.timestamp_ns, tz)
        if call.timestamp_ns >= now_ns:
            return False
        match period:
            case "today":
                return then.date() == now.date()
            case "week":
                return then.isocalendar()[:2] == now.isocalendar()[:2]
            case "month":
                return (then.year, then.month) == (now.year, now.month)
            case _:
                return call.timestamp_ns >= now_ns - int(period[:-1]) * UNIT[period[-1]] * 10**9

    return inside


def passes(filters: dict[str, set[str]]) -> Callable[[ToolCall], bool]:
    return lambda call: all(getattr(call, COLUMN[name]) in values for name, values in filters.items() if values)


def percentile(values: Sequence[float], fraction: float) -> float | None:
    """SQL's percentile_cont: linear between the two ranks around `fraction` of the way from first to last."""
    if not values:
        return None
    ordered = sorted(values)
    whole, part = divmod(fraction * (len(ordered) - 1), 1)
    low, high = ordered[int(whole)], ordered[min(int(whole) + 1, len(ordered) - 1)]
    return low + (high - low) * part


def durations(calls: Sequence[ToolCall]) -> dict[str, float | None]:
    values = [call.duration_ms for call in calls]
    return {
        "avg": sum(values) / len(values) if values else None,
        **{f"p{p}": percentile(values, p / 100) for p in (50, 95, 99)},
    }


def counts(calls: Sequence[ToolCall]) -> dict[str, Any]:
    errors = sum(call.status == "error" for call in calls)
    return {
        "calls": len(calls),
        "errors": errors,
        "error_rate": errors / len(calls) if calls else None,
        "duration_ms": durations(calls),
    }


def last(calls: Sequence[ToolCall]) -> str | None:
    return text(max(call.timestamp_ns for call in calls)) if calls else None


def split(calls: Iterable[ToolCall], *dimensions: str) -> dict[tuple[Any, ...], list[ToolCall]]:
    found: dict[tuple[Any, ...], list[ToolCall]] = {}
    for call in calls:
        found.setdefault(tuple(getattr(call, COLUMN[name]) for name in dimensions), []).append(call)
    return found


def most_first(counted: Iterable[tuple[Any, int]]) -> list[tuple[Any, int]]:
    return sorted(counted, key=lambda pair: (-pair[1], pair[0]))


def overview(chosen: Sequence[ToolCall], filtered: Sequence[ToolCall], tz: str, now_ns: int) -> dict[str, Any]:
    errors = [call for call in chosen if call.status == "error"]
    by_type = split((call for call in chosen if call.error_type is not None), "error_type")
    return {
        "calls": {
            "range": len(chosen),
            **{p: sum(map(within(p, tz, now_ns), filtered)) for p in ("today", "week", "month")},
        },
        "success_rate": (len(chosen) - len(errors)) / len(chosen) if chosen else None,
        "active_tokens": len({call.token_id for call in chosen}),
        "errors": len(errors),
        "duration_ms": durations(chosen),
        "errors_by_type": [
            {"error_type": kind, "calls": number}
            for (kind,), number in most_first((kind, len(calls)) for kind, calls in by_type.items())
        ],
    }


def tools(
    chosen: Sequence[ToolCall], ever: Sequence[ToolCall], filters: dict[str, set[str]], now_ns: int
) -> list[dict[str, Any]]:
    groups = split(chosen, "server", "tool")
    for call in ever:
        named = all(getattr(call, COLUMN[name]) in filters[name] for name in ("server", "tool") if filters.get(name))
        if named and call.timestamp_ns < now_ns:
            groups.setdefault((call.server_slug, call.tool_name), [])
    return [
        {
            "server_slug": server,
            "tool_name": tool,
            **counts(groups[server, tool]),
            "last_called_at": last(groups[server, tool]),
        }
        for (server, tool), _ in most_first((key, len(calls)) for key, calls in groups.items())
    ]


def members(chosen: Sequence[ToolCall], workspace: Workspace, filters: dict[str, set[str]]) -> list[dict[str, Any]]:
    groups = {token_id: calls for (token_id,), calls in split(chosen, "token").items()}
    configured = {token.id: token for token in workspace.tokens}
    for token_id in configured:
        if not filters.get("token") or token_id in filters["token"]:
            groups.setdefault(token_id, [])
    listed = []
    for token_id, calls in groups.items():
        used = most_first((key, len(some)) for key, some in split(calls, "server", "tool").items())
        listed.append(
            {
                "token_id": token_id,
                "token_name": configured[token_id].name if token_id in configured else None,
                "kind": configured[token_id].kind if token_id in configured else None,
                **counts(calls),
                "last_called_at": last(calls),
                "top_tools": [{"server_slug": s, "tool_name": t, "calls": n} for (s, t), n in used[:5]],
            }
        )
    return sorted(listed, key=lambda m: (-m["calls"], m["token_name"] or m["token_id"], m["token_id"]))


def servers(chosen: Sequence[ToolCall], workspace: Workspace, filters: dict[str, set[str]]) -> list[dict[str, Any]]:
    groups = {slug: calls for (slug,), calls in split(chosen, "server").items()}
    for slug in workspace.servers:
        if not filters.get("server") or slug in filters["server"]:
            groups.setdefault(slug, [])
    return [
        {"server_slug": slug, **counts(groups[slug]), "up": None}
        for slug, _ in most_first((slug, len(calls)) for slug, calls in groups.items())
    ]


def groups(chosen: Sequence[ToolCall], by: Sequence[str]) -> list[dict[str, Any]]:
    found = split(chosen, *by)
    if not by:
        found.setdefault((), [])
    listed = []
    for key, calls in found.items():
        measured = counts(calls)
        del measured["error_rate"]
        listed.append({**{COLUMN[name]: value for name, value in zip(by, key, strict=True)}, **measured})
    return sorted(listed, key=lambda g: (-g["calls"], [g[COLUMN[name]] or "" for name in by]))


@functools.cache
def first_instant(day: date, tz: str) -> int:
    """When a date is first read off a clock of the zone: clocks are changed at quarters of an hour."""
    ns = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 10**9 - 16 * 3600 * 10**9
    while local(ns, tz).date() < day:
        ns += 900 * 10**9
    return ns


def bucket(ns: int, step_s: int, tz: str, begin_ns: int) -> int:
    """When the bucket of a time begins.

    Of whole days it is told by the calendar: days are numbered from a Monday, and a bucket is as many as the step has.
    Of other lengths it is told by the clock as it was at the range's begin.
    """
    days, rest = divmod(step_s, 86_400)
    monday = date(1970, 1, 5)
    if rest == 0:
        number = (local(ns, tz).date() - monday).days
        return first_instant(monday + timedelta(days=number - number % days), tz)
    offset = local(begin_ns, tz).utcoffset() or timedelta()
    begun = (monday - date(1970, 1, 1)).days * 86_400 - int(offset.total_seconds())
    return ns - (ns - begun * 10**9) % (step_s * 10**9)


def buckets(begin_ns: int, end_ns: int, step_s: int, tz: str) -> list[int]:
    """Where the buckets of a range begin: each that a time in it is in. Steps are of an hour at least, or divide it."""
    times = [*range(begin_ns, end_ns, min(step_s, 3600) * 10**9), end_ns - 1]
    return sorted({bucket(ns, step_s, tz, begin_ns) for ns in times})


def used(calls: Sequence[ToolCall], now_ns: int) -> int:
    refused = ("rate_limited", "quota_exceeded")
    return sum(within("month", "UTC", now_ns)(call) and call.error_type not in refused for call in calls)
