"""A list of many servers in one: all are asked at once, all their pages, in the file's order.

One that fails is named in the result; what the others have stands.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct

from gateway.calls import ErrorType
from gateway.mcp import capabilities, jsonrpc
from gateway.relay.registry import Server
from gateway.upstream.base import UpstreamError, UpstreamRequest, UpstreamResponse

UNAVAILABLE_META_KEY: Final = "callscope/unavailable"
"""In the `_meta` of a list: the servers whose part of it is missing, and why."""
MAX_PAGES: Final = 100
LIST_TIMEOUT_S: Final = 10.0
_SHOWN_MESSAGE: Final = 500

LISTS: Final = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
"""The member of the result that is the list, by method."""
Capability = Literal["prompts", "resources", "completions"]
Rewrite = Callable[[Server, Raw], Raw]
"""Takes an item as its server lists it; gives it as the gateway does, or raises `UpstreamError` if it is none."""


class Part(NamedTuple):
    """What one server lists, or why it does not."""

    server: Server
    items: list[Raw] | UpstreamError


class _Cursor(Struct):
    nextCursor: str | None = None  # noqa: N815 - the member's name in MCP


_decode_cursor: Final = msgspec.json.Decoder(_Cursor).decode
_decode_items: Final = msgspec.json.Decoder(list[Raw]).decode


async def parts(
    servers: Iterable[Server], method: str, capability: Capability, token_id: str, rewrite: Rewrite | None = None
) -> list[Part]:
    """Ask every server that may have such a list."""
    asked = [server for server in servers if may_have(server, capability)]
    found = await asyncio.gather(*(_part(server, method, token_id, rewrite) for server in asked))
    return list(found)


def may_have(server: Server, capability: Capability) -> bool:
    """Whether a server declares a capability, or has had no contact yet and so declared nothing."""
    declared = server.upstream.declared
    return declared is None or getattr(capabilities.read_server(declared), capability) is not None


def merged(method: str, found: Iterable[Part]) -> dict[str, Any]:
    """The members of one result."""
    items: list[Raw] = []
    unavailable: list[dict[str, Any]] = []
    for server, part in found:
        if isinstance(part, UpstreamError):
            unavailable.append({"server": server.slug, "error_type": part.error_type.value, "message": str(part)})
        else:
            items.extend(part)
    members: dict[str, Any] = {LISTS[method]: items}
    if unavailable:
        members["_meta"] = {UNAVAILABLE_META_KEY: unavailable}
    return members


async def _part(server: Server, method: str, token_id: str, rewrite: Rewrite | None) -> Part:
    try:
        async with asyncio.timeout(min(server.timeout, LIST_TIMEOUT_S)) as limit:
            items = await _pages(server, method, token_id, limit)
        return Part(server, items if rewrite is None else [rewrite(server, item) for item in items])
    except TimeoutError:
        return Part(server, UpstreamError(ErrorType.UPSTREAM_TIMEOUT, f"did not answer {method} in time"))
    except UpstreamError as error:
        return Part(server, error)


async def _pages(server: Server, method: str, token_id: str, limit: asyncio.Timeout) -> list[Raw]:
    items: list[Raw] = []
    params: jsonrpc.Params = {}
    for _ in range(MAX_PAGES):
        reply = await server.ask(UpstreamRequest(method, params, repeatable=True, token_id=token_id), limit)
        if reply.error is not UNSET and jsonrpc.code_of(reply.error) == jsonrpc.METHOD_NOT_FOUND:
            return []
        page, cursor = _read_page(method, reply)
        items.extend(page)
        if cursor is None:
            return items
        params = {"cursor": jsonrpc.raw(cursor)}
    raise UpstreamError(ErrorType.UPSTREAM_PROTOCOL_ERROR, f"answers {method} on more than {MAX_PAGES} pages")


def _read_page(method: str, reply: UpstreamResponse) -> tuple[list[Raw], str | None]:
    if reply.error is not UNSET:
        raise refused(method, reply.error)
    value = reply.result if reply.result is not UNSET else jsonrpc.EMPTY_OBJECT
    try:
        members: Mapping[str, Raw] = jsonrpc.decode_params(value)
        return _decode_items(members[LISTS[method]]), _decode_cursor(value).nextCursor
    except (*jsonrpc.DECODE_ERRORS, KeyError) as error:
        raise UpstreamError(
            ErrorType.UPSTREAM_PROTOCOL_ERROR, f"answered {method} without a valid {LISTS[method]!r}: {error}"
        ) from error


def refused(method: str, error: Raw) -> UpstreamError:
    """What a server's error in the place of a list means."""
    try:
        decoded = jsonrpc.decode_error(error)
        why = f"{decoded.message[:_SHOWN_MESSAGE]} ({decoded.code})"
    except jsonrpc.DECODE_ERRORS:
        why = "with an error that is none of JSON-RPC's"
    return UpstreamError(ErrorType.JSONRPC_ERROR, f"refused {method}: {why}")
