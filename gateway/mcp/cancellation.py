"""`notifications/cancelled`: how a legacy peer, and any peer over stdio, cancels a request.

A modern client over HTTP closes the stream of its request instead (streamable-http "Cancellation"): from it this
notification cancels nothing.

Source: specification 2026-07-28, basic/patterns/cancellation; 2025-11-25, basic/utilities/cancellation.
"""

from typing import Final

import msgspec
from msgspec import Struct

from gateway.mcp import jsonrpc
from gateway.mcp.jsonrpc import Id, Params

METHOD: Final = "notifications/cancelled"

_decode_id: Final = msgspec.json.Decoder(Id).decode


class Cancelled(Struct, frozen=True):
    """The request that is cancelled, by the id that its sender gave it, and the reason if there is one."""

    request_id: Id
    reason: str | None = None


def read(params: Params) -> Cancelled | None:
    """What is cancelled; None if the notification has no valid request id."""
    request_id = jsonrpc.decode_or(_decode_id, params.get("requestId"), None)
    if request_id is None:
        return None
    return Cancelled(request_id, jsonrpc.decode_or(jsonrpc.decode_string, params.get("reason"), None))


def notification(request_id: Id, reason: str | None = None) -> bytes:
    """The notification to an upstream. `initialize` may not be cancelled."""
    params = {"requestId": jsonrpc.raw(request_id)}
    if reason is not None:
        params["reason"] = jsonrpc.raw(reason)
    return jsonrpc.notification(METHOD, params)
