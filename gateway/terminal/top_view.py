"""What `callscope top` shows: one frame, as a pure function of the answers and the terminal's size."""

from collections.abc import Sequence
from datetime import datetime, tzinfo
from itertools import pairwise
from typing import Final, NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from gateway.analytics.models import CallGroup, CallSummary, Overview, Timeline
from gateway.terminal.formatting import clock_time, count, duration, milliseconds, one_line, percent, plural, tool_label
from gateway.terminal.screen import fitted

NOW_S: Final = 10
"""Seconds over which the calls of now are counted."""
SPARKS: Final = " ▁▂▃▄▅▆▇█"
WIDE: Final = 100
"""Columns from which on failing calls are shown with their member and their own column of the error's type."""
NAMES: Final = (0.4, 0.2)
"""The parts of the width that a call's tool and member have at most."""
SHARES: Final = (2, 1, 1)
"""Of the lines that there are for tools, slowest and failing calls; what one does not need the others have."""
TOOL_HEADINGS: Final = ("tool", "calls/s", "calls", "errors", "p50 ms", "p95 ms")


class TopData(NamedTuple):
    """One look at the API. `calls_of_now` are those of the last `NOW_S` seconds."""

    overview: Overview
    tools: Sequence[CallGroup]
    calls_of_now: Sequence[CallGroup]
    timeline: Timeline
    recent: Sequence[CallSummary]
    failing: Sequence[CallSummary]


class Outage(NamedTuple):
    """Since when the observer does not answer, and what is known of why."""

    since: datetime
    reason: str


class Caption(NamedTuple):
    """What the frame is of."""

    workspace: str
    range: str
    zone: tzinfo


def render(view: TopData, caption: Caption, *, now: datetime, away: Outage | None, size: tuple[int, int]) -> Group:
    """The whole, no wider and no higher than `size` (columns, lines)."""
    width, height = size
    head = [_title(caption, now, width), _state(view, away, caption), _spark(view.timeline, width), _errors(view)]
    for line in head:
        line.truncate(width, overflow="ellipsis")
    slowest = sorted(view.recent, key=lambda call: -call.duration_ms)
    rows = shares(height - len(head) - len(SHARES), (len(view.tools), len(slowest), len(view.failing)))
    return Group(
        *head,
        _tools(view, width, rows[0]),
        _slowest(slowest[: rows[1]], len(view.recent), caption.zone, width),
        _failing(view.failing[: rows[2]], caption.zone, width),
    )


def shares(lines: int, needs: Sequence[int]) -> list[int]:
    """How many lines each section has: by `SHARES`, as long as it needs more."""
    given = [0] * len(needs)
    order = [i for i, share in enumerate(SHARES) for _ in range(share)]
    while lines > 0 and any(has < need for has, need in zip(given, needs, strict=True)):
        for i in order:
            if lines > 0 and given[i] < needs[i]:
                given[i] += 1
                lines -= 1
    return given


def _title(caption: Caption, now: datetime, width: int) -> Text:
    left = f"callscope top   {caption.workspace}   {caption.range}"
    right = f"{now.astimezone(caption.zone):%H:%M:%S} {now.astimezone(caption.zone):%Z}"
    return Text(left + " " * max(width - len(left) - len(right), 1) + right, style="bold")


def _state(view: TopData, away: Outage | None, caption: Caption) -> Text:
    if away is not None:
        since = f"{away.since.astimezone(caption.zone):%H:%M:%S}"
        return Text(f"the observer is away since {since} ({one_line(away.reason)}), and was like this:", "bold red")
    calls, errors, times = view.overview.calls.range, view.overview.errors, view.overview.duration_ms
    rate = sum(group.calls for group in view.calls_of_now) / NOW_S
    return Text.assemble(
        (f"{rate:.1f} calls/s", "bold"),
        f"  {plural(calls, 'call')}  ",
        (f"{percent(errors / calls if calls else None)} errors", "red" if errors else ""),
        f"  p50 {milliseconds(times.p50)} p95 {milliseconds(times.p95)} p99 {milliseconds(times.p99)} ms",
        f"  {plural(view.overview.active_tokens, 'member')}",
    )


def _spark(timeline: Timeline, width: int) -> Text:
    """Calls over the range, the newest at the right; where more than a tenth failed, red."""
    calls = [0] if not timeline.series else timeline.series[0].calls
    errors = [0] if not timeline.series else timeline.series[0].errors
    label = f"  most in {_span(timeline.step_s)}: {count(max(calls, default=0))}"
    columns = max(min(width - len(label), len(calls)), 1)
    edges = [len(calls) * i // columns for i in range(columns + 1)]
    sums = [(sum(calls[a:b]), sum(errors[a:b])) for a, b in pairwise(edges)]
    most = max(total for total, _ in sums) or 1
    line = Text()
    for total, failed in sums:
        height = -(-total * (len(SPARKS) - 1) // most)
        line.append(SPARKS[height], style="red" if failed * 10 > total else "green")
    return line.append(label, style="dim")


def _span(seconds: int) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _errors(view: TopData) -> Text:
    found = [f"{one_line(error.error_type)} {count(error.calls)}" for error in view.overview.errors_by_type]
    return Text("   ".join(found) or "no call failed", style="red" if found else "dim")


def _tools(view: TopData, width: int, most: int) -> Table:
    now = {(group.server_slug, group.tool_name): group.calls for group in view.calls_of_now}
    rows = [
        (
            tool_label(group.server_slug or "", group.tool_name or ""),
            f"{now.get((group.server_slug, group.tool_name), 0) / NOW_S:.1f}",
            count(group.calls),
            Text(percent(group.errors / group.calls if group.calls else None), style="red" if group.errors else ""),
            milliseconds(group.duration_ms.p50),
            milliseconds(group.duration_ms.p95),
        )
        for group in view.tools[:most]
    ]
    return fitted(TOOL_HEADINGS, rows, width, words=["tool"], expendable=["p50 ms", "calls"], elastic="tool")


def _slowest(calls: Sequence[CallSummary], among: int, zone: tzinfo, width: int) -> Table:
    heading = f"slowest of the last {plural(among, 'call')}"
    rows = [
        (clock_time(call.timestamp, zone), *_names(call, width), _outcome(call), duration(call.duration_ms))
        for call in calls
    ]
    headings = ("time", heading, "member", "outcome", "took")
    return fitted(headings, rows, width, words=headings[:4], expendable=["member", "outcome", "time"], elastic=heading)


def _failing(calls: Sequence[CallSummary], zone: tzinfo, width: int) -> Table:
    times = [clock_time(call.timestamp, zone) for call in calls]
    said = [one_line(call.error_message or "") for call in calls]
    if width >= WIDE:
        headings: Sequence[str] = ("time", "failed last", "member", "error", "message")
        rows: Sequence[Sequence[Text | str]] = [
            (time, *_names(call, width), _outcome(call), message)
            for time, call, message in zip(times, calls, said, strict=True)
        ]
    else:
        headings = ("time", "failed last", "message")
        rows = [
            (time, _names(call, width)[0], Text.assemble(_outcome(call), f" {message}"))
            for time, call, message in zip(times, calls, said, strict=True)
        ]
    return fitted(headings, rows, width, words=headings, expendable=["member"], elastic="message")


def _names(call: CallSummary, width: int) -> tuple[Text, Text]:
    """The tool's and the member's; none so long that nothing else has room."""
    names = Text(tool_label(call.server_slug, call.tool_name)), Text(one_line(call.token_id))
    for name, share in zip(names, NAMES, strict=True):
        name.truncate(int(width * share), overflow="ellipsis")
    return names


def _outcome(call: CallSummary) -> Text:
    return Text(one_line(call.error_type or call.status), style="green" if call.status == "success" else "red")
