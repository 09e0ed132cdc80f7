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
_SELECT: Final = (
    f"select(span.{GEN_AI_TOOL_NAME}, span.{MCP_SERVER_SLUG}, span.{MCP_TOKEN_ID}, span.{ERROR_TYPE}, status)"
)


def slow(seconds: float) -> str:
    """Calls that took longer than this, the gateway's own time included."""
    return f"{{ {_CALL} && duration > {seconds:g}s }} | {_SELECT}"


def failed() -> str:
    """Calls that failed."""
    return f"{{ {_CALL} && status = error }} | {_SELECT}"
