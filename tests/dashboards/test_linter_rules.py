"""The dashboards pass Grafana's dashboard-linter, but for what `.lint` leaves out with a reason."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import yaml

from tests.dashboards.generated_boards import BOARDS, FOLDER, Json, panels, variables
from tests.dashboards.linter import Finding, lint

EXCLUSIONS: dict[str, Any] = yaml.safe_load((FOLDER / ".lint").read_text())["exclusions"]
FOUND = [finding for board in BOARDS.values() for finding in lint(board)]


def excluded(finding: Finding) -> bool:
    """As the linter reads the file: a rule without entries is left out everywhere."""
    if finding.rule not in EXCLUSIONS:
        return False
    entries = EXCLUSIONS[finding.rule].get("entries", [])
    return not entries or any(
        entry["dashboard"] == finding.dashboard and entry.get("panel", finding.panel) == finding.panel
        for entry in entries
    )


def test_the_linter_would_find_nothing_that_is_not_left_out() -> None:
    assert [finding for finding in FOUND if not excluded(finding)] == []


def test_everything_that_is_left_out_has_a_reason_and_would_be_found() -> None:
    for rule, exclusion in EXCLUSIONS.items():
        assert exclusion["reason"]
        found = [finding for finding in FOUND if finding.rule == rule]
        assert found, f"{rule} finds nothing: `.lint` need not name it"
        for entry in exclusion.get("entries", []):
            assert any(f.dashboard == entry["dashboard"] and f.panel == entry["panel"] for f in found), entry


def _panel(board: Json, title: str) -> Json:
    return next(panel for panel in panels(board) if panel["title"] == title)


SPOILS: dict[str, Callable[[Json], object]] = {
    "template-datasource-rule": lambda board: variables(board)["loki_datasource"].update(label="Logs"),
    "template-label-promql-rule": lambda board: variables(board)["server"].update(definition="values(up, server)"),
    "template-on-time-change-reload-rule": lambda board: variables(board)["server"].update(refresh=1),
    "panel-datasource-rule": lambda board: _panel(board, "Response time")["datasource"].update(uid="prometheus"),
    "panel-title-description-rule": lambda board: _panel(board, "Response time").update(description=""),
    "panel-units-rule": lambda board: _panel(board, "Success rate")["fieldConfig"]["defaults"].update(unit="parrots"),
    "panel-no-targets-rule": lambda board: _panel(board, "Success rate").update(targets=[]),
    "target-promql-rule": lambda board: _panel(board, "Success rate")["targets"][0].update(expr="sum(("),
    "target-rate-interval-rule": lambda board: _panel(board, "Success rate")["targets"][0].update(expr="rate(x[5m])"),
    "target-job-rule": lambda board: _panel(board, "Success rate")["targets"][0].update(expr="up"),
    "target-counter-agg-rule": lambda board: _panel(board, "Success rate")["targets"][0].update(expr="sum(x_total)"),
    "uneditable-dashboard-rule": lambda board: board.update(editable=True),
}


@pytest.mark.parametrize("rule", SPOILS)
def test_a_rule_finds_what_it_is_there_for(rule: str) -> None:
    board = deepcopy(BOARDS["callscope-overview"])
    assert rule not in {finding.rule for finding in lint(board) if not excluded(finding)}

    SPOILS[rule](board)

    assert rule in {finding.rule for finding in lint(board) if not excluded(finding)}


def test_a_fixed_window_in_logql_is_found() -> None:
    board = deepcopy(BOARDS["callscope-logs"])

    _panel(board, "Calls found")["targets"][0]["expr"] = 'sum(count_over_time({a="b"} [5m]))'

    assert Finding("target-logql-auto-rule", board["title"], "Calls found") in set(lint(board))
