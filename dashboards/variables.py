"""The dashboards' variables. A name means the same in each, so that links can hand them on."""

from collections.abc import Collection
from typing import Any, Final

from grafanalib.core import SORT_ALPHA_ASC

from dashboards.grafanalib_ext import Variable, data_source
from dashboards.promql import Scope
from gateway.observer import signals

ANY: Final = ".+"
"""What All stands for: one short pattern instead of every name, and also what has no series any more."""
ANY_OR_NONE: Final = ".*"
"""The same for a label that may be missing."""
_RELOAD: Final = 2
"""Read the values again whenever the time range changes."""
_ALL: Final = {"selected": True, "text": ["All"], "value": ["$__all"]}
_NAMED: Final = '/name="(?<text>.*)",{}="(?<value>[^"]+)"/'
"""Reads `{name="Alice Cursor",token="alice-cursor"} 1`: the name is shown, the id goes into queries."""


def data_sources(first: str, visible: Collection[str]) -> list[Variable]:
    """The three data sources, chosen by the uids that are provisioned; `first` is what most queries are for."""
    kinds = sorted(("prometheus", "loki", "tempo"), key=lambda kind: kind != first)
    return [
        Variable(
            name=f"{kind}_datasource",
            label=f"{kind.title()} data source",
            type="datasource",
            visible=kind in visible,
            rest={
                "query": kind,
                "regex": "",
                "refresh": 1,
                "multi": False,
                "includeAll": False,
                "current": {"selected": True, "text": kind, "value": kind},
            },
        )
        for kind in kinds
    ]


def filters(visible: Collection[str]) -> list[Variable]:
    """Workspace, server, tool and member; those that are not `visible` are handed on to the next dashboard only."""
    one = Scope("workspace")
    members = f"query_result(group by (name, token) ({one.select(signals.TOKEN_INFO)}))"
    workspaces = f"query_result(group by (name, workspace) ({Scope().select(signals.WORKSPACE_INFO)}))"
    servers = f"label_values({one.select(signals.IN_FLIGHT_CALLS)}, server)"
    tools = f"label_values({Scope('workspace', 'server').select(signals.TOOL_CALLS)}, tool)"
    return [
        _values("workspace", workspaces, named="workspace", visible="workspace" in visible),
        _values("server", servers, visible="server" in visible),
        _values("tool", tools, visible="tool" in visible),
        _values("member", members, named="token", visible="member" in visible),
        _values("job", f"label_values({signals.BUILD_INFO.name}, job)", everything=None),
    ]


def instance() -> Variable:
    """Which replicas' observers. All are those that there are: other software of the job has the same series."""
    query = f"label_values({Scope().select(signals.BUILD_INFO)}, instance)"
    return _values("instance", query, everything=None)


def status() -> Variable:
    """How calls ended."""
    rest = {"query": "success,error", "multi": True, "includeAll": True, "allValue": ANY, "current": _ALL}
    return Variable(name="status", label="Status", type="custom", visible=True, rest=rest)


def error_type() -> Variable:
    """Why calls failed: the kinds that have occurred. All has those that succeeded as well."""
    failed = Scope("workspace").select(signals.TOOL_CALLS, 'error_type!=""')
    return _values("error_type", f"label_values({failed}, error_type)", everything=ANY_OR_NONE)


def text(name: str, label: str) -> Variable:
    """A field to type into, empty at first."""
    empty = {"selected": True, "text": "", "value": ""}
    rest = {"query": "", "current": empty, "options": [empty]}
    return Variable(name=name, label=label, type="textbox", visible=True, rest=rest)


def _values(name: str, query: str, *, named: str = "", everything: str | None = ANY, visible: bool = True) -> Variable:
    """What Prometheus knows; `named` is the label that goes into queries, where a name is shown in its place."""
    rest: dict[str, Any] = {
        "datasource": data_source("prometheus"),
        "definition": query,
        "query": {"query": query, "refId": f"Variable-{name}"},
        "regex": _NAMED.format(named) if named else "",
        "refresh": _RELOAD,
        "sort": SORT_ALPHA_ASC,
        "multi": True,
        "includeAll": True,
        "allValue": everything,
        "current": _ALL,
    }
    label = name.replace("_", " ").capitalize()
    return Variable(name=name, label=label, type="query", visible=visible, rest=rest)
