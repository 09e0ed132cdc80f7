"""An upstream that costs next to nothing: a modern MCP server with one tool and a canned answer of 300 bytes."""

import asyncio
import sys

import httptools
import msgspec
import uvloop

TEXT = "x" * 180
LISTING = {"name": "echo", "description": "Answers.", "inputSchema": {"type": "object"}}
RESULTS = {
    "server/discover": {
        "resultType": "complete",
        "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {}},
        "ttlMs": 0,
        "cacheScope": "private",
    },
    "tools/list": {"resultType": "complete", "tools": [LISTING], "ttlMs": 0, "cacheScope": "private"},
    "tools/call": {"resultType": "complete", "content": [{"type": "text", "text": TEXT}], "isError": False},
}
ENCODED = {method: msgspec.json.encode(result) for method, result in RESULTS.items()}


class Call(msgspec.Struct):
    """What the answer needs of a request."""

    method: str
    id: int | str = 0


class Server(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's is its own class
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Collect."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Answer."""
        call = msgspec.json.decode(b"".join(self._body), type=Call)
        self._body.clear()
        answer = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (msgspec.json.encode(call.id), ENCODED[call.method])
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(answer), answer)
        )


async def main(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
