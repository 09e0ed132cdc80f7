"""What Overview shows is what the ledger counts, and every back end has every call once."""

from collections import Counter
from typing import Any

import pytest

from gateway.demo.fixtures import WORKSPACES
from tests.dashboards.generated_boards import queries
from tests.dashboards.interpolation import interpolated
from tests.stack.demo_stack import DemoStack

DIMENSIONS = ("workspace", "token", "server", "tool", "status", "error_type")
OF_LOKI = ("mcp_workspace_id", "token_id", "server_slug", "tool_name", "status", "error_type")
OF_API = ("token_id", "server_slug", "tool_name", "status", "error_type")
STATS = {query.panel: query.text for query in queries("prometheus") if query.board == "callscope-overview"}


def overview(stack: DemoStack, workspace: str) -> dict[str, Any]:
    found: dict[str, Any] = stack.api(workspace, "/overview", period="1h")
    return found


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize(
    ("panel", "period"), [("Calls today", "today"), ("Calls this week", "week"), ("Calls this month", "month")]
)
def test_calls_of_a_period_are_the_ledgers(stack: DemoStack, workspace: str, panel: str, period: str) -> None:
    shown = stack.number(interpolated(STATS[panel], workspace=workspace))

    assert shown == overview(stack, workspace)["calls"][period] > 0


@pytest.mark.parametrize("workspace", WORKSPACES)
def test_success_rate_average_and_members_are_the_ledgers(stack: DemoStack, workspace: str) -> None:
    shown = {
        panel: stack.number(interpolated(STATS[panel], workspace=workspace))
        for panel in ("Success rate", "Average response time", "Active tokens")
    }
    expected = overview(stack, workspace)

    assert shown == {
        "Success rate": pytest.approx(expected["success_rate"], rel=1e-9),
        "Average response time": pytest.approx(expected["duration_ms"]["avg"] / 1000, rel=1e-9),
        "Active tokens": expected["active_tokens"],
    }


def test_all_workspaces_together_are_what_the_clients_counted(stack: DemoStack) -> None:
    assert stack.number(interpolated(STATS["Calls today"])) == stack.counted.total()


def in_ledger(stack: DemoStack) -> Counter[tuple[str, ...]]:
    """The ledger's calls by `DIMENSIONS`."""
    return Counter(
        {
            (workspace, *(group[name] or "" for name in OF_API)): group["calls"]
            for workspace in WORKSPACES
            for group in stack.api(workspace, "/groups", by="token,server,tool,status,error_type")["groups"]
        }
    )


def test_prometheus_log_records_traces_and_ledger_have_the_same_calls(stack: DemoStack) -> None:
    ledger = in_ledger(stack)

    assert ledger.total() == stack.counted.total()
    assert (
        counted(stack.prometheus(f"sum by ({', '.join(DIMENSIONS)}) (mcp_gateway_tool_calls_total)"), DIMENSIONS)
        == ledger
    )
    assert Counter(tuple(record.get(name, "") for name in OF_LOKI) for record in stack.log_records()) == ledger
    assert Counter(
        (
            span["attributes"]["mcp.workspace.id"],
            span["attributes"]["mcp.token.id"],
            span["attributes"]["mcp.server.slug"],
            "error" if "error.type" in span["attributes"] else "success",
        )
        for span in stack.spans()
        if span["kind"] == 2  # SERVER
    ) == Counter(
        [(w, token, server, status) for (w, token, server, _, status, _), n in ledger.items() for _ in range(n)]
    )


def test_loki_has_the_same_calls(stack: DemoStack) -> None:
    by = ", ".join(OF_LOKI)
    lines = f'sum by ({by}) (count_over_time({{service_name="callscope"}} | keep {by} [1h]))'

    assert counted(stack.loki(lines), OF_LOKI) == in_ledger(stack)


def counted(series: list[dict[str, Any]], labels: tuple[str, ...]) -> Counter[tuple[str, ...]]:
    """Each series' value by its labels; those that are 0 are left out."""
    found = Counter(
        {tuple(one["metric"].get(name, "") for name in labels): int(float(one["value"][1])) for one in series}
    )
    return +found
