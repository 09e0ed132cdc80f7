"""One list of many servers: all are asked at once, in the order of the configuration file.

A server that fails is named in the result, and the items of the others stand.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, NamedTuple

from msgspec import Raw

from gateway.calls import ErrorType
from gateway.mcp import capabilities
from gateway.relay.catalog import LIST_TIMEOUT_S, LISTS, MethodNotFoundError, read_pages
from gateway.relay.registry import Server
from gateway.upstream.base import UpstreamError

UNAVAILABLE_META_KEY: Final = "callscope/unavailable"
"""In the `_meta` of a list: the servers whose items are missing, and why."""

Capability = Literal["prompts", "resources", "completions"]
Rewrite = Callable[[Server, Raw], Raw]
"""Makes the gateway's item of a server's, or raises `UpstreamError` if it is malformed."""


class Part(NamedTuple):
    """What one server lists, or why it does not."""

    server: Server
    items: list[Raw] | UpstreamError


async def parts(
    servers: Iterable[Server], method: str, capability: Capability, token_id: str, rewrite: Rewrite | None = None
) -> list[Part]:
    """Ask every server that may have such a list."""
    asked = [server for server in servers if may_have(server, capability)]
    return list(await asyncio.gather(*(_part(server, method, token_id, rewrite) for server in asked)))


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
            items = [item async for page, _ in read_pages(server.request, method, limit, token_id) for item in page]
        return Part(server, items if rewrite is None else [rewrite(server, item) for item in items])
    except TimeoutError:
        return Part(server, UpstreamError(ErrorType.UPSTREAM_TIMEOUT, f"did not answer {method} in time"))
    except MethodNotFoundError:
        return Part(server, [])
    except UpstreamError as error:
        return Part(server, error)
