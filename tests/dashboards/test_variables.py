"""Variables: the same everywhere, defined where they are used, and shown where they matter."""

import re

import pytest

from dashboards.links import SHARED
from tests.dashboards.generated_boards import BOARDS, Json, annotations, named_in, panels, variables

EACH = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())


def used_in(board: Json) -> set[str]:
    """The variables that its queries name: of panels, annotations, and of variables that are used themselves."""
    texts = [target.get("expr") or target["query"] for panel in panels(board) for target in panel["targets"]]
    texts += [panel["datasource"]["uid"] for panel in panels(board)]
    found = set().union(*(named_in(text) for text in texts))
    for _ in range(3):  # a variable of a variable of a variable
        for name in found & set(variables(board)):
            variable = variables(board)[name]
            if variable["type"] == "query":
                found = found | named_in(variable["definition"]) | named_in(variable["datasource"]["uid"])
    return found


@EACH
def test_every_variable_that_a_query_names_is_defined(board: Json) -> None:
    texts = [annotation["expr"] for annotation in annotations(board)]
    assert used_in(board).union(*map(named_in, texts)) <= set(variables(board))


@EACH
def test_a_variable_is_shown_if_it_changes_what_is_shown(board: Json) -> None:
    shown = {name for name, variable in variables(board).items() if variable["hide"] == 0}

    assert shown == used_in(board)


@EACH
def test_what_links_hand_on_is_there_in_every_dashboard(board: Json) -> None:
    assert set(SHARED) <= set(variables(board))


def test_a_variable_is_the_same_in_every_dashboard() -> None:
    for name in SHARED:
        found = [{**variables(board)[name], "hide": None} for board in BOARDS.values()]
        assert all(one == found[0] for one in found), name


@pytest.mark.parametrize(
    ("name", "answer", "text", "value"),
    [
        ("member", '{name="Alice Cursor",token="alice-cursor"} 1 1700000000000', "Alice Cursor", "alice-cursor"),
        ("member", '{name="the "new" bot",token="bot"} 1 1700000000000', 'the "new" bot', "bot"),
        ("workspace", '{name="Engineering",workspace="engineering"} 1 1700000000000', "Engineering", "engineering"),
    ],
)
def test_a_name_is_shown_and_its_id_goes_into_the_queries(name: str, answer: str, text: str, value: str) -> None:
    """As Grafana reads the answer of `query_result`; Python writes named groups with a P."""
    variable = variables(BOARDS["callscope-overview"])[name]
    pattern = variable["regex"].strip("/").replace("(?<", "(?P<")

    match = re.search(pattern, answer)

    assert variable["definition"].startswith("query_result(")
    assert match is not None
    assert match.groupdict() == {"text": text, "value": value}


@EACH
def test_data_sources_are_the_provisioned_ones_at_first(board: Json) -> None:
    sources = {name: variable for name, variable in variables(board).items() if variable["type"] == "datasource"}

    assert {name: variable["current"]["value"] for name, variable in sources.items()} == {
        f"{kind}_datasource": kind for kind in ("prometheus", "loki", "tempo")
    }
