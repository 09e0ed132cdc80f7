"""The rules of Grafana's dashboard-linter, as far as they concern dashboards like these.

Source: https://github.com/grafana/dashboard-linter/blob/main/docs/index.md. The linter takes the first data source
variable for what the dashboard is about: PromQL is looked at in dashboards about Prometheus alone, LogQL in those about
Loki.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from tests.dashboards.generated_boards import Json, panels, variables
from tests.dashboards.promql import parsed, selectors

UNITS: Final = {
    *("none", "short", "percent", "percentunit", "locale", "bytes", "decbytes", "ms", "s", "dtdurations"),
    *("dateTimeAsIso", "dateTimeAsLocal", "dateTimeAsSystem", "dateTimeFromNow", "cps", "ops", "reqps", "cpm"),
    *("bool", "bool_yes_no", "bool_on_off"),
}
"""Some of those that the linter knows."""
READ_BY: Final = {"rate", "irate", "increase", "group"}
"""What may be asked of a counter."""
_WITH_UNITS: Final = {"stat", "table", "timeseries", "gauge"}
_WITH_QUERIES: Final = {"stat", "table", "timeseries", "gauge"}
_FUNCTIONS: Final = {"label_names", "label_values", "metrics", "query_result"}


class Finding(NamedTuple):
    """What a rule finds, and where."""

    rule: str
    dashboard: str
    panel: str = ""


def lint(board: Json) -> Iterator[Finding]:
    """Everything that the rules find in a dashboard."""
    title = board["title"]
    sources = [variable for variable in variables(board).values() if variable["type"] == "datasource"]
    about = sources[0]["query"] if sources else ""
    for rule in _of_dashboard(board, sources, about):
        yield Finding(rule, title)
    for panel in panels(board):
        for rule in _of_panel(panel, sources):
            yield Finding(rule, title, panel["title"])
        if panel["type"] not in _WITH_QUERIES:
            continue
        for target in panel["targets"]:
            rules = _promql(target) if about == "prometheus" else _logql(target) if about == "loki" else iter(())
            for rule in rules:
                yield Finding(rule, title, panel["title"])


def _of_dashboard(board: Json, sources: list[Json], about: str) -> Iterator[str]:
    if not sources or any(
        source["name"] != f"{source['query']}_datasource" or source["label"] != f"{source['query'].title()} data source"
        for source in sources
    ):
        yield "template-datasource-rule"
    if board["editable"]:
        yield "uneditable-dashboard-rule"
    asked = [variable for variable in variables(board).values() if variable["type"] == "query"]
    if any(variable["refresh"] != 2 for variable in asked):
        yield "template-on-time-change-reload-rule"
    if about != "prometheus":
        return
    for name in ("job", "instance"):
        if not _is_target_variable(variables(board).get(name), name):
            yield f"template-{name}-rule"
    for variable in asked:
        match = re.fullmatch(r"([a-z_]+)\((.+?)(?:, \w+)?\)", variable["definition"])
        if match is None or match[1] not in _FUNCTIONS or not _parses(match[2]):
            yield "template-label-promql-rule"


def _is_target_variable(variable: Json | None, name: str) -> bool:
    return variable is not None and (
        variable["type"] == "query"
        and variable["datasource"]["uid"] == "${prometheus_datasource}"
        and variable["label"] == name.capitalize()
        and variable["multi"]
        and variable.get("allValue") == ".+"
    )


def _of_panel(panel: Json, sources: list[Json]) -> Iterator[str]:
    if panel["type"] in {"timeseries", "table"} and panel["datasource"]["uid"] not in {
        f"${{{source['name']}}}" for source in sources
    }:
        yield "panel-datasource-rule"
    if not panel["title"] or not panel["description"]:
        yield "panel-title-description-rule"
    if panel["type"] in _WITH_UNITS and panel["fieldConfig"]["defaults"].get("unit") not in UNITS:
        yield "panel-units-rule"
    if not panel["targets"]:
        yield "panel-no-targets-rule"


def _parses(text: str) -> Any:
    try:
        return parsed(text)
    except ValueError:
        return None


def _promql(target: Json) -> Iterator[str]:
    text = target.get("expr", "")
    tree = _parses(text)
    if tree is None:
        yield "target-promql-rule"
        return
    for selector in selectors(tree):
        for name in ("job", "instance"):
            if selector.matchers.get(name) != f"${name}":
                yield f"target-{name}-rule"
        if selector.metric.endswith("_total") and selector.within not in READ_BY:
            yield "target-counter-agg-rule"
    if re.search(r"\bi?rate\([^[]*\[(?!\$__rate_interval\])", text):
        yield "target-rate-interval-rule"


def _logql(target: Json) -> Iterator[str]:
    text = target.get("expr", "")
    if not text.startswith(("{", "sum", "max", "topk")):
        yield "target-logql-rule"
    if re.search(r"\[(?!\$__auto\])\w+\]", text):
        yield "target-logql-auto-rule"
