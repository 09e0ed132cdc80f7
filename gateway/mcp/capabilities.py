"""Capabilities: what the gateway declares of its servers to a client, and of a client to a server.

Only what the gateway can pass on is declared. Tasks and experimental capabilities need two peers that agree on them:
they are not passed on.

Source: specification 2026-07-28, basic/index "Per-request protocol fields" and server/discover; 2025-11-25,
basic/lifecycle "Capability Negotiation".
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from gateway.errors import CallscopeError
from gateway.mcp import jsonrpc
from gateway.mcp.jsonrpc import DECODE_ERRORS, EMPTY_OBJECT

_Object = dict[str, Raw]


class InvalidInputRequestError(CallscopeError):
    """A server's request to a client is not one of MCP: -32601 to the server, or an `upstream_protocol_error`."""


class _Feature(Struct, frozen=True, rename="camel"):
    list_changed: bool | None = None
    subscribe: bool | None = None


class ServerCapabilities(Struct, frozen=True):
    """What one server declares, as far as a gateway can pass it on."""

    tools: _Feature | None = None
    prompts: _Feature | None = None
    resources: _Feature | None = None
    completions: _Object | None = None
    logging: _Object | None = None


class _Elicitation(Struct, frozen=True):
    form: _Object | None = None
    url: _Object | None = None


class _Sampling(Struct, frozen=True):
    context: _Object | None = None
    tools: _Object | None = None


class _RequestParams(Struct, frozen=True, rename="camel"):
    mode: str = "form"
    tools: list[Raw] | None = None
    tool_choice: _Object | None = None


class ClientCapabilities(Struct, frozen=True):
    """What a client declares that a server may request of it."""

    elicitation: _Elicitation | None = None
    sampling: _Sampling | None = None
    roots: _Object | None = None


_Needed = Mapping[str, Any]
_FORM: Final[_Needed] = {"elicitation": {"form": {}}}
_URL: Final[_Needed] = {"elicitation": {"url": {}}}
_SAMPLING: Final[_Needed] = {"sampling": {}}
_SAMPLING_TOOLS: Final[_Needed] = {"sampling": {"tools": {}}}
_ROOTS: Final[_Needed] = {"roots": {}}

_NO_SERVER: Final = ServerCapabilities()
NO_CLIENT: Final = ClientCapabilities()
_decode_server: Final = msgspec.json.Decoder(ServerCapabilities).decode
_decode_client: Final = msgspec.json.Decoder(ClientCapabilities).decode
_decode_params: Final = msgspec.json.Decoder(_RequestParams).decode


def read_server(declared: Raw | None) -> ServerCapabilities:
    """The `capabilities` of an `initialize` or `server/discover` result; if they are invalid, nothing is declared."""
    return jsonrpc.decode_or(_decode_server, declared, _NO_SERVER)


def read_client(declared: Raw | None) -> ClientCapabilities:
    """The capabilities of a client, of `initialize` or of one modern request."""
    return jsonrpc.decode_or(_decode_client, declared, NO_CLIENT)


def union(declared: Iterable[ServerCapabilities], *, notifies: bool, logging: bool) -> dict[str, Any]:
    """What the gateway declares to a client: what at least one server offers, and the gateway passes on.

    `tools` is always declared: a server that starts later must not be lost to a client that initialized before.
    `notifies`: the client has a stream on which it gets changes of lists and resources.
    """
    servers = list(declared)
    found: dict[str, Any] = {"tools": {}}
    for name in ("tools", "prompts", "resources"):
        offers: list[_Feature] = [offer for server in servers if (offer := getattr(server, name)) is not None]
        if offers:
            found[name] = {"listChanged": True} if notifies and any(offer.list_changed for offer in offers) else {}
        if name == "resources" and notifies and any(offer.subscribe for offer in offers):
            found[name]["subscribe"] = True
    if any(server.completions is not None for server in servers):
        found["completions"] = {}
    if logging and any(server.logging is not None for server in servers):
        found["logging"] = {}
    return found


def for_upstream(declared: Raw | None) -> Raw:
    """What a server is told of a client whose requests the gateway bridges: only the kinds of input it can bridge."""
    can = read_client(declared)
    kinds: dict[str, Any] = {}
    if can.elicitation is not None:
        kinds["elicitation"] = _present(form=can.elicitation.form, url=can.elicitation.url)
    if can.sampling is not None:
        kinds["sampling"] = _present(context=can.sampling.context, tools=can.sampling.tools)
    if can.roots is not None:
        kinds["roots"] = {}  # without `listChanged`: no server is notified of a change of the roots
    return jsonrpc.raw(kinds) if kinds else EMPTY_OBJECT


def _present(**members: _Object | None) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def missing_capability(method: str, params: Raw | None, can: ClientCapabilities) -> _Needed | None:
    """What a client would have to declare to get this request; None if it does.

    The shape is that of `requiredCapabilities` in -32021, as `{"elicitation": {"url": {}}}`. An elicitation that
    declares no mode is by form (2025-11-25, client/elicitation "Capabilities").

    Raises:
        InvalidInputRequestError: it is not a request that a server may send to a client.
    """
    try:
        request = _decode_params(params) if params is not None else _RequestParams()
    except DECODE_ERRORS as error:
        raise InvalidInputRequestError(f"the params of {method!r} cannot be read: {error}") from error
    match method:
        case "elicitation/create" if request.mode == "url":
            return None if can.elicitation is not None and can.elicitation.url is not None else _URL
        case "elicitation/create" if request.mode == "form":
            by_form = can.elicitation is not None and (can.elicitation.form is not None or can.elicitation.url is None)
            return None if by_form else _FORM
        case "sampling/createMessage" if request.tools is not None or request.tool_choice is not None:
            return None if can.sampling is not None and can.sampling.tools is not None else _SAMPLING_TOOLS
        case "sampling/createMessage":
            return None if can.sampling is not None else _SAMPLING
        case "roots/list":
            return None if can.roots is not None else _ROOTS
    raise InvalidInputRequestError(f"{method[:64]!r} is not a request that a server may send to a client")
