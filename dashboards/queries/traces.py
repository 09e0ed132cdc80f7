"""TraceQL: the traces of calls."""

from typing import Final

from gateway.observer.signals import (
    ERROR_TYPE,
    GEN_AI_TOOL_NAME,
    MCP_METHOD_NAME,
    MCP_SERVER_SLUG,
    MCP_TOKEN_ID,
    MCP_WORKSPACE_ID,
    SCOPE,
    TOOLS_CALL,
)

ONE: Final = "${trace_id}"
"""A trace by its id."""
_CALL: Final = (
    f'resource.service.name = "{SCOPE}" && kind = server && span.{MCP_METHOD_NAME} = "{TOOLS_CALL}"'
    f' && span.{MCP_WORKSPACE_ID} =~ "$workspace" && span.{MCP_SERVER_SLUG} =~ "$server"'
    f' && span.{GEN_AI_TOOL_NAME} =~ "(.+__)?($tool)" && span.{MCP_TOKEN_ID} =~ "$member"'
)
SHOWN: Final = (MCP_WORKSPACE_ID, GEN_AI_TOOL_NAME, MCP_SERVER_SLUG, MCP_TOKEN_ID, ERROR_TYPE)
"""The attributes that a row of an answer has, besides when the span began and how long it took."""
_SELECT: Final = f"select({', '.join(f'span.{name}' for name in SHOWN)})"


def slow(seconds: float) -> str:
    """Calls that took longer than this, the gateway's own time included."""
    return f"{{ {_CALL} && duration > {seconds:g}s }} | {_SELECT}"


def failed() -> str:
    """Calls that failed."""
    return f"{{ {_CALL} && status = error }} | {_SELECT}"
