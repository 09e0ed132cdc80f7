"""Doors that make a server of both eras one of a single era, as servers in the field are."""

import json
from typing import Any, Final

from mcp_types import DEFAULT_NEGOTIATED_VERSION, INVALID_REQUEST, UNSUPPORTED_PROTOCOL_VERSION
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NEWEST_OLD: Final = "2025-06-18"
OLD: Final = ("2024-11-05", "2025-03-26", NEWEST_OLD)


class LegacyOnly:
    """Speaks up to 2025-06-18: offers that in its handshake, and calls any newer revision a bad request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the old revisions pass, and `initialize`, which never asks for a newer one on the other side."""
        request = Request(scope, receive)
        version = request.headers.get("mcp-protocol-version")
        body = await request.body()
        if version is not None and version not in OLD:
            text = f"Bad Request: Unsupported protocol version: {version}"
            await _refuse(400, "server-error", {"code": INVALID_REQUEST, "message": text})(scope, receive, send)
            return
        message = _decoded(body)
        if message.get("method") == "initialize" and message["params"]["protocolVersion"] not in OLD:
            message["params"]["protocolVersion"] = NEWEST_OLD
            body = json.dumps(message).encode()
        await self._app(_resized(scope, len(body)), _Replayed(body, receive), send)


class ModernOnly:
    """Speaks 2026-07-28 alone: whatever names an older revision, or none, is told so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the modern revision and the unknown ones pass, which the server knows how to answer."""
        request = Request(scope, receive)
        version = request.headers.get("mcp-protocol-version", DEFAULT_NEGOTIATED_VERSION)
        body = await request.body()
        if request.method != "POST":
            await _refuse(405, None, {"code": INVALID_REQUEST, "message": "POST only"})(scope, receive, send)
        elif version in (*OLD, "2025-11-25"):
            data = {"supported": list(MODERN_PROTOCOL_VERSIONS), "requested": version}
            error = {"code": UNSUPPORTED_PROTOCOL_VERSION, "message": "Unsupported protocol version", "data": data}
            await _refuse(400, _decoded(body).get("id"), error)(scope, receive, send)
        else:
            await self._app(scope, _Replayed(body, receive), send)


class _Replayed:
    """A body that was read already, then what the client does."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _resized(scope: Scope, size: int) -> Scope:
    headers = [(name, b"%d" % size if name == b"content-length" else value) for name, value in scope["headers"]]
    return {**scope, "headers": headers}


def _refuse(status: int, message_id: Any, error: dict[str, Any]) -> JSONResponse:
    return JSONResponse({"jsonrpc": "2.0", "id": message_id, "error": error}, status_code=status)
