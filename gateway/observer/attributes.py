"""The attributes of a call's spans and log record, by the names in `signals`, and their form in OTLP."""

from collections.abc import Mapping
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.calls import UNKNOWN, ErrorType, ToolCall
from gateway.mcp import tool_names
from gateway.observer import signals

_Attributed = Span | LogRecord | Resource
AttributeValue = str | int | float | None
"""None is left out."""

GATEWAYS_OWN: Final = frozenset(
    {ErrorType.UNKNOWN_TOOL, ErrorType.RATE_LIMITED, ErrorType.QUOTA_EXCEEDED, ErrorType.GATEWAY_ERROR}
)
"""Failures that the upstream does not know of: the CLIENT span and the client's operation are no error then."""


def visible_tool(call: ToolCall) -> str:
    """The name under which the client called the tool; `_unknown` if it is in no catalog."""
    return call.tool_name if call.server_slug == UNKNOWN else tool_names.join(call.server_slug, call.tool_name)


def call_attributes(call: ToolCall) -> dict[str, AttributeValue]:
    """Those of both the SERVER span and the log record."""
    return {
        signals.MCP_METHOD_NAME: signals.TOOLS_CALL,
        signals.GEN_AI_OPERATION_NAME: signals.EXECUTE_TOOL,
        signals.GEN_AI_TOOL_NAME: visible_tool(call),
        signals.MCP_PROTOCOL_VERSION: call.protocol_version,
        signals.MCP_SESSION_ID: call.session_id,
        signals.JSONRPC_REQUEST_ID: call.jsonrpc_id,
        signals.NETWORK_TRANSPORT: signals.TRANSPORTS["http"],
        signals.MCP_CLIENT_NAME: call.client_name,
        signals.MCP_CLIENT_VERSION: call.client_version,
        **outcome_attributes(call),
        **owner_attributes(call),
    }


def outcome_attributes(call: ToolCall) -> dict[str, AttributeValue]:
    return {
        signals.ERROR_TYPE: None if call.error_type is None else call.error_type.value,
        signals.RPC_RESPONSE_STATUS_CODE: None if call.jsonrpc_code is None else str(call.jsonrpc_code),
    }


def owner_attributes(call: ToolCall) -> dict[str, AttributeValue]:
    return {
        signals.MCP_WORKSPACE_ID: call.workspace_id,
        signals.MCP_TOKEN_ID: call.token_id,
        signals.MCP_SERVER_SLUG: call.server_slug,
        signals.MCP_CALL_ID: call.call_id,
    }


def add_attributes(attributes: Mapping[str, AttributeValue], target: _Attributed) -> None:
    """Add attributes to a span, a log record or a resource, in place: a list of them would be copied."""
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
    """The resource of every span and log record of this replica."""
    sender = Resource()
    add_attributes({"service.name": signals.SCOPE, "service.version": version, "service.instance.id": instance}, sender)
    return sender


def scope(version: str) -> InstrumentationScope:
    return InstrumentationScope(name=signals.SCOPE, version=version)
