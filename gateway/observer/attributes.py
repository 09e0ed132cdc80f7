"""What a span and a log record say about a call: attribute names and values, and how OTLP carries them.

Names follow the OTel semantic conventions for MCP and GenAI (status Development) where those have one;
`mcp.workspace.id`, `mcp.token.id`, `mcp.server.slug` and `mcp.call.id` are Callscope's own.
"""

from collections.abc import Mapping
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.calls import UNKNOWN, ToolCall
from gateway.mcp import names

_Attributed = Span | LogRecord | Resource
Value = str | int | float | None
"""None is left out."""

SCOPE: Final = "callscope"
METHOD: Final = "tools/call"


def visible_tool(call: ToolCall) -> str:
    """The name under which the client called the tool; `_unknown` if it is in no catalogue."""
    return call.tool_name if call.server_slug == UNKNOWN else names.join(call.server_slug, call.tool_name)


def of_call(call: ToolCall) -> dict[str, Value]:
    """What both the SERVER span and the log record carry."""
    return {
        "mcp.method.name": METHOD,
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": visible_tool(call),
        "mcp.protocol.version": call.protocol_version,
        "mcp.session.id": call.session_id,
        "jsonrpc.request.id": call.jsonrpc_id,
        "mcp.client.name": call.client_name,
        "mcp.client.version": call.client_version,
        **of_outcome(call),
        **of_owner(call),
    }


def of_outcome(call: ToolCall) -> dict[str, Value]:
    """Why the call failed, if it did."""
    return {
        "error.type": None if call.error_type is None else call.error_type.value,
        "rpc.response.status_code": None if call.jsonrpc_code is None else str(call.jsonrpc_code),
    }


def of_owner(call: ToolCall) -> dict[str, Value]:
    """Whose call it was, and which."""
    return {
        "mcp.workspace.id": call.workspace_id,
        "mcp.token.id": call.token_id,
        "mcp.server.slug": call.server_slug,
        "mcp.call.id": call.call_id,
    }


def put(attributes: Mapping[str, Value], target: _Attributed) -> None:
    """Add attributes to a span, a log record or a resource. In place: handing over a list would copy each."""
    add = target.attributes.add
    for key, value in attributes.items():
        if value is None:
            continue
        item = add()
        item.key = key
        if isinstance(value, str):
            item.value.string_value = value
        elif isinstance(value, int):
            item.value.int_value = value
        else:
            item.value.double_value = value


def resource(*, version: str, instance: str) -> Resource:
    """Who sends: the resource of every span and log record of this replica."""
    sender = Resource()
    put({"service.name": SCOPE, "service.version": version, "service.instance.id": instance}, sender)
    return sender


def scope(version: str) -> InstrumentationScope:
    """The instrumentation scope of every span and log record."""
    return InstrumentationScope(name=SCOPE, version=version)
