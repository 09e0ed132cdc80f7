"""What grafanalib lacks of Grafana 12 and 13: it writes the schema of 2023, and knows neither Loki nor Tempo.

A class here is what grafanalib calls one: anything with `to_json_data`. Its own classes serve where they are right;
what they write besides, nulls and keys that Grafana's schema does not have, is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from grafanalib import core

Json = dict[str, Any]

SCHEMA_VERSION: Final = 42
"""Of the dashboards' JSON. grafanalib's 12 would have Grafana migrate it, and lose the shared crosshair."""
_ROW: Final = ("id", "type", "title", "gridPos", "collapsed", "panels")
_DASHBOARD: Final = (
    *("annotations", "description", "editable", "graphTooltip", "links", "panels", "refresh", "schemaVersion"),
    *("tags", "templating", "title", "time", "timepicker", "timezone", "uid"),
)
"""What Grafana's schema knows of what grafanalib writes."""


def data_source(kind: str) -> Json:
    """A reference to the data source whose uid the variable `<kind>_datasource` has."""
    return {"type": kind, "uid": f"${{{kind}_datasource}}"}


def compact(value: Any) -> Any:
    """Plain JSON without nulls, but for the `value` of the lowest threshold, which Grafana wants to be one."""
    if hasattr(value, "to_json_data"):
        value = value.to_json_data()
    if isinstance(value, Mapping):
        return {key: compact(member) for key, member in value.items() if member is not None or key == "value"}
    if isinstance(value, list | tuple):
        return [compact(item) for item in value]
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusTarget:
    """A PromQL query: at each point in time, or at the end of the time range; `exemplar` asks for exemplars as well."""

    expr: str
    legend: str = ""
    instant: bool = False
    exemplar: bool = False
    shape: Literal["time_series", "table", "heatmap"] = "time_series"

    kind = "prometheus"

    def to_json_data(self) -> Json:
        """The query as Prometheus' data source takes it."""
        return {
            "datasource": data_source(self.kind),
            "editorMode": "code",
            "expr": self.expr,
            "format": self.shape,
            "instant": self.instant,
            "range": not self.instant,
            "exemplar": self.exemplar or None,
            "legendFormat": self.legend or "__auto",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LokiTarget:
    """A LogQL query: of lines, or of numbers at each point in time or over the whole time range."""

    expr: str
    legend: str = ""
    instant: bool = False
    max_lines: int | None = None

    kind = "loki"

    def to_json_data(self) -> Json:
        """The query as Loki's data source takes it."""
        return {
            "datasource": data_source(self.kind),
            "editorMode": "code",
            "expr": self.expr,
            "queryType": "instant" if self.instant else "range",
            "legendFormat": self.legend or None,
            "maxLines": self.max_lines,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TempoTarget:
    """A TraceQL query; a bare trace id is looked up."""

    query: str
    limit: int | None = None

    kind = "tempo"

    def to_json_data(self) -> Json:
        """The query as Tempo's data source takes it; a row of its answer is a span and what is selected of it."""
        return {
            "datasource": data_source(self.kind),
            "filters": [],
            "query": self.query,
            "queryType": "traceql",
            "tableType": "spans",
            "limit": self.limit,
        }


Target = PrometheusTarget | LokiTarget | TempoTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A panel of any type. Its queries ask one data source, and are named A, B, … in order."""

    type: str
    title: str
    description: str
    targets: Sequence[Target]
    width: int = 24
    """Columns of the grid's 24."""
    height: int = 8
    """Rows of the grid, of 30 pixels."""
    options: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """`fieldConfig.defaults`: how values look."""
    overrides: Sequence[Json] = ()
    """`fieldConfig.overrides`: how the values of some fields look otherwise."""
    transformations: Sequence[Json] = ()
    since: str | None = None
    """The beginning of a time range of its own."""
    interval: str | None = None
    """The shortest distance of two points in time."""
    id: int | None = None
    at: core.GridPos | None = None

    def to_json_data(self) -> Json:
        """The panel as Grafana stores it."""
        targets = [compact(target) | {"refId": chr(ord("A") + place)} for place, target in enumerate(self.targets)]
        tree = {
            "id": self.id,
            "type": self.type,
            "title": self.title,
            "description": self.description,
            "datasource": data_source(self.targets[0].kind),
            "gridPos": self.at,
            "targets": targets,
            "transformations": self.transformations or None,
            "timeFrom": self.since,
            "interval": self.interval,
            "options": self.options,
            "fieldConfig": {"defaults": self.defaults, "overrides": self.overrides},
        }
        found: Json = compact(tree)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A heading; the panels below it stand beside it in the dashboard."""

    id: int
    title: str
    at: core.GridPos

    def to_json_data(self) -> Json:
        """What Grafana's schema knows of a row."""
        whole = compact(core.RowPanel(id=self.id, title=self.title, gridPos=self.at))
        return {key: whole[key] for key in _ROW}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A variable; `rest` is what its type has besides."""

    name: str
    label: str
    type: Literal["query", "custom", "textbox", "datasource"]
    visible: bool
    rest: Mapping[str, Any]

    def to_json_data(self) -> Json:
        """The variable as Grafana stores it."""
        hide = core.SHOW if self.visible else core.HIDE_VARIABLE
        common = {"name": self.name, "label": self.label, "type": self.type, "hide": hide, "options": []}
        found: Json = compact(common | dict(self.rest))
        return found


def dashboard_json(dashboard: core.Dashboard) -> Json:
    """The dashboard as Grafana stores it; nobody edits it in place, for it is generated."""
    whole = dashboard.to_json_data() | {"editable": False, "schemaVersion": SCHEMA_VERSION}
    found: Json = {key: compact(whole[key]) for key in _DASHBOARD}
    found["timepicker"].pop("time_options", None)
    return found | {"fiscalYearStartMonth": 0, "version": 1}
