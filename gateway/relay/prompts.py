"""Prompts: of all servers in one list, as `<server>__<prompt>`; got from the server that has them.

Source: specification 2026-07-28, server/prompts.
"""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Raw

from gateway.calls import ErrorType
from gateway.mcp import jsonrpc, tool_names
from gateway.mcp.capabilities import ServerCapabilities
from gateway.mcp.inbound import Request
from gateway.relay.aggregation import may_offer, merged, parts
from gateway.relay.forwarding import Caller, Refusal, forward
from gateway.relay.registry import Server, WorkspaceView
from gateway.upstream.base import UpstreamError

LIST: Final = "prompts/list"
_NULL: Final = Raw(b"null")
_SHOWN_NAME: Final = 128


def offers(declared: ServerCapabilities) -> bool:
    """Whether a server has prompts."""
    return declared.prompts is not None


async def listed(view: WorkspaceView, token_id: str) -> dict[str, Any]:
    """The members of a `prompts/list` result."""
    return merged("prompts", await parts(view.servers.values(), LIST, "prompts", offers, token_id, _prefixed))


async def get(view: WorkspaceView, request: Request, caller: Caller, server_info: Raw) -> Raw | Refusal:
    """Ask the server that the prompt's name means."""
    name = request.params.get("name", _NULL)
    server, prompt = named(view, name)
    if server is None:
        return unknown(name)
    params: Mapping[str, Any] = {**request.params, "name": jsonrpc.raw(prompt)}
    return await forward(server, request, caller, params, prompt, server_info)


def named(view: WorkspaceView, name: Raw) -> tuple[Server | None, str]:
    """The server with prompts that a public name means, and its own name of the prompt."""
    server, prompt = view.resolve(name)
    return (server, prompt) if server is not None and may_offer(server, offers) else (None, "")


def unknown(name: Raw) -> Refusal:
    """What a name is answered that no server is behind."""
    shown = bytes(name)[:_SHOWN_NAME].decode("utf-8", "replace")
    return Refusal(jsonrpc.INVALID_PARAMS, f"unknown prompt {shown}: {LIST} has the prompts of this workspace")


def _prefixed(server: Server, item: Raw) -> Raw:
    """A prompt under the gateway's name.

    Raises:
        UpstreamError: it is none; a client's whole list would be refused for it.
    """
    try:
        members: dict[str, Any] = jsonrpc.decode_params(item)
        members["name"] = tool_names.join(server.slug, jsonrpc.decode_string(members["name"]))
    except (*jsonrpc.NO_JSON, KeyError) as error:
        raise UpstreamError(ErrorType.UPSTREAM_PROTOCOL_ERROR, f"lists a prompt that is none: {error}") from error
    return jsonrpc.raw(members)
