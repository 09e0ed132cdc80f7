"""Every way from one dashboard to another leads somewhere, and takes the time range and the variables along."""

import re
from urllib.parse import parse_qsl, urlsplit

import pytest

from dashboards.links import SHARED, Uid
from tests.dashboards.generated_boards import BOARDS, Json, data_links, named_in, panels, queries, variables

LINKS = [
    pytest.param(uid, panel, link, id=f"{uid}: {panel['title']}: {link['title']}")
    for uid, board in BOARDS.items()
    for panel in panels(board)
    for link in data_links(panel)
]
OF_A_VALUE = re.compile(r'\$\{__(?:field\.labels\.(\w+)|data\.fields\["([^"]+)"\]|value\.raw)(?::percentencode)?\}')


@pytest.mark.parametrize(("uid", "panel", "link"), LINKS)
def test_a_link_keeps_the_time_range_and_hands_on_every_variable(uid: str, panel: Json, link: Json) -> None:
    assert panel["title"]
    address = urlsplit(link["url"])
    target = address.path.removeprefix("/d/")
    assert target in BOARDS

    given = dict(parse_qsl(address.query.replace("+", "%2B")))
    parts = address.query.split("&")
    assert "${__url_time_range}" in parts
    known = variables(BOARDS[target])
    for name in given:
        assert name.removeprefix("var-") in known
    for name in SHARED:
        assert f"${{{name}:queryparam}}" in parts or f"var-{name}" in given
    assert named_in(OF_A_VALUE.sub("", address.query)) - {"__url_time_range"} <= set(variables(BOARDS[uid]))


@pytest.mark.parametrize(("uid", "panel", "link"), LINKS)
def test_a_link_takes_labels_and_columns_that_its_panel_has(uid: str, panel: Json, link: Json) -> None:
    assert uid
    shown = str(panel["targets"]) + str([part.get("options") for part in panel.get("transformations", [])])
    for label, column in OF_A_VALUE.findall(link["url"]):
        if column:
            renamed = [part["options"]["renameByName"] for part in panel["transformations"] if part["id"] == "organize"]
            assert column in renamed[0].values()
        elif label:
            assert re.search(rf"\b{label}\b", shown), f"{panel['title']} has no label {label}"


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
def test_every_other_dashboard_is_one_click_away(board: Json) -> None:
    assert {link["url"] for link in board["links"]} == {f"/d/{uid}" for uid in Uid if uid != board["uid"]}
    assert all(link["keepTime"] and link["includeVars"] for link in board["links"])


@pytest.mark.parametrize("kind", ["bargauge", "timeseries"])
@pytest.mark.parametrize("uid", [Uid.OVERVIEW, Uid.TOOLS, Uid.MEMBERS, Uid.SERVERS])
def test_from_every_bar_and_curve_of_calls_there_is_a_way_to_the_calls(uid: Uid, kind: str) -> None:
    found = [panel for panel in panels(BOARDS[uid]) if panel["type"] == kind]
    about_calls = [panel for panel in found if "tool_call" in str(panel["targets"])]

    for panel in about_calls:
        assert any(f"/d/{Uid.LOGS}?" in link["url"] for link in data_links(panel)), panel["title"]
    assert about_calls or (uid, kind) == (Uid.SERVERS, "bargauge")


def test_from_the_calls_there_is_a_way_to_the_trace_and_its_log() -> None:
    ways = [link["url"] for panel in panels(BOARDS[Uid.LOGS]) for link in data_links(panel)]
    assert any(url.startswith(f"/d/{Uid.CALL}?") and "var-trace_id=" in url for url in ways)

    about_one = [query for query in queries() if query.board == Uid.CALL and "${trace_id}" in query.text]
    assert {query.kind for query in about_one} == {"tempo", "loki"}


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
def test_no_time_range_is_taken_from_another_variable(board: Json) -> None:
    """`from` and `to` come with the time range alone, or a link would have them twice."""
    for panel in panels(board):
        for link in data_links(panel):
            assert not re.search(r"[?&](from|to)=", link["url"])
