"""The messages of a 2025-03-26 batch, each served as if it had come alone, and their answers in one body.

Source: specification 2025-03-26, basic/transports; JSON-RPC 2.0, section 6.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from msgspec import UNSET, Struct, UnsetType
from starlette.types import Message, Send

from gateway.mcp import batch, jsonrpc
from gateway.mcp.inbound import Headers
from gateway.mcp.jsonrpc import NO_JSON, Id
from gateway.relay.responses import send_empty, send_json

_JSON_ONLY: Final = b"application/json"

Serve = Callable[[bytes, Headers, Send], Awaitable[None]]
"""Serves one message, whose headers are those of the batch."""


class _Head(Struct):
    id: Id | UnsetType | None = UNSET


_decode_head: Final = msgspec.json.Decoder(_Head).decode


class _Captured:
    """An answer that is kept in the place of being sent."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""

    async def send(self, message: Message) -> None:
        """Take an ASGI message."""
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")


async def serve_batch(messages: list[bytes], headers: Headers, serve: Serve, send: Send) -> None:
    """Serve all at once. Each answer is plain JSON: what is told on the way has no place in a batch's body."""
    plain = {**headers, b"accept": _JSON_ONLY}
    answers = await asyncio.gather(*(_answer(message, plain, serve) for message in messages))
    body = batch.join(answers)
    if body is None:
        await send_empty(send, 202)
    else:
        await send_json(send, 200, body)


async def _answer(message: bytes, headers: Headers, serve: Serve) -> bytes | None:
    captured = _Captured()
    await serve(message, headers, captured.send)
    if not captured.body:
        return None
    if captured.status == 429 and _decode_head(captured.body).id is UNSET:  # noqa: PLR2004 - its body is none of JSON-RPC's
        error = jsonrpc.error_object(captured.status, "over the limit of requests: try again later")
        return jsonrpc.error(_id_of(message), error)
    return captured.body


def _id_of(message: bytes) -> Id | None:
    try:
        found = _decode_head(message).id
    except NO_JSON:
        return None
    return found if found is not UNSET else None
