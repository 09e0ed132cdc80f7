"""What a member's client makes of the gateway's answers, in the words that the gateway records."""

import pytest
from mcp.shared.exceptions import MCPError

from gateway.demo.traffic import error_type_of


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (MCPError(-32603, "server 'x' …", {"error_type": "upstream_timeout", "server": "x"}), "upstream_timeout"),
        (MCPError(-32602, "unknown tool", {"error_type": "unknown_tool", "server": None}), "unknown_tool"),
        (MCPError(1001, "already refunded"), "jsonrpc_error"),
        (MCPError(-32603, "Internal error"), "jsonrpc_error"),
        (MCPError(-32603, "Server returned an error response"), "rate_limited"),
        (MCPError(-32001, "Request 'tools/call' timed out"), "cancelled"),
        (MCPError(-32000, "Connection closed"), "lost"),
    ],
)
def test_an_error_is_named_as_the_gateway_records_it(error: MCPError, named: str) -> None:
    assert error_type_of(error) == named
