"""Every method but `tools/call` and `subscriptions/listen`: served here, merged of all servers, or forwarded to one.

Source: specification 2026-07-28, server/discover, server/tools, server/prompts, server/resources,
server/utilities/completion and server/utilities/caching; 2025-11-25, basic/lifecycle.
"""

import asyncio
import logging
from typing import Any, Final

from mcp_types import SERVER_INFO_META_KEY
from mcp_types.methods import INPUT_REQUIRED_METHODS
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from msgspec import Raw

from gateway.calls import UNKNOWN, ErrorType
from gateway.mcp import capabilities, completion_refs, era_bridge, jsonrpc, log_levels, tool_names
from gateway.mcp.completion_refs import PromptRef
from gateway.mcp.jsonrpc import InvalidParamsError
from gateway.mcp.revisions import LATEST_HANDSHAKE_VERSION, Era, negotiate
from gateway.relay import input_required, resources
from gateway.relay.active_call import Call
from gateway.relay.aggregation import Capability, Part, may_have, merged, parts
from gateway.relay.catalog import LISTS
from gateway.relay.deadlines import CancelScopes
from gateway.relay.elicitation import client_on_stream
from gateway.relay.forwarding import Caller, forward, server_info
from gateway.relay.heartbeat import HeartbeatWriter
from gateway.relay.input_required import PendingCalls
from gateway.relay.legacy_clients import LegacyClients
from gateway.relay.notifications import NotificationFilter
from gateway.relay.registry import Server, WorkspaceView
from gateway.relay.responses import INTERNAL, JsonRpcError, send_json
from gateway.relay.session_subscriptions import SUBSCRIBE, UNSUBSCRIBE, SessionSubscriptions
from gateway.relay.subscription_registry import list_unmet_servers
from gateway.upstream.base import Client, Notify, UpstreamError, UpstreamResponse

logger = logging.getLogger(__name__)

MAX_REQUEST_S: Final = 600.0
"""The most that a request may take. What goes upstream for it has the shorter limit of its server."""
SET_LEVEL: Final = "logging/setLevel"
_NULL: Final = Raw(b"null")
_SHOWN_NAME: Final = 128
_CAPABILITIES: Final[dict[str, Capability]] = {
    **dict.fromkeys(("prompts/list", "prompts/get"), "prompts"),
    **dict.fromkeys(("resources/list", "resources/templates/list", "resources/read"), "resources"),
    "completion/complete": "completions",
}
"""What at least one server of a workspace must have for the workspace to have the method."""
_METHODS: Final = frozenset(
    {"initialize", "ping", "server/discover", "tools/list", SET_LEVEL, SUBSCRIBE, UNSUBSCRIBE, *_CAPABILITIES}
)
"""The methods that may be the value of a label."""


class Methods:
    """Serves them for every workspace and records each request as an operation."""

    def __init__(
        self,
        recorder: HeartbeatWriter,
        cancel_scopes: CancelScopes,
        pending_calls: PendingCalls,
        legacy: LegacyClients,
        subscriptions: SessionSubscriptions,
    ) -> None:
        self._recorder = recorder
        self._cancel_scopes = cancel_scopes
        self._pending_calls = pending_calls
        self._legacy = legacy
        self._subscriptions = subscriptions

    async def serve(self, call: Call) -> None:
        request, stream = call.request, call.stream
        status, headers, body = 200, None, b""
        error_type: str | None = None
        try:
            result = await self._within_time(call)
            if result is None:
                error_type = ErrorType.CANCELLED
            else:
                body = jsonrpc.result(request.id, result)
                if request.method == "initialize":
                    headers = self._legacy.initialized(call, result)
        except JsonRpcError as error:
            error_type = error.error_type
            status = jsonrpc.http_status(request.era, error.code)
            body = error.response(request.id)
        # A client must not be able to make up values of a label.
        known = request.method in _METHODS and error_type != str(jsonrpc.METHOD_NOT_FOUND)
        self._recorder.record(call.operation(request.method if known else UNKNOWN, error_type))
        if not body:
            await stream.end_without_response()
        elif stream.begun:
            await stream.end(body)
        else:
            await send_json(call.send, status, body, headers)

    async def _within_time(self, call: Call) -> Raw | None:
        """The result; None for a client that has disconnected or cancelled its request."""
        call.cancel_scope = cancel_scope = self._cancel_scopes.open(call.receive, MAX_REQUEST_S, call.key)
        try:
            if call.request.era is Era.LEGACY:
                return await self._for_legacy_client(call)
            return await self._for_modern_client(call)
        except JsonRpcError:
            raise
        except InvalidParamsError as error:
            raise JsonRpcError(jsonrpc.INVALID_PARAMS, str(error)) from error
        except asyncio.CancelledError:
            if not cancel_scope.uncancel():
                raise
            if cancel_scope.reason == "timeout":
                message = f"there was no response within {MAX_REQUEST_S:g} s"
                raise JsonRpcError(jsonrpc.INTERNAL_ERROR, message) from None
            return None
        except Exception as error:
            logger.exception("%s failed in the gateway", call.request.method)
            raise JsonRpcError(jsonrpc.INTERNAL_ERROR, INTERNAL) from error
        finally:
            self._cancel_scopes.close(cancel_scope)

    async def _for_legacy_client(self, call: Call) -> Raw:
        request, session = call.request, call.session
        if session is None:
            return await _result(Caller(call, None, NotificationFilter(call.stream, request).notify))
        if request.method == SET_LEVEL:
            session.log_level = log_levels.level_to_set(request.params)
            return jsonrpc.EMPTY_OBJECT
        if request.method in (SUBSCRIBE, UNSUBSCRIBE):
            return await self._subscriptions.serve(session, call.view, request)
        notify = NotificationFilter(call.stream, request, session.log_level).notify
        return await _result(Caller(call, client_on_stream(session, call.stream, call.cancel_scope), notify))

    async def _for_modern_client(self, call: Call) -> Raw:
        request = call.request
        notifications = NotificationFilter(call.stream, request)
        if request.method not in INPUT_REQUIRED_METHODS or not _may_wait_for_input(call):
            return await _result(Caller(call, None, notifications.notify))

        async def begin(client: Client, notify: Notify) -> UpstreamResponse:
            return UpstreamResponse(await _result(Caller(call, client, notify)))

        info = server_info(call.view)
        response = await self._pending_calls.serve(call.principal, request, notifications, begin, info)
        return response.result or jsonrpc.EMPTY_OBJECT


def _may_wait_for_input(call: Call) -> bool:
    """Whether a modern request may need the client's input for a legacy server, or brings it."""
    request = call.request
    if input_required.is_retry(request):
        return True
    first = "requestState" not in request.params and input_required.can_be_asked(request)
    return first and any(server.upstream.era is not Era.MODERN for server in call.view.servers.values())


async def _result(caller: Caller) -> Raw:  # noqa: C901 - one arm for each method
    """The result for the client's era.

    Raises:
        JsonRpcError: the method does not exist for this client or in this workspace, or it failed.
    """
    request, view = caller.call.request, caller.call.view
    token_id = caller.call.principal.token_id
    needed = _CAPABILITIES.get(request.method)
    if needed is not None and not any(may_have(server, needed) for server in view.servers.values()):
        raise _unknown_method(request.method)
    if request.method in LISTS and request.params.get("cursor", _NULL) != _NULL:
        raise JsonRpcError(jsonrpc.INVALID_PARAMS, f"unknown cursor: {request.method} has one page only")
    match request.method, request.era:
        case "initialize", Era.LEGACY:
            return await _initialize(caller.call)
        case "ping", Era.LEGACY:
            return jsonrpc.EMPTY_OBJECT
        case "server/discover", Era.MODERN:
            return await _discover(caller.call)
        case "tools/list", era:
            found = await asyncio.gather(*(_tools(server, era) for server in view.servers.values()))
            return _list_result(caller.call, merged(request.method, found))
        case "prompts/list", _:
            found = await parts(view.servers.values(), request.method, "prompts", token_id, _with_public_name)
            return _list_result(caller.call, merged(request.method, found))
        case (("resources/list" | "resources/templates/list"), _):
            found = await resources.listed(view, request.method, token_id)
            return _list_result(caller.call, merged(request.method, found))
        case "prompts/get", _:
            server, prompt = _find_prompt(view, request.params.get("name", _NULL))
            return await forward(caller, server, {**request.params, "name": jsonrpc.raw(prompt)}, prompt)
        case "resources/read", _:
            return await resources.read(caller)
        case "completion/complete", _:
            return await _complete(caller)
    raise _unknown_method(request.method)


def _unknown_method(method: str) -> JsonRpcError:
    return JsonRpcError(jsonrpc.METHOD_NOT_FOUND, f"the gateway does not serve {method!r}")


# -- what the gateway is


async def _initialize(call: Call) -> Raw:
    try:
        requested = jsonrpc.decode_string(call.request.params.get("protocolVersion", b'""'))
    except jsonrpc.DECODE_ERRORS:
        requested = LATEST_HANDSHAKE_VERSION
    return jsonrpc.raw(
        {
            "protocolVersion": negotiate(requested),
            "capabilities": await _capabilities(call),
            "serverInfo": server_info(call.view),
        }
    )


async def _discover(call: Call) -> Raw:
    declared = await _capabilities(call)
    return _list_result(call, {"supportedVersions": list(MODERN_PROTOCOL_VERSIONS), "capabilities": declared})


async def _capabilities(call: Call) -> dict[str, Any]:
    """What the servers declare, together. A server without contact so far is contacted first, unless it is down."""
    await list_unmet_servers(call.view)
    legacy, sessions = call.request.era is Era.LEGACY, call.state.sessions
    declared = (capabilities.read_server(server.upstream.declared) for server in call.view.servers.values())
    return capabilities.union(declared, notifies=sessions or not legacy, logging=legacy and sessions)


# -- lists


def _list_result(call: Call, members: dict[str, Any]) -> Raw:
    """A list, or the gateway's description. It depends on the token and must not be cached, so changes show at once."""
    if call.request.era is Era.LEGACY:
        return jsonrpc.raw(members)
    meta = {**members.pop("_meta", {}), SERVER_INFO_META_KEY: server_info(call.view)}
    return jsonrpc.raw({"resultType": "complete", "ttlMs": 0, "cacheScope": "private", **members, "_meta": meta})


async def _tools(server: Server, era: Era) -> Part:
    try:
        tools = await server.catalog.list()
        return Part(server, [era_bridge.tool(era, tool.era or era, tool.listing) for tool in tools.values()])
    except UpstreamError as error:
        return Part(server, error)


def _with_public_name(server: Server, item: Raw) -> Raw:
    """A prompt under the gateway's name for it.

    Raises:
        UpstreamError: it is not a prompt. Passed on, it would make clients reject the whole list.
    """
    try:
        members: dict[str, Any] = jsonrpc.decode_params(item)
        members["name"] = tool_names.join(server.slug, jsonrpc.decode_string(members["name"]))
    except (*jsonrpc.DECODE_ERRORS, KeyError) as error:
        raise UpstreamError(ErrorType.UPSTREAM_PROTOCOL_ERROR, f"lists an invalid prompt: {error}") from error
    return jsonrpc.raw(members)


# -- prompts and completion


def _find_prompt(view: WorkspaceView, name: Raw) -> tuple[Server, str]:
    """The server behind a prompt's public name, and its own name for the prompt.

    Raises:
        JsonRpcError: no server is behind the name.
    """
    server, prompt = view.resolve(name)
    if server is None or not may_have(server, "prompts"):
        shown = bytes(name)[:_SHOWN_NAME].decode("utf-8", "replace")
        message = f"unknown prompt {shown}: prompts/list has the prompts of this workspace"
        raise JsonRpcError(jsonrpc.INVALID_PARAMS, message)
    return server, prompt


async def _complete(caller: Caller) -> Raw:
    """Ask the server of the prompt or the template; without completions it has an empty list of values.

    Raises:
        InvalidParamsError: the request does not say what it is about.
    """
    request, view = caller.call.request, caller.call.view
    params = request.params
    ref = completion_refs.read(params)
    if isinstance(ref, PromptRef):
        server, prompt = _find_prompt(view, jsonrpc.raw(ref.name))
        servers = [server]
        params = completion_refs.renamed(params, prompt)
    else:
        servers = await resources.servers_of_template(view, ref.uri, caller.call.principal.token_id)
        if not servers:
            raise resources.unknown(ref.uri, request.era)
    able = [server for server in servers if may_have(server, "completions")]
    if not able:
        kind = {"resultType": "complete"} if request.era is Era.MODERN else {}
        return jsonrpc.raw({**kind, "completion": {"values": []}})
    return await forward(caller, able[0], params, None)
