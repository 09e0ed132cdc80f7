"""What `callscope top` shows, as a pure function of the API's answers and the terminal's size."""

from collections.abc import Sequence
from datetime import datetime, tzinfo
from itertools import pairwise
from typing import Final, NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from gateway.analytics.models import CallGroup, CallSummary, Overview, Timeline
from gateway.terminal.formatting import (
    clock_time,
    duration,
    milliseconds,
    numbers,
    one_line,
    percent,
    plural,
    table,
    tool_label,
    words,
)

NOW_S: Final = 10
"""Seconds over which the current rate is measured."""
SPARKS: Final = " ▁▂▃▄▅▆▇█"
WIDE: Final = 100
"""Columns of a terminal that has room for the member of a call, and for the error type in a column of its own."""
NAME_WIDTHS: Final = (0.4, 0.2)
"""The largest parts of the width for a call's tool and member."""
SHARES: Final = (2, 1, 1)
"""How the lines are divided among tools, slowest and failed calls, if each could fill more."""


class TopData(NamedTuple):
    """The API's answers. `calls_of_now` are those of the last `NOW_S` seconds."""

    overview: Overview
    tools: Sequence[CallGroup]
    calls_of_now: Sequence[CallGroup]
    timeline: Timeline
    recent: Sequence[CallSummary]
    failed: Sequence[CallSummary]


class Outage(NamedTuple):
    """Since when the observer does not answer, and why."""

    since: datetime
    reason: str


class Caption(NamedTuple):
    """Which calls are shown."""

    workspace: str
    range: str
    zone: tzinfo


def render(data: TopData, caption: Caption, *, now: datetime, outage: Outage | None, size: tuple[int, int]) -> Group:
    """The view, no wider and no higher than `size` (columns, lines)."""
    width, height = size
    title = f"callscope top   {caption.workspace}   {caption.range}"
    time = f"{clock_time(now, caption.zone)} {now.astimezone(caption.zone):%Z}"
    head = [
        Text(title + " " * max(width - len(title) - len(time), 1) + time, style="bold"),
        _totals(data) if outage is None else _outage(outage, caption.zone),
        _sparkline(data.timeline, width),
        _errors(data.overview),
    ]
    for line in head:
        line.truncate(width, overflow="ellipsis")
    slowest = sorted(data.recent, key=lambda call: -call.duration_ms)
    rows = shares(height - len(head) - len(SHARES), (len(data.tools), len(slowest), len(data.failed)))
    return Group(
        *head,
        _tools(data, rows[0]),
        _slowest(slowest[: rows[1]], f"slowest of the last {plural(len(slowest), 'call')}", caption.zone, width),
        _failed(data.failed[: rows[2]], caption.zone, width),
    )


def shares(lines: int, needs: Sequence[int]) -> list[int]:
    """How many lines each section gets: by `SHARES`, until it has all that it needs."""
    given = [0] * len(needs)
    order = [i for i, share in enumerate(SHARES) for _ in range(share)]
    while lines > 0 and any(has < need for has, need in zip(given, needs, strict=True)):
        for i in order:
            if lines > 0 and given[i] < needs[i]:
                given[i] += 1
                lines -= 1
    return given


def _outage(outage: Outage, zone: tzinfo) -> Text:
    since, reason = clock_time(outage.since, zone), one_line(outage.reason)
    return Text(f"the observer is away since {since} ({reason}); this is its last state:", "bold red")


def _totals(data: TopData) -> Text:
    calls, errors, times = data.overview.calls.range, data.overview.errors, data.overview.duration_ms
    rate = sum(group.calls for group in data.calls_of_now) / NOW_S
    return Text.assemble(
        (f"{rate:.1f} calls/s", "bold"),
        f"  {plural(calls, 'call')}  ",
        (f"{percent(errors / calls if calls else None)} errors", "red" if errors else ""),
        f"  p50 {milliseconds(times.p50)} p95 {milliseconds(times.p95)} p99 {milliseconds(times.p99)} ms",
        f"  {plural(data.overview.active_tokens, 'member')}",
    )


def _sparkline(timeline: Timeline, width: int) -> Text:
    """Calls over the range, the newest at the right; a bar is red if more than a tenth of it failed."""
    calls = timeline.series[0].calls if timeline.series else [0]
    errors = timeline.series[0].errors if timeline.series else [0]
    label = f"  most in {_step(timeline.step_s)}: {max(calls, default=0):,}"
    columns = max(min(width - len(label), len(calls)), 1)
    edges = [len(calls) * i // columns for i in range(columns + 1)]  # a column adds up one or more buckets
    sums = [(sum(calls[a:b]), sum(errors[a:b])) for a, b in pairwise(edges)]
    most = max(total for total, _ in sums) or 1
    line = Text()
    for total, failed in sums:
        height = -(-total * (len(SPARKS) - 1) // most)  # rounded up, so that a single call is visible
        line.append(SPARKS[height], style="red" if failed * 10 > total else "green")
    return line.append(label, style="dim")


def _step(seconds: int) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _errors(overview: Overview) -> Text:
    found = [f"{one_line(error.error_type)} {error.calls:,}" for error in overview.errors_by_type]
    return Text("   ".join(found) or "no call failed", style="red" if found else "dim")


def _tools(data: TopData, most: int) -> Table:
    now = {(group.server_slug, group.tool_name): group.calls for group in data.calls_of_now}
    headings = ("calls/s", "calls", "errors", "p50 ms", "p95 ms")
    rows = [
        (
            tool_label(str(group.server_slug), str(group.tool_name)),
            f"{now.get((group.server_slug, group.tool_name), 0) / NOW_S:.1f}",
            f"{group.calls:,}",
            Text(percent(group.errors / group.calls if group.calls else None), style="red" if group.errors else ""),
            milliseconds(group.duration_ms.p50),
            milliseconds(group.duration_ms.p95),
        )
        for group in data.tools[:most]
    ]
    return table([words("tool"), *map(numbers, headings)], rows)


def _slowest(calls: Sequence[CallSummary], heading: str, zone: tzinfo, width: int) -> Table:
    columns = [
        words("time"),
        words(heading),
        words("member", int(width * NAME_WIDTHS[1])),
        words("outcome"),
        numbers("took"),
    ]
    rows: list[list[Text | str]] = []
    for call in calls:
        tool = tool_label(call.server_slug, call.tool_name)
        member, took = one_line(call.token_id), duration(call.duration_ms)
        rows.append([clock_time(call.timestamp, zone), tool, member, _outcome(call), took])
    if width < WIDE:
        columns, rows = [*columns[:2], *columns[3:]], [[*row[:2], *row[3:]] for row in rows]
    return table(columns, rows)


def _failed(calls: Sequence[CallSummary], zone: tzinfo, width: int) -> Table:
    wide = width >= WIDE
    tool, member = (int(width * share) for share in NAME_WIDTHS)
    columns = [words("time"), words("failed last", tool)]
    columns += [words("member", member), words("error")] if wide else []
    rows: list[list[Text | str]] = []
    for call in calls:
        message = one_line(call.error_message or "")
        names = [clock_time(call.timestamp, zone), tool_label(call.server_slug, call.tool_name)]
        if wide:
            rows.append([*names, one_line(call.token_id), _outcome(call), message])
        else:
            rows.append([*names, Text.assemble(_outcome(call), f" {message}")])
    return table([*columns, words("message")], rows)


def _outcome(call: CallSummary) -> Text:
    return Text(one_line(call.error_type or call.status), style="green" if call.status == "success" else "red")
