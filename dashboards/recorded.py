"""Recording rules that panels of weeks and months read, where raw counters would cost a scan of every sample."""

from typing import Final

from dashboards.promql import Scope

CALLS: Final = "workspace_server_tool_token:mcp_gateway_tool_calls:increase5m"
"""The calls of the last five minutes."""
STEP: Final = "5m"
"""What one value of the rules covers: read at this step, the windows touch and do not overlap."""


def counted(scope: Scope, rule: str, window: str) -> str:
    """The calls of a window, by the rule's labels. Before the first step is over, it is the rule's newest value."""
    return f"(sum_over_time({scope.recorded(rule)}[{window}:{STEP}]) or {scope.recorded(rule)})"
