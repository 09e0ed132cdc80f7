"""LogQL: the log record that every call leaves, by what the dashboard's variables choose.

Index labels come first, the rest is structured metadata; Loki writes `_` for the dots of an attribute's name.
"""

from typing import Final

from gateway.observer.signals import MCP_EVENT, MCP_WORKSPACE_ID, SCOPE

EVENT: Final = "tool_call"
"""`mcp.event` of a call's record."""
AUTO: Final = "$__auto"
"""The step of a query over time; the whole range of an instant one."""


def label(attribute: str) -> str:
    """An attribute's name in Loki."""
    return attribute.replace(".", "_")


_CALLS: Final = f'{{service_name="{SCOPE}", {label(MCP_EVENT)}="{EVENT}", {label(MCP_WORKSPACE_ID)}=~"$workspace"}}'
_CHOSEN: Final = (
    '| server_slug=~"$server" | tool_name=~"$tool" | token_id=~"$member" '
    '| status=~"$status" | error_type=~"$error_type"'
)
_SEARCH: Final = "|~ `(?i)$search`"


def chosen() -> str:
    """The calls that all filters and the search leave."""
    return f"{_CALLS} {_SEARCH} {_CHOSEN}"


def failed() -> str:
    """Those of them that failed, each line with the whole error message and what the upstream answered."""
    answer = "{{if .mcp_upstream_response}}\\nThe upstream answered: {{.mcp_upstream_response}}{{end}}"
    whole = f'| line_format "{{{{__line__}}}}\\nError: {{{{.error_message}}}}{answer}"'
    return f'{chosen()} | status="error" {whole}'


def count(*by: str) -> str:
    """How many calls the filters leave, over time."""
    return _sum(f"count_over_time({chosen()}{_keep(by)} [{AUTO}])", by)


def count_failed(*by: str) -> str:
    """How many of them failed."""
    return _sum(f'count_over_time({chosen()} | status="error"{_keep(by)} [{AUTO}])', by)


def top_failures(few: int) -> str:
    """What failed most often, and why."""
    return f"topk({few}, {count_failed('server_slug', 'tool_name', 'error_type')})"


def longest() -> str:
    """The longest that a client waited, in milliseconds."""
    return f"max(max_over_time({chosen()} | keep total_ms | unwrap total_ms [{AUTO}]))"


def of_trace() -> str:
    """The calls of one trace, in the chosen workspaces: their streams alone are read."""
    return f'{_CALLS} | trace_id="${{trace_id}}"'


def measure_of_trace(field: str) -> str:
    """A number of each call of one trace, such as `duration_ms`."""
    kept = f"| keep mcp_call_id, {field}, server_slug, tool_name | unwrap {field}"
    return f"max by (mcp_call_id, server_slug, tool_name) (max_over_time({of_trace()} {kept} [{AUTO}]))"


def _sum(expr: str, by: tuple[str, ...]) -> str:
    return f"sum by ({', '.join(by)}) ({expr})" if by else f"sum({expr})"


def _keep(by: tuple[str, ...]) -> str:
    """Loki counts every combination of labels apart, up to a limit: so keep those alone that are asked for."""
    return f" | keep {', '.join(by)}" if by else " | keep service_name"
