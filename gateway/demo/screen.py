"""What a person sees: how to connect, a table that lives, and the reckoning at the end."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from rich.console import Group
from rich.table import Table

from gateway.calls import UNKNOWN
from gateway.demo.cast import GUEST, MEMBERS
from gateway.demo.counts import Counts
from gateway.demo.stage import Stage
from gateway.tokens import client_configuration

RATE_WINDOW_S: Final = 10.0
TOOL_ROWS: Final = 12


class View(NamedTuple):
    """One look at the analytics API (`groups` of the whole run and of the last seconds), and the clients' own count."""

    members: Sequence[Mapping[str, Any]]
    recent_members: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]]
    recent_tools: Sequence[Mapping[str, Any]]
    counted: Counts


def directions(stage: Stage) -> str:
    """Ready to paste: a client's configuration, the metrics, the analytics API and the live stream."""
    member = GUEST
    url = stage.workspace_url(member.workspace)
    block = json.dumps(client_configuration(member.workspace, url, stage.secrets[member.token_id]), indent=2)
    bearer = f"-H 'Authorization: Bearer {stage.jwt}'"
    api = stage.api_url(member.workspace)
    return "\n".join(
        (
            "\nAn MCP client's configuration, to try it yourself:",
            block,
            f"\nMetrics:        {stage.observer}/metrics",
            "\nAnalytics API:",
            f"curl -s {bearer} '{api}/analytics?period=1h'",
            "\nCalls as they happen:",
            f"curl -sN {bearer} '{api}/logs/stream'",
            "",
        )
    )


def table(view: View) -> Group:
    """Both tables: by member, with the clients' own count beside, and by tool."""
    return Group(_members(view), _tools(view), "All numbers are the analytics API's, but for 'client'. Ctrl-C ends.")


def line(view: View) -> str:
    """The same for a log: one line."""
    calls = sum(group["calls"] for group in view.members)
    errors = sum(group["errors"] for group in view.members)
    rate = sum(group["calls"] for group in view.recent_members) / RATE_WINDOW_S
    slowest = max(view.tools, key=lambda group: group["duration_ms"]["p95"] or 0, default=None)
    worst = f", slowest {_tool(slowest)} p95 {slowest['duration_ms']['p95']:.0f} ms" if slowest else ""
    share = f"{errors / calls:.1%}" if calls else "-"
    return f"{rate:5.1f} calls/s, {calls} calls, {share} errors{worst}; clients counted {view.counted.total()}"


def reckoning(clients: Counts, api: Counts, metrics: Counts) -> Table:
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


def _members(view: View) -> Table:
    found = _numbers("member", "workspace", "calls/s", "calls", "client", "errors", "p50 ms", "p95 ms")
    recent = {group["token_id"]: group["calls"] for group in view.recent_members}
    known = {group["token_id"]: group for group in view.members}
    counted: Counter[str] = Counter()
    for (_, token_id, _), calls in view.counted.items():
        counted[token_id] += calls
    for member in MEMBERS:
        group = known.get(member.token_id)
        own = str(counted[member.token_id])
        found.add_row(member.name, member.workspace, *_row(group, recent.get(member.token_id, 0), own))
    return found


def _tools(view: View) -> Table:
    found = _numbers("tool", "workspace", "calls/s", "calls", "errors", "p50 ms", "p95 ms")
    recent = {(group["workspace_id"], _tool(group)): group["calls"] for group in view.recent_tools}
    for group in sorted(view.tools, key=lambda group: -group["calls"])[:TOOL_ROWS]:
        key = (group["workspace_id"], _tool(group))
        found.add_row(key[1], key[0], *_row(group, recent.get(key, 0)))
    return found


def _numbers(*headings: str) -> Table:
    """A table whose first two columns are words."""
    found = Table(expand=False)
    for i, heading in enumerate(headings):
        found.add_column(heading, justify="left" if i < 2 else "right", no_wrap=True)  # noqa: PLR2004 - see above
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
    return "(unknown tool)" if UNKNOWN in (server, tool) else f"{server}__{tool}"
