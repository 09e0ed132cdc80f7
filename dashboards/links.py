"""Where the dashboards are, and links between them that keep the time range and the variables."""

from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Any, Final

from grafanalib import core

from dashboards.grafanalib_ext import Json

TAG: Final = "callscope"
"""What all of the dashboards are tagged with."""


class Uid(StrEnum):
    """A dashboard's fixed uid, its address: `/d/<uid>`."""

    OVERVIEW = "callscope-overview"
    TOOLS = "callscope-tools"
    MEMBERS = "callscope-members"
    SERVERS = "callscope-servers"
    LOGS = "callscope-logs"
    CALL = "callscope-call"
    USAGE = "callscope-usage"
    GATEWAY = "callscope-gateway"


TITLES: Final = {
    Uid.OVERVIEW: "Callscope / Overview",
    Uid.TOOLS: "Callscope / Tools",
    Uid.MEMBERS: "Callscope / Members",
    Uid.SERVERS: "Callscope / Servers",
    Uid.LOGS: "Callscope / Logs",
    Uid.CALL: "Callscope / Call",
    Uid.USAGE: "Callscope / Usage",
    Uid.GATEWAY: "Callscope / Gateway",
}
SHARED: Final = (
    "prometheus_datasource",
    "loki_datasource",
    "tempo_datasource",
    "job",
    "workspace",
    "server",
    "tool",
    "member",
)
"""The variables that every dashboard has, and every link has a value for."""
FILTERS: Final = ("workspace", "server", "tool", "member")
"""Those of them that narrow queries down, where a dashboard shows them."""
ALL: Final = "%24__all"
"""The value All, `$__all`, as an address has it."""


def of_series(label: str) -> str:
    """The value of a label of the series that a reader clicked."""
    return f"${{__field.labels.{label}:percentencode}}"


def of_row(column: str) -> str:
    """The value of a column in the row that a reader clicked."""
    return f'${{__data.fields["{column}"]:percentencode}}'


def drilldown(uid: Uid, title: str, **values: str) -> core.DataLink:
    """A link from a value to a dashboard: `values` are its variables there, all others are kept as they are.

    Once it stands in a dashboard, what that does not filter by is All behind it: see `opened`.
    """
    kept = [_kept(name) for name in SHARED if name not in values]
    given = [f"var-{name}={value}" for name, value in values.items()]
    return core.DataLink(title=title, linkUrl=f"/d/{uid}?" + "&".join(["${__url_time_range}", *kept, *given]))


def opened(board: Json, filters: Collection[str]) -> Json:
    """The dashboard, with links behind which all that it does not filter by is All.

    The number that a reader clicks knows nothing of a variable that is not shown, though the address may have a value
    of it: kept by the link, it would show other calls than were counted. The navigation alone hands it on.
    """
    return {
        **board,
        "panels": [_widened(panel, [name for name in FILTERS if name not in filters]) for panel in board["panels"]],
    }


def _widened(part: Any, hidden: Sequence[str]) -> Any:
    match part:
        case str():
            for name in hidden:
                part = part.replace(_kept(name), f"var-{name}={ALL}")
            return part
        case dict():
            return {key: _widened(member, hidden) for key, member in part.items()}
        case list():
            return [_widened(item, hidden) for item in part]
        case _:
            return part


def _kept(name: str) -> str:
    return f"${{{name}:queryparam}}"


def navigation(uid: Uid) -> list[core.DashboardLink]:
    """The other dashboards, at the top of one."""
    return [
        core.DashboardLink(
            title=title.removeprefix("Callscope / "),
            type="link",
            uri=f"/d/{other}",
            icon="dashboard",
            tooltip=title,
            includeVars=True,
            keepTime=True,
        )
        for other, title in TITLES.items()
        if other != uid
    ]
