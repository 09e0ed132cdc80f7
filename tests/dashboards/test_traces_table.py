"""The tables of traces show, link and sort the fields that Grafana makes of Tempo's answer."""

import re
from collections.abc import Mapping
from typing import Any, Final

import pytest

from dashboards.links import Uid
from dashboards.queries.traces import SHOWN
from tests.dashboards.generated_boards import BOARDS, Json, panels

FRAME: Final = {
    "traceIdHidden": "traceIdHidden",
    "traceService": "Trace Service",
    "traceName": "Trace Name",
    "spanID": "Span ID",
    "time": "Start time",
    "name": "Name",
    **{name: name for name in SHOWN},
    "duration": "Duration",
}
"""The fields of `tableType: spans` and their display names; those of selected attributes have the attributes' names.

Source: grafana/grafana, public/app/plugins/datasource/tempo/resultTransformer.ts,
createTableFrameFromTraceQlQueryAsSpans.
"""
PLAIN: Final = {name: name for name in FRAME}
"""The same fields, had they no display names of their own."""
COLUMNS: Final = ["Start", "Trace", "Workspace", "Call", "Server", "Token", "Error type", "Duration"]
TABLES = [panel for panel in panels(BOARDS[Uid.CALL]) if panel["type"] == "table" and panel["targets"][0].get("limit")]

EACH = pytest.mark.parametrize("panel", TABLES, ids=lambda panel: str(panel["title"]))
NAMES = pytest.mark.parametrize("frame", [FRAME, PLAIN], ids=["display names", "plain names"])


def shown(panel: Json, frame: Mapping[str, str]) -> dict[str, str]:
    """The columns' titles by their fields, in order, as Grafana's transformations make them.

    `filterFieldsByName` takes a field by its own name or its display name; `organize` knows the display name alone
    (grafana/grafana, packages/grafana-data/src/transformations: matchers/nameMatcher.ts, transformers/rename.ts and
    order.ts).
    """
    [chosen, organized] = panel["transformations"]
    names = chosen["options"]["include"]["names"]
    places = organized["options"]["indexByName"]
    titles = organized["options"]["renameByName"]
    left = {field: display for field, display in frame.items() if {field, display} & set(names)}
    in_order = sorted(left, key=lambda field: places.get(left[field], len(places)))
    return {field: titles.get(left[field], left[field]) for field in in_order}


def properties(panel: Json, title: str) -> dict[str, Any]:
    """How a column looks: `byName` finds what has been renamed by its new display name."""
    found = [entry["properties"] for entry in panel["fieldConfig"]["overrides"] if entry["matcher"]["options"] == title]
    return {part["id"]: part["value"] for part in found[0]} if found else {}


@EACH
@NAMES
def test_the_columns_are_fields_of_the_answer(panel: Json, frame: Mapping[str, str]) -> None:
    assert {target["tableType"] for target in panel["targets"]} == {"spans"}
    assert list(shown(panel, frame).values()) == COLUMNS


@EACH
@NAMES
def test_the_trace_and_the_call_lead_to_the_call_by_the_traces_id(panel: Json, frame: Mapping[str, str]) -> None:
    fields = {title: field for field, title in shown(panel, frame).items()}

    for title in ("Trace", "Call"):
        [link] = properties(panel, title)["links"]
        given = dict(re.findall(r'var-(trace_id|workspace)=\$\{__data\.fields\["([^"]+)"\]', link["url"]))
        assert link["url"].startswith(f"/d/{Uid.CALL}?")
        assert {name: fields[column] for name, column in given.items()} == {
            "trace_id": "traceIdHidden",
            "workspace": "mcp.workspace.id",
        }


@EACH
def test_the_traces_id_is_shown_though_grafana_hides_it(panel: Json) -> None:
    """It has `custom.hidden`, which later versions call `custom.hideFrom`."""
    assert properties(panel, "Trace")["custom.hidden"] is False
    assert properties(panel, "Trace")["custom.hideFrom"]["viz"] is False


@EACH
def test_times_have_their_units_and_the_table_is_sorted_by_a_column(panel: Json) -> None:
    assert properties(panel, "Start")["unit"] == "dateTimeAsSystem"
    assert properties(panel, "Duration")["unit"] == "ns"
    assert [order["displayName"] in COLUMNS for order in panel["options"]["sortBy"]] == [True]


def test_there_are_a_table_of_slow_and_one_of_failed_calls() -> None:
    assert [panel["title"] for panel in TABLES] == ["Slow calls", "Failed calls"]
    for panel in TABLES:
        assert all(f"span.{name}" in panel["targets"][0]["query"].rpartition("select(")[2] for name in SHOWN)
