"""What the demo prints: how to connect, a live table, and the comparison at the end."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from rich.console import Group
from rich.table import Table

from gateway.analytics.models import CallGroup
from gateway.demo.counts import Counts, Groups
from gateway.demo.environment import Environment
from gateway.demo.fixtures import GUEST, MEMBERS
from gateway.terminal.formatting import NOTHING, milliseconds, numbers, percent, table, tool_label, words
from gateway.tokens import client_configuration

RATE_WINDOW_S: Final = 10.0
TOOL_ROWS: Final = 12
NOTE: Final = "All numbers except 'client' are the API's. Ctrl-C ends."


class DisplayData(NamedTuple):
    """The API's answers for the whole run and for the last seconds, and the clients' own count."""

    members: Groups
    recent_members: Groups
    tools: Groups
    recent_tools: Groups
    counted: Counts


def instructions(environment: Environment, command: str) -> str:
    """Ready to paste: a client's configuration, the addresses of metrics and API, and commands for the terminal."""
    workspace = GUEST.workspace
    secret = environment.secrets[GUEST.token_id]
    block = client_configuration(workspace, environment.workspace_url(workspace), secret)
    bearer = f"-H 'Authorization: Bearer {environment.jwt}'"
    api = environment.api_url(workspace)
    return f"""
The configuration of an MCP client, to try it yourself:
{json.dumps(block, indent=2)}

Metrics:        {environment.observer}/metrics

Analytics API:
curl -s {bearer} '{api}/analytics?period=1h'

Calls as they happen:
curl -sN {bearer} '{api}/logs/stream'

The same in another terminal:
export CALLSCOPE_URL={environment.observer} CALLSCOPE_JWT={environment.jwt}
{command} top --workspace {workspace}
{command} tail --workspace {workspace}
"""


def live_table(data: DisplayData, height: int) -> Group:
    """A table by member, with the clients' own count, and one by tool, in a terminal of so many lines."""
    members = _members(data)
    most = height - members.row_count - 5  # two headings, a blank line, the note, and the line of the cursor
    return Group(members, "", _tools(data, max(1, min(most, TOOL_ROWS))), NOTE)


def log_line(data: DisplayData) -> str:
    """One line for output that is not a terminal."""
    calls = sum(group.calls for _, group in data.members)
    errors = sum(group.errors for _, group in data.members)
    rate = sum(group.calls for _, group in data.recent_members) / RATE_WINDOW_S
    timed = [(group.duration_ms.p95, _tool(group)) for _, group in data.tools if group.duration_ms.p95 is not None]
    p95, tool = max(timed, default=(0.0, ""))
    slowest = f", slowest {tool} p95 {p95:.0f} ms" if timed else ""
    share = percent(errors / calls if calls else None)
    return f"{rate:5.1f} calls/s, {calls} calls, {share} errors{slowest}; clients counted {data.counted.total()}"


def comparison(clients: Counts, api: Counts, metrics: Counts) -> Table:
    """The three counts by member and outcome, with a mark at rows that differ."""
    columns = [words("member"), words("outcome"), *map(numbers, ("clients", "API", "/metrics")), words("")]
    names = {member.token_id: member.name for member in (*MEMBERS, GUEST)}
    rows = []
    for key in sorted({*clients, *api, *metrics}, key=lambda key: (key.workspace, key.token_id, key.error_type or "")):
        counts = (clients[key], api[key], metrics[key])
        mark = "" if len(set(counts)) == 1 else "differs"
        rows.append([names.get(key.token_id, key.token_id), key.error_type or "success", *map(str, counts), mark])
    rows.append(["all", "", *(str(counts.total()) for counts in (clients, api, metrics)), ""])
    return table(columns, rows)


def _members(data: DisplayData) -> Table:
    headings = ("calls/s", "calls", "client", "errors", "p50 ms", "p95 ms")
    recent = {group.token_id: group.calls for _, group in data.recent_members}
    known = {group.token_id: group for _, group in data.members}
    counted: Counter[str] = Counter()
    for key, calls in data.counted.items():
        counted[key.token_id] += calls
    rows = []
    for member in MEMBERS:
        rate, total, *rest = _numbers(known.get(member.token_id), recent.get(member.token_id, 0))
        rows.append([member.name, member.workspace, rate, total, str(counted[member.token_id]), *rest])
    return table([words("member"), words("workspace"), *map(numbers, headings)], rows)


def _tools(data: DisplayData, most: int) -> Table:
    headings = ("calls/s", "calls", "errors", "p50 ms", "p95 ms")
    recent = {(workspace, _tool(group)): group.calls for workspace, group in data.recent_tools}
    groups = sorted(data.tools, key=lambda row: -row[1].calls)[:most]
    rows = [
        [_tool(group), workspace, *_numbers(group, recent.get((workspace, _tool(group)), 0))]
        for workspace, group in groups
    ]
    return table([words("tool"), words("workspace"), *map(numbers, headings)], rows)


def _numbers(group: CallGroup | None, recent: int) -> Sequence[str]:
    if group is None:
        return (NOTHING, "0", NOTHING, NOTHING, NOTHING)
    times = group.duration_ms
    rate, errors = f"{recent / RATE_WINDOW_S:.1f}", percent(group.errors / group.calls)
    return (rate, str(group.calls), errors, milliseconds(times.p50), milliseconds(times.p95))


def _tool(group: CallGroup) -> str:
    return tool_label(str(group.server_slug), str(group.tool_name))
