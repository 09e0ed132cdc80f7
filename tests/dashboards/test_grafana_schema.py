"""Grafana's own models of a dashboard read all that the generated ones say, and write the same again."""

import json
import warnings
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.dashboards.generated_boards import BOARDS, Json

UNKNOWN_PANELS: Final = {"row": {"id", "type", "title", "gridPos", "collapsed", "panels"}, "traces": set[str]()}
"""Panels that the models leave as they are, and the keys that a row may have."""


@pytest.fixture(scope="module")
def sdk() -> Any:
    """grafana-foundation-sdk; without it, the test is left out, but not where everything must be tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it would rather have the schema of version 2
        from grafana_foundation_sdk.cog import encoder, plugins  # noqa: PLC0415 - it warns while it is imported
        from grafana_foundation_sdk.models import dashboard  # noqa: PLC0415 - the same
    plugins.register_default_plugins()

    def round_trip(board: Json) -> Any:
        read = dashboard.Dashboard.from_json(json.loads(json.dumps(board)))
        return json.loads(json.dumps(read, cls=encoder.JSONEncoder))

    return round_trip


def lost(said: Any, read: Any, path: str = "") -> Iterator[str]:
    """What is in `said` and not in `read`: Grafana does not know it."""
    match said:
        case dict():
            for key, value in said.items():
                if not isinstance(read, dict) or key not in read:
                    yield f"{path}.{key}"
                else:
                    yield from lost(value, read[key], f"{path}.{key}")
        case list():
            if not isinstance(read, list) or len(said) != len(read):
                yield path
            else:
                for place, (one, other) in enumerate(zip(said, read, strict=True)):
                    yield from lost(one, other, f"{path}[{place}]")
        case _ if said != read:
            yield f"{path}: {said!r} became {read!r}"


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
def test_grafana_reads_everything_that_a_dashboard_says(sdk: Any, board: Json) -> None:
    assert list(lost(board, sdk(board))) == []


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
def test_a_heading_says_nothing_that_a_row_does_not_have(board: Json) -> None:
    for panel in board["panels"]:
        if panel["type"] == "row":
            assert set(panel) == UNKNOWN_PANELS["row"]


@pytest.mark.parametrize(
    ("kind", "place", "key"),
    [
        ("timeseries", ("fieldConfig", "defaults", "custom"), "lineWdth"),
        ("timeseries", ("options", "legend"), "showLgend"),
        ("stat", ("options",), "colourMode"),
        ("table", ("options",), "showHeaders"),
        ("logs", ("options",), "wrapLogMessages"),
        ("bargauge", ("options",), "displayMod"),
        ("heatmap", ("options", "yAxis"), "units"),
        ("state-timeline", ("options",), "mergeValue"),
        ("gauge", ("options",), "showThreshold"),
    ],
)
def test_a_misspelt_option_would_be_noticed(sdk: Any, kind: str, place: tuple[str, ...], key: str) -> None:
    board = next(board for board in BOARDS.values() if any(panel["type"] == kind for panel in board["panels"]))
    spoilt: Json = json.loads(json.dumps(board))
    part: Any = next(panel for panel in spoilt["panels"] if panel["type"] == kind)
    for step in place:
        part = part[step]
    part[key] = True

    assert any(path.endswith(f".{key}") for path in lost(spoilt, sdk(spoilt)))


@pytest.mark.parametrize("kind", ["prometheus", "loki", "tempo"])
def test_a_misspelt_part_of_a_query_would_be_noticed(sdk: Any, kind: str) -> None:
    spoilt: Json = json.loads(json.dumps(BOARDS["callscope-call"]))
    target = next(
        target
        for panel in spoilt["panels"]
        for target in panel.get("targets", [])
        if panel["type"] != "traces" and target["datasource"]["type"] == kind
    )
    target["exprr"] = "up"

    assert any(path.endswith(".exprr") for path in lost(spoilt, sdk(spoilt)))
