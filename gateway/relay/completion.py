"""`completion/complete`: asked of the server that has the prompt or the resource template.

Source: specification 2026-07-28, server/utilities/completion.
"""

from typing import Any, Final

from msgspec import Raw

from gateway.mcp import completion_refs, jsonrpc
from gateway.mcp.capabilities import ServerCapabilities
from gateway.mcp.completion_refs import PromptRef
from gateway.mcp.inbound import Request
from gateway.mcp.revisions import Era
from gateway.relay import prompts, resources
from gateway.relay.aggregation import may_offer
from gateway.relay.forwarding import Caller, Refusal, forward
from gateway.relay.registry import WorkspaceView

_NOTHING: Final[dict[str, Any]] = {"completion": {"values": []}}


def offers(declared: ServerCapabilities) -> bool:
    """Whether a server completes arguments."""
    return declared.completions is not None


async def complete(view: WorkspaceView, request: Request, caller: Caller, server_info: Raw) -> Raw | Refusal:
    """Ask the server of the prompt or the template; one that completes nothing has nothing to offer."""
    try:
        ref = completion_refs.read(request.params)
    except completion_refs.InvalidReferenceError as error:
        return Refusal(jsonrpc.INVALID_PARAMS, str(error))
    params = request.params
    if isinstance(ref, PromptRef):
        name = jsonrpc.raw(ref.name)
        server, prompt = prompts.named(view, name)
        if server is None:
            return prompts.unknown(name)
        servers = [server]
        params = completion_refs.renamed(params, prompt)
    else:
        servers = await resources.servers_of_template(view, ref.uri, caller.token_id)
        if not servers:
            return resources.unknown(ref.uri, request.era)
    able = [server for server in servers if may_offer(server, offers)]
    if not able:
        return jsonrpc.raw({"resultType": "complete", **_NOTHING} if request.era is Era.MODERN else _NOTHING)
    return await forward(able[0], request, caller, params, None, server_info)
