"""Which server of a workspace has a resource: what was listed last, and who is asked when nobody lists it."""

import asyncio
import time
from typing import Final

import msgspec
from msgspec import Raw, Struct

from gateway.mcp import jsonrpc
from gateway.mcp.capabilities import ServerCapabilities
from gateway.mcp.resource_uris import Offered, ResourceRoutes
from gateway.relay.listing import Part, may_offer, parts
from gateway.relay.workspaces import Server, WorkspaceView

LISTS: Final = {"resources/list": "resources", "resources/templates/list": "resourceTemplates"}
REFRESH_AFTER_S: Final = 5.0
"""How often a URI that nobody lists makes the servers list anew, at most."""


class _Item(Struct, rename="camel"):
    uri: str = ""
    uri_template: str = ""


_decode: Final = msgspec.json.Decoder(_Item).decode


def offers(declared: ServerCapabilities) -> bool:
    """Whether a server has resources."""
    return declared.resources is not None


async def listed(view: WorkspaceView, method: str, token_id: str) -> list[Part]:
    """Ask the servers for their resources, or for their templates, and keep which are whose."""
    found = await parts(view.servers.values(), method, LISTS[method], offers, token_id)
    kept = view.uris if method == "resources/list" else view.templates
    for server, items in found:
        if isinstance(items, list):
            kept[server.slug] = [name for item in items if (name := _name(item))]
    view.resources = ResourceRoutes(
        Offered(slug, view.uris.get(slug, ()), view.templates.get(slug, ()))
        for slug, server in view.servers.items()
        if may_offer(server, offers)
    )
    return found


async def servers_of(view: WorkspaceView, uri: str, token_id: str) -> list[Server]:
    """Who may have it, the likeliest first; a URI that nobody lists is worth one look at the servers."""
    if view.resources.route(uri) is None and time.monotonic() - view.resources_listed_at > REFRESH_AFTER_S:
        view.resources_listed_at = time.monotonic()
        await asyncio.gather(*(listed(view, method, token_id) for method in LISTS))
    return [view.servers[slug] for slug in view.resources.candidates(uri)]


def _name(item: Raw) -> str:
    try:
        named = _decode(item)
    except jsonrpc.NO_JSON:
        return ""
    return named.uri or named.uri_template
