"""What a person sees: how to connect, a table that lives, and the comparison at the end."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from rich.cells import cell_len
from rich.console import Group
from rich.table import Table

from gateway.calls import UNKNOWN
from gateway.demo.counts import Counts
from gateway.demo.environment import Environment
from gateway.demo.fixtures import GUEST, MEMBERS
from gateway.tokens import client_configuration

RATE_WINDOW_S: Final = 10.0
TOOL_ROWS: Final = 12
FRAME_LINES: Final = 4
"""Of a table: its edges, its headings and the line below these."""
PADDING: Final = 3
"""Columns of the terminal around a cell, with one edge."""


class Snapshot(NamedTuple):
    """One look at the analytics API (`groups` of the whole run and of the last seconds), and the clients' own count."""

    members: Sequence[Mapping[str, Any]]
    recent_members: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]]
    recent_tools: Sequence[Mapping[str, Any]]
    counted: Counts


def instructions(environment: Environment, command: str) -> str:
    """Ready to paste: a client's configuration, the metrics, the API, and the commands for it."""
    member = GUEST
    url = environment.workspace_url(member.workspace)
    block = json.dumps(client_configuration(member.workspace, url, environment.secrets[member.token_id]), indent=2)
    bearer = f"-H 'Authorization: Bearer {environment.jwt}'"
    api = environment.api_url(member.workspace)
    return "\n".join(
        (
            "\nAn MCP client's configuration, to try it yourself:",
            block,
            f"\nMetrics:        {environment.observer}/metrics",
            "\nAnalytics API:",
            f"curl -s {bearer} '{api}/analytics?period=1h'",
            "\nCalls as they happen:",
            f"curl -sN {bearer} '{api}/logs/stream'",
            "\nThe same in another terminal:",
            f"export CALLSCOPE_URL={environment.observer} CALLSCOPE_JWT={environment.jwt}",
            f"{command} top --workspace {member.workspace}",
            f"{command} tail --workspace {member.workspace}",
            "",
        )
    )


def table(snapshot: Snapshot, size: tuple[int, int]) -> Group:
    """Both tables: by member, with the clients' own count beside, and by tool, as they fit into (columns, lines)."""
    width, height = size
    members = _members(snapshot, width)
    rows = height - members.row_count - 2 * FRAME_LINES - 2  # the line below, and the one where the cursor is
    tools = _tools(snapshot, width, max(1, min(rows, TOOL_ROWS)))
    return Group(members, tools, "All numbers are the API's, but for 'client'. Ctrl-C ends.")


def line(snapshot: Snapshot) -> str:
    """The same for a log: one line."""
    calls = sum(group["calls"] for group in snapshot.members)
    errors = sum(group["errors"] for group in snapshot.members)
    rate = sum(group["calls"] for group in snapshot.recent_members) / RATE_WINDOW_S
    slowest = max(snapshot.tools, key=lambda group: group["duration_ms"]["p95"] or 0, default=None)
    worst = f", slowest {_tool(slowest)} p95 {slowest['duration_ms']['p95']:.0f} ms" if slowest else ""
    share = f"{errors / calls:.1%}" if calls else "-"
    return f"{rate:5.1f} calls/s, {calls} calls, {share} errors{worst}; clients counted {snapshot.counted.total()}"


def comparison(clients: Counts, api: Counts, metrics: Counts) -> Table:
    """What each counted, by member and outcome; a row that differs is marked."""
    found = Table(title="Calls, as three counted them", title_justify="left")
    for heading in ("member", "outcome"):
        found.add_column(heading)
    for heading in ("clients", "API", "/metrics"):
        found.add_column(heading, justify="right")
    found.add_column("")
    names = {member.token_id: member.name for member in (*MEMBERS, GUEST)}
    for key in sorted({*clients, *api, *metrics}, key=lambda key: (key[0], key[1], key[2] or "")):
        numbers = [source[key] for source in (clients, api, metrics)]
        mark = "" if len(set(numbers)) == 1 else "differs"
        found.add_row(names.get(key[1], key[1]), key[2] or "success", *map(str, numbers), mark)
    found.add_row("all", "", *(str(source.total()) for source in (clients, api, metrics)), "")
    return found


def _members(snapshot: Snapshot, width: int) -> Table:
    headings = ("member", "workspace", "calls/s", "calls", "client", "errors", "p50 ms", "p95 ms")
    recent = {group["token_id"]: group["calls"] for group in snapshot.recent_members}
    known = {group["token_id"]: group for group in snapshot.members}
    counted: Counter[str] = Counter()
    for (_, token_id, _), calls in snapshot.counted.items():
        counted[token_id] += calls
    rows = []
    for member in MEMBERS:
        group = known.get(member.token_id)
        own = str(counted[member.token_id])
        rows.append((member.name, member.workspace, *_row(group, recent.get(member.token_id, 0), own)))
    return _fitted(headings, rows, width, ("workspace", "p50 ms", "calls/s", "errors"))


def _tools(snapshot: Snapshot, width: int, most: int) -> Table:
    headings = ("tool", "workspace", "calls/s", "calls", "errors", "p50 ms", "p95 ms")
    recent = {(group["workspace_id"], _tool(group)): group["calls"] for group in snapshot.recent_tools}
    rows = []
    for group in sorted(snapshot.tools, key=lambda group: -group["calls"])[:most]:
        key = (group["workspace_id"], _tool(group))
        rows.append((key[1], key[0], *_row(group, recent.get(key, 0))))
    return _fitted(headings, rows, width, ("p50 ms", "calls/s", "workspace", "errors"))


def _fitted(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int, expendable: Sequence[str]) -> Table:
    """A table whose first two columns are words; what is `expendable` goes, in this order, until it is not too wide."""
    columns = zip(headings, *rows, strict=True)
    needs = {column[0]: PADDING + max(map(cell_len, column)) for column in columns}
    for heading in expendable:
        if sum(needs.values()) + 1 > width:
            del needs[heading]
    found = Table(expand=False)
    for heading in needs:
        found.add_column(heading, justify="left" if heading in headings[:2] else "right", no_wrap=True)
    for row in rows:
        found.add_row(*(cell for heading, cell in zip(headings, row, strict=True) if heading in needs))
    return found


def _row(group: Mapping[str, Any] | None, recent: int, *own: str) -> tuple[str, ...]:
    if group is None:
        return ("-", "0", *own, "-", "-", "-")
    times = group["duration_ms"]
    return (
        f"{recent / RATE_WINDOW_S:.1f}",
        str(group["calls"]),
        *own,
        f"{group['errors'] / group['calls']:.1%}",
        _ms(times["p50"]),
        _ms(times["p95"]),
    )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _tool(group: Mapping[str, Any]) -> str:
    server, tool = group["server_slug"], group["tool_name"]
    if server == UNKNOWN:
        return "(unknown server)"
    return f"{server}__(unknown)" if tool == UNKNOWN else f"{server}__{tool}"
