"""Recording rules that panels of weeks and months read, where raw counters would cost a scan of every sample.

Each is named for the labels that it keeps. Numbers of a whole workspace are counted to the call, in few series.
"""

from typing import Final

from dashboards.promql import Scope

CALLS_BY_STATUS: Final = "instance_workspace_status:mcp_gateway_tool_calls:sum"
CALLS_BY_TOKEN: Final = "instance_workspace_token:mcp_gateway_tool_calls:sum"  # noqa: S105 - a series
DURATION_SUM: Final = "instance_workspace:mcp_gateway_tool_call_duration_seconds_sum:sum"
DURATION_COUNT: Final = "instance_workspace:mcp_gateway_tool_call_duration_seconds_count:sum"
"""Counters."""

CALLS: Final = "workspace_server_tool_token:mcp_gateway_tool_calls:increase1h"
"""The calls of the last hour."""
STEP: Final = "1h"
"""What one value of the rules covers: read at this step, the windows touch and do not overlap."""


def counted(scope: Scope, rule: str, window: str) -> str:
    """The calls of a window, by the rule's labels. Before the first step is over, it is the rule's newest value."""
    return f"(sum_over_time({scope.recorded(rule)}[{window}:{STEP}]) or {scope.recorded(rule)})"
