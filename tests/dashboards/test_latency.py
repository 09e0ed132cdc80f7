"""How long servers take is said without calls that were refused, as the alert of a slow server does."""

from pathlib import Path

import pytest

from dashboards.promql import Scope
from dashboards.queries import calls, servers
from tests.dashboards.generated_boards import RULES
from tests.dashboards.promtool import holds

pytestmark = pytest.mark.backend

RECORDING = sorted(RULES.glob("recording*.y*ml"))
SCOPE = Scope("workspace", "server")
WHERE = 'job="callscope", instance="a:9464", workspace="a", server="s", tool="t"'
SENT = 'token="alice", status="success", error_type=""'
REFUSED = 'token="bot", status="error", error_type="rate_limited"'
RATES = {
    # A minute: ten calls of 2 s each, and ninety that a limit refused in 0 s.
    f"mcp_gateway_tool_calls_total{{{WHERE}, {SENT}}}": 10,
    f"mcp_gateway_tool_calls_total{{{WHERE}, {REFUSED}}}": 90,
    f"mcp_gateway_tool_call_duration_seconds_sum{{{WHERE}}}": 20,
    f"mcp_gateway_tool_call_duration_seconds_count{{{WHERE}}}": 100,
    f'mcp_gateway_tool_call_duration_seconds_bucket{{{WHERE}, le="1"}}': 90,
    f'mcp_gateway_tool_call_duration_seconds_bucket{{{WHERE}, le="3"}}': 100,
    f'mcp_gateway_tool_call_duration_seconds_bucket{{{WHERE}, le="+Inf"}}': 100,
}


def between(query: str, low: float, high: float) -> str:
    """1 if a query's value is between the two, else 0."""
    return f"({query} > bool {low}) * ({query} < bool {high})"


@pytest.mark.parametrize("window", ["70s", "10m"])
def test_a_refused_call_does_not_make_a_server_look_quick(tmp_path: Path, window: str) -> None:
    series = {name: f"0+{a_minute}x60" for name, a_minute in RATES.items()}
    asked = {
        between(servers.average_latency(SCOPE), 1.98, 2.02): "on average a call that was sent took 2 s",
        between(servers.latency(SCOPE, 0.5), 1.9, 2.1): "and so did the one in the middle",
        between(calls.average_over_time(SCOPE, *calls.SERVER), 0.19, 0.21): "with refused calls it is a tenth",
    }
    queries = {query.replace("$__rate_interval", window): {'{workspace="a", server="s"}': 1.0} for query in asked}

    holds(tmp_path, series, queries, at_s=3600 - 53, interval="1m", rules=RECORDING)
