"""`notifications/cancelled`: how a legacy peer, and any over stdio, says that it does not wait any more.

A modern client over HTTP closes the stream of its request instead (streamable-http "Cancellation"): from it this
notification cancels nothing.

Source: specification 2026-07-28, basic/patterns/cancellation; 2025-11-25, basic/utilities/cancellation.
"""

from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.mcp import jsonrpc
from gateway.mcp.jsonrpc import DECODE_ERRORS, Id, Params

METHOD: Final = "notifications/cancelled"

_decode_id: Final = msgspec.json.Decoder(Id).decode


class Cancelled(Struct, frozen=True):
    """Which request is not waited for, by the id that its sender gave it, and why if that is said."""

    request_id: Id
    reason: str | None = None


def read(params: Params) -> Cancelled | None:
    """What is cancelled; None if the notification does not say: then there is nothing to do, and nobody to tell."""
    try:
        request_id = _decode_id(params["requestId"]) if "requestId" in params else None
    except DECODE_ERRORS:
        return None
    if request_id is None:
        return None
    try:
        reason = jsonrpc.decode_string(params["reason"]) if "reason" in params else None
    except DECODE_ERRORS:
        reason = None
    return Cancelled(request_id, reason)


def notification(request_id: Id, reason: str | None = None) -> bytes:
    """Tell an upstream that its answer is not waited for; never of `initialize`, which may not be cancelled."""
    params: dict[str, Any] = {"requestId": request_id}
    if reason is not None:
        params["reason"] = reason
    return jsonrpc.notification(METHOD, {name: jsonrpc.raw(value) for name, value in params.items()})
