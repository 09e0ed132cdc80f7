"""The ways down: from a series or a row to what is behind it, and from there to the single call."""

from collections.abc import Callable
from typing import Final

from grafanalib.core import DataLink

from dashboards.links import Uid, drilldown, of_row, of_series

Where = Callable[[str], str]
"""How a link finds a label's value: of the series, or of the row, that was clicked."""

SERIES: Final[Where] = of_series
COLUMNS: Final = {"workspace": "Workspace", "server": "Server", "tool": "Tool", "token": "Token"}
"""How tables call these labels."""


def row(label: str) -> str:
    """The value of a label in a table's row."""
    return of_row(COLUMNS[label])


def all_calls() -> DataLink:
    """Every call of the dashboard's filters."""
    return drilldown(Uid.LOGS, "Calls")


def failed_calls() -> DataLink:
    """Those that failed."""
    return drilldown(Uid.LOGS, "Failed calls", status="error")


def by_status() -> DataLink:
    """Those that ended as the series did."""
    return drilldown(Uid.LOGS, "These calls", status=of_series("status"))


def by_error() -> DataLink:
    """Those that failed for the series' reason."""
    return drilldown(Uid.LOGS, "These calls", status="error", error_type=of_series("error_type"))


def tool(where: Where = SERIES) -> list[DataLink]:
    """From one tool to its calls, those that failed, and the tool alone."""
    found = {"workspace": where("workspace"), "server": where("server"), "tool": where("tool")}
    return [
        drilldown(Uid.LOGS, "Calls of this tool", **found),
        drilldown(Uid.LOGS, "Failed calls of this tool", **found, status="error"),
        drilldown(Uid.TOOLS, "This tool", **found),
    ]


def member(where: Where = SERIES) -> list[DataLink]:
    """From one member to their calls, those that failed, and the member alone."""
    found = {"workspace": where("workspace"), "member": where("token")}
    return [
        drilldown(Uid.LOGS, "Calls of this member", **found),
        drilldown(Uid.LOGS, "Failed calls of this member", **found, status="error"),
        drilldown(Uid.MEMBERS, "This member", **found),
    ]


def members_tool(where: Where = SERIES) -> list[DataLink]:
    """From one member's use of one tool to the calls."""
    found = {label: where(label) for label in ("workspace", "server", "tool")}
    return [drilldown(Uid.LOGS, "These calls", **found, member=where("token"))]


def server(where: Where = SERIES) -> list[DataLink]:
    """From one server to its calls, those that failed, and its tools."""
    found = {"workspace": where("workspace"), "server": where("server")}
    return [
        drilldown(Uid.LOGS, "Calls of this server", **found),
        drilldown(Uid.LOGS, "Failed calls of this server", **found, status="error"),
        drilldown(Uid.TOOLS, "Tools of this server", **found),
        drilldown(Uid.SERVERS, "This server", **found),
    ]


def workspace(uid: Uid, title: str, where: Where = SERIES) -> DataLink:
    """From one workspace to a dashboard of it."""
    return drilldown(uid, title, workspace=where("workspace"))


def call(column: str) -> DataLink:
    """From a trace's id in a table's row to the call, in its workspace."""
    return drilldown(Uid.CALL, "This call", trace_id=of_row(column), workspace=row("workspace"))
