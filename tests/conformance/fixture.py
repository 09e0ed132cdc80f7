"""The MCP server that the conformance suite asks for: `python -m tests.conformance.fixture --port 0 --era both`.

It is the official SDK's server with the tools, prompts and resources that the suite's scenarios name. It prints its URL
in one line once it listens on 127.0.0.1, and ends at SIGTERM, Ctrl-C or, if standard input is a pipe, at its end.
"""

import argparse
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, get_args

from mcp.server.caching import CacheHint
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, SubscriptionBus
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    EmptyResult,
    InputRequiredResult,
    ListToolsResult,
    PaginatedRequestParams,
    SetLevelRequestParams,
)
from mcp_types.methods import CacheableMethod
from starlette.types import ASGIApp

from tests.conformance import loopback_server, prompts, resources
from tests.conformance.eras import LegacyOnly, ModernOnly
from tests.conformance.events import Memory
from tests.conformance.input_request_tools import ASKING
from tests.conformance.input_requests import Asking, Context, InputRequired
from tests.conformance.tools import PLAIN, Turn

Era = Literal["both", "legacy", "modern"]

NAME: Final = "conformance-fixture"
FRESH: Final = CacheHint(ttl_ms=5000, scope="public")
CACHEABLE: Final[tuple[CacheableMethod, ...]] = get_args(CacheableMethod)
RETRY_MS: Final = 100
LOCAL: Final = TransportSecuritySettings(
    allowed_hosts=["localhost:*", "127.0.0.1:*", "[::1]:*"],
    allowed_origins=["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"],
)
_TOOLS: Final = {tool.listing.name: tool for tool in (*PLAIN, *ASKING)}
_DOORS: Final[Mapping[Era, Callable[[ASGIApp], ASGIApp]]] = {
    "both": lambda app: app,
    "legacy": LegacyOnly,
    "modern": ModernOnly,
}


class Fixture(Server[dict[str, Any]]):
    """Declares to legacy clients, too, that its lists may change."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        """What `initialize` answers with."""
        changing = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
        return super().create_initialization_options(
            notification_options or changing, experimental_capabilities, extensions
        )


async def list_tools(_ctx: Context, _params: PaginatedRequestParams | None) -> ListToolsResult:
    """`tools/list`."""
    return ListToolsResult(tools=[tool.listing for tool in _TOOLS.values()])


def input_schema(name: str) -> dict[str, Any] | None:
    """A tool's, for the headers that mirror its arguments."""
    return _TOOLS[name].listing.input_schema if name in _TOOLS else None


async def set_level(_ctx: Context, _params: SetLevelRequestParams) -> EmptyResult:
    """`logging/setLevel`, of the legacy era; the fixture logs at `info` only."""
    return EmptyResult()


def build(bus: SubscriptionBus) -> Fixture:
    """The server, for both eras."""

    async def call_tool(ctx: Context, params: CallToolRequestParams) -> CallToolResult | InputRequiredResult:
        tool = _TOOLS.get(params.name)
        if tool is None:
            raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.name}")
        asking = Asking.of(ctx, params.input_responses, params.request_state)
        try:
            return await tool.run(Turn(ctx=ctx, arguments=params.arguments or {}, asking=asking, bus=bus))
        except InputRequired as required:
            return required.result

    server = Fixture(
        NAME,
        version="1.0",
        instructions="Does what the conformance suite asks for.",
        cache_hints=dict.fromkeys(CACHEABLE, FRESH),
        get_tool_input_schema=input_schema,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=resources.list_resources,
        on_list_resource_templates=resources.list_templates,
        on_read_resource=resources.read_resource,
        on_subscribe_resource=resources.subscribe,
        on_unsubscribe_resource=resources.unsubscribe,
        on_subscriptions_listen=ListenHandler(bus),
        on_list_prompts=prompts.list_prompts,
        on_get_prompt=prompts.get_prompt,
        on_completion=prompts.complete,
    )
    server.add_request_handler("logging/setLevel", SetLevelRequestParams, set_level)
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=NAME))
    return server


@asynccontextmanager
async def application(era: Era) -> AsyncIterator[ASGIApp]:
    """The server over Streamable HTTP, speaking the revisions of `era`."""
    manager = StreamableHTTPSessionManager(
        build(InMemorySubscriptionBus()), event_store=Memory(), security_settings=LOCAL, retry_interval=RETRY_MS
    )
    async with manager.run():
        yield _DOORS[era](manager.handle_request)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="The MCP server that the conformance suite asks for.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--era", choices=list(_DOORS), default="both", help="which revisions it speaks")
    options = parser.parse_args()
    loopback_server.run("fixture", application(options.era), options.port)


if __name__ == "__main__":
    main()
