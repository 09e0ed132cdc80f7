"""One request that is no tool call, to the one server that it is for, and its answer back."""

import functools
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from mcp_types.jsonrpc import MISSING_REQUIRED_CLIENT_CAPABILITY
from msgspec import UNSET, Raw

from gateway.calls import ErrorType
from gateway.mcp import era_bridge, era_bridge_errors, jsonrpc
from gateway.mcp.inbound import Request
from gateway.mcp.input_requests import AnswerRefusedError, InvalidAnswerError
from gateway.mcp.revisions import Era
from gateway.relay.client_requests import MissingCapabilityError, run_input_rounds
from gateway.relay.input_deadline import upstream_deadline
from gateway.relay.registry import Server
from gateway.upstream.base import Client, Notify, UpstreamError, UpstreamRequest, UpstreamResponse

_CODES: Final = frozenset(
    {
        jsonrpc.PARSE_ERROR,
        jsonrpc.INVALID_REQUEST,
        jsonrpc.METHOD_NOT_FOUND,
        jsonrpc.INVALID_PARAMS,
        jsonrpc.INTERNAL_ERROR,
        era_bridge_errors.RESOURCE_NOT_FOUND,
        MISSING_REQUIRED_CLIENT_CAPABILITY,
    }
)
"""The codes that the protocol has for clients; any other is a server's own, and no label."""


class Refusal(NamedTuple):
    """A JSON-RPC error for the client."""

    code: int
    message: str
    data: Any = None

    @property
    def error_type(self) -> str:
        """As a label, of which there are few: the code, if it is one of the protocol's."""
        return str(self.code) if self.code in _CODES else ErrorType.JSONRPC_ERROR.value


class Caller(NamedTuple):
    """Who asks, and what can be said to them before the answer."""

    token_id: str
    client: Client | None = None
    notify: Notify | None = None


async def forward(
    server: Server, request: Request, caller: Caller, params: Mapping[str, Any], name: str | None, server_info: Raw
) -> Raw | Refusal:
    """Ask the server; `params` have its own names, `name` is what `Mcp-Name` says."""
    try:
        async with upstream_deadline(server.timeout, caller.client) as (client, limit):
            upstream_request = UpstreamRequest(
                request.method,
                params,
                meta=request.meta,
                name=name,
                notify=caller.notify,
                repeatable=True,
                token_id=caller.token_id,
                client=client,
            )
            ask = functools.partial(server.ask, limit=limit)
            if client is not None and request.era is Era.LEGACY and server.upstream.era is Era.MODERN:
                reply = await run_input_rounds(ask, upstream_request, client)
            else:
                reply = await ask(upstream_request)
        return _translated(server, request, reply, server_info)
    except (MissingCapabilityError, AnswerRefusedError, InvalidAnswerError) as error:
        return Refusal(jsonrpc.INTERNAL_ERROR, f"server {server.slug!r}: {error}", {"server": server.slug})
    except TimeoutError:
        why = f"did not answer within {server.timeout:g} s"
        data = {"error_type": "upstream_timeout", "server": server.slug}
        return Refusal(jsonrpc.INTERNAL_ERROR, f"server {server.slug!r} {why}", data)
    except UpstreamError as error:
        data = {"error_type": error.error_type.value, "server": server.slug}
        return Refusal(jsonrpc.INTERNAL_ERROR, f"server {server.slug!r}: {error}", data)
    except era_bridge.InvalidResultError as error:
        data = {"error_type": "upstream_protocol_error", "server": server.slug}
        return Refusal(jsonrpc.INTERNAL_ERROR, f"server {server.slug!r}: {error}", data)


def _translated(server: Server, request: Request, reply: UpstreamResponse, server_info: Raw) -> Raw | Refusal:
    era = server.upstream.era or request.era
    if reply.error is UNSET:
        value = reply.result if reply.result is not UNSET else jsonrpc.EMPTY_OBJECT
        return era_bridge.result(request.method, request.era, era, value, server_info)
    answer = era_bridge_errors.error(request.method, request.era, era, reply.error)
    if answer.error is UNSET:
        return answer.result if answer.result is not UNSET else jsonrpc.EMPTY_OBJECT
    error = jsonrpc.decode_error(answer.error)
    data = jsonrpc.decode_params(answer.error).get("data")
    return Refusal(error.code, error.message, data)
