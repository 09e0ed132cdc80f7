"""The dashboards that are committed are those that the source makes, and each is whole."""

import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from dashboards.__main__ import documents, stale
from dashboards.grafanalib_ext import Panel, PrometheusTarget
from dashboards.layout import Section, lay_out
from dashboards.links import Uid
from tests.dashboards.generated_boards import BOARDS, FOLDER, Json, annotations, panels, queries

NUMBERS = {"stat", "gauge", "timeseries", "bargauge", "heatmap", "table", "state-timeline"}
ALL = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())


def test_the_committed_dashboards_are_what_the_source_makes() -> None:
    assert stale(FOLDER) == [], "run `make generate` and commit what it writes"


def test_a_file_that_is_changed_or_left_over_is_not_current(tmp_path: Path) -> None:
    for name, text in documents().items():
        (tmp_path / name).write_text(text)
    assert stale(tmp_path) == []

    (tmp_path / "callscope-logs.json").write_text("{}")
    (tmp_path / "callscope-old.json").write_text("{}")
    assert stale(tmp_path) == ["callscope-logs.json", "callscope-old.json"]


def test_every_view_has_a_dashboard_at_its_fixed_address() -> None:
    assert {board["uid"] for board in BOARDS.values()} == set(Uid)
    assert all(board["uid"] == name for name, board in BOARDS.items())
    assert len({board["title"] for board in BOARDS.values()}) == len(BOARDS)


@ALL
def test_a_dashboard_says_what_it_answers_and_is_not_edited_in_place(board: Json) -> None:
    assert board["description"]
    assert board["editable"] is False
    assert board["tags"] == ["callscope"]
    assert "id" not in board  # Grafana gives it


@ALL
def test_panels_have_numbers_and_titles_of_their_own(board: Json) -> None:
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))

    titles = Counter(panel["title"] for panel in board["panels"])
    assert max(titles.values()) == 1, titles.most_common(1)
    assert all(panel["title"] and panel["description"] for panel in panels(board))


@ALL
def test_panels_lie_within_the_grid_and_do_not_overlap(board: Json) -> None:
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 and place["w"] > 0 and place["h"] > 0 for place in places)

    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


@ALL
def test_the_answer_stands_above_the_first_heading(board: Json) -> None:
    first_heading = next(panel["gridPos"]["y"] for panel in board["panels"] if panel["type"] == "row")
    above = [panel for panel in panels(board) if panel["gridPos"]["y"] < first_heading]

    assert {"stat", "gauge"} & {panel["type"] for panel in above}


@ALL
def test_numbers_have_a_unit_and_colours_have_thresholds(board: Json) -> None:
    for panel in panels(board):
        defaults = panel["fieldConfig"]["defaults"]
        if panel["type"] in NUMBERS:
            assert defaults["unit"], panel["title"]
        if defaults.get("color", {}).get("mode") == "thresholds":
            steps = defaults["thresholds"]["steps"]
            assert steps[0]["value"] is None, panel["title"]
            values = [step["value"] for step in steps[1:]]
            assert values == sorted(values), panel["title"]


@ALL
def test_restarts_new_configurations_and_alerts_are_drawn_into_every_dashboard(board: Json) -> None:
    assert [annotation["name"] for annotation in annotations(board)] == ["Restarts", "Configuration", "Alerts"]


def test_every_latency_over_time_shows_exemplars() -> None:
    """But for MCP requests of all methods, most of which are no calls and have no trace, and what rules recorded."""
    shown = [
        query
        for query in queries("prometheus")
        if re.search(r"mcp_gateway_\w+_seconds_bucket{", query.text) and not query.target["instant"]
    ]
    boards = {Uid.OVERVIEW, Uid.TOOLS, Uid.MEMBERS, Uid.SERVERS, Uid.CALL, Uid.GATEWAY}
    assert {query.board for query in shown} >= boards
    assert [str(query) for query in shown if not query.target.get("exemplar")] == []


def test_queries_of_a_panel_ask_one_data_source_by_its_variable() -> None:
    for board in BOARDS.values():
        for panel in panels(board):
            sources = [target["datasource"] for target in panel["targets"]]
            assert all(source == panel["datasource"] for source in sources), panel["title"]
            assert panel["datasource"]["uid"] == f"${{{panel['datasource']['type']}_datasource}}"
            letters = [target["refId"] for target in panel["targets"]]
            assert len(letters) == len(set(letters))


def test_a_line_that_is_not_as_wide_as_the_grid_is_refused() -> None:
    narrow = Panel(type="stat", title="Narrow", description="", targets=[PrometheusTarget(expr="up")], width=8)

    with pytest.raises(ValueError, match="begins with 'Narrow' is not 24 columns wide"):
        lay_out([Section("", [narrow, narrow])])
