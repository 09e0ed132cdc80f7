"""Panels obey their dashboard's filters or say that they do not; links have no hidden ones; legends name workspaces."""

import re

import pytest

from dashboards.links import ALL, FILTERS, SHARED, Uid, drilldown, opened
from tests.dashboards.generated_boards import BOARDS, Json, Query, data_links, panels, queries, variables
from tests.dashboards.promql import groupings, parsed

EACH = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
LEGENDS = [query for query in queries("prometheus") if "{{" in query.target["legendFormat"]]
OF_EVERYBODY = {
    "Waterfall": "it is one trace",
    "Firing alerts": "alerts are few, and some are of no workspace",
}
"""Panels that need not say that they are of all workspaces, and why."""


def hidden(board: Json) -> set[str]:
    """The filters that a dashboard has, and does not show."""
    return {name for name, variable in variables(board).items() if name in FILTERS and variable["hide"] != 0}


@EACH
def test_behind_a_link_is_all_that_the_dashboard_does_not_filter_by(board: Json) -> None:
    """A value that is not shown would narrow the calls down that a number is of."""
    for panel in panels(board):
        for link in data_links(panel):
            for name in hidden(board):
                assert f"${{{name}" not in link["url"]
                assert f"var-{name}=" in link["url"]
            for name in set(SHARED) - hidden(board):
                assert f"var-{name}={ALL}" not in link["url"]


def test_a_link_keeps_what_its_dashboard_filters_by_and_gives_what_it_is_told_to() -> None:
    link = {"url": drilldown(Uid.LOGS, "Calls", server="github").linkUrl}
    board = {"uid": "one", "panels": [{"fieldConfig": {"defaults": {"links": [link]}, "overrides": []}}]}

    [panel] = opened(board, ("workspace",))["panels"]
    [found] = data_links(panel)
    given = found["url"].partition("?")[2].split("&")

    assert "${workspace:queryparam}" in given
    assert {"var-tool=%24__all", "var-member=%24__all", "var-server=github"} <= set(given)
    assert len({part.partition("=")[0] for part in given}) == len(given)


@pytest.mark.parametrize("query", LEGENDS, ids=str)
def test_a_series_of_one_workspace_is_named_by_it(query: Query) -> None:
    """Or those of two workspaces have the same name."""
    by_workspace = any("workspace" in labels for labels, _ in groupings(parsed(query.text)))

    assert by_workspace <= ("{{workspace}}" in query.target["legendFormat"])


@EACH
def test_a_panel_that_is_of_all_workspaces_says_so(board: Json) -> None:
    if "workspace" in hidden(board):
        assert board["uid"] == Uid.GATEWAY
        return
    for panel in panels(board):
        texts = [target.get("expr") or target["query"] for target in panel["targets"]]
        obeys = all(re.search(r"\$workspace\b", text) for text in texts)
        assert obeys or "all workspaces" in panel["description"] or panel["title"] in OF_EVERYBODY, panel["title"]


def test_what_need_not_say_so_is_there() -> None:
    assert set(OF_EVERYBODY) <= {panel["title"] for board in BOARDS.values() for panel in panels(board)}
