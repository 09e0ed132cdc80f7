"""Where the dashboards are, and links between them that keep the time range and the variables."""

from enum import StrEnum
from typing import Final

from grafanalib import core

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
"""The variables that every dashboard has, and every link hands on."""


def of_series(label: str) -> str:
    """The value of a label of the series that a reader clicked."""
    return f"${{__field.labels.{label}:percentencode}}"


def of_row(column: str) -> str:
    """The value of a column in the row that a reader clicked."""
    return f'${{__data.fields["{column}"]:percentencode}}'


def drill(uid: Uid, title: str, **values: str) -> core.DataLink:
    """A link from a value to a dashboard: `values` are its variables there, all others are kept as they are."""
    kept = [f"${{{name}:queryparam}}" for name in SHARED if name not in values]
    given = [f"var-{name}={value}" for name, value in values.items()]
    return core.DataLink(title=title, linkUrl=f"/d/{uid}?" + "&".join(["${__url_time_range}", *kept, *given]))


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
