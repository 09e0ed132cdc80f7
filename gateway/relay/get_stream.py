"""The stream that a legacy client opens by GET, for what belongs to none of its requests.

Source: specification 2025-11-25, basic/transports, "Listening for Messages from the Server".
"""

import asyncio
from typing import Final

from starlette.types import Receive, Send

from gateway.mcp import sse
from gateway.relay.responses import SSE_HEADERS
from gateway.relay.sessions import LegacySession

KEEP_ALIVE_S: Final = 15.0
_COMMENT: Final = b":\r\n\r\n"


async def serve_stream(session: LegacySession, receive: Receive, send: Send) -> None:
    """Send what the session is told, until its client goes, opens another stream, or the session ends."""
    session.stream = mine = object()
    session.stir()
    await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    gone = asyncio.create_task(_until_gone(receive))
    gone.add_done_callback(lambda _: session.stir())
    try:
        while session.stream is mine and not gone.done():
            message = session.next_message()
            if message is not None:
                await _write(send, sse.encode(message))
                continue
            try:
                async with asyncio.timeout(KEEP_ALIVE_S):
                    await session.stirred()
            except TimeoutError:
                await _write(send, _COMMENT)
    finally:
        gone.cancel()
        if session.stream is mine:
            session.stream = None
        session.stir()  # the newer stream, if there is one, looks after what has come meanwhile
    await send({"type": "http.response.body", "body": b""})


async def _write(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
