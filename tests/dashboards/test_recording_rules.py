"""What panels of weeks and months read from recording rules is what the raw counters say."""

import re
from pathlib import Path

import pytest
import yaml

from dashboards.promql import Scope, total
from dashboards.queries import calls
from tests.dashboards.generated_boards import RULES, queries
from tests.dashboards.promtool import holds

RECORDING = sorted(RULES.glob("recording*.y*ml"))
SCOPE = Scope("workspace")
HOURS = 12
A_MINUTE = {"alice": 2, "bot": 5}


def close(query: str, expected: float) -> str:
    """1 if a query is right to two in a hundred, else 0."""
    return f"abs({query} / {expected} - 1) < bool 0.02"


@pytest.mark.backend
@pytest.mark.parametrize("window", ["6h", "2h"])
def test_a_count_of_weeks_is_that_of_the_counters(tmp_path: Path, window: str) -> None:
    labels = 'job="callscope", instance="a:9464", workspace="a", server="s", tool="t", status="success", error_type=""'
    series = {
        f'mcp_gateway_tool_calls_total{{token="{token}", {labels}}}': f"0+{calls}x{HOURS * 60}"
        for token, calls in A_MINUTE.items()
    }
    minutes = int(window.removesuffix("h")) * 60
    by_token = calls.count_over_weeks(SCOPE, "token").replace("$__range", window)
    all_of_them = calls.count_over_weeks(SCOPE).replace("$__range", window)

    asked = {
        close(all_of_them, 7 * minutes): {"{}": 1.0},
        close(f"{total(by_token)}", 7 * minutes): {"{}": 1.0},
        close(f'sum({by_token} and on (token) label_replace(vector(1), "token", "bot", "", ""))', 5 * minutes): {
            "{}": 1.0
        },
    }

    holds(tmp_path, series, asked, at_s=HOURS * 3600 - 53, interval="1m", rules=RECORDING)


def test_every_recorded_series_is_read_by_a_dashboard_or_another_rule() -> None:
    rules = [
        rule
        for path in RULES.glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    read = " ".join([*(rule["expr"] for rule in rules), *(query.text for query in queries("prometheus"))])

    assert {name for name in recorded if not re.search(rf"(?<![\w:]){name}(?![\w:])", read)} == set()
